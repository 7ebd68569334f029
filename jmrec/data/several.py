"""Several files of one table, such as one of each month, read one after the other."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.description import Description
from jmrec.data.findings import Findings
from jmrec.data.sources import Source, called
from jmrec.data.tables import FILE_ROWS, Table, joined, read_table
from jmrec.data.time_evidence import UNKNOWN, TimesTold
from jmrec.data.times import Times, read_times, times, windows
from jmrec.data.written import pattern_of, written


def read_tables(
    sources: Sequence[Source],
    columns: Collection[str],
    findings: Findings,
    *,
    texts: Collection[str],
    list_separator: str = "|",
    decimal: str = ".",
) -> Table:
    """Read some columns of files that are one table; see `jmrec.data.tables.read_table`.

    Args:
      sources: The files, each with all of the columns.
      columns: Their names.
      findings: See there, as the two below.
      texts: Those whose cells may hold line breaks.
      list_separator: What joins the entries of a list of Parquet or JSON.
      decimal: What stands before the decimals of a number: "." or ",".
    """
    tables = [
        read_table(source, columns, findings, texts=texts, list_separator=list_separator)
        for source in sources
    ]
    if len(tables) == 1:
        return tables[0]
    names = tuple(table.file for table in tables)
    numeric = [table.numeric for table in tables]
    tables = [one_of(table, place, names, numeric, decimal) for place, table in enumerate(tables)]
    rows = np.concatenate([table.rows for table in tables])
    whole = {
        name: joined([t.columns.pop(name) for t in tables]) for name in list(tables[0].columns)
    }
    return replace(tables[0], columns=whole, rows=rows)


def one_of(
    table: Table,
    place: int,
    names: tuple[str, ...],
    numeric: Sequence[frozenset[str]],
    decimal: str,
) -> Table:
    """Return rows of one file as rows of all the files that are one table.

    Args:
      table: Its rows.
      place: Which of the files it is.
      names: Their names.
      numeric: Which columns each of them holds as numbers.
      decimal: See `read_tables`.
    """
    everywhere = frozenset.intersection(*numeric)
    columns = dict(table.columns)
    for name in (numeric[place] - everywhere) & {*columns} if decimal != "." else ():
        columns[name] = pc.replace_substring(columns[name], ".", decimal)
    return Table(called(names), columns, table.rows + place * FILE_ROWS, everywhere, names)


def apart(table: Table) -> list[Table]:
    """Return the rows of each file of a table, as tables that are still of all of them."""
    cuts = np.arange(1, max(len(table.files), 1)) * FILE_ROWS
    cuts = np.searchsorted(table.rows, [0, *cuts, np.iinfo(np.int64).max])
    return [
        replace(
            table,
            columns={name: cells.slice(a, b - a) for name, cells in table.columns.items()},
            rows=table.rows[a:b],
        )
        for a, b in itertools.pairwise(cuts)
    ]


def together_again(table: Table, parts: Sequence[Table]) -> Table:
    """Return what `apart` took apart, of which rows may have been left out since."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: pa.concat_arrays([p.columns[name] for p in parts]) for name in table.columns}
    return replace(table, columns=columns, rows=np.concatenate([part.rows for part in parts]))


