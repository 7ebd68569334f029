"""What is wrong with single rows of a folder: an error with ``--strict``, else a counted warning.

The rule, for every kind of fault: with ``strict`` the first row that has it is an error. Without,
such rows are left out (or the cell is taken as empty, or kept as it is) and counted in one warning;
but where more than half of the rows have the fault, it is no slip and is an error all the same.
"""

import time as clock
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from jmrec.errors import UserError

LEFT_OUT = "rows left out"
EMPTIED = "cells taken as empty"
MENDED = "cells mended"
KEPT = "cells kept as they are"


T = TypeVar("T")


class Evidence(Protocol):
    """What a stretch of a table tells of the whole, where single rows do not tell."""

    def summed(self) -> Self:
        """Return it without what only these rows need."""

    def merge(self, other: Self) -> Self:
        """Return what both stretches tell, of which both are summed; either may come first."""


E = TypeVar("E", bound=Evidence)


@dataclass(frozen=True)
class Seen:
    """How often something stands in a table, and where first; an `Evidence`.

    Attributes:
      count: How often.
      where: The place, "items.csv, row 7"; "" of none.
      row: Its row number.
      cell: What stands there.
    """

    count: int = 0
    where: str = ""
    row: int = 0
    cell: str = ""

    def summed(self) -> "Seen":
        """Return it as it is."""
        return self

    def merge(self, other: "Seen") -> "Seen":
        """Return the sum, and which is first.

        Example:
          >>> Seen(2, "a.csv, row 7", 7, "x").merge(Seen(1, "a.csv, row 3", 3, "y"))
          Seen(count=3, where='a.csv, row 3', row=3, cell='y')
        """
        there = [each for each in (self, other) if each.count]
        first = min(there, key=lambda each: each.row, default=self)
        return replace(first, count=self.count + other.count)


class Rows(Protocol):
    """What a finding needs of a table: its rows' numbers, and a name for the place of an entry."""

    @property
    def rows(self) -> np.ndarray:
        """int64 [N] row numbers."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def where(self, index: int) -> str:
        """Return "items.csv, row 7" for an entry."""


class Findings:
    """Collects what is wrong with a folder's rows.

    A table may be read as a whole, as here, or in stretches that know nothing of each other: what
    takes this class's place there (`jmrec.data.beam`) answers `whole` with what all of them tell.

    Args:
      strict: Whether the first fault is an error.

    Attributes:
      warnings: One sentence a kind of fault, with its count.
      words: Word for nothing -> cells that it filled, see `jmrec.data.missing`.
      now: Unix seconds; what is later is yet to come.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.now = clock.time()
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
        self.report(f"{table.where(first)}: {message(first)}", len(bad), len(table), effect)

    def report(self, sentence: str, bad: int, of: int, effect: str) -> None:
        """Report one kind of fault that ``bad`` of ``of`` rows have; see `add`."""
        if self.strict:
            raise UserError(f"{sentence}.")
        if effect in (LEFT_OUT, EMPTIED) and 2 * bad > of:
            raise UserError(f"{sentence} ({bad:,} of {of:,} rows are like that).")
        self.note(f"{sentence} ({effect}: {bad:,})")

    def whole(self, evidence: E) -> E:
        """Return what the whole table tells, where ``evidence`` is what these rows tell.

        It is called in the same order, whatever the rows hold.
        """
        return evidence

    def gather(self, evidence: E, say: Callable[[E, "Findings"], None]) -> None:
        """Call ``say`` (a function of a module) with what the whole table tells, to report it."""
        say(evidence, self)

    def together(self, *steps: Callable[[], Any]) -> list[Any]:
        """Return what some steps return that do not depend on each other."""
        return [step() for step in steps]

    def note(self, sentence: str) -> None:
        """Report what concerns a whole file; ``sentence`` has no full stop.

        Raises:
          UserError: if strict.
        """
        if self.strict:
            raise UserError(f"{sentence}.")
        self.warnings.append(f"{sentence}.")


def part_of(name: str, count: int) -> int:
    """Return in which of ``count`` parts something with a name is, the same everywhere.

    Example:
      >>> part_of("user 7", 4)
      0
    """
    return zlib.crc32(name.encode("utf-8", "replace")) % count


def shown(cell: str, length: int = 40) -> str:
    """Return a cell as a message shows it: quoted, on one line, cut.

    Example:
      >>> shown("a\\nb"), shown("x" * 10_000, 3)
      ("'a\\\\nb'", "'xxx'...")
    """
    return repr(cell) if len(cell) <= length else f"{cell[:length]!r}..."
