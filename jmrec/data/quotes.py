r"""Quotes of a CSV as they come: lone ones, those escaped by a backslash, those behind a space.

What is found is rewritten as RFC 4180 has it, so that one reader reads all. A lone quote at the
start of a cell opens a cell that ends at the next quote, rows later, and swallows the rows between.
Here the rows come back where each of their lines, taken alone, has as many cells as the header.
"""

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

_HEAD = 4_000_000
_PART = 2**24
_LINE = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Tidied:
    """A CSV whose quotes are as RFC 4180 has them.

    Attributes:
      data: The bytes.
      swallowed: The first and the last byte in ``data`` of each stretch of rows that came back.
      doubtful: The bytes where a quote closes inside a cell of several lines, and none came back.
    """

    data: bytes
    swallowed: list[tuple[int, int]]
    doubtful: list[int]


def tidy_quotes(data: bytes, delimiter: str, width: int, closed: Collection[int] = ()) -> Tidied:
    r"""Rewrite the quotes of a CSV.

    Args:
      data: UTF-8 text.
      delimiter: One character.
      width: How many cells a row has.
      closed: Columns, from 0, of which no cell may begin with a lone quote, such as those of ids.

    Returns:
      The text, and what was done to it.

    Example:
      >>> tidied = tidy_quotes(b'1,"Big shoe,5\n2,hat,3\n3,"Red" hat,4\n', ",", 3)
      >>> [row[1] for row in csv.reader(tidied.data.decode().splitlines())]
      ['"Big shoe', 'hat', '"Red" hat']
      >>> tidy_quotes(b'1, "a, b"\n2,"a \\"b\\" c"\n', ",", 2).data
      b'1,"a, b"\n2,"a ""b"" c"\n'
    """
    if b'"' not in data or is_tidy(data, delimiter.encode()):
        return Tidied(data, [], [])
    patterns = _Patterns(delimiter)
    if b'\\"' in data and patterns.escaped(data[:_HEAD]):
        data = patterns.doubled(data)
    if patterns.behind_space.search(data):
        data = patterns.moved(data)
    return patterns.unswallowed(data, width, closed)


def is_tidy(data: bytes, delimiter: bytes) -> bool:
    """Whether every quote opens a whole cell of one line or closes it; False where unsure."""
    if b'\\"' in data or len(delimiter) > 1 or delimiter == b" ":
        return False
    begin = 0
    while begin < len(data):  # in parts of whole lines, for memory
        end = data.find(b"\n", begin + _PART)
        end = len(data) if end < 0 else end
        part = np.frombuffer(b"".join([b"\n", data[begin:end], b"\n"]), np.uint8)
        ends = (part == ord("\n")) | (part == ord("\r"))
        edges = ends | (part == ord(delimiter))
        quotes = np.flatnonzero(part == ord('"'))
        opens, closes = quotes[::2], quotes[1::2]
        if len(opens) > len(closes) or not (edges[opens - 1].all() and edges[closes + 1].all()):
            return False
        if (np.searchsorted(quotes, np.flatnonzero(ends)) % 2).any():  # a line ends in a cell
            return False
        begin = end + 1
    return True


