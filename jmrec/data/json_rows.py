"""JSON files as columns of strings: a line a row (JSON lines), or one array of rows.

A row is an object. What lies deeper is named by its path: ``{"images": [{"large": "a.jpg"}]}`` has
the column ``images.large``, and several values of one column of a row are a list.
"""

import ast
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jmrec.errors import UserError

MAX_DEPTH = 8
"""Levels of objects and lists in a row; deeper ones are no table."""
_BEGINS = re.compile(rb"\s*(\{\s*[\"'}u]|\[\s*[{\]])")
_PYTHON = re.compile(rb"\{\s*u?'")
_BETWEEN = re.compile(r"[\s,]*")
_BLOCK = 2**16


@dataclass(frozen=True)
class Numeric:
    """Which columns of a JSON file hold numbers; an `Evidence` of `jmrec.data.findings`.

    Attributes:
      filled: Those with a value.
      texts: Those with a value that is no number.
    """

    filled: frozenset[str]
    texts: frozenset[str]

    @property
    def columns(self) -> frozenset[str]:
        """Those whose cells are all numbers."""
        return self.filled - self.texts

    def summed(self) -> "Numeric":
        """Return it as it is."""
        return self

    def merge(self, other: "Numeric") -> "Numeric":
        """Return what both tell."""
        return Numeric(self.filled | other.filled, self.texts | other.texts)


class _Number(str):
    """A number as it is written: a price is not rounded, and an id keeps all its digits."""


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=lambda _: None)


def is_json(head: bytes) -> bool:
    """Return whether a file (its first bytes, as UTF-8) holds objects, not lines of cells.

    Example:
      >>> is_json(b'{"item_id": 1}'), is_json(b'[ {"a": 1}]'), is_json(b"item_id,title")
      (True, True, False)
    """
    return bool(_BEGINS.match(head))


def json_header(name: str, data: bytes) -> list[str]:
    """Return the names of all columns, in the order in which they are first met.

    Args:
      name: The file's name, for messages.
      data: The whole file as UTF-8: a key may be met late.

    Raises:
      UserError: No row can be read.
    """
    header: dict[str, None] = {}
    for _, row in _rows(name, data):
        for key, _ in _walk("", row or {}, 0):
            header.setdefault(key)
    if not header:
        raise UserError(
            f"{name}: no row can be read; write one JSON object a line, with the same keys in all."
        )
    return list(header)


def read_json_rows(
    name: str, data: bytes, names: Collection[str], separator: str
) -> tuple[dict[str, pa.Array], list[int], list[int], Numeric]:
    """Return some columns of a JSON file as texts.

    A number is the text that Parquet's would be: whole ones without a point. ``null``, ``NaN`` and
    a key that a row lacks are "", ``true`` and ``false`` are words.

    Args:
      name: The file's name, for messages.
      data: The whole file as UTF-8.
      names: The columns.
      separator: What joins the values of a list.

    Returns:
      Cells by column; the row numbers (int) of the rows: lines, or places in the array, from 1;
      the numbers of those that are no JSON objects and are not in the cells; and the columns whose
      cells are all numbers.
    """
    return read_json_objects(_rows(name, data), names, separator)


