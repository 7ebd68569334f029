r"""Ids that are one and are spelt in several ways: ``7``, ``7.0``, ``0007``, ``7\u200b``."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.findings import KEPT, MENDED, Findings, part_of, shown
from jmrec.data.tables import Table

_JOINERS = r"[\x{200C}\x{200D}]+"  # letters within words need them
_NO_WIDTH = r"[\x{AD}\x{180E}\x{200B}\x{200E}\x{200F}\x{2060}\x{FEFF}]" rf"|^{_JOINERS}|{_JOINERS}$"
_NUMBER = re.compile(r"0*(\d+)(\.0+)?")


def plain_id(name: str) -> str:
    """Return an id without what programs add to a number or take from it; others as they are.

    Example:
      >>> [plain_id(name) for name in ("7", "7.0", "0007", "0", "7.5", "a7")]
      ['7', '7', '7', '0', '7.5', 'a7']
    """
    found = _NUMBER.fullmatch(name)
    return found[1] if found else name


def without_point(name: str) -> str:
    """Return "7" for "7.0", and other ids as they are."""
    found = _NUMBER.fullmatch(name)
    return name.removesuffix(found[2]) if found and found[2] else name


def visible_ids(table: Table, column: str, findings: Findings) -> Table:
    r"""Return a table whose ids have no characters of no width.

    Example:
      >>> cells = pa.array(["7\u200b", "7"])
      >>> table = Table("clicks.csv", {"user": cells}, np.arange(2, 4))
      >>> visible_ids(table, "user", found := Findings()).columns["user"].to_pylist()
      ['7', '7']
      >>> found.warnings[0]
      "clicks.csv, row 2: user is '7\\u200b', ... no width, which are taken out (cells mended: 1)."
    """
    cells = table.columns[column]
    bad = np.flatnonzero(np.asarray(pc.match_substring_regex(cells, _NO_WIDTH)))
    findings.add(
        table,
        bad,
        lambda i: (
            f"{column} is {shown(cells[i].as_py())}, which holds characters of no width, which are "
            "taken out"
        ),
        MENDED,
    )
    if not len(bad):
        return table
    clean = pc.utf8_trim_whitespace(pc.replace_substring_regex(cells, _NO_WIDTH, ""))
    return replace(table, columns=table.columns | {column: clean})


@dataclass(frozen=True)
class Spelt:
    """How the numbers of a column of ids are spelt; an `Evidence` in parts.

    Attributes:
      groups: Number -> its spellings.
      padded: The lengths of those that begin with a zero.
      longest: The length of the longest of digits alone.
    """

    groups: dict[str, frozenset[str]]
    padded: frozenset[int] = frozenset()
    longest: int = 0

    @classmethod
    def of(cls, names: Iterable[str]) -> "Spelt":
        """Return how some ids are spelt."""
        groups: dict[str, set[str]] = {}
        padded, longest = set(), 0
        for name in names:
            if _NUMBER.fullmatch(name):
                groups.setdefault(plain_id(name), set()).add(name)
            if name.isdigit():
                longest = max(longest, len(name))
                if name[0] == "0" and len(name) > 1:
                    padded.add(len(name))
        found = {plain: frozenset(spelt) for plain, spelt in groups.items()}
        return cls(found, frozenset(padded), longest)

    def summed(self) -> "Spelt":
        """Return it as it is."""
        return self

    def merge(self, other: "Spelt") -> "Spelt":
        """Return the spellings of both."""
        return self.absorb([other])

    def absorb(self, others: "Iterable[Spelt]") -> "Spelt":
        """Return the spellings of all."""
        groups, padded, longest = dict(self.groups), self.padded, self.longest
        for other in others:
            for plain, spelt in other.groups.items():
                groups[plain] = spelt | groups.get(plain, frozenset())
            padded, longest = padded | other.padded, max(longest, other.longest)
        return Spelt(groups, padded, longest)

    def parts(self, count: int) -> "list[Spelt]":
        """Return it in parts, each with all spellings of its numbers."""
        groups: list[dict[str, frozenset[str]]] = [{} for _ in range(count)]
        for plain, spelt in self.groups.items():
            groups[part_of(plain, count)][plain] = spelt
        return [Spelt(each, self.padded, self.longest) for each in groups]

    def settled(self) -> "Spelt":
        """Return what matters of a part that is whole: numbers with several spellings."""
        several = {plain: spelt for plain, spelt in self.groups.items() if len(spelt) > 1}
        return Spelt(several, self.padded, self.longest)


def one_spelling(table: Table, column: str, findings: Findings) -> Table:
    """Return a table in which a session or a user that is a number is spelt in one way.

    "7.0" is "7" where both occur. "7" is "0007" where both occur and all ids that begin with a zero
    have one length, which no other exceeds; else they stay two, and it is said.
    """
    told = findings.whole(Spelt.of(table.columns[column].unique().to_pylist()))
    groups = {plain: spelt for plain, spelt in told.groups.items() if len(spelt) > 1}
    if not groups:
        return table
    fixed = len(told.padded) == 1 and told.longest <= max(told.padded)
    same: dict[str, str] = {}
    doubtful: dict[str, str] = {}
    for plain, spelt in groups.items():
        forms = sorted({without_point(name) for name in spelt}, key=len)
        target = forms[-1] if fixed else forms[0]
        for name in spelt:
            end = target if fixed else without_point(name)
            same |= {name: end} if name != end else {}
            doubtful |= {end: plain} if end != target else {}
    return _respelt(table, column, same, doubtful, findings)


def _respelt(
    table: Table, column: str, same: dict[str, str], doubtful: dict[str, str], findings: Findings
) -> Table:
    cells = table.columns[column]

    def rows(names: Iterable[str]) -> np.ndarray:
        return np.flatnonzero(
            np.asarray(pc.is_in(cells, value_set=pa.array(list(names), pa.string())))
        )

    findings.add(
        table,
        rows(same),
        lambda i: (
            f"{column} is {shown(cells[i].as_py())}, which is {shown(same[cells[i].as_py()])} in "
            "other rows, and is read as that"
        ),
        MENDED,
    )
    findings.add(
        table,
        rows(doubtful),
        lambda i: (
            f"{column} is {shown(cells[i].as_py())} and {shown(doubtful[cells[i].as_py()])} in "
            "other rows; make them one if zeros were lost"
        ),
        KEPT,
    )
    clean = pa.array([same.get(name, name) for name in cells.to_pylist()], pa.string())
    return replace(table, columns=table.columns | {column: clean})


def spelt_as_items(
    table: Table, column: str, ids: Sequence[str], items_file: str, findings: Findings
) -> Table:
    """Return a table of events in which an unknown item id is spelt as the only item it can be.

    Args:
      table: The events.
      column: Their column of item ids.
      ids: Those of the items.
      items_file: Their file's name.
      findings: Gets the cells that are spelt in another way.
    """
    cells = table.columns[column]
    unknown = np.flatnonzero(~np.asarray(pc.is_in(cells, value_set=pa.array(ids, pa.string()))))
    item: dict[str, str | None] = {}
    for name in ids if len(unknown) else ():
        plain = plain_id(name)
        item[plain] = None if plain in item else name
    names = cells.to_pylist() if len(unknown) else []
    found = {int(i): item.get(plain_id(names[i])) for i in unknown}
    same = {i: name for i, name in found.items() if name}

    def message(i: int) -> str:
        lost = "; was a zero lost?" if len(same[i]) > len(names[i]) else ""
        return (
            f"the item id {shown(names[i])} is not in {items_file}, which has {shown(same[i])}, "
            f"and is read as that{lost}"
        )

    findings.add(table, list(same), message, MENDED)
    if not same:
        return table
    for i, name in same.items():
        names[i] = name
    return replace(table, columns=table.columns | {column: pa.array(names, pa.string())})


def lost_zeros(table: Table, column: str, findings: Findings) -> None:
    """Report ids of items that differ in leading zeros only; they are kept."""
    names = table.columns[column].to_pylist()
    first: dict[str, int] = {}
    bad = [i for i, name in enumerate(names) if first.setdefault(plain_id(name), i) != i]
    findings.add(
        table,
        bad,
        lambda i: (
            f"{column} {shown(names[i])} differs from that of "
            f"{table.row(first[plain_id(names[i])])} only in leading zeros; make them one "
            "if they are"
        ),
        KEPT,
    )
