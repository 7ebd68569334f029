"""Torch files, against torch itself."""

import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.convert.torch_file import TorchFile
from jmrec.errors import UserError
from tests.unit.convert import torch_by_hand

KINDS = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}
FORMATS = {"zip": True, "legacy": False}


def save(tree: Any, path: Path, zipped: bool) -> Path:
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found: np.ndarray, tensor: torch.Tensor) -> bool:
    """Compare type, shape and values with torch's own."""
    wide = tensor.detach().to(torch.float64).numpy()
    return found.dtype == KINDS[tensor.dtype] and np.array_equal(found.astype(np.float64), wide)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_torch_saves_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    def tensor() -> torch.Tensor:
        shape = data.draw(st.lists(st.integers(0, 4), max_size=4))
        made = torch.randint(0, 100, shape).to(data.draw(st.sampled_from(list(KINDS))))
        if len(shape) > 1 and data.draw(st.booleans()):
            made = made.transpose(0, 1)
        if shape and shape[0] > 1 and data.draw(st.booleans()):
            made = made[1:]  # begins inside its storage
        return made

    tree = {f"layer.{i}.weight": tensor() for i in range(data.draw(st.integers(1, 3)))}
    path = tmp_path_factory.mktemp("torch") / "m.pth"
    source = TorchFile(save(tree, path, data.draw(st.booleans())))
    assert source.names() == sorted(tree)
    for name, each in tree.items():
        assert source.shape(name) == tuple(each.shape)
        assert same(source.read(name), each)


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_a_whole_checkpoint(tmp_path: Path, zipped: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    shared = torch.arange(6.0)
    tree = {
        "state_dict": module.state_dict(),
        "more": [shared[:3], shared[2:].reshape(2, 2)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.Size([3, 4]),
        "epoch": 7,
        "name": "b0",
        "rate": 0.5,
        "nothing": None,
        "ordered": OrderedDict(a=(1, True)),
    }
    source = TorchFile(save(tree, tmp_path / "m.pth", zipped))
    for name, tensor in module.state_dict().items():
        assert same(source.read(f"state_dict.{name}"), tensor)
    assert source.read("more.0").tolist() == [0, 1, 2]
    assert source.read("more.1", np.s_[:, 1]).tolist() == [3, 5]
    assert source.read("parameter").tolist() == [1, 1]
    for name, value in {"epoch": 7, "name": "b0", "rate": 0.5, "nothing": None}.items():
        assert source.metadata[name] == value
    assert source.metadata["ordered.a.1"] is True
    assert not source.read("parameter").flags.writeable


def test_a_file_written_by_hand_is_one_of_torch(tmp_path: Path) -> None:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.float32([7])[0]}
    path = torch_by_hand.save(arrays, tmp_path / "m.pth")
    for name, found in torch.load(path, weights_only=True).items():
        np.testing.assert_array_equal(found.numpy(), arrays[name])
        np.testing.assert_array_equal(TorchFile(path).read(name), arrays[name])


# --- nothing runs -----------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_a_file_with_code_is_refused_and_its_code_does_not_run(
    tmp_path: Path, zipped: bool
) -> None:
    marker = tmp_path / "it ran"
    path = save({"w": torch.ones(2), "x": torch_by_hand.Code(marker)}, tmp_path / "m.pth", zipped)
    with pytest.raises(UserError, match=r"posix\.system|nt\.system"):
        TorchFile(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # what an ordinary reader would have done
    assert marker.exists()


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_a_whole_module_is_refused_by_its_class(tmp_path: Path, zipped: bool) -> None:
    path = save(torch.nn.Linear(2, 2), tmp_path / "m.pth", zipped)
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        TorchFile(path)
    path = save({"a": np.float64(3.0), "b": torch.ones(1)}, tmp_path / "n.pth", zipped)
    with pytest.raises(UserError, match=r"numpy.*scalar"):
        TorchFile(path)


# --- broken files -----------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_a_file_that_is_cut_off_is_a_sentence(tmp_path: Path, zipped: bool) -> None:
    path = save({"w": torch.ones(40)}, tmp_path / "m.pth", zipped)
    content = path.read_bytes()
    for size in range(1, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="no whole torch file"):
            TorchFile(path)


@settings(max_examples=100, deadline=None)
@given(st.booleans(), st.data())
def test_broken_bytes_are_a_sentence_or_a_file(
    tmp_path_factory: pytest.TempPathFactory, zipped: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.pth"
    save({"w": torch.arange(6.0), "v": torch.ones(2, 2).half(), "n": 1}, path, zipped)
    content = bytearray(path.read_bytes())
    # Half of them where the instructions are. How long a legacy file is changes with the day.
    last = len(content) if data.draw(st.booleans()) else 400
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 2**16)) % last] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        source = TorchFile(path)
    except UserError:
        return
    for name in source.names():
        source.read(name)[..., :1].copy()


def test_a_legacy_storage_of_an_impossible_length(tmp_path: Path) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "m.pth", False)
    content = path.read_bytes()
    at = content.rindex(struct.pack("<q", 3))
    path.write_bytes(content[:at] + struct.pack("<q", 2**62) + content[at + 8 :])
    with pytest.raises(UserError, match="cut off"):
        TorchFile(path)
