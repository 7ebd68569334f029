"""Columns as bytes: what the workers write for the one that starts them, in files of numpy."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_ENDS = ".ends"


def packed(columns: Mapping[str, np.ndarray | pa.Array | Sequence[str]]) -> bytes:
    """Return columns as one file; a text is its UTF-8 bytes and where it ends.

    Example:
      >>> found = unpacked(packed({"ids": ["a", ""], "rows": np.arange(2)}))
      >>> texts(found, "ids").to_pylist(), found["rows"].tolist()
      (['a', ''], [0, 1])
    """
    arrays: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray):
            arrays[name] = column
            continue
        cells = column if isinstance(column, pa.Array) else pa.array(column, pa.string())
        cells = cells.cast(pa.large_binary())
        data = b"".join(cell.as_py() for cell in cells)
        arrays[name] = np.frombuffer(data, np.uint8)
        arrays[name + _ENDS] = np.cumsum([len(cell.as_py()) for cell in cells], dtype=np.int64)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """Return the columns of `packed`; those of texts are read by `texts` and `blobs`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def texts(columns: Mapping[str, np.ndarray], name: str) -> pa.Array:
    """Return a column of texts."""
    data, ends = columns[name], columns[name + _ENDS]
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data.tobytes())]
    return pa.Array.from_buffers(pa.large_string(), len(ends), buffers)


def blobs(columns: Mapping[str, np.ndarray], name: str) -> list[bytes]:
    """Return a column of bytes."""
    raw, begin, out = columns[name].tobytes(), 0, []
    for end in columns[name + _ENDS].tolist():
        out.append(raw[begin:end])
        begin = end
    return out


def pack_blobs(name: str, cells: Sequence[bytes]) -> dict[str, Any]:
    """Return a column of bytes as the two arrays that it is in a file.

    Example:
      >>> blobs(pack_blobs("stored", [b"ab", b"", b"c"]), "stored")
      [b'ab', b'', b'c']
    """
    return {
        name: np.frombuffer(b"".join(cells), np.uint8),
        name + _ENDS: np.cumsum([len(cell) for cell in cells], dtype=np.int64),
    }
