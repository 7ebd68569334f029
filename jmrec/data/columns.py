"""Columns of text cells as what they mean: ids, texts, categories, numbers, labels, times."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.description import Description
from jmrec.data.findings import EMPTIED, KEPT, LEFT_OUT, MENDED, Findings, shown
from jmrec.data.rule import Rule
from jmrec.data.sources import Source
from jmrec.data.tables import Table
from jmrec.errors import UserError

MAX_ID, MAX_TEXT = 1_000, 100_000
"""Characters of an id or a category, and of a text."""
EARLIEST, LATEST = -2_208_988_800.0, 7_258_118_400.0
"""The years 1900 and 2200 in unix seconds; a time outside is a slip, most often milliseconds."""
YES_NO = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""What a label may say beside 1 and 0."""

# Not visible: control characters, marks of byte order and of direction, what did not decode.
_UNSEEN_ID = r"[\x00-\x1F\x7F-\x{9F}\x{2028}-\x{202E}\x{2066}-\x{2069}\x{FEFF}\x{FFFD}]"
_UNSEEN_TEXT = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}\x{FEFF}]"
_FORMULA = r"^=|^[+\-@]\s*[A-Za-z_.]+\(|^[+\-@].*\|.*!"
_UNITS = {"ms": 1e3, "us": 1e6, "ns": 1e9}


def _where(mask: pa.Array) -> np.ndarray:
    return np.flatnonzero(np.asarray(mask))


def good_ids(table: Table, column: str, findings: Findings) -> Table:
    """Return the table without rows whose id is empty, too long or has unseen characters."""
    return _good_names(table, column, findings, "fill it in or remove the row")


def _good_names(table: Table, column: str, findings: Findings, remedy: str) -> Table:
    cells = table.columns[column]
    table = table.drop(
        _where(pc.equal(cells, "")), lambda i: f"{column} is empty; {remedy}", findings
    )
    long = _where(pc.greater(pc.utf8_length(table.columns[column]), MAX_ID))
    table = table.drop(
        long,
        lambda i: f"{column} has more than {MAX_ID:,} characters; give a short id",
        findings,
    )
    cells = table.columns[column]
    table = table.drop(
        _where(pc.match_substring_regex(cells, _UNSEEN_ID)),
        lambda i: (
            f"{column} is {shown(cells[i].as_py())}, which holds control or broken characters; "
            "remove them"
        ),
        findings,
    )
    formulas(table, column, findings)
    return table


def formulas(table: Table, column: str, findings: Findings) -> None:
    """Report cells that a spreadsheet would run as a formula; here they are text."""
    cells = table.columns[column]
    findings.add(
        table,
        _where(pc.match_substring_regex(cells, _FORMULA)),
        lambda i: (
            f"{column} is {shown(cells[i].as_py())}, which a spreadsheet would run as a formula; "
            "remove its first character if that is not meant"
        ),
        KEPT,
    )