def json_lines(data: bytes, before: int = 0) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield row numbers and rows of a file of an object a line, or of whole lines of it.

    Args:
      data: The lines.
      before: How many lines stand before them.
    """
    place, number = 0, before
    while place < len(data):
        end = data.find(b"\n", place)
        end = end if end >= 0 else len(data)
        line = data[place:end].strip()
        place, number = end + 1, number + 1
        if line:
            row = _parse(line)
            yield number, row if isinstance(row, dict) else None


def read_json_objects(
    found_rows: Iterable[tuple[int, dict[str, Any] | None]], names: Collection[str], separator: str
) -> tuple[dict[str, pa.Array], list[int], list[int], Numeric]:
    """Return some columns of objects as texts; see `read_json_rows`."""
    parts: dict[str, list[pa.Array]] = {each: [] for each in names}
    block: dict[str, list[str]] = {each: [] for each in names}
    numeric = dict.fromkeys(names, False)
    texts: set[str] = set()
    rows: list[int] = []
    broken: list[int] = []

    def flush() -> None:
        for each, cells in block.items():
            parts[each].append(text_array(cells))
            cells.clear()

    for number, row in found_rows:
        if row is None:
            broken.append(number)
            continue
        found: dict[str, list[str]] = {}
        for key, value in _walk("", row, 0):
            if key in parts and value is not None:
                found.setdefault(key, []).append(value)
        for each in parts:
            values = found.get(each, [])
            for value in values:
                numeric[each] = True
                if not isinstance(value, _Number) and value.strip():
                    texts.add(each)
            block[each].append(separator.join(map(_text, values)))
        rows.append(number)
        if len(rows) % _BLOCK == 0:
            flush()
    flush()
    cells = {each: pa.concat_arrays(part) for each, part in parts.items()}
    filled = frozenset(each for each in names if numeric[each])
    return cells, rows, broken, Numeric(filled, frozenset(texts))


def _rows(name: str, data: bytes) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield row numbers and rows, None for one that is no object."""
    if data.lstrip()[:1] == b"[" or _stretches(data):
        yield from _objects(name, data.decode("utf-8", errors="replace"))
        return
    yield from json_lines(data)


def _parse(line: bytes) -> Any:
    """Return what a line says, None where it is no JSON (nor a Python literal of a dictionary)."""
    text = line.decode("utf-8", errors="replace")
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        pass
    if not _PYTHON.match(line):
        return None
    try:  # as some published review data are written; a literal runs nothing
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _stretches(data: bytes) -> bool:
    """Return whether the first object stretches over several lines."""
    begin = data.lstrip()
    if _parse(begin.partition(b"\n")[0]) is not None:
        return False
    try:
        return isinstance(_DECODER.raw_decode(begin.decode("utf-8", errors="replace"))[0], dict)
    except (ValueError, RecursionError):
        return False


def _objects(name: str, text: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield objects that follow each other, in an array or not."""
    begin = re.match(r"\s*\[?", text)
    place, number = begin.end() if begin else 0, 0
    array = text[:place].endswith("[")
    while (place := _BETWEEN.match(text, place).end()) < len(text):  # type: ignore[union-attr]
        if array and text[place] == "]":
            return
        number += 1
        try:
            row, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        yield number, row if isinstance(row, dict) else None
    else:
        if not array:
            return
        number += 1
    raise UserError(
        f"{name}, row {number}: no valid JSON from here on; write the file again, or write one "
        "JSON object a line."
    )


def _walk(path: str, value: Any, depth: int) -> Iterator[tuple[str, str | None]]:
    """Yield the columns and values of a row; None for what is empty."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _walk(f"{path}.{key}" if path else str(key), each, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        if not value:
            yield path, None
        for each in value:
            yield from _walk(path, each, depth + 1)
    elif value is None or isinstance(value, str):
        yield path, value
    elif isinstance(value, bool):
        yield path, "true" if value else "false"
    elif isinstance(value, int | float):  # of a Python literal
        yield path, _Number(repr(value)) if value == value else None
    else:
        yield path, str(value)


def _text(value: str) -> str:
    if not isinstance(value, _Number) or value.lstrip("-").isdigit():
        return value
    number = float(value)
    if abs(number) < 1e15 and number == int(number):
        return f"{number:.0f}"
    return repr(number) if "e" in value.lower() else str(value)


def text_array(cells: list[str]) -> pa.Array:
    r"""Return texts as an array of Arrow; half of a pair of surrogates becomes U+FFFD.

    Example:
      >>> text_array(["a", "\ud83d"]).to_pylist() == ["a", "\ufffd"]
      True
    """
    try:
        return pa.array(cells, pa.string())
    except UnicodeEncodeError:  # half of a pair of surrogates
        mended = [c.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for c in cells]
        return pa.array(mended, pa.string())
