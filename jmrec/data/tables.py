"""CSV, Parquet and JSON files as columns of strings, with the row numbers a person would count."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.csv_rows import CsvRows
from jmrec.data.decoding import decode
from jmrec.data.findings import KEPT, LEFT_OUT, Findings
from jmrec.data.json_rows import read_json_rows
from jmrec.data.parquet_rows import read_parquet
from jmrec.data.sources import CSV, MAX_BYTES, PARQUET, Source, read_bytes
from jmrec.errors import UserError

FILE_ROWS = 2**40
"""Where several files are one table, the row numbers of each begin this far above the last's."""


@dataclass(frozen=True)
class Table:
    """One file, or several that are read one after the other (`jmrec.data.several`).

    Attributes:
      file: The file's name, for messages.
      columns: Column name -> N trimmed strings, "" where empty.
      rows: int64 [N], row numbers: those of a spreadsheet for a CSV (the header is row 1), from 1
        for Parquet; those of lines for JSON lines. `FILE_ROWS` is added for each file before.
      numeric: Columns that the file itself holds as numbers: their decimals follow a point.
      files: The names of several files; () for one.
    """

    file: str
    columns: dict[str, pa.Array]
    rows: np.ndarray
    numeric: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Name the place of entry ``index`` for a message: "items.csv, row 7"."""
        before, row = divmod(int(self.rows[index]), FILE_ROWS)
        return f"{self.files[before] if self.files else self.file}, row {row}"

    def row(self, index: int) -> str:
        """Name the row of entry ``index`` beside another: "row 7", of several files which one's."""
        return row_name(int(self.rows[index]), self.files)

    def fail(self, index: int, message: str) -> UserError:
        """Return an error about entry ``index``."""
        return UserError(f"{self.where(index)}: {message}")

    def without(self, bad: Sequence[int] | np.ndarray) -> "Table":
        """Return the table without some entries."""
        if not len(bad):
            return self
        keep = np.ones(len(self), bool)
        keep[bad] = False
        mask = pa.array(keep)
        columns = {name: column.filter(mask) for name, column in self.columns.items()}
        return replace(self, columns=columns, rows=self.rows[keep])

    def drop(
        self, bad: Sequence[int] | np.ndarray, message: Callable[[int], str], findings: Findings
    ) -> "Table":
        """Report entries that are left out, and return the table without them."""
        findings.add(self, bad, message, LEFT_OUT)
        return self.without(bad)


def row_name(row: int, files: Sequence[str]) -> str:
    """Return what a row is called beside another, of several files with the one that it is in.

    Example:
      >>> row_name(7, ()), row_name(FILE_ROWS + 7, ("may.csv", "june.csv"))
      ('row 7', 'row 7 of june.csv')
    """
    before, number = divmod(row, FILE_ROWS)
    return f"row {number} of {files[before]}" if files else f"row {number}"


def read_table(
    source: Source,
    columns: Collection[str],
    findings: Findings,
    *,
    texts: Collection[str],
    list_separator: str = "|",
    block: int | None = None,
) -> Table:
    """Read some columns of a file, all cells as text.

    Rows whose cells are all empty are left out.

    Args:
      source: The file.
      columns: Names of the columns, all of them in its header.
      findings: Gets a line about rows with too few or too many cells, and cells that do not decode.
      texts: Those whose cells may hold line breaks. In another column of a CSV a line break says
        that a quote has swallowed the rows from there to the next quote.
      list_separator: What joins the entries of a list of Parquet or JSON.
      block: About how many bytes of a CSV are worked on at a time, None for
        `jmrec.data.csv_rows.BLOCK`; the table is the same whatever it is.

    Raises:
      UserError: if the file as a whole can not be read.
    """
    names = [name for name in source.header if name in columns]
    numeric = frozenset[str]()
    if source.kind == CSV:
        cells, rows = _read_csv(source, names, texts, findings, block)
        return without_empty(Table(source.name, cells, rows))
    if source.kind == PARQUET:
        cells, rows, numeric = read_parquet(source, names, list_separator)
    else:
        cells, rows, numeric = _read_json(source, names, list_separator, findings)
    columns_ = {n: trimmed(cells.pop(n)) for n in list(cells)}
    return without_empty(Table(source.name, columns_, rows, numeric))


