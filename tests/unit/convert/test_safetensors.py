"""Safetensors files and Hugging Face folders, against what the library wrote."""

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from jmrec.convert.provenance import open_source
from jmrec.convert.sources import Safetensors
from jmrec.errors import UserError

DTYPES = [
    *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int16),
    *(np.int8, np.uint8, np.bool_),
]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Compare type, shape and every bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


arrays = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 100, shape).astype(dtype),
    st.sampled_from(DTYPES),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    st.integers(0, 99),
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text("ab.0é", min_size=1, max_size=6), arrays, min_size=1, max_size=4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("st") / "m.safetensors"
    save_file(tensors, path, metadata={"license": "mit"})
    source = Safetensors(path)
    assert source.names() == sorted(tensors)
    assert source.metadata == {"license": "mit"}
    for name, tensor in tensors.items():
        assert source.shape(name) == tensor.shape
        assert same(source.read(name), tensor)
        if tensor.ndim > 1:
            assert same(source.read(name, np.s_[1:, :2]), tensor[1:, :2])


def folder_of_two(folder: Path) -> dict[str, Any]:
    save_file({"a": np.arange(6.0).reshape(2, 3)}, folder / "model-1.safetensors")
    save_file({"b": np.ones(2, np.float16)}, folder / "model-2.safetensors")
    return {"a": "model-1.safetensors", "b": "model-2.safetensors"}


def write_index(folder: Path, owner: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": owner}))


def test_an_index_of_several_files(tmp_path: Path) -> None:
    write_index(tmp_path, folder_of_two(tmp_path))
    source = Safetensors(tmp_path)
    assert source.names() == ["a", "b"]
    assert [file.name for file in source.files] == ["model-1.safetensors", "model-2.safetensors"]
    assert source.read("a", np.s_[:, 1]).tolist() == [1.0, 4.0]


def test_a_view_costs_nothing(tmp_path: Path) -> None:
    save_file({"a": np.zeros((64, 64), np.float32)}, tmp_path / "m.safetensors")
    tensor = Safetensors(tmp_path).read("a")
    assert not tensor.flags.owndata
    assert not tensor.flags.writeable


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ({"a": "../model-1.safetensors"}, "'../model-1.safetensors' outside its folder"),
        ({"a": "/etc/passwd"}, "'/etc/passwd' outside its folder"),
        ({"a": ".."}, "'..' outside its folder"),
        ({"a": "sub\\x"}, "outside its folder"),
        ({"a": "model-9.safetensors"}, "model-9.safetensors is missing"),
        ({"a": "model-2.safetensors"}, "says that model-2.safetensors holds tensor 'a'"),
        ({}, "is no index"),
        ({"a": 3}, "is no index"),
        ([1], "is no index"),
    ],
)
def test_a_wrong_index_is_a_sentence(tmp_path: Path, owner: Any, words: str) -> None:
    folder_of_two(tmp_path)
    write_index(tmp_path, owner)
    with pytest.raises(UserError) as caught:
        Safetensors(tmp_path)
    assert words in str(caught.value)


def test_one_name_in_two_files_is_refused(tmp_path: Path) -> None:
    owner = folder_of_two(tmp_path)
    save_file({"b": np.ones(2), "a": np.ones(2)}, tmp_path / "model-2.safetensors")
    write_index(tmp_path, owner)
    with pytest.raises(UserError, match=r"'a' is in model-1\.safetensors too"):
        Safetensors(tmp_path)


def test_several_files_without_an_index_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \*\.safetensors file"):
        Safetensors(tmp_path)
    folder_of_two(tmp_path)
    with pytest.raises(UserError, match=r"2 .* files and no index"):
        Safetensors(tmp_path)


# What lies where weights were expected, and what is said of it.
HOSTILE = [
    (b"<!DOCTYPE html><html>Not found</html>", "is a web page and no weights"),
    (b"\n  <HTML>", "is a web page and no weights"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "was not fetched"),
    (b"", "is empty"),
    (b"\x00" * 64, "is no whole"),
    (struct.pack("<Q", 2**62) + b"{}", "is no whole"),
    (struct.pack("<Q", 2) + b"{}" + b"x", "is no whole"),
    (b"hello, these are no weights at all", "is no whole"),
]


@pytest.mark.parametrize("name", ["m.safetensors", "m.pth", "m.bin", "m.gguf"])
@pytest.mark.parametrize(("content", "words"), HOSTILE)
def test_what_is_no_weights_is_a_sentence(
    tmp_path: Path, content: bytes, words: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        open_source(path)
    said = str(caught.value)
    assert words in said or (name == "m.gguf" and "is no GGUF file" in said)
    assert said.startswith(str(path))
    assert "\n" not in said


def test_a_tensor_of_a_type_that_is_not_read_is_named(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"ab")
    with pytest.raises(UserError, match="tensor 'w' is of type F8_E4M3"):
        Safetensors(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_broken_bytes_are_a_sentence_or_a_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    save_file({"a": np.arange(6.0), "b": np.ones((2, 2), np.float16)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    path.write_bytes(content)
    try:
        source = Safetensors(path)
    except UserError:
        return
    for name in source.names():
        assert source.read(name).nbytes <= len(content)
