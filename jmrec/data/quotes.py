r"""Quotes of a CSV as they come: lone ones, those escaped by a backslash, those behind a space.

What is found is rewritten as RFC 4180 has it, so that one reader reads all. A lone quote at the
start of a cell opens a cell that ends at the next quote, rows later, and swallows the rows between.
Here the rows come back where each of their lines, taken alone, has as many cells as the header.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

HEAD = 4_000_000
"""So many bytes at the beginning tell whether a backslash escapes quotes."""
_NEAR = 50_000
"""So many bytes before and behind rows are looked at for other rows that look like them."""
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
    return Quotes(data[:HEAD], delimiter, width, closed).more(data, last=True)


class Quotes:
    r"""Rewrites the quotes of a CSV that comes part by part.

    All that comes out is what `tidy_quotes` makes of the whole. Each time so many lines come out as
    nothing that follows can change: every quote in them that may open a cell is closed in them.

    Args:
      head: The first `HEAD` bytes of the text, which is UTF-8.
      delimiter: See `tidy_quotes`, as the two below.
      width: See there.
      closed: See there.

    Example:
      >>> quotes, parts = Quotes(b'1,"a', ",", 2), [b'1,"a', b'"\n2', b",b"]
      >>> [quotes.more(part, last=part == b",b").data for part in parts]
      [b'', b'1,"a"\n', b'2,b']
    """

    def __init__(
        self, head: bytes, delimiter: str, width: int, closed: Collection[int] = ()
    ) -> None:
        self._patterns = _Patterns(delimiter)
        self._delimiter, self._width, self._closed = delimiter.encode(), width, closed
        head = head[:HEAD]
        slashed = b'\\"' in head and self._patterns.escaped(head)
        self._doubled = _Waiting(self._patterns.slashes_settled) if slashed else None
        self._moved = _Waiting(self._patterns.settled)
        self._rows, self._above = b"", b""

    @property
    def held(self) -> int:
        """How many bytes have come and have not come out."""
        waiting = [self._moved, *([self._doubled] if self._doubled else [])]
        return len(self._rows) + sum(len(each.data) for each in waiting)

    def more(self, data: bytes, *, last: bool) -> Tidied:
        """Take a part, the last one or not, and return what comes out."""
        if not (self._doubled or self._rows):  # most files are tidy
            whole = self._moved.data + data
            end = len(whole) if last else whole.rfind(b"\n") + 1
            if is_tidy(whole, self._delimiter, end):
                self._moved.data = whole[end:]
                self._remember(whole, end)
                return Tidied(whole[:end], [], [])
        if self._doubled:
            data = self._patterns.doubled(self._doubled.take(data, last=last))
        data = self._moved.take(data, last=last)
        if self._patterns.behind_space.search(data):
            data = self._patterns.moved(data)
        return self._unswallowed(data, last=last)

    def _unswallowed(self, data: bytes, *, last: bool) -> Tidied:
        data = self._rows + data
        end = len(data) if last else data.rfind(b"\n") + 1
        if (self._rows or self._doubled) and is_tidy(data, self._delimiter, end):
            out = Tidied(data[:end], [], [])
        else:
            if not last:  # the rows behind are looked at too
                end = data.rfind(b"\n", 0, max(len(data) - _NEAR, 0)) + 1
                end = self._patterns.settled(data, end)
            begin = len(self._above)
            out = self._patterns.unswallowed(
                self._above + data, (begin, begin + end), self._width, self._closed
            )
        self._rows = data[end:]
        self._remember(data, end)
        return out

    def _remember(self, data: bytes, end: int) -> None:
        near = data[max(end - _NEAR, 0) : end]
        self._above = (self._above + near)[-_NEAR:]


class _Waiting:
    """What has come and is not settled.

    Args:
      settled: Returns how many bytes of it are.
    """

    def __init__(self, settled: Callable[[bytes], int]) -> None:
        self._settled = settled
        self.data, self._enough = b"", 0

    def take(self, data: bytes, *, last: bool) -> bytes:
        """Return what is settled when more has come."""
        data = self.data + data
        end = len(data) if last else 0
        if not last and len(data) >= self._enough:  # it is not tried again and again
            end = self._settled(data)
            self._enough = 2 * (len(data) - end)
        self.data = data[end:]
        return data[:end]


def is_tidy(data: bytes, delimiter: bytes, size: int | None = None) -> bool:
    """Whether every quote opens a whole cell of one line or closes it; False where unsure.

    ``size`` bytes of whole lines are looked at, all where it is None.
    """
    size = len(data) if size is None else size
    if data.find(b'"', 0, size) < 0:
        return True
    if data.find(b'\\"', 0, size) >= 0 or len(delimiter) > 1 or delimiter == b" ":
        return False
    begin = 0
    while begin < size:  # in parts of whole lines, for memory
        end = data.find(b"\n", begin + _PART, size)
        end = size if end < 0 else end
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
        self.edges = self.delimiter + b"\r\n"
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
        # All up to a quote that opens a cell which is not closed where a backslash escapes.
        self.slashes = re.compile(
            rb'(?:[^"]++|%b%b|(?<=[^%b\r\n])")*+' % (start, slashed, d), re.DOTALL
        )
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

    def slashes_settled(self, data: bytes) -> int:
        """Return the end of lines whose quotes `doubled` changes, whatever follows."""
        end = data.rfind(b"\n") + 1
        while end and (found := self.slashes.match(data, 0, end)) and found.end() < end:
            end = data.rfind(b"\n", 0, found.end()) + 1
        return end

    def settled(self, data: bytes, end: int | None = None) -> int:
        """Return the end of lines, at most ``end``, in which every quote that may open is closed.

        An odd number of quotes in a row opens or closes a cell, an even one is empty or a sign.
        Where the last odd ones close, all others before them are closed too.
        """
        place = end = data.rfind(b"\n") + 1 if end is None else end
        while (last := data.rfind(b'"', 0, place)) >= 0:
            first = last
            while first and data[first - 1] == ord('"'):
                first -= 1
            place = first
            if (last - first) % 2:
                continue
            while first and data[first - 1] == ord(" "):
                first -= 1
            if first and data[first - 1] not in self.edges:
                return end
            place = end = data.rfind(b"\n", 0, first) + 1
        return end

    def moved(self, data: bytes) -> bytes:
        """Remove spaces before cells that are quoted."""
        return self.spaced.sub(lambda m: m[1] or b"", data)

    def unswallowed(
        self, data: bytes, where: tuple[int, int], width: int, closed: Collection[int]
    ) -> Tidied:
        """Give rows back that a lone quote has swallowed ``where`` (from, to) bytes are."""
        parts: list[bytes] = []
        swallowed: list[tuple[int, int]] = []
        doubtful: list[int] = []
        begin, end = where
        done, place, size = begin, begin, 0
        while (place := self._trouble(data, place, end)) < end:
            found = self.cell.match(data, place, end)
            assert found is not None  # there is a quote
            well = bool(found[1] and self.end.match(data, found.end()))
            before = data.rfind(b"\n", 0, place) + 1
            before = max(before, data.rfind(b"\r", before, place) + 1)
            after = _LINE.search(data, found.end(), end)
            last = after.start() if after else end
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
        return Tidied(b"".join([*parts, data[done:end]]), swallowed, doubtful)

    def _trouble(self, data: bytes, place: int, end: int) -> int:
        found = self.good.match(data, place, end)
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
        above = data[max(0, before - _NEAR) : before]
        yield from _LINE.split(above)[1:]
        yield from _LINE.split(data[last : last + _NEAR])[1:-1]


def _shape(cell: bytes) -> bytes:
    """Return a cell with one sign for a run of digits and one for a run of letters."""
    return re.sub(rb"[A-Za-z\x80-\xff]+", b"a", re.sub(rb"\d+", b"9", cell.strip(b' "')))