def times_of(
    table: Table, column: str, findings: Findings, time_format: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Read a column of times, whose form each file may have for itself; see `times`.

    Dates that may have the day or the month first, and of which their own file does not tell which,
    are read as those of the other files.
    """
    parts = apart(table)
    if len(parts) == 1:
        return times(table, column, findings, time_format)
    forms = [time_format] * len(parts)
    if not time_format:
        told = [
            partial(findings.whole, FileTimes.of(part.columns[column], part.rows, findings.now))
            for part in parts
        ]
        forms = _forms(findings.together(*told))
    read = findings.together(
        *(partial(times, part, column, findings, form) for part, form in zip(parts, forms))
    )
    ends = np.cumsum([0, *(len(part) for part in parts)])
    bad = [wrong + before for (_, wrong), before in zip(read, ends)]
    return np.concatenate([seconds for seconds, _ in read]), np.concatenate(bad)


@dataclass(frozen=True)
class FileTimes:
    """What the times of one of several files tell the others; an `Evidence`.

    Attributes:
      row: The number of the first row that has one.
      first: Its cell, "" where none has.
      cells: All of them; none where ``told`` is known.
      now: Unix seconds.
      told: What they tell.
    """

    row: int
    first: str
    cells: pa.Array
    now: float
    told: TimesTold | None = None

    @classmethod
    def of(cls, cells: pa.Array, rows: np.ndarray, now: float) -> "FileTimes":
        """Return it of some cells, of which the first 1000 are looked at for a time."""
        some = cells.slice(0, 1000).to_pylist()
        at = next((i for i, cell in enumerate(some) if cell), -1)
        if at < 0:
            return cls(0, "", cells, now)
        return cls(int(rows[at]), some[at], cells, now)

    def order(self) -> str:
        """Return the order of their dates; see `jmrec.data.times.Times`."""
        return self.told.form("").order if self.told else read_times(self.cells).order

    def summed(self) -> "FileTimes":
        """Return it without the cells."""
        asked = _Asked(self.now)
        read_times(self.cells, findings=asked)
        return replace(self, cells=self.cells.slice(0, 0), told=asked.told)

    def merge(self, other: "FileTimes") -> "FileTimes":
        """Return what both tell, of which both are summed."""
        assert self.told is not None
        assert other.told is not None
        some = [each for each in (self, other) if each.first]
        first = min(some, key=lambda each: each.row, default=self)
        return replace(first, told=self.told.merge(other.told))


class _Asked(Findings):
    """Keeps what a reader of times asks of the whole column."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now
        self.told: TimesTold | None = None

    def whole(self, evidence: Any) -> Any:
        self.told = evidence.summed()
        return evidence


def time_forms(parts: Sequence[pa.Array]) -> list[str]:
    """Return the time_format of each file's cells that only the other files tell, "" else.

    Example:
      >>> time_forms([pa.array(["03/04/2024"]), pa.array(["31/12/2023", "01/02/2024"])])
      ['%d/%m/%Y', '']
      >>> time_forms([pa.array(["03/04/2024"]), pa.array(["2024-12-31"])])
      ['', '']
    """
    return _forms([FileTimes.of(cells, np.arange(len(cells)), 0.0) for cells in parts])


def _forms(files: Sequence[FileTimes]) -> list[str]:
    forms, orders, unsure = [""] * len(files), set(), {}
    if len(files) < 2:
        return forms
    for place, file in enumerate(files):
        date = written(file.first)
        if date is None or date.order:
            continue
        order = file.order()
        if order == UNKNOWN:
            unsure[place] = file.first, date
        elif order:
            orders.add(order)
    if len(orders) == 1:
        for place, (first, date) in unsure.items():
            forms[place] = pattern_of(first, date, min(orders))
    return forms


def join_times(parts: Sequence[Times]) -> Times:
    """Return the times of several files as those of one column.

    What is not the same in all of them is "", and an order "?" where one of them may be either.
    """

    def same(values: set[str]) -> str:
        return min(values) if len(values) == 1 else ""

    orders = {part.order for part in parts}
    return Times(
        seconds=np.concatenate([part.seconds for part in parts]),
        span=np.concatenate([part.span for part in parts]),
        unit=same({part.unit for part in parts}),
        order="?" if "?" in orders else same(orders),
        manner=np.concatenate([part.manner for part in parts]),
        pattern=same({part.pattern for part in parts}),
    )


def windows_of(
    table: Table, description: Description, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Return from when and until when each item is available; see `windows`."""
    parts = [part for part in apart(table) if len(part)]
    if len(parts) < 2:
        return windows(table, description, findings)
    start, end = zip(*(windows(part, description, findings) for part in parts))
    return np.concatenate(start), np.concatenate(end)
