"""Rows of a CSV as columns of texts, a stretch of the file at a time.

The file is read twice, once to see its encoding, and never held as a whole. It is cut behind line
breaks where all quotes are closed, so that cells, rows and faults are those of the whole file.
"""

import codecs
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv

from jmrec.data.decoding import HEAD, breaks
from jmrec.data.quotes import HEAD as QUOTES_HEAD
from jmrec.data.quotes import Quotes, Tidied
from jmrec.data.sources import MAX_BYTES, Source, read_lines, read_text
from jmrec.errors import UserError

BLOCK = 2**23
"""About how many bytes are worked on at a time."""
_END = "\x1fend"
_LINE = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Parsed:
    """Rows of a stretch of a CSV.

    Attributes:
      columns: Name -> their cells.
      records: How many rows there are, skipped ones and the header among them.
      skipped: Of each skipped one its number in the stretch, from 1, its cells, and how many more
        lines it has. A line of nothing but spaces counts no cells.
      closed: Whether every quote that is opened is closed.
    """

    columns: dict[str, pa.Array]
    records: int
    skipped: list[tuple[int, int, int]]
    closed: bool

    @property
    def has_header(self) -> bool:
        """Whether the first row of the file is one that is not skipped."""
        return not self.skipped or self.skipped[0][0] > 1


class CsvRows:
    """A CSV that is read in stretches.

    Args:
      source: The file.
      names: The columns that are read.
      closed: Those of which no cell may begin with a lone quote or hold a line break.
      block: About how many bytes are worked on at a time; what is read is the same whatever it is.

    Attributes:
      text: The file as text.
      records: How many rows there are, skipped ones and the header among them.
      skipped: See `Parsed`; the numbers are those in the file.
      swallowed: (row, rows) of what a lone quote had swallowed: the first, and how many came back.
      doubtful: (row, quotes) of quotes that may have done so.
      fault: What is wrong with the file as a whole, None if nothing is.
      broken: The row of the first cell that can not be decoded, 0 of none.
      foreign: That of the first character that is not ASCII, 0 of none and in a Unicode.

    All but ``text`` are known when `parts` has come to its end.
    """

    def __init__(
        self,
        source: Source,
        names: Collection[str],
        closed: Collection[str],
        block: int | None = None,
    ) -> None:
        self.source, self.names = source, list(names)
        self.text = read_text(source)
        self.records, self.broken, self.foreign = 0, 0, 0
        self.skipped: list[tuple[int, int, int]] = []
        self.swallowed, self.doubtful = (0, 0), (0, 0)
        self._faults: dict[int, UserError] = {}
        self._closed = [i for i, name in enumerate(source.header) if name in closed]
        # pyarrow 25 takes a NUL for the end of a cell in some blocks and not in others.
        self._block = MAX_BYTES if self.text.has_nul else block or BLOCK
        self._open, self._lines = b"", 0
        self._wanted = {
            name: self.text.line_of(place)
            for name in ("broken", "foreign")
            if (place := getattr(self.text, name)) >= 0
        }

    @property
    def fault(self) -> UserError | None:
        """See above: that which one reader of the whole file meets first."""
        return self._faults[min(self._faults)] if self._faults else None

    def parts(self) -> Iterator[dict[str, pa.Array]]:
        """Yield the rows of one stretch after the other: column -> cells.

        Raises:
          UserError: if it can not be read, or can not be cut and is too large.
        """
        stream = self.text.parts()
        head = as_wide(_taken(stream, max(HEAD, QUOTES_HEAD)), self.source)
        quotes: Quotes | _Unquoted = _Unquoted()
        if self.source.quoting != "none":
            quotes = Quotes(head, self.source.delimiter, self.source.width, self._closed)
        for data, last in _regrouped(itertools.chain([head], stream), self._block):
            tidied = quotes.more(data, last=last)
            hangs = max(quotes.held, len(self._open), len(tidied.data)) > MAX_BYTES
            if hangs or (self.text.has_nul and not last):
                raise UserError(
                    f"{self.source.name}: more than {MAX_BYTES:,} bytes can not be told apart, for "
                    "a quote is never closed, a character is NUL or lines end in \\r alone; mend "
                    "that, or save the file as Parquet."
                )
            del data
            yield from self._parsed(tidied, last)

    def _parsed(self, tidied: Tidied, last: bool) -> Iterator[dict[str, pa.Array]]:
        data, before = self._open + tidied.data, len(self._open)
        if not data and (self.records or not last):
            return
        self._see(data, before, tidied, last)
        try:
            found = parse(self.source, data, self.names)
        except UserError as error:
            self._faults.setdefault(0, error)
            return
        self._open = b"" if found.closed else data
        if not found.closed and not last:
            return
        if not found.closed:
            self._faults[1] = UserError(
                f"{self.source.name}, row {self.records + found.records}: a quote is opened and "
                "never closed; close or double it."
            )
        if not (self.records or found.has_header or self.source.nameless):
            self._faults[2] = broken_header(self.source)
        self.skipped += [(n + self.records, cells, lines) for n, cells, lines in found.skipped]
        first = not (self.records or self.source.nameless)
        self.records += found.records
        self._lines += breaks(data) if self._wanted else 0
        yield {name: column.slice(int(first)) for name, column in found.columns.items()}

    def _see(self, data: bytes, before: int, tidied: Tidied, last: bool) -> None:
        """Note what becomes of quotes, and the rows of what is not decoded or not ASCII."""
        if tidied.swallowed:
            places = [(before + a, before + b) for a, b in tidied.swallowed]
            lines = sum(data.count(b"\n", *each) + 1 for each in places)
            row = self.swallowed[0] or self._row_of(data, places[0][0])
            self.swallowed = row, self.swallowed[1] + lines
        if tidied.doubtful:
            row = self.doubtful[0] or self._row_of(data, before + tidied.doubtful[0])
            self.doubtful = row, self.doubtful[1] + len(tidied.doubtful)
        count = breaks(data) if self._wanted else 0
        for name, line in list(self._wanted.items()):
            if line < self._lines + count + last:
                ends = itertools.islice(_LINE.finditer(data), line - self._lines)
                place = max((end.end() for end in ends), default=0)
                setattr(self, name, self._row_of(data, place))
                del self._wanted[name]

    def _row_of(self, data: bytes, place: int) -> int:
        """Return the number of the row that holds a byte of a stretch."""
        return self.records + parse(self.source, data[:place] + b"x", self.names[:1]).records


