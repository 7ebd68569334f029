"""What a person has to do before the rows are what they mean. For `jmrec data init`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jmrec.data.columns import read_numbers
from jmrec.data.decoding import HEAD
from jmrec.data.findings import Findings
from jmrec.data.guess_columns import Column, plain, share
from jmrec.data.layouts import remark_of
from jmrec.data.sources import CSV, JSON, Source
from jmrec.data.tables import read_table
from jmrec.errors import UserError

MATRIX = 30
"""Columns of numbers without names, from which on they are taken for one of each item."""
_SIGN = "\x1f"


_AMOUNTS = ("quantity", "qty", "amount", "menge", "anzahl", "stueck", "units")


def below_zero(columns: Iterable[Column], decimal: str) -> Iterator[str]:
    """Say which columns of events are amounts below 0 in some rows, as of what was given back.

    Example:
      >>> list(below_zero([Column.of("Quantity", ["6", "-6", "1"])], "."))
      ["33.3% of the cells of 'Quantity' are below 0, as of what was given back; every row is read
      as an event, so take out those that are none."]
    """
    for column in columns:
        if plain(column.name) in _AMOUNTS:
            values, _ = read_numbers(column.filled, decimal)
            below = float(np.mean(values < 0)) if len(values) else 0.0
            if 0 < below < 0.5:
                yield (
                    f"{below:.1%} of the cells of {column.name!r} are below 0, as of what was "
                    "given back; every row is read as an event, so take out those that are none."
                )


def to_join(
    events: dict[str, Column], tables: Iterable[tuple[str, dict[str, Column]]], file: str
) -> Iterator[str]:
    """Say which other table tells the user or the time of each basket or session of the events.

    Args:
      events: The columns of the events.
      tables: Name -> columns of the tables that are not read.
      file: What the file of the events is called.

    Example:
      >>> events = {"order_id": Column.of("order_id", ["7", "7", "8", "8"])}
      >>> orders = {name: Column.of(name, ["8", "7"]) for name in ("order_id", "user_id")}
      >>> list(to_join(events, [("orders.csv", orders)], "rows.csv"))
      ["orders.csv has one row for each 'order_id' of rows.csv and is not read: write its columns
      'user_id' into those rows, to have them."]
    """
    roles = ("user", "time")
    lacking = [role for role in roles if not any(c.is_called(role) for c in events.values())]
    for name, columns in tables:
        told = [
            each.name
            for each in columns.values()
            if any(map(each.is_called, lacking))
            or ("time" in lacking and each.says_time and each.times is not None)
        ][:4]
        for key, column in columns.items():
            link = events.get(key)
            if (
                link is None
                or not told
                or not (link.is_called("basket") or link.is_called("session"))
            ):
                continue
            ids = set(column.cells)
            if (
                len(ids) == len(column.cells)
                and share(link.filled, [cell in ids for cell in link.filled]) > 0.9
            ):
                yield (
                    f"{name} has one row for each {key!r} of {file} and is not read: write its "
                    f"columns {', '.join(map(repr, told))} into those rows, to have them."
                )


def why_none(folder: Path, sources: Iterable[Source], problems: Sequence[str]) -> UserError:
    """Return what to say of a folder in which no table names the rows of another.

    Args:
      folder: The catalogue folder.
      sources: The tables that can be opened.
      problems: What is said of the others, and of those that do not name their columns.
    """
    sources = sorted(sources, key=lambda each: each.name)
    files = sorted(path.name for path in folder.iterdir())
    texts = [path for path in sorted(folder.glob("*.txt")) if path.is_file()]
    tables = [*map(_nested, sources), *map(_matrix, sources)]
    for says in [*map(remark_of, files), *tables, *map(_spaced, texts)]:
        if says:
            return UserError(says)
    for each in problems:
        if "row 1: " in each:
            return UserError(each)
    names = ", ".join(each.name for each in sources)[:200] or folder
    return UserError(
        f"{names}: no column of one table names the rows of another; one table needs an id for "
        "each item, the other that id in each row. Where there are events alone, call their "
        "column of items item_id, and that of people user_id or that of sessions session_id."
    )


def _nested(source: Source) -> str:
    """Say what a JSON file holds whose rows hold lists of rows; "" for another."""
    above = Counter(name.rpartition(".")[0] for name in source.header if "." in name)
    if source.kind != JSON or not above:
        return ""
    table = read_table(source, source.header, Findings(), texts=source.header, list_separator=_SIGN)
    for group, count in above.most_common():
        names = [name for name in source.header if name.rpartition(".")[0] == group]
        cells = [cell for name in names for cell in table.columns[name].to_pylist() if cell]
        if count > 1 and cells and 2 * sum(_SIGN in cell for cell in cells) > len(cells):
            keys = ", ".join(name.rpartition(".")[2] for name in names[:5])
            return (
                f"{source.name}: each row holds a list of rows ({group!r}, with {keys}); write a "
                "line for each of these, with the other keys of its row in it."
            )
    return ""


def _matrix(source: Source) -> str:
    """Say what a table without names seems to hold that has very many numbers; "" for another."""
    if source.kind != CSV or not source.nameless or len(source.header) < MATRIX:
        return ""
    return (
        f"{source.name} has {len(source.header):,} columns without names, as a matrix with a row "
        "for each user and a column for each item has them; write a row for each cell that is "
        "filled: user_id,item_id,rating."
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _spaced(path: Path) -> str:
    """Say what a text of numbers seems to hold whose lines have more and less; "" for another."""
    try:
        lines = _head(path).decode("ascii").splitlines()[:-1]
    except (OSError, UnicodeDecodeError):
        return ""
    rows = [line.split() for line in lines if line.strip()]
    if not all(cell.isdigit() for row in rows for cell in row) or len({*map(len, rows)}) < 3:
        return ""
    return (
        f"{path.name}: its lines hold numbers with spaces between, more in one than in another, as "
        "a user and the items of that user; write a row for each of them: user_id,item_id."
    )