def likeness(name: str) -> str:
    """Return what ids share that differ only in case, white space or Unicode's normal form.

    Example:
      >>> likeness("Café  1") == likeness("cafe\\u0301 1")
      True
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def alike(table: Table, names: Sequence[str], column: str, findings: Findings) -> None:
    """Report ids that only differ in what people do not see."""
    first: dict[str, int] = {}
    bad = [i for i, name in enumerate(names) if first.setdefault(likeness(name), i) != i]
    findings.add(
        table,
        bad,
        lambda i: (
            f"{column} {shown(names[i])} differs from that of row "
            f"{table.rows[first[likeness(names[i])]]} only in case, white space or Unicode's "
            "normal form; make them one if they are"
        ),
        KEPT,
    )


def texts(table: Table, column: str, findings: Findings) -> list[str]:
    """Return a text column without control characters, cut to `MAX_TEXT` characters."""
    cells = table.columns[column]
    unseen = _where(pc.match_substring_regex(cells, _UNSEEN_TEXT))
    findings.add(
        table,
        unseen,
        lambda i: f"{column} holds control characters, which are removed; mend the text",
        MENDED,
    )
    if len(unseen):
        cells = pc.utf8_trim_whitespace(pc.replace_substring_regex(cells, _UNSEEN_TEXT, ""))
    long = _where(pc.greater(pc.utf8_length(cells), MAX_TEXT))
    findings.add(
        table,
        long,
        lambda i: (
            f"{column} has more than {MAX_TEXT:,} characters and is cut; check the quotes around it"
        ),
        MENDED,
    )
    if len(long):
        cells = pc.utf8_slice_codeunits(cells, 0, MAX_TEXT)
    formulas(table, column, findings)
    return list(cells.to_pylist())


def codes(table: Table, column: str, findings: Findings) -> tuple[np.ndarray, list[str]]:
    """Return int32 codes (0 is "") and names, in the order of the names."""
    cells = table.columns[column]
    bad = pc.or_(
        pc.greater(pc.utf8_length(cells), MAX_ID), pc.match_substring_regex(cells, _UNSEEN_ID)
    )
    findings.add(
        table,
        _where(bad),
        lambda i: (
            f"{column} is {shown(cells[i].as_py())}, which is too long or holds control "
            "characters; give a short plain name"
        ),
        EMPTIED,
    )
    cells = pc.if_else(bad, "", cells)
    formulas(table, column, findings)
    names = ["", *sorted(set(cells.unique().to_pylist()) - {""})]
    return np.asarray(pc.index_in(cells, value_set=pa.array(names))).astype(np.int32), names


def read_numbers(cells: Sequence[str], decimal: str = ".") -> tuple[np.ndarray, list[int]]:
    """Read numbers, with or without marks between groups of three digits.

    "1.409" under the decimal "," may be 1409 or 1.409: the other cells of the column tell where
    some can be read in one way only ("1.409,83", "7.5"), else it is not read.

    Args:
      cells: Of one column.
      decimal: "." or ","; the other of the two is the mark of groups.

    Returns:
      (float64 values, NaN for what is no number; which cells could be read in two ways).

    Example:
      >>> read_numbers(["1.409,83", "1.500", "7,5"], ",")[0].tolist()
      [1409.83, 1500.0, 7.5]
      >>> read_numbers(["1,409", "7.5"])[1]
      [0]
    """
    mark = "." if decimal == "," else ","
    d, m = re.escape(decimal), re.escape(mark)
    twofold = re.compile(rf"[+-]?[1-9]\d{{0,2}}{m}\d{{3}}")
    grouped = re.compile(rf"{twofold.pattern}(?:{m}\d{{3}})*(?:{d}\d*)?")
    marked = {cell for cell in cells if mark in cell}
    groups = any(grouped.fullmatch(c) and not twofold.fullmatch(c) for c in marked)
    points = mark == "." and any(
        re.fullmatch(r"[+-]?\d*\.\d*", c) and not grouped.fullmatch(c) for c in marked
    )
    out, unsure = np.full(len(cells), np.nan), []
    for i, cell in enumerate(cells):
        plain = cell
        if cell in marked and grouped.fullmatch(cell):
            if groups == points and twofold.fullmatch(cell):
                unsure.append(i)
                continue
            if groups:
                plain = cell.replace(mark, "")
        try:
            out[i] = float(plain.replace(decimal, "."))
        except ValueError:
            continue
    out[~(np.abs(out) < np.finfo(np.float32).max)] = np.nan
    return out, unsure


def numbers(
    table: Table, column: str, findings: Findings, decimal: str = ".", effect: str = EMPTIED
) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 values, NaN where a cell is empty or no number, and which are no number."""
    cells = table.columns[column].to_pylist()
    out, unsure = read_numbers(cells, decimal)
    filled = np.asarray(pc.not_equal(table.columns[column], ""))
    bad = np.flatnonzero(filled & np.isnan(out))
    mark = "." if decimal == "," else ","

    def message(i: int) -> str:
        comma = 'write decimal = "," under [dataset] in dataset.toml'
        if i in unsure:
            one, other = cells[i].replace(mark, ""), cells[i].replace(mark, decimal)
            more = f", or {comma}" if decimal == "." else ""
            return (
                f"{column} is {shown(cells[i])}, which may be {one} or {other}; write which of the "
                f"two it is{more}"
            )
        remedy = "write a number or leave it empty"
        if re.fullmatch(r"-?\d+,\d+", cells[i]):
            remedy = comma
        return f"{column} is {shown(cells[i])}, not a number; {remedy}"

    findings.add(table, bad, message, effect)
    return out, bad


