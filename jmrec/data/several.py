"""Several files of one table, such as one of each month, read one after the other."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.description import Description
from jmrec.data.findings import Findings
from jmrec.data.sources import Source, called
from jmrec.data.tables import FILE_ROWS, Table, joined, read_table
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
    everywhere = frozenset.intersection(*(table.numeric for table in tables))
    for table in tables:
        for name in table.numeric - everywhere if decimal != "." else ():
            table.columns[name] = pc.replace_substring(table.columns[name], ".", decimal)
    names = tuple(table.file for table in tables)
    rows = [table.rows + place * FILE_ROWS for place, table in enumerate(tables)]
    whole = {
        name: joined([t.columns.pop(name) for t in tables]) for name in list(tables[0].columns)
    }
    return Table(called(names), whole, np.concatenate(rows), everywhere, names)


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
        forms = time_forms([part.columns[column] for part in parts])
    found, bad, before = [], [], 0
    for part, form in zip(parts, forms):
        if len(part):
            seconds, wrong = times(part, column, findings, form)
            found.append(seconds)
            bad.append(wrong + before)
        before += len(part)
    return np.concatenate([np.zeros(0), *found]), np.concatenate([np.zeros(0, int), *bad])


def time_forms(parts: Sequence[pa.Array]) -> list[str]:
    """Return the time_format of each file's cells that only the other files tell, "" else.

    Example:
      >>> time_forms([pa.array(["03/04/2024"]), pa.array(["31/12/2023", "01/02/2024"])])
      ['%d/%m/%Y', '']
      >>> time_forms([pa.array(["03/04/2024"]), pa.array(["2024-12-31"])])
      ['', '']
    """
    forms, orders, unsure = [""] * len(parts), set(), {}
    if len(parts) < 2:
        return forms
    for place, cells in enumerate(parts):
        first = next((cell for cell in cells.slice(0, 1000).to_pylist() if cell), "")
        date = written(first)
        if date is None or date.order:
            continue
        order = read_times(cells).order
        if order == "?":
            unsure[place] = first, date
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
