"""Torch files that no torch wrote: what must never run, and what is no file; see also parity."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.convert.torch_file import TorchFile
from jmrec.errors import UserError
from tests.unit.convert.torch_by_hand import Code, in_zip, program, tensor


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_protocol_runs_anything(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "it ran"
    program = pickle.dumps({"x": Code(marker)}, protocol)
    for path in (in_zip(tmp_path / "z.pth", program), tmp_path / "legacy.pth"):
        if path.name == "legacy.pth":
            path.write_bytes(program)  # in the place of the magic number
        with pytest.raises(UserError):
            TorchFile(path)
    assert not marker.exists()
    pickle.loads(program)
    assert marker.exists()


PROGRAMS = {
    "an instance": (b"(ios\nsystem\nS'true'\n.", "INST|os.system"),
    "an object": (b"(cos\nsystem\nS'true'\no.", "os.system"),
    "a new object": (b"\x80\x02cbuiltins\nobject\n)\x81.", "builtins.object"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "attributes of a function": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor\n}U\x0b__globals__K\x01sb.",
        "the state of a _Global",
    ),
    "a call of a value": (b"\x80\x02K\x01)R.", "a call"),
    "a call of a storage": (b"\x80\x02ctorch\nFloatStorage\n)R.", "torch.FloatStorage"),
    "a name with a dot": (b"\x80\x04\x8c\x05torch\x8c\x0aSize.hello\x93.", "torch.Size.hello"),
    "a foreign storage": (b"\x80\x02(U\x06moduleK\x01K\x01K\x01K\x01tQ.", "a reference to|is no"),
    "items of a tuple": (b"\x80\x02)K\x01a.", "items for a tuple"),
    "a buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_other_instruction_is_refused(tmp_path: Path, name: str) -> None:
    program, words = PROGRAMS[name]
    with pytest.raises(UserError, match=words):
        TorchFile(in_zip(tmp_path / "m.pth", program))


def four(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """Return the pickle of one tensor over a storage of 4 float32 numbers."""
    return program({"w": tensor("0", 4, shape, strides, offset)})


def test_a_tensor_never_reaches_beyond_its_storage(tmp_path: Path) -> None:
    numbers = {"0": np.arange(4, dtype=np.float32).tobytes()}
    path = in_zip(tmp_path / "m.pth", four((2, 2), (2, 1)), **numbers)
    assert TorchFile(path).read("w").tolist() == [[0, 1], [2, 3]]
    for shape, strides, offset in [
        ((2, 2), (3, 1), 0),
        ((2, 2), (2, 1), 1),
        ((2, 2), (-2, 1), 2),
        ((2**40,), (1,), 0),
        ((2, 2), (2,), 0),
        ((-1,), (1,), 0),
    ]:
        path = in_zip(tmp_path / "m.pth", four(shape, strides, offset), **numbers)
        with pytest.raises(UserError, match="no whole torch file"):
            TorchFile(path)
    path = in_zip(tmp_path / "m.pth", four((2, 2), (2, 1)), **{"0": b"12345678"})
    with pytest.raises(UserError, match="cut off"):
        TorchFile(path)


def test_containers_that_hold_themselves_come_to_an_end(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    nested: Any = []
    for _ in range(60):
        nested = [nested, nested]
    for tree in (loop, nested):
        with pytest.raises(UserError, match="nested without end"):
            TorchFile(in_zip(tmp_path / "m.pth", pickle.dumps(tree, 2)))


def test_a_compressed_or_foreign_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}))
    with pytest.raises(UserError, match="compressed"):
        TorchFile(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UserError, match=r"without one data\.pkl"):
        TorchFile(path)
    with pytest.raises(UserError, match="holds no tensors"):
        TorchFile(in_zip(path, pickle.dumps({"a": 1}, 2)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}, 2))
        archive.writestr("m/byteorder", "big")
    with pytest.raises(UserError, match="big-endian"):
        TorchFile(path)
