"""Files of ``torch.save``, read without torch and without running anything.

Such a file is a pickle, and a pickle is a program. This module is an interpreter of its own for the
few instructions that a dictionary of tensors needs; it never imports or calls what the file names.
"""

import math
import os
import pickletools
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from jmrec.convert.sources import REMEDY, MappedTensors, check_weights, first_line, map_bytes
from jmrec.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST, _LONGEST, _DEEPEST = 200_000, 1_000, 50
"""Values of a file, characters of a value's path, and containers one in another."""
_STEPS, _BYTES = 1_000_000, 2**26
"""Of one pickle; some 40 steps and 200 bytes make a tensor."""
_AXES = 64
_STORAGES: dict[str, Any] = {
    **{"DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16},
    **{"BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32},
    **{"ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8},
    **{"BoolStorage": np.bool_},
}
_GLOBALS = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", name) for name in _STORAGES),
}


class TorchFile(MappedTensors):
    """The tensors of a file of ``torch.save``, legacy or zip.

    Nested dictionaries and lists are joined with dots; plain values beside tensors are
    ``metadata``.

    Raises:
      UserError: It is missing, cut off or no such file, or it holds anything but tensors, plain
        containers, text and numbers; the message names the class.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.files = (self.path,)
        data = map_bytes(self.path)
        check_weights(self.path, data[:100].tobytes())
        try:
            with self.path.open("rb") as file:
                tree = _read_zip(file, data) if zipfile.is_zipfile(file) else None
                if tree is None:
                    file.seek(0)
                    tree = _read_legacy(file, data)
            self.tensors, self.metadata = _flatten(tree)
        except _Refused as error:
            raise UserError(
                f"{self.path} holds {error}, and only tensors, plain containers and numbers are "
                "read from a torch file; save its state_dict alone."
            ) from None
        except Exception as error:  # whatever broken bytes lead to
            why = first_line(error)
            raise UserError(f"{self.path} is no whole torch file ({why}); {REMEDY}.") from None
        if not self.tensors:
            raise UserError(f"{self.path} holds no tensors; {REMEDY}.")


class _Refused(ValueError):
    """The file asks for something that is no tensor and no plain value."""


@dataclass(frozen=True)
class _Global:
    """A name that the file mentions; nothing is imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class _Storage:
    """Numbers in a row: ``count`` of the storage ``key``, from ``offset`` on."""

    key: str
    dtype: np.dtype[Any]
    count: int
    offset: int = 0


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Short:
    """The pickle at the front of a file, of which no more than ``_BYTES`` are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, _BYTES

    def read(self, size: int) -> bytes:
        self._take(size)
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline(self.left + 1)
        self._take(len(line))
        return line

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("its pickle is longer than that of any model")


def _key(value: Any) -> str | int | float:
    """Return a key, a text or a number: the hash of tuples in tuples may take for ever.

    Python's own recursion does not check it either, and breaks down.
    """
    if type(value) not in (str, int, float, bool) or len(str(value)) > _LONGEST:
        raise _Refused(f"a {type(value).__name__} as a key")
    return value


def _dict(items: Iterable[Any]) -> dict[Any, Any]:
    return {_key(name): value for name, value in items}


def _integers(values: Any) -> tuple[int, ...]:
    if len(values) > _AXES or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("a size is no number")
    return tuple(values)


def _call(function: Any, args: Any) -> Any:
    """Return what the few known functions make of their arguments."""
    if not isinstance(function, _Global) or not isinstance(args, tuple) or len(args) > 10:
        raise _Refused("a call of something without a name")
    if function.name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        storage, offset, shape, strides = args[:4]
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise ValueError("a tensor without numbers")
        (start,) = _integers([offset])
        return _Tensor(storage, start, _integers(shape), _integers(strides))
    if function.name == "_rebuild_parameter" and args and isinstance(args[0], _Tensor):
        return args[0]
    if function.name == "Size":
        return _integers(*args)
    if function.name == "OrderedDict":
        (pairs,) = args or ([],)
        return _dict(pairs.items() if isinstance(pairs, dict) else pairs)
    raise _Refused(f"a call of {function}")


def _storage(name: Any) -> _Storage:
    """Return the storage that a file refers to (a persistent id, in pickle's words)."""
    if not isinstance(name, tuple) or not 5 <= len(name) <= 6:
        raise _Refused("a reference of another kind")
    kind, cls, key, _place, count, *view = name
    if kind != "storage" or not isinstance(cls, _Global) or cls.name not in _STORAGES:
        raise _Refused(f"a reference to {kind!r:.80}" if type(kind) is str else "a reference")
    (size,) = _integers([count])
    whole = _Storage(str(_key(key)), np.dtype(_STORAGES[cls.name]), size)
    if view and view[0] is not None:
        _view_key, start, length = view[0]
        start, length = _integers([start, length])
        return _Storage(whole.key, whole.dtype, length, start)
    return whole


def _after_mark(stack: list[Any]) -> list[Any]:
    """Take what is above the last mark, and the mark, off the stack."""
    # From above: what is looked at is taken, so all marks together cost no more than the stack.
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1
        if place < 0:
            raise ValueError("a mark is missing")
    items = stack[place + 1 :]
    del stack[place:]
    return items


_MARK = object()
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set},
    "MARK": lambda: _MARK,
}


def _read_pickle(file: IO[bytes]) -> Any:
    """Interpret one pickle from a file, up to its end; calls nothing that the file names."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    arg: Any
    steps = 0
    for code, arg, _ in pickletools.genops(_Short(file)):  # type: ignore[arg-type]
        name = code.name
        steps += 1
        if steps > _STEPS:
            raise ValueError("it takes more steps than any model")
        if name in _VALUES:
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(arg)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(arg)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            kind = {"TUPLE": tuple, "LIST": list, "FROZENSET": frozenset}[name]
            items = _after_mark(stack)
            stack.append(kind(map(_key, items) if name == "FROZENSET" else items))
        elif name == "DICT":
            items = _after_mark(stack)
            stack.append(_dict(zip(items[::2], items[1::2], strict=True)))
        elif name == "GLOBAL":
            stack.append(_known(*arg.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            word = stack.pop()
            stack.append(_known(stack.pop(), word))
        elif name in ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"):
            _extend(stack, name)
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            args = stack.pop()
            steps += _work(args)
            stack.append(_call(stack.pop(), args))
        elif name == "BUILD":  # the attributes of a state_dict: versions of its layers
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise _Refused(f"the state of a {type(stack[-1]).__name__}")
        elif name == "STOP":
            return stack.pop()
        else:
            raise _Refused(f"the instruction {name}")
    raise ValueError("it is cut off")


def _work(args: Any) -> int:
    """Return how many values a call copies: one container may be copied again and again."""
    return sum(len(each) for each in args[:10] if isinstance(each, dict | list | tuple))


def _known(module: Any, name: Any) -> _Global:
    if type(module) is not str or type(name) is not str:
        raise _Refused("a name that is no text")
    if (module, name) not in _GLOBALS:
        raise _Refused(f"{module}.{name}"[:200])
    return _Global(module, name)


def _extend(stack: list[Any], name: str) -> None:
    """Put new items into the container below them on the stack."""
    width = 2 if name.startswith("SET") else 1
    if name.endswith("S"):
        items = _after_mark(stack)
    else:
        items = stack[-width:]
        del stack[-width:]
    container = stack[-1]
    if width == 2 and isinstance(container, dict):
        container.update(_dict(zip(items[::2], items[1::2], strict=True)))
    elif name == "ADDITEMS" and isinstance(container, set):
        container.update(map(_key, items))
    elif name.startswith("APPEND") and isinstance(container, list):
        container.extend(items)
    else:
        raise _Refused(f"items for a {type(container).__name__}")


def _read_zip(file: IO[bytes], data: np.ndarray) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        found = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
        if len(found) != 1:
            raise ValueError("it is a zip file without one data.pkl")
        root = found[0].split("/")[0]
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise ValueError("its members are compressed")
        order = f"{root}/byteorder"
        if order in members and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        with archive.open(found[0]) as pickle:
            tree = _read_pickle(pickle)

    def numbers(storage: _Storage) -> np.ndarray:
        info = members[f"{root}/data/{storage.key}"]
        begin = info.header_offset
        # The local header repeats the name, with an extra field of another length.
        name, extra = data[begin + 26 : begin + 30].view("<u2").tolist()
        begin += 30 + name + extra
        return _part(data[begin : begin + info.file_size], storage)

    return _filled(tree, numbers)


def _read_legacy(file: IO[bytes], data: np.ndarray) -> Any:
    if file.read(1) != b"\x80":
        raise ValueError("it begins otherwise")
    file.seek(0)
    if _read_pickle(file) != _MAGIC or _read_pickle(file) != _PROTOCOL:
        raise ValueError("it begins otherwise")
    system = _read_pickle(file)
    if system.get("little_endian") is not True:
        raise ValueError("its numbers are big-endian")
    tree = _read_pickle(file)
    keys = _read_pickle(file)
    wanted = {storage.key: storage for storage in _storages(tree)}
    places: dict[str, np.ndarray] = {}
    for key in map(_key, keys):
        count = int.from_bytes(file.read(8), "little")
        size = count * wanted[str(key)].dtype.itemsize
        if file.tell() + size > len(data):
            raise ValueError("it is cut off")
        places[str(key)] = data[file.tell() : file.tell() + size]
        file.seek(size, os.SEEK_CUR)
    return _filled(tree, lambda storage: _part(places[storage.key], storage))


def _part(raw: np.ndarray, storage: _Storage) -> np.ndarray:
    size = storage.dtype.itemsize
    part = raw[storage.offset * size : (storage.offset + storage.count) * size]
    if len(part) != storage.count * size:
        raise ValueError("it is cut off")
    return part.view(storage.dtype)


def _leaves(tree: Any) -> Iterable[tuple[str, Any]]:
    """Yield (dotted path, leaf) of nested dictionaries and lists."""
    waiting, count = [("", 0, tree)], 0
    while waiting:
        path, depth, node = waiting.pop()
        if isinstance(node, dict | list | tuple):
            count += len(node)
            # A container that holds itself never ends.
            if count > _MOST or len(path) > _LONGEST or depth > _DEEPEST:
                raise ValueError("it is nested without end")
            items = node.items() if isinstance(node, dict) else enumerate(node)
            waiting += [
                (f"{path}.{key}" if path else str(key), depth + 1, value) for key, value in items
            ]
        else:
            yield path, node


def _storages(tree: Any) -> Iterable[_Storage]:
    for _, leaf in _leaves(tree):
        if isinstance(leaf, _Tensor):
            yield leaf.storage


def _filled(tree: Any, numbers: Callable[[_Storage], np.ndarray]) -> dict[str, Any]:
    """Return path -> leaf, with arrays in the place of tensors."""
    out: dict[str, Any] = {}
    for path, leaf in _leaves(tree):
        if path in out:
            raise ValueError(f"two tensors are called {path!r}")
        out[path] = leaf
        if isinstance(leaf, _Tensor):
            flat = numbers(leaf.storage)
            last = leaf.offset + sum(
                (size - 1) * stride for size, stride in zip(leaf.shape, leaf.strides, strict=True)
            )
            if 0 in leaf.shape:
                out[path] = np.zeros(leaf.shape, flat.dtype)
            elif last >= len(flat) or math.prod(leaf.shape) > max(len(flat), _MOST):
                raise ValueError(f"tensor {path!r} has more numbers than its storage")
            else:
                out[path] = np.lib.stride_tricks.as_strided(
                    flat[leaf.offset :],
                    leaf.shape,
                    [stride * flat.itemsize for stride in leaf.strides],
                    writeable=False,
                )
    return out


def _flatten(leaves: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    tensors = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    plain = (str, int, float, bool, type(None))
    return tensors, {path: leaf for path, leaf in leaves.items() if isinstance(leaf, plain)}