class _Unquoted:
    """Stands for `Quotes` where a quote is a character like any other."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def held(self) -> int:
        return len(self._rest)

    def more(self, data: bytes, *, last: bool) -> Tidied:
        data = self._rest + data
        end = len(data) if last else data.rfind(b"\n") + 1
        self._rest = data[end:]
        return Tidied(data[:end], [], [])


def parse(source: Source, data: bytes, names: Sequence[str]) -> Parsed:
    """Return the rows of a stretch of a CSV, of which the first is a row like the others.

    Args:
      source: The file.
      data: UTF-8 text with quotes as RFC 4180 has them.
      names: The columns that are read.

    Raises:
      UserError: if it is no CSV.
    """
    skipped: list[tuple[int, int, int]] = []

    def handle(row: pyarrow.csv.InvalidRow) -> str:
        text = row.text.strip()
        skipped.append((row.number, row.actual_columns if text else 0, text.count("\n")))
        return "skip"

    # Our own names for the columns, so that a header that pyarrow reads in another way can not
    # change the types; the header row is then the first data row.
    own = [str(i) for i in range(source.width)]
    # A last row of our own: where it does not come back, an open quote has swallowed it.
    last = source.delimiter.join([_END] * len(own)).encode()
    between = b"" if data.endswith(b"\n") else b"\n"
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""  # pyarrow removes one
    read = [str(source.header.index(name)) for name in names] or ["0"]
    try:
        # pyarrow takes its row numbers from the block it is in: one block, one thread.
        table = pyarrow.csv.read_csv(
            pa.BufferReader(b"".join([mark, data, between, last])),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(data) + len(last) + 5, column_names=own
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
    closed = table.num_rows > 0 and table.column(0)[-1].as_py() == _END
    table = table.slice(0, table.num_rows - closed)
    columns = {name: _one(column) for name, column in zip(names, table.columns)}
    return Parsed(columns, table.num_rows + len(skipped), skipped, closed)


def _one(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.chunks or [pa.array([], pa.string())]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def broken_header(source: Source) -> UserError:
    """Return what to say of a CSV whose first row is none."""
    return UserError(
        f"{source.name}, row 1: the quotes of the header are broken; mend the first row."
    )


def as_wide(data: bytes, source: Source) -> bytes:
    """Return a CSV whose header has as many cells as its rows, which may end with delimiters."""
    head = data[:HEAD].decode("utf-8", errors="replace")
    cells = next(read_lines(head, source.delimiter, source.quoting), [])
    end = _LINE.search(data)
    if len(cells) == source.width or not end:
        return data
    return source.delimiter.join(["-"] * source.width).encode() + data[end.start() :]


def _taken(parts: Iterator[bytes], least: int) -> bytes:
    """Return the next parts, as many as have ``least`` bytes together."""
    taken, size = [], 0
    while size < least and (part := next(parts, b"")):
        taken.append(part)
        size += len(part)
    return b"".join(taken)


def _regrouped(parts: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield the same bytes, ``size`` at a time, and whether they are the last.

    Example:
      >>> list(_regrouped([b"ab", b"cde"], 2))
      [(b'ab', False), (b'cd', False), (b'e', True)]
    """
    held: list[bytes] = []
    count = 0
    for part in parts:
        while count + len(part) > size:
            end = size - count
            yield b"".join([*held, part[:end]]), False
            held, count, part = [], 0, part[end:]
        held.append(part)
        count += len(part)
    yield b"".join(held), True
