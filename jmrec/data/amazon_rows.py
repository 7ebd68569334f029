"""Amazon Reviews 2023 line by line: what stands in a line of reviews and in one of items.

The files are strangers': a line may be cut, huge, no JSON, or lack what it should have. Such a line
is left out and counted; no line is held that is longer than `MAX_ROW`.
"""

import gzip
import html
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jmrec.data.columns import MAX_TEXT
from jmrec.data.sources import BOMB_BYTES, BOMB_RATIO
from jmrec.errors import UserError
from jmrec.preemption import look

MAX_ROW = 2**22
"""Bytes of a line; the longest that the release has are far below one MB."""
LEAKS = ("Best Sellers Rank", "Customer Reviews", "Date First Available")
"""Keys of an item's details that tell what happened later, or count it."""
_TAG = re.compile(r"<[/!]?[a-zA-Z-][^<>]*>")
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u2028\u2029]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
_ID = re.compile(r"[!-~]{1,200}")


class Faults:
    """What was left out or mended of one file, counted by its kind.

    Args:
      file: The file's name.
    """

    def __init__(self, file: str) -> None:
        self.file, self.lines = file, 0
        self._found: dict[str, tuple[int, int]] = {}
        self._left = 0

    def add(self, fault: str, left_out: bool = True) -> None:
        """Count a fault of the line that was read last."""
        first, count = self._found.get(fault, (self.lines, 0))
        self._found[fault] = (first, count + 1)
        self._left += left_out

    def sentences(self) -> list[str]:
        """Return a sentence for each kind of fault.

        Raises:
          UserError: Most lines were left out.
        """
        said = [
            f"{self.file}, line {first:,}: {fault} (lines like that: {count:,})"
            for fault, (first, count) in self._found.items()
        ]
        if 2 * self._left > self.lines:
            raise UserError(
                f"{said[0]}, of {self.lines:,}: {self.file} is none of the release; delete it and "
                "try another base address."
            )
        return said


def read_lines(path: Path, faults: Faults) -> Iterator[dict[str, Any]]:
    """Yield the objects of a packed file of JSON lines, a line at a time.

    Args:
      path: The file, gzip.
      faults: Counts lines, and those that are no object.

    Raises:
      UserError: It can not be unpacked, ends in the middle, or is a decompression bomb.
    """
    packed, unpacked = path.stat().st_size, 0
    try:
        with gzip.open(path) as whole, io.BufferedReader(whole, 2**18) as file:
            while line := file.readline(MAX_ROW + 1):
                unpacked += len(line)
                faults.lines += 1
                if faults.lines % 4096 == 0:
                    look()
                long = len(line) > MAX_ROW
                rest = line
                while long and rest and not rest.endswith(b"\n"):  # skipped in pieces
                    rest = file.readline(MAX_ROW)
                    unpacked += len(rest)
                    _no_bomb(path, packed, unpacked)
                _no_bomb(path, packed, unpacked)
                if long:
                    faults.add(f"more than {MAX_ROW:,} bytes; it is left out")
                elif line.strip():
                    row = _parse(line)
                    if row is None:
                        faults.add("no JSON object, so perhaps cut; it is left out")
                    else:
                        yield row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} can not be unpacked ({error}): it was cut or damaged before it was sent; "
            "delete it and try another base address."
        ) from None


def _no_bomb(path: Path, packed: int, unpacked: int) -> None:
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        raise UserError(
            f"{path} would unpack from {packed:,} to more than {unpacked:,} bytes, which looks "
            "like a decompression bomb; delete it and try another base address."
        )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def review_row(row: dict[str, Any], faults: Faults) -> tuple[Any, ...] | None:
    """Return the cells of a review, in the order of `jmrec.data.amazon.REVIEWS`.

    Returns:
      The cells; None where the line has no item, no user or no time.
    """
    item, user = _id(row.get("parent_asin")), _id(row.get("user_id"))
    time, rating = _number(row.get("timestamp")), _number(row.get("rating"))
    for name, missing in (
        ("parent_asin", not item),
        ("user_id", not user),
        ("timestamp", time is None or not 0 < time < 1e14),
    ):
        if missing:
            faults.add(f"no {name}, or none that can be read; the line is left out")
            return None
    assert time is not None
    if rating is None or not 0 <= rating <= 5:
        faults.add("no rating from 0 to 5; the review is kept without one", left_out=False)
        rating = None
    head, body = plain_text(row.get("title")), plain_text(row.get("text"))
    votes = _number(row.get("helpful_vote"))
    return (
        user,
        item,
        int(time),
        rating,
        "\n".join(filter(None, (head, body))),
        _id(row.get("asin")),
        row.get("verified_purchase") is True,
        int(votes) if votes is not None and abs(votes) < 2**31 else None,
    )


