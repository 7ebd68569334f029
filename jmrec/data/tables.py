"""CSV, Parquet and JSON files as columns of strings, with the row numbers a person would count."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from jmrec.data.findings import KEPT, LEFT_OUT, Findings
from jmrec.data.json_rows import read_json_rows
from jmrec.data.parquet_rows import read_parquet
from jmrec.data.quotes import Tidied, tidy_quotes
from jmrec.data.sources import (
    CSV,
    JSON,
    MAX_BYTES,
    PARQUET,
    Source,
    decode,
    is_utf8,
    read_bytes,
    read_lines,
    without_told,
)
from jmrec.errors import UserError

FILE_ROWS = 2**40
"""Where several files are one table, the row numbers of each begin this far above the last's."""
_BLOCK = 2**26
END = "\x1fend"


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

    Raises:
      UserError: if the file as a whole can not be read.
    """
    names = [name for name in source.header if name in columns]
    numeric = frozenset[str]()
    if source.kind == PARQUET:
        cells, rows, numeric = read_parquet(source, names, list_separator)
    elif source.kind == JSON:
        cells, rows, numeric = _read_json(source, names, list_separator, findings)
    else:
        cells, rows = _read_csv(source, names, texts, findings)
    columns_ = {n: trimmed(cells.pop(n)) for n in list(cells)}
    table = Table(source.name, columns_, rows, numeric)
    for name in sorted(set(names) - set(texts)) if source.kind == CSV else []:
        broken = _breaks(table.columns[name])
        if len(broken):
            raise table.fail(
                int(broken[0]),
                f"{name} holds a line break, so a quote is opened and not closed where it should "
                "be; close or double it.",
            )
    return without_empty(table)


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
    source: Source, names: list[str], texts: Collection[str], findings: Findings
) -> tuple[dict[str, pa.Array], np.ndarray]:
    file = source.name
    raw = without_told(read_bytes(source.path))
    data, encoding = decode(file, raw, source.encoding)
    data = without_told(data)
    marks = raw.count("\ufffd".encode()) if encoding.startswith("utf-8") else 0
    legacy = not encoding.startswith("utf")
    if not source.encoding and legacy:
        findings.note(
            f"{file}, row {_row_of(data, _first_high(data), source)}: a cell is not "
            f"UTF-8, so the file is read as {encoding}; if that is right, write "
            f'encoding = "{encoding}" under [dataset] in dataset.toml, else save the file as UTF-8'
        )
    if source.encoding and legacy and not raw.isascii() and is_utf8(raw):
        findings.note(
            f"{file} is UTF-8 and is read as {encoding}, as dataset.toml says for all files; write "
            f'encoding = "{encoding}" under the table whose file has it, [items] or [interactions]'
        )
    broken = 0
    if data.count("\ufffd".encode()) > marks:
        where = raw if encoding.startswith("utf-8") else data
        broken = _row_of(data, _first_broken(where, data), source)
    if len(data) > MAX_BYTES:
        raise UserError(f"{file} has more than {MAX_BYTES:,} bytes as UTF-8; save it as Parquet.")
    del raw
    data = as_wide(data, source)
    if source.quoting != "none":
        closed = [i for i, name in enumerate(source.header) if name in {*names} - {*texts}]
        tidied = tidy_quotes(data, source.delimiter, source.width, closed)
        data = tidied.data
        _say_quotes(source, tidied, findings)
        del tidied
    parts, records, skipped = _parse(source, data, names)
    del data  # for memory: what follows copies the texts, a column at a time
    cells = {name: _joined(parts.pop(name)) for name in names}
    if broken and cells:
        _undecoded(f"{file}, row {broken}", encoding, cells.values(), findings)
    return cells, csv_numbers(source, records, skipped, findings)


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
    findings.add(
        everything,
        bad,
        lambda i: (
            f"{next(cells for number, cells, _ in wrong if number - 1 == i)} cells where the "
            f"header has {source.width}; check the delimiters and quotes of this row and the one "
            "before"
        ),
        LEFT_OUT,
    )
    return before + numbers[before == 0 :]


def as_wide(data: bytes, source: Source) -> bytes:
    """Return a CSV whose header has as many cells as its rows, which may end with delimiters."""
    head = data[:1_000_000].decode("utf-8", errors="replace")
    cells = next(read_lines(head, source.delimiter, source.quoting), [])
    end = re.search(rb"\r\n|\n|\r", data)
    if len(cells) == source.width or not end:
        return data
    return source.delimiter.join(["-"] * source.width).encode() + data[end.start() :]


def _say_quotes(source: Source, tidied: Tidied, findings: Findings) -> None:
    """Report rows that a lone quote had swallowed, and those where it may have done so."""
    remedy = 'close or double it, or write quoting = "none" under [dataset] in dataset.toml'
    data = tidied.data
    if tidied.swallowed:
        lines = sum(data.count(b"\n", *each) + 1 for each in tidied.swallowed)
        findings.note(
            f"{source.name}, row {_row_of(data, tidied.swallowed[0][0], source)}: a quote is "
            "opened and not closed in its cell, so that it is taken as a character and the rows "
            f"after it as rows; {remedy} (rows read like that: {lines:,})"
        )
    if tidied.doubtful:
        findings.note(
            f"{source.name}, row {_row_of(data, tidied.doubtful[0], source)}: a quote closes in "
            f"the middle of a cell of several lines, which may have swallowed rows; {remedy} "
            f"({KEPT}: {len(tidied.doubtful):,})"
        )


def _undecoded(where: str, encoding: str, columns: Iterable[pa.Array], findings: Findings) -> None:
    """Report cells with U+FFFD; where most rows have one, the encoding is another."""
    holds = np.array([np.asarray(pc.match_substring(each, "\ufffd")) for each in columns], bool)
    rows = int(holds.any(0).sum())
    if not rows:  # it is in columns that are not read
        return
    sentence = (
        f"{where}: a cell is not {encoding.removesuffix('-sig').upper()}; name the file's encoding "
        'as encoding = "..." under [dataset] in dataset.toml, such as "cp1252", or save the file '
        "as UTF-8 text"
    )
    if 2 * rows > holds.shape[1]:
        raise UserError(f"{sentence} ({rows:,} of {holds.shape[1]:,} rows are like that).")
    findings.note(f"{sentence} ({KEPT}, with U+FFFD for what is broken: {int(holds.sum()):,})")


def _parse(
    source: Source, data: bytes, names: list[str], block: int | None = None
) -> tuple[dict[str, list[pa.Array]], int, list[tuple[int, int, int]]]:
    """Return cells, how many records there are, and (number, cells, more lines) of skipped ones.

    Cells are in parts, one behind the other. A line of nothing but spaces counts no cells.
    ``block`` is about how many bytes are parsed at a time, None for `_BLOCK`.
    """
    block = _BLOCK if block is None else block
    skipped: list[tuple[int, int, int]] = []
    parts: dict[str, list[pa.Array]] = {name: [] for name in names}
    records = 0
    for begin, end in _blocks(data, source.quoting != "none", block):
        table, wrong = parse_block(source, data[begin:end], names)
        if not table.num_rows or table.column(0)[-1].as_py() != END:
            if (begin, end) != (0, len(data)):  # it was cut in a cell
                return _parse(source, data, names, len(data))
            raise UserError(
                f"{source.name}, row {table.num_rows + len(wrong)}: a quote is opened and never "
                "closed; close or double it."
            )
        if not records and wrong and wrong[0][0] == 1:
            raise UserError(
                f"{source.name}, row 1: the quotes of the header are broken; mend the first row."
            )
        skipped += [(number + records, cells, lines) for number, cells, lines in wrong]
        header = not records
        records += table.num_rows + len(wrong) - 1
        table = table.slice(header, table.num_rows - 1 - header)
        for name, column in zip(names, table.columns):
            parts[name] += column.chunks
    return parts, records, skipped


def _joined(parts: list[pa.Array]) -> pa.Array:
    whole = pa.concat_arrays(parts or [pa.array([], pa.string())])
    parts.clear()
    pa.default_memory_pool().release_unused()
    return whole


def _blocks(data: bytes, quoted: bool, size: int) -> Iterator[tuple[int, int]]:
    """Yield where to cut a CSV: behind a line break, outside quotes where they are balanced."""
    begin = 0
    while len(data) - begin > size and (end := data.find(b"\n", begin + size)) >= 0:
        quotes = data.count(b'"', begin, end) if quoted else 0
        while quotes % 2 and end >= 0:
            last, end = end, data.find(b"\n", end + 1)
            quotes += data.count(b'"', last, end)
        if end < 0:
            break
        yield begin, end + 1
        begin = end + 1
    if begin < len(data) or not data:
        yield begin, len(data)


def parse_block(
    source: Source, data: bytes, names: list[str]
) -> tuple[pa.Table, list[tuple[int, int, int]]]:
    """Return the rows of a stretch of a CSV and a last one of `END`, and the skipped ones.

    Where that last one does not come back, a quote was not closed and has swallowed it.
    """
    skipped: list[tuple[int, int, int]] = []

    def handle(row: pyarrow.csv.InvalidRow) -> str:
        text = row.text.strip()
        skipped.append((row.number, row.actual_columns if text else 0, text.count("\n")))
        return "skip"

    # Our own names for the columns, so that a header that pyarrow reads in another way can not
    # change the types; the header row is then the first data row.
    own = [str(i) for i in range(source.width)]
    last = source.delimiter.join([END] * len(own)).encode()
    between = b"" if data.endswith(b"\n") else b"\n"
    read = [str(source.header.index(name)) for name in names] or ["0"]
    try:
        # pyarrow takes its row numbers from the block it is in: one block, one thread.
        table = pyarrow.csv.read_csv(
            pa.BufferReader(b"".join([data, between, last])),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(data) + len(last) + 2, column_names=own
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=source.delimiter,
                quote_char=False if source.quoting == "none" else '"',
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=handle,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in own},
                include_columns=read,
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, OverflowError, ValueError):
        raise UserError(
            f"{source.name}: the file is not a valid CSV; save it as comma-separated UTF-8 text."
        ) from None
    return table, skipped


def _row_of(data: bytes, place: int, source: Source) -> int:
    """Return the number of the row that holds a byte of UTF-8 text."""
    before = data[:place].decode("utf-8", errors="replace") + "x"
    return sum(1 for _ in read_lines(before, source.delimiter, source.quoting))


def _first_high(data: bytes) -> int:
    return next(i for i in range(len(data)) if data[i] > 127)


def _first_broken(raw: bytes, data: bytes) -> int:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return data.find("\ufffd".encode())
