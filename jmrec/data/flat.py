"""Sessions, ratings and the value of items on disk: files of safetensors, each column a flat array.

Texts (ids, reviews) are one array of their UTF-8 bytes and, beside it, where each of them ends.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save_file

from jmrec.data.schema import SPLITS, Dataset, Ratings, Sessions, Value
from jmrec.files import checksums, checksums_fault

FOLDER = "flat"
"""Of these files, in prepared data."""
RATINGS, VALUE = "ratings", "value"
_ENDS = ".ends"
_SESSIONS = {
    "users": np.int32, "offsets": np.int64, "items": np.int32, "times": np.float64,
    "events": np.int32, "ratings": np.float32, "targets": np.bool_,
}  # fmt: skip
_RATINGS = {
    "items": np.int32, "users": np.int32, "times": np.float64, "labels": np.int8,
    "ratings": np.float32,
}  # fmt: skip
_VALUE = {"sold": np.float64, "gained": np.float64}
"""Column -> its type."""


def write(dataset: Dataset, out: Path) -> dict[str, str]:
    """Write the sessions of a data set, and its ratings and value where it has some, under ``out``.

    Args:
      dataset: The data set.
      out: An existing folder, which gets the folder `FOLDER`.

    Returns:
      File -> its checksum, for `fault`.
    """
    folder = out / FOLDER
    folder.mkdir()
    for split in SPLITS:
        write_sessions(dataset.splits[split], _file(out, split))
    if dataset.ratings is not None:
        write_ratings(dataset.ratings, _file(out, RATINGS))
    if dataset.items.value is not None:
        _write(_file(out, VALUE), dataset.items.value, _VALUE, [])
    return checksums(folder)


def fault(out: Path, sums: Mapping[str, str], *, ratings: bool, value: bool) -> str | None:
    """Return which file is not as `write` wrote it, in words, or None.

    Args:
      out: The folder given to `write`.
      sums: What it returned.
      ratings: Whether there are ratings.
      value: Whether it is known what items are worth.

    Raises:
      OSError: A file may not be read, which is no damage.
    """
    some = [name for name, there in ((RATINGS, ratings), (VALUE, value)) if there]
    names = [_file(out, part).name for part in (*SPLITS, *some)]
    if unknown := sorted(set(names) ^ set(sums)):
        return f"{FOLDER}/{unknown[0]} has no checksum, or should not be there"
    return checksums_fault(out, {f"{FOLDER}/{name}": sums[name] for name in names})


def write_sessions(sessions: Sessions, path: Path) -> None:
    """Write the sessions of a split.

    Example:
      >>> import tempfile
      >>> from jmrec.data.sessions import no_sessions
      >>> folder = Path(tempfile.mkdtemp())
      >>> (folder / "flat").mkdir()
      >>> write_sessions(no_sessions(), folder / "flat" / "test.safetensors")
      >>> len(read_sessions(folder, "test"))
      0
    """
    _write(path, sessions, _SESSIONS, ["ids"])


def read_sessions(out: Path, split: str) -> Sessions:
    """Read the sessions of a split back.

    Args:
      out: The folder given to `write`.
      split: Of `jmrec.data.schema.SPLITS`.

    Raises:
      ValueError: The file is something else than `write_sessions` writes.
    """
    found = _read(_file(out, split), _SESSIONS, ["ids"])
    lengths, events = np.diff(found["offsets"]), len(found["items"])
    _check(
        len(found["ids"]) == len(found["users"]) == len(lengths),
        (lengths >= 0).all() and found["offsets"][0] == 0 and found["offsets"][-1] == events,
        *(len(found[name]) == events for name in ("times", "events", "ratings", "targets")),
    )
    return Sessions(**found)


def write_ratings(ratings: Ratings, path: Path) -> None:
    """Write ratings with their reviews; what the label is and means stands elsewhere."""
    _write(path, ratings, _RATINGS, ["user_ids", "reviews"])


def read_ratings(out: Path, *, label: str, label_means: str) -> Ratings:
    """Read ratings back.

    Args:
      out: The folder given to `write`.
      label: What the label is.
      label_means: What it means.

    Raises:
      ValueError: The file is something else than `write_ratings` writes.
    """
    found = _read(_file(out, RATINGS), _RATINGS, ["user_ids", "reviews"])
    rows, users = len(found["items"]), found["users"]
    _check(
        *(len(found[name]) == rows for name in (*_RATINGS, "reviews")),
        ((users >= -1) & (users < len(found["user_ids"]))).all(),
    )
    return Ratings(**found, label=label, label_means=label_means)


def read_value(out: Path, *, column: str, share: float, gain: str) -> Value:
    """Read back what items are worth.

    Args:
      out: The folder given to `write`.
      column: See `jmrec.data.schema.Value`.
      share: The same.
      gain: The same.

    Raises:
      ValueError: The file is something else than `write` writes.
    """
    found = _read(_file(out, VALUE), _VALUE, [])
    _check(len(found["sold"]) == len(found["gained"]))
    return Value(column, share=share, gain=gain, **found)


def _file(out: Path, part: str) -> Path:
    return out / FOLDER / f"{part}.safetensors"


def _write(
    path: Path, table: Sessions | Ratings | Value, types: Mapping[str, Any], texts: Sequence[str]
) -> None:
    columns = {name: getattr(table, name).astype(dtype) for name, dtype in types.items()}
    for name in texts:
        cells = [text.encode() for text in getattr(table, name)]
        columns[name] = np.frombuffer(b"".join(cells), np.uint8)
        columns[name + _ENDS] = np.cumsum([len(cell) for cell in cells], dtype=np.int64)
    save_file(columns, path)


def _read(path: Path, types: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    columns = load(path.read_bytes())
    # Each array is copied: what is loaded is read-only, and keeps the whole file in memory.
    found: dict[str, Any] = {name: columns.pop(name).copy() for name in types}
    _check(*(found[name].dtype == types[name] and found[name].ndim == 1 for name in types))
    for name in texts:
        data, ends = columns.pop(name), columns.pop(name + _ENDS)
        _check(data.dtype == np.uint8, ends.dtype == np.int64, data.ndim == ends.ndim == 1)
        bounds = [0, *ends.tolist()]
        _check(bounds[-1] == len(data), (np.diff(bounds) >= 0).all())
        raw = data.tobytes()
        found[name] = [raw[start:end].decode() for start, end in pairwise(bounds)]
    _check(not columns)
    return found


def _check(*conditions: Any) -> None:
    if not all(conditions):
        raise ValueError("the columns are not what jmrec writes")