def labels(table: Table, rule: Rule, findings: Findings, decimal: str = ".") -> np.ndarray:
    """Return int8 [N]: 1 where the label occurs, 0 where it does not, -1 where a cell tells none.

    Args:
      table: The rows.
      rule: The column, and what of it is the label.
      findings: Gets the cells that are filled and tell none.
      decimal: "." or ",".
    """
    if rule.sign:
        values, _ = numbers(table, rule.column, findings, decimal)
        return np.where(np.isnan(values), -1, rule.holds(values)).astype(np.int8)
    cells = table.columns[rule.column].to_pylist()
    values, _ = read_numbers(cells, decimal)
    for i, cell in enumerate(cells):
        values[i] = YES_NO.get(cell.lower(), values[i])
    known = (values == 0) | (values == 1)
    filled = np.asarray(pc.not_equal(table.columns[rule.column], ""))

    def message(i: int) -> str:
        says = f"{rule.column} is {shown(cells[i])}, none of 1 and 0, true and false, yes and no"
        if np.isnan(values[i]):
            return f"{says}; write one of these or leave it empty"
        return (
            f"{says}; write one of these, leave it empty, or say which numbers are meant as "
            f'label = "{rule.column} <= 2" in dataset.toml'
        )

    findings.add(table, np.flatnonzero(filled & ~known), message, EMPTIED)
    return np.where(known, values, -1).astype(np.int8)


def future(table: Table, column: str, time: np.ndarray, now: float, findings: Findings) -> None:
    """Report times (float64 [N]) that are more than a day later than ``now``, in unix seconds."""
    cells = table.columns[column]
    findings.add(
        table,
        np.flatnonzero(time > now + 86_400),
        lambda i: f"{column} is {shown(cells[i].as_py())}, which is yet to come; mend the time",
        KEPT,
    )


def without_swallowed(
    table: Table,
    column: str,
    source: Source,
    id_column: str,
    ids: Iterable[str],
    findings: Findings,
) -> Table:
    """Return the table of a CSV without rows whose text holds the start of another row.

    A text may hold line breaks, so that a quote too many takes the next row into it unseen.

    Args:
      table: The rows.
      column: The column of texts.
      source: The file.
      id_column: A column of ids.
      ids: The ids that it may hold.
      findings: Gets the rows that are left out.
    """
    place, before = (source.header.index(name) for name in (id_column, column))
    if source.parquet or place > before:
        return table
    known = set(ids)

    def holds(text: str) -> bool:
        rows = [line.split(source.delimiter) for line in text.splitlines()[1:]]
        return any(len(row) > before and row[place].strip(' "') in known for row in rows)

    cells = table.columns[column]
    broken = _where(pc.match_substring_regex(cells, "[\r\n]"))
    return table.drop(
        [i for i in broken if holds(cells[int(i)].as_py())],
        lambda i: (
            f"{column} holds another row, so a quote is opened and not closed where it should be; "
            "close or double it"
        ),
        findings,
    )