def without_empty(table: Table) -> Table:
    """Return the rows that have a cell which is not empty."""
    filled = np.zeros(len(table), bool)
    for column in table.columns.values():
        filled |= np.asarray(pc.not_equal(column, ""))
    return table.without(np.flatnonzero(~filled))


def trimmed(cells: pa.Array) -> pa.Array:
    """Return cells without white space around them."""
    pa.default_memory_pool().release_unused()  # of the column before
    return pc.utf8_trim_whitespace(cells)


def _breaks(cells: pa.Array) -> np.ndarray:
    """Return which cells (trimmed ones) hold a line break."""
    held = (cells.buffers()[2] or pa.py_buffer(b"")).to_pybytes()
    if b"\n" not in held and b"\r" not in held:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.asarray(pc.match_substring_regex(cells, "[\r\n]")))


def _read_json(
    source: Source, names: list[str], separator: str, findings: Findings
) -> tuple[dict[str, pa.Array], np.ndarray, frozenset[str]]:
    data, encoding = decode(source.name, read_bytes(source.path), source.encoding)
    cells, rows, broken, numeric = read_json_rows(source.name, data, names, separator)
    if not encoding.startswith("utf") and not source.encoding:
        findings.note(
            f"{source.name} is not UTF-8, as JSON has to be, and is read as {encoding}; if that is "
            f'right, write encoding = "{encoding}" under [dataset] in dataset.toml, else save the '
            "file as UTF-8"
        )
    return cells, json_numbers(source, rows, broken, findings), numeric.columns


def json_numbers(
    source: Source, rows: list[int], broken: list[int], findings: Findings
) -> np.ndarray:
    """Return the numbers of the rows of a JSON file, and report those of broken lines."""
    everything = Table(source.name, {}, np.sort(np.array([*rows, *broken], np.int64)))
    findings.add(
        everything,
        np.searchsorted(everything.rows, broken),
        lambda i: "no JSON object, so perhaps cut; write one object a line",
        LEFT_OUT,
    )
    return np.array(rows, np.int64)


