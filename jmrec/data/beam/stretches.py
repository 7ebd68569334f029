"""Files of events in stretches: where they are cut, what a look at them tells, their rows.

A file whose lines are rows is cut between lines: a CSV in UTF-8 whose quotes open and close whole
cells of one line, and JSON with an object a line. Parquet is cut between its groups of rows. Any
other file (packed, another encoding, line breaks in quotes, one array of JSON) is read by one
worker, by the reader of one machine and with its limits.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from jmrec.data.csv_rows import broken_header, parse
from jmrec.data.decoding import guess_encoding, is_utf8, without_told
from jmrec.data.findings import Findings
from jmrec.data.json_rows import Numeric, json_lines, read_json_objects
from jmrec.data.parquet_rows import parquet_cells, parquet_numeric
from jmrec.data.quotes import is_tidy
from jmrec.data.sources import (
    CSV,
    JSON,
    MAX_LINE,
    PARQUET,
    Source,
    broken_parquet,
    open_parquet,
    read_lines,
)
from jmrec.data.tables import (
    Table,
    csv_numbers,
    json_numbers,
    read_table,
    trimmed,
    without_empty,
)
from jmrec.errors import UserError

BOM = b"\xef\xbb\xbf"
_LONG = MAX_LINE // 2
"""Bytes of a line from which on one worker reads the file, which says what is wrong with it."""
_STEP = 2**16


@dataclass(frozen=True)
class Stretch:
    """A part of a file.

    Attributes:
      file: Which of the files.
      number: Its place in the file.
      begin: The byte from which on lines begin that belong to it; of Parquet, a group of rows.
      end: The first byte after them; of Parquet, the group after its last.
    """

    file: int
    number: int
    begin: int
    end: int


@dataclass(frozen=True)
class Look:
    """What a look at a stretch tells.

    Attributes:
      number: The stretch's place in its file.
      rows: Its lines, or its rows of Parquet.
      cut: Whether the file may be cut, as far as the stretch tells.
    """

    number: int
    rows: int
    cut: bool


@dataclass(frozen=True)
class Plan:
    """How a file is read.

    Attributes:
      before: Stretch -> how many rows stand before it; none where one worker reads the file.
    """

    before: dict[int, int]

    @classmethod
    def of(cls, looks: Iterable[Look]) -> "Plan":
        """Return it from what all stretches of a file tell."""
        found = sorted(looks, key=lambda look: look.number)
        if not all(look.cut for look in found):
            return cls({})
        ends = np.cumsum([0, *(look.rows for look in found)])
        return cls({look.number: int(end) for look, end in zip(found, ends)})


@dataclass(frozen=True)
class Block:
    """Rows of a file that are worked on together.

    Attributes:
      file: Which of the files.
      number: The stretch that it is from.
      part: Its place in the stretch.
      table: The rows.
      numeric: Which columns of a JSON file hold numbers.
    """

    file: int
    number: int
    part: int
    table: Table
    numeric: Numeric | None = None


def cut(file: int, source: Source, size: int) -> list[Stretch]:
    """Return where a file is cut, if it may be.

    Args:
      file: Which of the files it is.
      source: The file.
      size: About how many bytes a stretch has.
    """
    if source.kind == PARQUET:
        about = open_parquet(source.path).metadata
        groups: list[list[int]] = [[]]
        held = 0
        for group in range(about.num_row_groups):
            if held >= size:
                groups.append([])
                held = 0
            groups[-1].append(group)
            held += about.row_group(group).total_byte_size
        edges = [each[0] for each in groups if each] or [0]
        edges.append(about.num_row_groups)
    else:
        edges = [*range(0, max(source.path.stat().st_size, 1), size), source.path.stat().st_size]
    pairs = pairwise(edges)
    return [Stretch(file, number, begin, end) for number, (begin, end) in enumerate(pairs)]


def look_at(stretch: Stretch, source: Source) -> Look:
    """Return what a stretch tells of how its file may be read."""
    if source.kind == PARQUET:
        about = open_parquet(source.path).metadata
        groups = range(stretch.begin, stretch.end)
        return Look(stretch.number, sum(about.row_group(g).num_rows for g in groups), True)
    with source.path.open("rb") as file:
        head = file.read(1_000_000)
    no = Look(stretch.number, 0, False)
    if not _may_be_cut(head, source):
        return no
    data = _lines_of(stretch, source.path)
    if data is None:
        return no
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    if not is_utf8(data) or _longest(data) > _LONG:
        return no
    if source.kind == CSV:
        # pyarrow 25 takes a NUL for the end of a cell in some blocks and not in others.
        if data.count(b"\r") != data.count(b"\r\n") or b"\0" in data:
            return no
        quoted = source.quoting != "none" and b'"' in data
        if quoted and not is_tidy(data, source.delimiter.encode()):
            return no
    return Look(stretch.number, lines, True)


def _may_be_cut(head: bytes, source: Source) -> bool:
    """Whether the first bytes of a text file allow that it is cut."""
    if head[:2] == b"\x1f\x8b" or source.encoding not in ("", "utf-8") or source.nameless:
        return False
    if guess_encoding(head) not in ("utf-8", "utf-8-sig"):
        return False
    head = head.removeprefix(BOM)
    if source.kind == JSON:
        first = next(json_lines(head.lstrip().partition(b"\n")[0]), (0, None))[1]
        return head.lstrip()[:1] != b"[" and first is not None
    if without_told(head) != head:
        return False
    text = head.decode("utf-8", errors="replace")
    return len(next(read_lines(text, source.delimiter, source.quoting), [])) == source.width


def _longest(data: bytes) -> int:
    if len(data) <= _LONG:
        return 0
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    return int(np.diff(ends, prepend=-1, append=len(data)).max())


def _lines_of(stretch: Stretch, path: Path) -> bytes | None:
    """Return the lines that begin in a stretch; None where one is too long."""
    with path.open("rb") as file:
        begin = stretch.begin
        if begin:
            found = _line_end(file, begin - 1)
            if found is None:
                return None
            begin = found
        if begin >= stretch.end:
            return b""
        end = _line_end(file, stretch.end - 1)
        if end is None:
            return None
        file.seek(begin)
        data = file.read(end - begin)
    return data.removeprefix(BOM) if not stretch.begin else data


def _line_end(file: object, place: int) -> int | None:
    """Return where the line that holds a byte ends; None where that is far away."""
    file.seek(place)  # type: ignore[attr-defined]
    at = place
    while part := file.read(_STEP):  # type: ignore[attr-defined]
        if (found := part.find(b"\n")) >= 0:
            return at + found + 1
        at += len(part)
        if at - place > _LONG:
            return None
    return at


def read_stretch(
    stretch: Stretch,
    plan: Plan,
    source: Source,
    columns: set[str],
    texts: set[str],
    separator: str,
    findings: Findings,
    rows: int,
) -> Iterator[Block]:
    """Yield the rows of a stretch.

    Args:
      stretch: The stretch.
      plan: How its file is read.
      source: The file.
      columns: Names of the columns that are read.
      texts: Those whose cells may hold line breaks.
      separator: What joins the entries of a list.
      findings: Gets what is wrong with single rows.
      rows: How many rows a block has at most.

    Raises:
      UserError: if the file as a whole can not be read.
    """
    names = [name for name in source.header if name in columns]
    numeric = None
    if not plan.before:
        if stretch.number:
            return
        table = read_table(source, columns, findings, texts=texts, list_separator=separator)
        if source.kind == JSON:
            numeric = Numeric(frozenset(names), frozenset(names) - table.numeric)
    else:
        before = plan.before[stretch.number]
        if source.kind == PARQUET:
            table = _parquet_rows(stretch, source, names, separator, before)
        elif source.kind == JSON:
            table, numeric = _json_rows(stretch, source, names, separator, before, findings)
        else:
            table = _csv_rows(stretch, source, names, before, findings)
    for part, begin in enumerate(range(0, len(table) or 1, rows)):
        yield Block(stretch.file, stretch.number, part, sliced(table, begin, begin + rows), numeric)


def sliced(table: Table, begin: int, end: int) -> Table:
    """Return some rows of a table as a table that holds no others in memory."""
    columns = {n: pa.concat_arrays([c.slice(begin, end - begin)]) for n, c in table.columns.items()}
    if 0 < len(table) <= end - begin:
        columns = dict(table.columns)
    return replace(table, columns=columns, rows=table.rows[begin:end].copy())


def _csv_rows(
    stretch: Stretch, source: Source, names: Sequence[str], before: int, findings: Findings
) -> Table:
    data = _lines_of(stretch, source.path) or b""
    if not data:
        rows = csv_numbers(source, 0, [], findings, before)
        return Table(source.name, {name: pa.array([], pa.string()) for name in names}, rows)
    found = parse(source, data, names)
    if not found.closed or found.records != _count(data):
        raise UserError(
            f"{source.name} can not be read in stretches; prepare it on one machine, without "
            "--runner."
        )
    if not before and not found.has_header:
        raise broken_header(source)
    rows = csv_numbers(source, found.records, found.skipped, findings, before)
    cells = {name: trimmed(each.slice(int(not before))) for name, each in found.columns.items()}
    return without_empty(Table(source.name, cells, rows))


def _count(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n"))


def _json_rows(
    stretch: Stretch,
    source: Source,
    names: Sequence[str],
    separator: str,
    before: int,
    findings: Findings,
) -> tuple[Table, Numeric]:
    data = _lines_of(stretch, source.path) or b""
    found, rows, broken, numeric = read_json_objects(json_lines(data, before), names, separator)
    numbers = json_numbers(source, rows, broken, findings)
    cells = {name: trimmed(column) for name, column in found.items()}
    return without_empty(Table(source.name, cells, numbers)), numeric


def _parquet_rows(
    stretch: Stretch, source: Source, names: Sequence[str], separator: str, before: int
) -> Table:
    parts: dict[str, list[pa.Array]] = {name: [pa.array([], pa.string())] for name in names}
    count = 0
    file = open_parquet(source.path)
    groups = list(range(stretch.begin, stretch.end))
    try:
        for batch in file.iter_batches(batch_size=2**16, columns=names, row_groups=groups):
            count += batch.num_rows
            for name, cells in parquet_cells(source, batch, names, separator).items():
                parts[name].append(cells)
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        raise broken_parquet(source.name, error) from None
    columns = {name: trimmed(pa.concat_arrays(cells)) for name, cells in parts.items()}
    rows = np.arange(before + 1, before + count + 1)
    return without_empty(Table(source.name, columns, rows, parquet_numeric(source)))


def plans(found: Mapping[int, Iterable[Look]]) -> dict[int, Plan]:
    """Return how each file is read."""
    return {file: Plan.of(looks) for file, looks in found.items()}