def times(
    table: Table, column: str, findings: Findings, time_format: str = "", effect: str = LEFT_OUT
) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 unix seconds, NaN where there is none, and which cells are no time."""
    cells = table.columns[column].to_pylist()
    out = np.array([seconds(cell, time_format) for cell in cells], np.float64)
    _no_dates(table, column, cells, out, time_format)
    filled = np.asarray(pc.not_equal(table.columns[column], ""))
    bad = np.flatnonzero(filled & ~((out >= EARLIEST) & (out <= LATEST)))

    def message(i: int) -> str:
        if not np.isfinite(out[i]):
            wanted = (
                f"a time written as {time_format}"
                if "%" in time_format
                else "unix seconds or ISO 8601 like 2026-11-21T18:05:00Z"
            )
            return (
                f"{column} is {shown(cells[i])}, not a time; write {wanted}, or say under "
                "[dataset] in dataset.toml what time_format it has"
            )
        if re.fullmatch(r"\d{12,}(\.\d*)?", cells[i]) and not time_format:
            return (
                f"{column} is {shown(cells[i])}, too large for unix seconds; divide by 1000 or "
                'more, or write time_format = "ms" under [dataset] in dataset.toml'
            )
        return f"{column} is {shown(cells[i])}, outside the years 1900 to 2200; mend the time"

    findings.add(table, bad, message, effect)
    out[bad] = np.nan
    return out, bad


def seconds(cell: str, time_format: str = "") -> float:
    """Return a cell as unix seconds, NaN if it is no time; a time without a zone is UTC.

    Example:
      >>> seconds("60000", "ms"), seconds("1970-01-01T00:01"), seconds("1.1.1970", "%d.%m.%Y")
      (60.0, 60.0, 0.0)
    """
    if "%" not in time_format:
        try:
            return float(cell) / _UNITS.get(time_format, 1.0)
        except ValueError:
            pass
    # A time may be written without its clock.
    for form in dict.fromkeys([time_format, time_format.partition(" ")[0], ""]):
        if form and "%" not in form:
            continue
        try:
            time = datetime.strptime(cell, form) if form else datetime.fromisoformat(cell)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError, re.error):
            pass
    return float("nan")


def _no_dates(
    table: Table, column: str, cells: Sequence[str], out: np.ndarray, time_format: str
) -> None:
    """Refuse a column of dates like 20261121: as unix seconds all would lie in August 1970."""
    if time_format or not (len(out) and ((out > 1.9e7) & (out < 2.2e7)).all()):
        return
    if all(compact_date(cell) for cell in set(cells)):
        raise UserError(
            f"{table.where(0)}: {column} is {shown(cells[0])}, a date and not unix seconds; write "
            'time_format = "%Y%m%d" under [dataset] in dataset.toml.'
        )


def compact_date(cell: str) -> bool:
    """Return whether a cell is a date like 20261121."""
    return bool(re.fullmatch(r"(19|20|21)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", cell))


def windows(
    table: Table, description: Description, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Return from when and until when each item is available: float64 [V], -inf and inf if open."""
    names = (description.items.available_from, description.items.available_until)
    found = []
    for column, none in zip(names, (-np.inf, np.inf)):
        out = np.full(len(table), np.nan)
        if column:
            out, _ = times(table, column, findings, description.time_format, EMPTIED)
        found.append(np.where(np.isnan(out), none, out))
    start, end = found
    bad = np.flatnonzero(start > end)
    findings.add(
        table,
        bad,
        lambda i: f"{names[1]} is before {names[0]}; mend one of them",
        EMPTIED,
    )
    start[bad], end[bad] = -np.inf, np.inf
    return start, end


def listed(table: Table, column: str, separator: str) -> Table:
    """Return a table with a row for each entry of a column of lists, in order.

    The other cells are repeated, and so are the row numbers. An empty list stays one row with an
    empty cell; empty entries, as between two separators, are left out.
    """
    parts = [
        [part.strip() for part in cell.split(separator) if part.strip()] or [""]
        for cell in table.columns[column].to_pylist()
    ]
    parent = np.repeat(np.arange(len(table)), [len(part) for part in parts])
    columns = {name: cells.take(pa.array(parent)) for name, cells in table.columns.items()}
    columns[column] = pa.array([entry for part in parts for entry in part], pa.string())
    return Table(table.file, columns, table.rows[parent])


def join_list(cells: Iterable[str], separator: str) -> list[str]:
    """Return list cells as texts.

    Example:
      >>> join_list(["red| big |"], "|")
      ['red, big']
    """
    return [
        ", ".join(part.strip() for part in cell.split(separator) if part.strip()) for cell in cells
    ]
