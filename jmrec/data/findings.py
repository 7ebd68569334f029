"""What is wrong with single rows of a folder: an error with ``--strict``, else a counted warning.

The rule, for every kind of fault: with ``strict`` the first row that has it is an error. Without,
such rows are left out (or the cell is taken as empty, or kept as it is) and counted in one warning;
but where more than half of the rows have the fault, it is no slip and is an error all the same.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from jmrec.errors import UserError

LEFT_OUT = "rows left out"
EMPTIED = "cells taken as empty"
MENDED = "cells mended"
KEPT = "cells kept as they are"


class Rows(Protocol):
    """What a finding needs of a table: its length, and a name for the place of an entry."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def where(self, index: int) -> str:
        """Return "items.csv, row 7" for an entry."""


class Findings:
    """Collects what is wrong with a folder's rows.

    Args:
      strict: Whether the first fault is an error.

    Attributes:
      warnings: One sentence a kind of fault, with its count.
      words: Word for nothing -> cells that it filled, see `jmrec.data.missing`.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.warnings: list[str] = []
        self.words: Counter[str] = Counter()

    def add(
        self,
        table: Rows,
        bad: Sequence[int] | np.ndarray,
        message: Callable[[int], str],
        effect: str,
    ) -> None:
        """Report one kind of fault.

        Args:
          table: The table it was found in.
          bad: Entries that have it, ascending; with none nothing happens.
          message: Entry -> what is wrong and what to do, without a full stop.
          effect: What becomes of them: one of the constants of this module.

        Raises:
          UserError: if strict, or more than half of the table is left out or emptied.
        """
        if not len(bad):
            return
        first = int(bad[0])
        sentence = f"{table.where(first)}: {message(first)}"
        if self.strict:
            raise UserError(f"{sentence}.")
        if effect in (LEFT_OUT, EMPTIED) and 2 * len(bad) > len(table):
            raise UserError(f"{sentence} ({len(bad):,} of {len(table):,} rows are like that).")
        self.note(f"{sentence} ({effect}: {len(bad):,})")

    def note(self, sentence: str) -> None:
        """Report what concerns a whole file; ``sentence`` has no full stop.

        Raises:
          UserError: if strict.
        """
        if self.strict:
            raise UserError(f"{sentence}.")
        self.warnings.append(f"{sentence}.")


def shown(cell: str, length: int = 40) -> str:
    """Return a cell as a message shows it: quoted, on one line, cut.

    Example:
      >>> shown("a\\nb"), shown("x" * 10_000, 3)
      ("'a\\\\nb'", "'xxx'...")
    """
    return repr(cell) if len(cell) <= length else f"{cell[:length]!r}..."