def item_row(row: dict[str, Any], faults: Faults) -> tuple[Any, ...] | None:
    """Return the cells of an item, in the order of `jmrec.data.amazon.ITEMS`.

    Returns:
      The cells; None where the line has no item.
    """
    item = _id(row.get("parent_asin"))
    if not item:
        faults.add("no parent_asin, or none that can be read; the line is left out")
        return None
    amount = price(row.get("price"))
    if amount is None and _text(row.get("price")).strip().lower() not in _NO_PRICE:
        faults.add("a price that is no number; it is left empty", left_out=False)
    count = _number(row.get("rating_number"))
    return (
        item,
        plain_text(row.get("title")),
        plain_text(row.get("description")),
        plain_text(row.get("features")),
        _details(row.get("details")),
        " > ".join(filter(None, map(plain_text, _list(row.get("categories"))))),
        plain_text(row.get("main_category"))[:200],
        plain_text(row.get("store"))[:200],
        amount,
        _number(row.get("average_rating")),
        int(count) if count is not None and abs(count) < 2**53 else None,
        ", ".join(filter(None, map(_id, _list(row.get("bought_together"))))),
    )


_NO_PRICE = ("", "none", "null", "nan", "n/a", "-", "—", "–")


def price(value: Any) -> float | None:
    """Return a price as a number, of a range or a "from" the lowest; None where there is none.

    Example:
      >>> [price(each) for each in (9.99, "$1,299.00", "from 9.99", "9.99 - 12.50", "None", "", [])]
      [9.99, 1299.0, 9.99, 9.99, None, None, None]
    """
    if isinstance(value, int | float):
        found = _number(value)
    else:
        text = _NUMBER.search(_text(value)[:100])
        found = _number(_THOUSANDS.sub("", text[0])) if text else None
    return found if found is not None and 0 <= found < 1e9 else None


def plain_text(value: Any) -> str:
    """Return a text, or a list of texts, without HTML and control characters, a line for each.

    Example:
      >>> plain_text(["<p>Soft &amp; <b>warm</b></p>", None, "2 < 3"])
      'Soft & warm\\n2 < 3'
    """
    if isinstance(value, list):
        return "\n".join(filter(None, map(_line, value)))[:MAX_TEXT]
    return _line(value)


def _line(value: Any) -> str:
    text = _text(value)[: 2 * MAX_TEXT]
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    return " ".join(_STEERS.sub(" ", text).split())[:MAX_TEXT]


def picture_address(row: dict[str, Any]) -> str:
    """Return where the picture of an item is, the main one where several are; "" where none is.

    Example:
      >>> row = {"images": [{"variant": "PT01", "large": "b"}, {"variant": "MAIN", "hi_res": "a"}]}
      >>> picture_address(row)
      'a'
    """
    found = [each for each in _list(row.get("images")) if isinstance(each, dict)]
    found.sort(key=lambda each: each.get("variant") != "MAIN")  # stable: else the first
    for each in found:
        for size in ("large", "hi_res"):
            if address := _text(each.get(size)).strip():
                return address
    return ""


def _details(value: Any) -> str:
    """Return the details of an item as "name: text" lines, without those that leak."""
    if isinstance(value, str):  # in some copies of the release it is JSON within JSON
        value = _parse(value.encode("utf-8", "replace"))
    pairs = value.items() if isinstance(value, dict) else ()
    kept = [
        f"{plain_text(name)}: {plain_text(each)}"
        for name, each in pairs
        if name not in LEAKS and isinstance(each, str | int | float) and plain_text(each)
    ]
    return "\n".join(kept)[:MAX_TEXT]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _id(value: Any) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return text if _ID.fullmatch(text) else ""


def _number(value: Any) -> float | None:
    try:
        found = float(value) if isinstance(value, str | int | float) else float("nan")
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < float("inf") else None
