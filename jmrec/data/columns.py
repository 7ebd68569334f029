"""Columns of text cells as what they mean: ids, texts, categories, numbers, labels."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.findings import EMPTIED, KEPT, MENDED, Findings, shown
from jmrec.data.rule import Rule
from jmrec.data.sources import CSV, Source
from jmrec.data.tables import Table

MAX_ID, MAX_TEXT = 1_000, 100_000
"""Characters of an id or a category, and of a text."""
YES_NO = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""What a label may say beside 1 and 0."""

# Not visible: control characters, marks of byte order and of direction, what did not decode.
_UNSEEN_ID = r"[\x00-\x1F\x7F-\x{9F}\x{2028}-\x{202E}\x{2066}-\x{2069}\x{FEFF}\x{FFFD}]"
_UNSEEN_TEXT = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}\x{FEFF}]"
_FORMULA = r"^=|^[+\-@]\s*[A-Za-z_.]+\(|^[+\-@].*\|.*!"


def _where(mask: pa.Array) -> np.ndarray:
    return np.flatnonzero(np.asarray(mask))


def good_ids(table: Table, column: str, findings: Findings, optional: bool = False) -> Table:
    """Return the table without rows whose id is too long, has unseen characters or is empty.

    Args:
      table: The rows.
      column: The column of ids.
      findings: Gets the rows that are left out.
      optional: Whether an id may be empty.
    """
    if not optional:
        table = table.drop(
            _where(pc.equal(table.columns[column], "")),
            lambda i: f"{column} is empty; fill it in or remove the row",
            findings,
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
            f"{column} {shown(names[i])} differs from that of "
            f"{table.row(first[likeness(names[i])])} only in case, white space or Unicode's "
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


@dataclass(frozen=True)
class Names:
    """The cells that occur in a column; an `Evidence`."""

    names: frozenset[str]

    def summed(self) -> "Names":
        """Return it as it is."""
        return self

    def merge(self, other: "Names") -> "Names":
        """Return the names of both."""
        return Names(self.names | other.names)


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
    found = findings.whole(Names(frozenset(cells.unique().to_pylist())))
    names = ["", *sorted(found.names - {""})]
    return np.asarray(pc.index_in(cells, value_set=pa.array(names))).astype(np.int32), names


_MONEY = re.compile(
    r"(?:[A-Z]{1,3}\$|\$|[\u00a2-\u00a5\u20a0-\u20cf]|[A-Z]{3}|kr\.?|Kč|zł|Fr\.?|Rs\.?)"
)


_SPACED = re.compile(r"[+-]?\d{1,3}(?:([' \u00a0\u2009\u202f\u2019])\d{3})(?:\1\d{3})*(?:[.,]\d*)?")


def _joined(cell: str) -> str:
    """Return a number without spaces or apostrophes between its groups of three digits."""
    return re.sub(r"[^\d.,+-]", "", cell) if _SPACED.fullmatch(cell) else cell


def amount(cell: str) -> str:
    """Return a cell without the sign or the code of a currency before or after its number.

    Spaces and apostrophes between groups of digits are taken out as well.

    Example:
      >>> amount("CHF 1'250.50"), amount("1 250,50 €"), amount("12 50")
      ('1250.50', '1250,50', '12 50')
      >>> amount("€ 12,50"), amount("1.299,00 EUR"), amount("US$5"), amount("-3,-"), amount("3 cm")
      ('12,50', '1.299,00', '5', '-3', '3 cm')
    """
    if not cell or (cell[0].isdigit() and cell[-1].isdigit()):
        return _joined(cell)
    sign = cell[0] if cell[0] in "+-" else ""
    bare = cell[len(sign) :]
    if place := _money(bare):
        bare = f"{bare[: place.start()]}{bare[place.end() :]}".strip()
    bare = re.sub(r"[.,](?:-{1,2}|–|—)$", "", bare)
    number = re.fullmatch(r"[+-]?[\d.,' \u00a0\u2009\u202f\u2019]*\d", bare)
    return sign + _joined(bare) if number else cell


def _money(bare: str) -> re.Match[str] | None:
    """Find the sign or the code of a currency before or after a number."""
    return _MONEY.match(bare) or re.search(rf"{_MONEY.pattern}$", bare)


def currency(cell: str) -> str:
    """Return the sign or the code of a currency that `amount` takes away, "" for none.

    Example:
      >>> currency("CHF 1'250.50"), currency("-3 €"), currency("12.50")
      ('CHF', '€', '')
    """
    found = None if amount(cell) == cell else _money(cell.lstrip("+-"))
    return found[0] if found else ""


@dataclass(frozen=True)
class Marks:
    """What tells how a column of numbers is written; an `Evidence`.

    Attributes:
      groups: Whether some number can only be one whose digits are in groups of three.
      points: Whether some number can only be one with a decimal where the mark of groups is.
    """

    groups: bool
    points: bool

    def summed(self) -> "Marks":
        """Return it as it is."""
        return self

    def merge(self, other: "Marks") -> "Marks":
        """Return what both tell."""
        return Marks(self.groups or other.groups, self.points or other.points)


def read_numbers(
    cells: Sequence[str], decimal: str = ".", findings: Findings | None = None
) -> tuple[np.ndarray, list[int]]:
    """Read numbers, with or without marks between groups of three digits or a currency.

    "1.409" under the decimal "," may be 1409 or 1.409: the other cells of the column tell where
    some can be read in one way only ("1.409,83", "7.5"), else it is not read.

    Args:
      cells: Of one column.
      decimal: "." or ","; the other of the two is the mark of groups.
      findings: Knows what the whole column tells, where the cells are a stretch of it.

    Returns:
      (float64 values, NaN for what is no number; which cells could be read in two ways).

    Example:
      >>> read_numbers(["1.409,83", "1.500", "7,5"], ",")[0].tolist()
      [1409.83, 1500.0, 7.5]
      >>> read_numbers(["1,409", "7.5"])[1]
      [0]
    """
    mark = "." if decimal == "," else ","
    cells = [amount(cell) for cell in cells]
    d, m = re.escape(decimal), re.escape(mark)
    twofold = re.compile(rf"[+-]?[1-9]\d{{0,2}}{m}\d{{3}}")
    lakhs = rf"[+-]?[1-9]\d?(?:{m}\d{{2}})+{m}\d{{3}}"  # as India groups digits
    grouped = re.compile(rf"(?:{twofold.pattern}(?:{m}\d{{3}})*|{lakhs})(?:{d}\d*)?")
    marked = {cell for cell in cells if mark in cell}
    groups = any(grouped.fullmatch(c) and not twofold.fullmatch(c) for c in marked)
    points = mark == "." and any(
        re.fullmatch(r"[+-]?\d*\.\d*", c) and not grouped.fullmatch(c) for c in marked
    )
    told = Marks(groups, points) if findings is None else findings.whole(Marks(groups, points))
    groups, points = told.groups, told.points
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
    decimal = "." if column in table.numeric else decimal
    cells = table.columns[column].to_pylist()
    out, unsure = read_numbers(cells, decimal, findings)
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
    values, _ = read_numbers(cells, decimal, findings)
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
    if source.kind != CSV or place > before:
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


def first_filled(table: Table, columns: Sequence[str]) -> pa.Array:
    """Return of each row the first of some cells that is filled, "" if none is."""
    nulls = pa.scalar(None, pa.string())
    cells = [pc.if_else(pc.equal(table.columns[c], ""), nulls, table.columns[c]) for c in columns]
    return pc.coalesce(*cells, "")


def together(table: Table, columns: Sequence[str]) -> pa.Array:
    """Return ids that some cells of a row make together, "" where one of them is empty."""
    parts, whole = [], pa.scalar(True)
    for column in columns:
        cells = pc.replace_substring(table.columns[column], "\\", "\\\\")
        parts.append(pc.replace_substring(cells, ":", "\\:"))  # so that no two are alike
        whole = pc.and_(whole, pc.not_equal(table.columns[column], ""))
    return pc.if_else(whole, side_by_side(parts, ":"), "")


def side_by_side(columns: Sequence[pa.Array], mark: str) -> pa.Array:
    """Return the cells of each row joined by a mark.

    Example:
      >>> side_by_side([pa.array(["a"]), pa.array(["b"], pa.large_string())], " ").to_pylist()
      ['a b']
    """
    large = any(pa.types.is_large_string(column.type) for column in columns)
    kind = pa.large_string() if large else pa.string()
    return pc.binary_join_element_wise(*(c.cast(kind) for c in columns), pa.scalar(mark, kind))


def listed(table: Table, column: str, separator: str) -> Table:
    """Return a table with a row for each entry of a column of lists, in order.

    The other cells are repeated, and so are the row numbers. An empty list stays one row with an
    empty cell; empty entries, as between two separators, are left out.
    """
    parts = [
        [*filter(None, entries(cell, separator))] or [""]
        for cell in table.columns[column].to_pylist()
    ]
    parent = np.repeat(np.arange(len(table)), np.array([len(part) for part in parts], int))
    columns = {name: cells.take(pa.array(parent)) for name, cells in table.columns.items()}
    columns[column] = pa.array([entry for part in parts for entry in part], pa.string())
    return replace(table, columns=columns, rows=table.rows[parent])


def join_list(cells: Iterable[str], separator: str) -> list[str]:
    """Return list cells as texts.

    Example:
      >>> join_list(["red| big |"], "|")
      ['red, big']
      >>> join_list(["['soy sauce', 'rice']", "[8, 27]"], ",")
      ['soy sauce, rice', '8, 27']
    """
    return [", ".join(filter(None, entries(cell, separator))) for cell in cells]


def entries(cell: str, separator: str) -> list[str]:
    """Return the entries of a list, empty ones too; it may be written as one of Python or JSON.

    Example:
      >>> entries("7| 8", "|"), entries("['B01' 'B02']", " ")
      (['7', '8'], ['B01', 'B02'])
      >>> entries("[new] cup|plate [2]", "|")
      ['[new] cup', 'plate [2]']
    """
    if not re.fullmatch(r"\[[^\[\]]*\]", cell):
        return [part.strip() for part in cell.split(separator)]
    parts = [part.strip() for part in cell[1:-1].split(separator)]
    return [part[1:-1] if re.fullmatch(r"'.*'|\".*\"", part) else part for part in parts]
