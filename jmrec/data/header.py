"""Whether the first row of a CSV names its columns, or is a row like the others."""

import re
from collections.abc import Sequence

from jmrec.errors import UserError

_ROWS = 1_000
_NAME = re.compile(r"(.*[_ ])?(id|item|user|session|title|timestamp|price)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+([.,:/ T-]+\d+)*Z?")


class NoNames(UserError):
    """The first row is a row like the others; ``width`` is how many cells it has."""

    def __init__(self, message: str, width: int) -> None:
        super().__init__(message)
        self.width = width


def check_names(file: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Refuse a first row that holds values.

    Args:
      file: The file's name, for the message.
      names: The cells of the first row.
      rows: Those of some rows below it.

    Raises:
      NoNames: if it looks like the rows below: a number above numbers of the same length, or a
        word that stands below as well, and no word above numbers.

    Example:
      >>> check_names("items.csv", ["item_id", "price"], [["7", "3.5"], ["8", "4"]])
      >>> check_names("items.csv", ["7", "Red shoe"], [["8", "Hat"], ["9", "Boot"]])
      Traceback (most recent call last):
      ...
      jmrec.data.header.NoNames: items.csv, row 1: '7' looks like a value and not like the name of a
      column; put a row above it that names the columns, or name them in dataset.toml as
      column_names = [...] under the table's [items] or [interactions].
    """
    if list(names) in (
        [str(i) for i in range(len(names))],
        [str(i + 1) for i in range(len(names))],
    ):
        return  # as pandas numbers columns
    if any(map(is_name, names)):
        return
    below = [[cell.strip() for cell in row] for row in rows[:_ROWS]]
    below = [row for row in below if row != list(names)]  # tables that were joined
    found: list[str] = []
    for place, name in enumerate(names):
        cells = [row[place] for row in below if place < len(row) and row[place]]
        numbers = [cell for cell in cells if _NUMBER.fullmatch(cell)]
        mostly = len(numbers) > 0.8 * len(cells)
        if _NUMBER.fullmatch(name):
            lengths = [len(cell) for cell in numbers]
            if mostly and numbers and min(lengths) <= len(name) <= max(lengths):
                found += [] if _year(name) and not all(map(_year, numbers)) else [name]
        elif mostly and numbers:
            return  # a word above numbers names them
        elif name and name in cells:
            found.append(name)
    if found:
        raise no_names(file, found[0], len(names))


def is_name(cell: str) -> bool:
    """Whether a cell can only be the name of a column.

    Example:
      >>> is_name("user_id"), is_name("u7")
      (True, False)
    """
    return bool(_NAME.fullmatch(cell))


def no_names(file: str, name: str, width: int) -> NoNames:
    """Return what to say about a first row of some cells in which a name is a value."""
    return NoNames(
        f"{file}, row 1: {name[:80]!r} looks like a value and not like the name of a column; put a "
        "row above it that names the columns, or name them in dataset.toml as column_names = [...] "
        "under the table's [items] or [interactions].",
        width,
    )


def _year(cell: str) -> bool:
    return bool(re.fullmatch(r"(19|20)\d\d", cell))