class _Patterns:
    """Expressions for one delimiter."""

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter.encode()
        d = re.escape(self.delimiter)
        start, end = rb"(?<![^%b\r\n])" % d, rb"(?=\x20*+(?:[%b\r\n]|\Z))" % d
        whole = rb'"[^"]*+(?:""[^"]*+)*+"'
        one_line = rb'"[^"\r\n]*+(?:""[^"\r\n]*+)*+"'
        slashed = rb'"[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+"'
        self.end = re.compile(end)
        # All up to a quote that opens a cell which does not end well on its line.
        self.good = re.compile(rb'(?:[^"]++|%b%b%b|(?<=[^%b\r\n])")*+' % (start, one_line, end, d))
        self.cell = re.compile(rb'"[^"]*+(?:""[^"]*+)*+("?)')
        self.rest = re.compile(rb"[^%b\r\n]*" % d)
        self.fields = re.compile(rb"%b\x20*%b|[^%b]*" % (one_line, end, d))
        self.opened = re.compile(start + rb'"')
        self.both = [re.compile(start + each, re.DOTALL) for each in (whole, slashed)]
        self.behind_space = re.compile(rb'(?:[%b\r\n]|\A)\x20+"' % d)
        self.spaced = re.compile(
            rb"(%b%b%b)|%b\x20+(?=%b%b)" % (start, whole, end, start, whole, end)
        )

    def escaped(self, data: bytes) -> bool:
        """Whether more quoted cells end well where a backslash escapes a quote."""
        ends = [[bool(self.end.match(data, m.end())) for m in p.finditer(data)] for p in self.both]
        doubled, slashed = ends
        return slashed.count(False) < doubled.count(False)

    def doubled(self, data: bytes) -> bytes:
        """Write a backslash and a quote as two quotes."""

        def change(found: re.Match[bytes]) -> bytes:
            cell = found[0]
            if b"\\" not in cell:
                return cell
            return re.sub(rb'\\(["\\])', lambda m: b'""' if m[1] == b'"' else b"\\", cell)

        return self.both[1].sub(change, data)

    def moved(self, data: bytes) -> bytes:
        """Remove spaces before cells that are quoted."""
        return self.spaced.sub(lambda m: m[1] or b"", data)

    def unswallowed(self, data: bytes, width: int, closed: Collection[int]) -> Tidied:
        """Give rows back that a lone quote has swallowed."""
        parts: list[bytes] = []
        swallowed: list[tuple[int, int]] = []
        doubtful: list[int] = []
        done = place = size = 0
        while (place := self._trouble(data, place)) < len(data):
            found = self.cell.match(data, place)
            assert found is not None  # there is a quote
            well = bool(found[1] and self.end.match(data, found.end()))
            before = data.rfind(b"\n", 0, place) + 1
            before = max(before, data.rfind(b"\r", before, place) + 1)
            after = _LINE.search(data, found.end())
            last = after.start() if after else len(data)
            column = len(self._split(data[before:place])) - 1
            one_line = bool(found[1]) and not _LINE.search(found[0])
            rows = None
            line = data[before:last]
            # "Red" hat: words behind the quote, which is then one of their signs.
            rest = self.rest.match(data, found.end())
            words = not well and rest is not None and b'"' not in rest[0]
            if before >= done and not (one_line and not words and self._fits(line, width)):
                rows = self._rows(line, width, closed)
            if rows is None or (well and not self._alike(data, before, last, width, column)):
                if found[1] and not well and not one_line and column not in closed:
                    doubtful.append(size + place - done)
                place = found.end()
                continue
            parts += [data[done:before], rows]
            size += before - done
            swallowed.append((size, size + len(rows)))
            size += len(rows)
            done = place = last
        return Tidied(b"".join([*parts, data[done:]]) if parts else data, swallowed, doubtful)

    def _trouble(self, data: bytes, place: int) -> int:
        found = self.good.match(data, place)
        return found.end() if found else place

    def _split(self, line: bytes) -> list[bytes]:
        """Return the cells of a line, a quote that does not end well taken as a character."""
        cells: list[bytes] = []
        place = 0
        while True:
            found = self.fields.match(line, place)
            assert found is not None  # an empty cell at least
            cells.append(found[0])
            place = found.end() + 1
            if place > len(line):
                return cells

    def _fits(self, line: bytes, width: int) -> bool:
        """Whether a line has as many cells as the header as it is."""
        text, delimiter = line.decode("utf-8", "replace"), self.delimiter.decode()
        return [len(row) for row in csv.reader([text], delimiter=delimiter)] == [width]

    def _rows(self, record: bytes, width: int, closed: Collection[int]) -> bytes | None:
        """Return the lines of a record as rows of their own, None where they are none."""
        out: list[bytes] = []
        place = 0
        for ending in [*_LINE.finditer(record), None]:
            line = record[place : ending.start() if ending else len(record)]
            place = ending.end() if ending else place
            cells = self._split(line)
            if line.strip() and len(cells) != width:
                return None
            lone = [i for i, cell in enumerate(cells) if self._lone(cell)]
            if set(lone) & set(closed):
                return None
            for i in lone:
                cells[i] = b'"' + cells[i].replace(b'"', b'""') + b'"'
            out += [self.delimiter.join(cells), ending[0] if ending else b""]
        return b"".join(out)

    def _lone(self, cell: bytes) -> bool:
        found = self.fields.fullmatch(cell)
        return cell.startswith(b'"') and not (
            len(cell) > 1 and found and cell.rstrip(b" ").endswith(b'"') and self._whole(cell)
        )

    def _whole(self, cell: bytes) -> bool:
        found = self.cell.match(cell)
        return bool(found and found[1] and not cell[found.end() :].strip(b" "))

    def _alike(self, data: bytes, before: int, last: int, width: int, column: int) -> bool:
        """Whether the lines of a cell that ends well look like other rows all the same."""
        seen: list[set[bytes]] = [set() for _ in range(width)]
        for line in self._others(data, before, last):
            cells = self._split(line)
            if len(cells) == width:
                for shapes, cell in zip(seen, cells):
                    shapes.add(_shape(cell))
        lines = [self._split(line) for line in _LINE.split(data[before:last])[1:]]
        return width > 1 and all(
            _shape(cell) in seen[i]
            for cells in lines
            for i, cell in enumerate(cells)
            if i != column
        )

    def _others(self, data: bytes, before: int, last: int) -> Iterator[bytes]:
        """Yield some lines around a record, without the header."""
        above = data[max(0, before - 50_000) : before]
        yield from _LINE.split(above)[1:]
        yield from _LINE.split(data[last : last + 50_000])[1:-1]


def _shape(cell: bytes) -> bytes:
    """Return a cell with one sign for a run of digits and one for a run of letters."""
    return re.sub(rb"[A-Za-z\x80-\xff]+", b"a", re.sub(rb"\d+", b"9", cell.strip(b' "')))
