"""GGUF files, against a file written by hand and against the package's own dequantisation."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.convert.gguf_file import Gguf
from jmrec.convert.provenance import open_source
from jmrec.errors import UserError

Q4_1, Q8_0, F16, BF16 = (GGMLQuantizationType[name] for name in ("Q4_1", "Q8_0", "F16", "BF16"))


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def by_hand(numbers: int = 3, tensor_count: int = 2) -> bytes:
    """Return a file of version 3: two keys, a float32 tensor [2, 3] and a Q4_1 tensor [1, 32]."""
    keys = [
        text("general.license") + struct.pack("<I", 8) + text("apache-2.0"),
        text("numbers") + struct.pack("<IIQ", 9, 5, numbers) + struct.pack("<3i", 1, -2, 3),
    ]
    plain = np.arange(6, dtype="<f4").tobytes()
    # A block: scale, minimum, then 16 bytes with number i below and number 16 + i above.
    block = np.array([0.5, -3.0], "<f2").tobytes()
    block += bytes(i | (15 - i) << 4 for i in range(16))
    tensors = [
        text("plain") + struct.pack("<IQQIQ", 2, 3, 2, 0, 0),
        text("packed") + struct.pack("<IQQIQ", 2, 32, 1, 3, 32),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, tensor_count, len(keys)) + b"".join(keys + tensors)
    head += bytes(-len(head) % 32)
    return head + plain + bytes(32 - len(plain)) + block


def test_a_file_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(by_hand())
    source = Gguf(path)
    assert source.names() == ["packed", "plain"]
    assert source.shape("plain") == (2, 3)
    assert source.shape("packed") == (1, 32)
    assert source.read("plain").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert source.read("plain", np.s_[:, 1:]).tolist() == [[1, 2], [4, 5]]
    expected = [0.5 * i - 3 for i in range(16)] + [0.5 * (15 - i) - 3 for i in range(16)]
    assert source.read("packed").tolist() == [expected]
    assert source.read("packed", np.s_[0:1, 4:6]).tolist() == [expected[4:6]]
    assert source.metadata == {"general.license": "apache-2.0", "numbers": [1, -2, 3]}
    assert open_source(path).provenance()["licence"] == "apache-2.0"


@pytest.mark.parametrize("kind", [Q4_1, Q8_0, F16, BF16], ids=lambda kind: kind.name)
def test_quantised_tensors_equal_the_packages_own(tmp_path: Path, kind: Any) -> None:
    values = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("w", quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = Gguf(path)
    tensor = GGUFReader(path).tensors[0]
    expected = dequantize(tensor.data, kind).reshape(6, 64)
    assert source.shape("w") == (6, 64)
    assert np.array_equal(source.read("w").astype(np.float32), expected)
    for index in (np.s_[2:4], np.s_[2:4, 5:9], np.s_[:, 1], np.s_[3]):
        assert np.array_equal(source.read("w", index).astype(np.float32), expected[index])
    assert np.abs(expected - values).max() < 0.2  # and it is what was written


def test_a_file_that_is_cut_off_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    content = by_hand()
    for size in [*range(1, 60, 3), *range(60, len(content), 11), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="GGUF file"):
            Gguf(path)


@pytest.mark.parametrize("impossible", [{"numbers": 2**60}, {"tensor_count": 2**60}])
def test_an_impossible_length_is_refused_at_once(
    tmp_path: Path, impossible: dict[str, int]
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(by_hand(**impossible))
    with pytest.raises(UserError, match="no whole GGUF file"):
        Gguf(path)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_broken_bytes_are_a_sentence_or_a_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    content = bytearray(by_hand())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        source = Gguf(path)
        assert len(source.metadata) <= 2
        for name in source.names():
            assert source.read(name).size < len(content) * 8
    except UserError:
        pass