def _read_csv(
    source: Source,
    names: list[str],
    texts: Collection[str],
    findings: Findings,
    block: int | None,
) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Read a CSV stretch by stretch, then say what was found, as of a whole file."""
    closed = sorted({*names} - {*texts})
    csv = CsvRows(source, names, closed, block)
    parts: dict[str, list[pa.Array]] = {name: [] for name in names}
    broken: dict[str, int] = {}  # column -> the first cell with a line break
    undecoded = np.zeros(3, np.int64)
    count = 0
    for columns in csv.parts():
        if csv.text.broken >= 0 and columns:
            undecoded += _undecoded(columns.values())
        for name in names:
            cells = pc.utf8_trim_whitespace(columns.pop(name))
            parts[name].append(cells)
            if name in closed and name not in broken and len(at := _breaks(cells)):
                broken[name] = count + int(at[0])
        count += len(cells) if names else 0
        pa.default_memory_pool().release_unused()
    _say_encoding(csv, findings)
    _say_quotes(csv, findings)
    if csv.fault:
        raise csv.fault
    cells_ = {name: joined(parts.pop(name)) for name in names}
    _say_undecoded(csv, undecoded, findings)
    rows = csv_numbers(source, csv.records, csv.skipped, findings)
    for name in closed:
        if name in broken:
            raise UserError(
                f"{source.name}, row {rows[broken[name]]}: {name} holds a line break, so a quote "
                "is opened and not closed where it should be; close or double it."
            )
    return cells_, rows


def joined(parts: list[pa.Array]) -> pa.Array:
    """Return one column of its parts, which are let go."""
    if sum(part.nbytes for part in parts) > MAX_BYTES:
        for place, part in enumerate(parts):
            parts[place] = part.cast(pa.large_string())
    whole = pa.concat_arrays(parts or [pa.array([], pa.string())])
    parts.clear()
    pa.default_memory_pool().release_unused()
    return whole


def csv_numbers(
    source: Source,
    records: int,
    skipped: Sequence[tuple[int, int, int]],
    findings: Findings,
    before: int = 0,
) -> np.ndarray:
    """Return the numbers of the rows of a CSV, or of a stretch of it.

    Args:
      source: The file.
      records: How many there are, skipped ones and the header among them.
      skipped: Of each skipped one its number, from 1, its cells, and how many more lines it has.
      findings: Gets those with too few or too many cells.
      before: How many stand before the stretch.
    """
    numbers = np.arange(1, records + 1)
    numbers = numbers[~np.isin(numbers, [each[0] for each in skipped])]
    wrong = [each for each in skipped if each[1]]
    count = records + sum(n for _, _, n in wrong)
    everything = Table(source.name, {}, before + np.arange(1, 1 + count))
    bad = [number - 1 for number, _, _ in wrong]
    # A quote that swallows lines makes one wrong row of many.
    bad += range(records, len(everything))
    first = "first row" if source.nameless else "header"
    findings.add(
        everything,
        bad,
        lambda i: (
            f"{next(cells for number, cells, _ in wrong if number - 1 == i)} cells where the "
            f"{first} has {source.width}; check the delimiters and quotes of this row and the one "
            "before"
        ),
        LEFT_OUT,
    )
    names = before == 0 and not source.nameless
    return before + numbers[names:]


def _say_encoding(csv: CsvRows, findings: Findings) -> None:
    """Report a file that is no Unicode, or that is UTF-8 and is read as something else."""
    file, encoding, given = csv.source.name, csv.text.encoding, csv.source.encoding
    if not given and csv.text.is_legacy:
        findings.note(
            f"{file}, row {csv.foreign}: a cell is not "
            f"UTF-8, so the file is read as {encoding}; if that is right, write "
            f'encoding = "{encoding}" under [dataset] in dataset.toml, else save the file as UTF-8'
        )
    if given and csv.text.is_legacy and csv.text.is_utf8 and not csv.text.is_ascii:
        findings.note(
            f"{file} is UTF-8 and is read as {encoding}, as dataset.toml says for all files; write "
            f'encoding = "{encoding}" under the table whose file has it, [items] or [interactions]'
        )


def _say_quotes(csv: CsvRows, findings: Findings) -> None:
    """Report rows that a lone quote had swallowed, and those where it may have done so."""
    remedy = 'close or double it, or write quoting = "none" under [dataset] in dataset.toml'
    (row, swallowed), (other, doubtful) = csv.swallowed, csv.doubtful
    if row:
        findings.note(
            f"{csv.source.name}, row {row}: a quote is "
            "opened and not closed in its cell, so that it is taken as a character and the rows "
            f"after it as rows; {remedy} (rows read like that: {swallowed:,})"
        )
    if other:
        findings.note(
            f"{csv.source.name}, row {other}: a quote closes in "
            f"the middle of a cell of several lines, which may have swallowed rows; {remedy} "
            f"({KEPT}: {doubtful:,})"
        )


def _undecoded(columns: Collection[pa.Array]) -> np.ndarray:
    """Return how many rows, and how many cells, hold U+FFFD, and how many rows there are."""
    holds = np.array([np.asarray(pc.match_substring(each, "\ufffd")) for each in columns], bool)
    return np.array([holds.any(0).sum(), holds.sum(), holds.shape[1]])


def _say_undecoded(csv: CsvRows, undecoded: np.ndarray, findings: Findings) -> None:
    """Report cells with U+FFFD; where most rows have one, the encoding is another."""
    rows, cells, count = undecoded.tolist()
    if not rows:  # it is in columns that are not read
        return
    sentence = (
        f"{csv.source.name}, row {csv.broken}: a cell is not "
        f"{csv.text.encoding.removesuffix('-sig').upper()}; name the file's encoding "
        'as encoding = "..." under [dataset] in dataset.toml, such as "cp1252", or save the file '
        "as UTF-8 text"
    )
    if 2 * rows > count:
        raise UserError(f"{sentence} ({rows:,} of {count:,} rows are like that).")
    findings.note(f"{sentence} ({KEPT}, with U+FFFD for what is broken: {cells:,})")
