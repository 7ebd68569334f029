"""Where pretrained tensors come from: one protocol, and the safetensors files of Hugging Face.

A source maps its files into memory and hands out views, so that a transposed slice of a large
tensor costs the memory of that slice. Nothing of a source is ever executed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from safetensors import safe_open

from jmrec.errors import UserError
from jmrec.files import check_regular, member

MAX_INDEX = 100_000_000
"""Bytes of an index of files."""
REMEDY = "fetch it again, or name another source"

_DTYPES: dict[str, Any] = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "BOOL": np.bool_},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8},
}


class Source(Protocol):
    """Named tensors on disk."""

    @property
    def path(self) -> Path:
        """The file or folder that was opened."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that holds tensors."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the format itself says beside the tensors, as plain values."""

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; KeyError where there is none of that name."""

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        """Return a tensor or the part of it that a numpy index names, not to be written to."""


class MappedTensors:
    """What the sources have in common whose tensors are views of files in memory.

    Attributes:
      tensors: Name -> a view.
    """

    tensors: Mapping[str, np.ndarray]

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.tensors[name].shape

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        """Return a view of the file: a tensor, or a part of it."""
        return self.tensors[name][index]


class Safetensors(MappedTensors):
    """A safetensors file, or a Hugging Face folder with one file or with an index of many.

    Raises:
      UserError: A file is missing, is cut off or is no safetensors file; the index names a file
        outside its folder; or two files hold a tensor of one name.

    Example:
      >>> import tempfile
      >>> from safetensors.numpy import save_file
      >>> folder = Path(tempfile.mkdtemp())
      >>> save_file({"w": np.arange(6.0).reshape(2, 3)}, folder / "model.safetensors")
      >>> source = Safetensors(folder)
      >>> source.names(), source.shape("w"), source.read("w", np.s_[:, 1]).tolist()
      (['w'], (2, 3), [1.0, 4.0])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        owner = _indexed(self.path) if self.path.is_dir() else {}
        self.files: tuple[Path, ...] = (self.path,)
        if self.path.is_dir():
            names = sorted(set(owner.values())) or [_only_file(self.path)]
            self.files = tuple(_part(self.path, name) for name in names)
        self.metadata: dict[str, Any] = {}
        self.tensors = mapped = dict[str, np.ndarray]()
        found: dict[str, str] = {}
        for file in self.files:
            tensors, metadata = _map_file(file)
            self.metadata.update(metadata)
            for name, tensor in tensors.items():
                if name in found:
                    raise UserError(f"{file}: tensor {name!r} is in {found[name]} too; {REMEDY}.")
                found[name] = file.name
                mapped[name] = tensor
        for name, file_name in owner.items():
            if found.get(name) != file_name:
                raise UserError(
                    f"{self.path}: the index says that {file_name} holds tensor {name!r}, and it "
                    f"does not; {REMEDY}."
                )


def map_bytes(path: Path) -> np.ndarray:
    """Map a file into memory as uint8, read-only.

    Raises:
      UserError: It is missing, empty, no regular file or may not be read.
    """
    try:
        check_regular(path)
        return np.memmap(path, np.uint8, "r").view(np.ndarray)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {REMEDY}.") from None
    except ValueError:
        raise UserError(f"{path} is empty; {REMEDY}.") from None
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); mend that.") from None


def check_weights(path: Path, head: bytes) -> None:
    """Refuse what downloads leave behind in the place of weights.

    Args:
      path: The file, for the message.
      head: Its first bytes.

    Raises:
      UserError: It is a web page, or the pointer of a large file that was not fetched.

    Example:
      >>> check_weights(Path("m.pth"), b"<!DOCTYPE html>")
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: m.pth is a web page and no weights; fetch it again, ...
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:60].lower()
    if start.startswith(b"<"):
        raise UserError(f"{path} is a web page and no weights; {REMEDY}.")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is the pointer of a large file that was not fetched; run git lfs pull there."
        )


def first_line(error: BaseException) -> str:
    """Return what a library says of broken bytes, short enough for a sentence."""
    lines = str(error).splitlines()
    return lines[0][:160] if lines and lines[0] else type(error).__name__


def _part(folder: Path, name: str) -> Path:
    path = member(folder, name)
    if path is None:
        raise UserError(f"{folder / name} is missing; {REMEDY}.")
    return path


def _only_file(path: Path) -> str:
    found = sorted(each.name for each in path.glob("*.safetensors"))
    if "model.safetensors" in found:
        return "model.safetensors"
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"{path} holds no *.safetensors file; name the file of the weights itself.")
    raise UserError(
        f"{path} holds {len(found)} *.safetensors files and no index of them; name one of them."
    )


def _indexed(folder: Path) -> dict[str, str]:
    """Return tensor name -> file name as a folder's index has it; {} without an index."""
    path = member(folder, "model.safetensors.index.json", MAX_INDEX)
    if path is None:
        return {}
    try:
        owner = json.loads(path.read_bytes())["weight_map"]
        if not owner or not all(isinstance(each, str) for each in owner.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is no index of safetensors files; {REMEDY}.") from None
    for name in owner.values():
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise UserError(f"{path} names the file {name!r} outside its folder; {REMEDY}.")
    return dict(owner)


def _map_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    data = map_bytes(path)
    check_weights(path, data[:100].tobytes())
    try:
        # The library checks the header against the file; mapping it needs the offsets as well,
        # which it does not tell.
        with safe_open(path, framework="np") as opened:
            metadata = opened.metadata() or {}
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                if entry["dtype"] not in _DTYPES:
                    raise UserError(
                        f"{path}: tensor {name!r} is of type {entry['dtype']}, which is not read "
                        "here; convert it to float16 or bfloat16 first."
                    )
                begin, end = entry["data_offsets"]
                raw = data[start + begin : start + end]
                tensors[name] = raw.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except UserError:
        raise
    except Exception as error:  # the library raises a class of its own
        why = first_line(error)
        raise UserError(f"{path} is no whole safetensors file ({why}); {REMEDY}.") from None
    return tensors, metadata
