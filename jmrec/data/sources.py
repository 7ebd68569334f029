"""The files of a catalogue folder as bytes: inside the folder, regular, no bomb, decoded.

A file's first bytes say what it is (gzip, Parquet, JSON, cells), not its name.
"""

import contextlib
import csv
import gzip
import io
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from jmrec.data.decoding import HEAD, TOLD, Text, decode
from jmrec.data.header import check_names
from jmrec.data.json_rows import is_json, json_header
from jmrec.errors import UserError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson")
"""Looked for where none of the others is: folders hold JSON files of many kinds."""
CSV, PARQUET, JSON = "csv", "parquet", "json"
DELIMITERS = (",", ";", "\t", "|")
PAIR = "::"
"""The one delimiter of two characters that is known: files of MovieLens have it, without quotes."""
PAIR_READ = "\x1e"
"""What stands for it in a text that is read."""
MAX_BYTES = 2**31 - 2**20
"""A larger JSON file is refused, and a CSV that can not be cut: pyarrow reads at most 2 GiB."""
BOMB_BYTES, BOMB_RATIO = 100_000_000, 200
"""More than this, from a file that is this many times smaller, is taken for a bomb."""
MAX_LINE = 2**24
"""Bytes of a line of a CSV, more than any catalogue has; many times as much memory is needed to
find out what a longer one holds."""
INDEX = "Unnamed: 0"
"""What a first column without a name is called: pandas writes its row numbers like that."""
MAX_COLUMNS, MAX_NAME = 10_000, 200
_PART = 2**22
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff]")


@dataclass(frozen=True)
class Form:
    """How a CSV file is written; what is empty is found out.

    Attributes:
      encoding: Its encoding.
      delimiter: What stands between two cells.
      quoting: "none" where a quote is a character like any other.
      column_names: Of a file whose first row is a row like the others; () where that names them.
    """

    encoding: str = ""
    delimiter: str = ""
    quoting: str = ""
    column_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One table of a folder, found and looked at.

    Attributes:
      path: The file.
      header: Its column names.
      kind: `CSV`, `PARQUET` or `JSON`.
      encoding: Of a CSV or a JSON file, "" where it is to be found out.
      delimiter: Of a CSV.
      quoting: Of a CSV, see `Form`.
      width: How many cells a row has, more than names where rows end with a delimiter.
      nameless: Whether the first row of a CSV is a row like the others.
    """

    path: Path
    header: list[str]
    kind: str
    encoding: str = ""
    delimiter: str = ","
    quoting: str = ""
    width: int = 0
    nameless: bool = False

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name


def find_table(folder: Path, table: str, file: str = "") -> Path:
    """Return the path of a table: ``file`` if it is named, else items.csv, items.parquet, ...

    Raises:
      UserError: if there is none, or more than one, or ``file`` is no plain name.
    """
    if file:
        if file != Path(file).name or file in (".", ".."):
            raise UserError(
                f"dataset.toml, [{table}]: file is {file[:80]!r}; give the name of a file that "
                "lies in the folder itself."
            )
        return folder / file
    for suffixes in (SUFFIXES, JSON_SUFFIXES):
        paths = [folder / f"{table}{suffix}" for suffix in suffixes]
        present = [path for path in paths if path.exists() or path.is_symlink()]
        if present:
            break
    if len(present) > 1:
        raise UserError(
            f"{folder} has both {present[0].name} and {present[1].name}; keep one of them, or name "
            f'it in dataset.toml as [{table}] file = "{present[0].name}".'
        )
    return present[0] if present else folder / f"{table}.csv"


def named_files(folder: Path, table: str, file: str | Sequence[str], but: str = "") -> list[str]:
    """Return the names of the files that a description names for a table, [] for the usual ones.

    Args:
      folder: The catalogue folder.
      table: "items" or "interactions".
      file: A name, or several; "*" and "?" in one stand for any characters and for one, and the
        names that fit are sorted, the numbers in them by size.
      but: A name that fits no pattern: that of a test split.

    Raises:
      UserError: A pattern fits no file, or a name stands there twice.
    """
    names: list[str] = []
    for name in [file] if isinstance(file, str) else file:
        if not re.search(r"[*?]", name) or (folder / name).is_file():
            names += [name] if name else []
            continue
        fits = [p.name for p in folder.iterdir() if p.is_file() and _fits(p.name, name)]
        fits = [each for each in fits if each not in (but, *names)]
        if not fits:
            raise UserError(
                f"{folder} holds no file that fits {name[:80]!r}, which dataset.toml names for "
                f"[{table}]; mend the pattern, or put the files there."
            )
        names += sorted(fits, key=by_number)
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f"dataset.toml, [{table}]: file names {twice[:80]!r} twice; name every file once."
        )
    return names


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names as people do, the numbers in them by size.

    Example:
      >>> sorted(["may_10.csv", "may_9.csv"], key=by_number)
      ['may_9.csv', 'may_10.csv']
    """
    return [(int(n or 0), text) for text, n in re.findall(r"(\D*)([0-9]*)", name)]


def called(files: Sequence[str]) -> str:
    """Return what some files of one table are called together.

    Example:
      >>> called(["a.csv"]), called(["a.csv", "b.csv"]), called(["a.csv", "b.csv", "c.csv"])
      ('a.csv', 'a.csv and b.csv', 'a.csv and 2 more')
    """
    if len(files) == 2:
        return " and ".join(files)
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def regular_file(path: Path, root: Path) -> int:
    """Check that a file may be read: a regular one inside ``root``; return its size.

    Raises:
      UserError: if it is missing, a folder, a pipe or a device, or a link that leaves ``root``.
    """
    try:
        real = path.resolve(strict=True)
        status = real.stat()
        inside = real.is_relative_to(root.resolve())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a catalogue folder needs {path.name}.") from None
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); check the file.") from None
    except (ValueError, RuntimeError):  # a NUL in the name, a loop of links
        raise UserError(f"{path} can not be read (a loop of links?); check the file.") from None
    if not inside:
        raise UserError(
            f"{path.name} is a link that leaves the folder; copy the file itself into {root}."
        )
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise UserError(f"{path} is {kind}, not a file; put the file itself there.")
    return status.st_size


def open_source(folder: Path, table: str, file: str = "", form: Form = Form()) -> Source:
    """Find a table of a folder and read its header.

    Args:
      folder: The catalogue folder.
      table: "items" or "interactions".
      file: The file's name, "" for the usual ones.
      form: What is known of how a CSV is written.

    Raises:
      UserError: if the file can not be read, or names a column twice or not at all.
    """
    path = find_table(folder, table, file)
    regular_file(path, folder)
    if _starts(path, 4) == b"PAR1":
        names = _check_header(path.name, open_parquet(path).schema_arrow.names)
        return _named(Source(path, names, PARQUET, width=len(names)), form)
    head, encoding = decode(path.name, read_bytes(path, HEAD), form.encoding)
    if is_json(head):
        whole, _ = decode(path.name, read_bytes(path), form.encoding)
        names = _check_header(path.name, json_header(path.name, whole))
        return _named(Source(path, names, JSON, form.encoding, width=len(names)), form)
    text = head.decode("utf-8", errors="replace")
    told = TOLD.match(text)
    text = text[told.end() :] if told else text
    delimiter = form.delimiter or (told[1] if told else _guess_delimiter(text))
    quoting = form.quoting
    if delimiter == PAIR:
        if encoding.startswith(("utf-16", "utf-32")):
            raise UserError(f"{path.name} has {PAIR!r} between its cells; save it as UTF-8.")
        text, delimiter, quoting = text.replace(PAIR, PAIR_READ), PAIR_READ, "none"
    lines = read_lines(text, delimiter, quoting)
    names = next(lines, [])
    if not names:
        raise UserError(
            f"{path.name}: no header row can be read; save the file as comma-separated UTF-8 text "
            "whose first row names the columns."
        )
    rows = [row for row in lines if row]
    first = [name.strip() for name in names]
    names, width = _ends(first, rows)
    if len(names) > 1 and not names[0] and INDEX not in names:
        names[0] = INDEX
    given = [*form.column_names]
    if nameless := bool(given) and first[: len(given)] != given:
        if len(given) not in (len(first), len(names)):
            raise UserError(
                f"{path.name}, row 1: {len(first):,} cells, and [{table}] column_names in "
                f"dataset.toml has {len(given):,} names; give each column its name."
            )
        names, width = given, max(width, len(given))
    else:
        check_names(path.name, names, rows)
    names = _check_header(path.name, names)
    return Source(path, names, CSV, form.encoding, delimiter, quoting, width, nameless)


def _named(source: Source, form: Form) -> Source:
    """Refuse names for the columns of a file that has them."""
    if form.column_names and [*form.column_names] != source.header:
        raise UserError(
            f"{source.name} names its columns itself; leave column_names out of dataset.toml."
        )
    return source


def _ends(names: list[str], rows: list[list[str]]) -> tuple[list[str], int]:
    """Return names and how many cells a row has, for rows that may end with delimiters."""
    given = len(names)
    whole = [row for row in rows if len(row) <= given]  # a longer one is broken, so by a quote
    while len(names) > 1 and not names[-1] and not any("".join(r[len(names) - 1 :]) for r in whole):
        names = names[:-1]
    lengths = Counter(len(row) for row in rows if not "".join(row[len(names) :]))
    common, count = lengths.most_common(1)[0] if lengths else (given, 0)
    return names, common if common >= len(names) and 2 * count > len(rows) else given


def read_lines(text: str, delimiter: str, quoting: str) -> Iterator[list[str]]:
    """Yield the rows of a CSV as lists of cells, up to one that can not be read."""
    how: dict[str, Any] = {"quoting": csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL}
    with contextlib.suppress(csv.Error):  # a huge field
        yield from csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, **how
        )


def open_parquet(path: Path) -> pa.parquet.ParquetFile:
    """Open a Parquet file, which reads its schema only.

    Raises:
      UserError: if it is damaged or claims far more than a file of its size can hold.
    """
    try:
        file = pa.parquet.ParquetFile(path)
        about = file.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise broken_parquet(path.name, error) from None
    _no_bomb(path, max(size, about.num_rows // 8))
    return file


def broken_parquet(name: str, error: Exception) -> UserError:
    """Return what to say about a Parquet file that pyarrow refuses."""
    reason = " ".join(str(error).split())[:100]
    return UserError(f"{name} is no whole Parquet file ({reason}); write it again.")


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Return the (unpacked) bytes of a file, the first ``most`` of them where given.

    Raises:
      UserError: if it can not be read, is too large, packed wrongly, a bomb, or has a line longer
        than `MAX_LINE`.
    """
    limit = MAX_BYTES if most is None else most
    unpacked = 0
    # A packed one once without keeping anything, for a bomb is known late.
    for part in _unpacked(path, limit) if _is_packed(path) else ():
        unpacked += len(part)
        _no_bomb(path, unpacked)
    kept = io.BytesIO()  # gives what it holds without a copy
    lines = _Lines(path.name)
    for part in _unpacked(path, limit + (most is None)):
        lines.check(part)
        kept.write(part)
    if most is None and kept.tell() > limit:
        raise UserError(
            f"{path.name} has more than {MAX_BYTES:,} bytes; save it as CSV or Parquet, which are "
            "read in pieces."
        )
    data = kept.getvalue()
    if data[:4] == b"PK\x03\x04":
        raise UserError(f"{path.name} is a zip or Excel file; save it as CSV or Parquet.")
    return data


def read_text(source: Source) -> Text:
    """Return a CSV of any size as text in parts.

    Raises:
      UserError: if it can not be read, is packed wrongly, a bomb, or has a line longer than
        `MAX_LINE`, or its encoding is none.
    """
    checked = False

    def parts() -> Iterator[bytes]:
        nonlocal checked
        lines, size = _Lines(source.name), 0
        # A packed one once without keeping anything, for a bomb is known late.
        for part in _unpacked(source.path) if not checked and _is_packed(source.path) else ():
            size += len(part)
            _no_bomb(source.path, size)
        for part in _unpacked(source.path):
            if not checked:
                lines.check(part)
            yield part
        checked = True

    pair = source.delimiter == PAIR_READ
    return Text(source.name, partial(_single, parts) if pair else parts, source.encoding)


def _single(parts: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    """Yield the parts of a text with one character in place of the delimiter of two.

    Example:
      >>> b"".join(_single(lambda: [b"1:", b":Alien:", b" 3::", b"x:"])).split(b"\\x1e")
      [b'1', b'Alien: 3', b'x:']
    """
    colon, held = PAIR[:1].encode(), b""
    for part in parts():
        part = held + part
        whole = part.rstrip(colon)  # colons at the end may go on in the next part
        held = part[len(whole) :]
        yield whole.replace(PAIR.encode(), PAIR_READ.encode())
    yield held.replace(PAIR.encode(), PAIR_READ.encode())


def _is_packed(path: Path) -> bool:
    return _starts(path, 2) == b"\x1f\x8b"


def _unpacked(path: Path, most: int | None = None) -> Iterator[bytes]:
    """Yield the (unpacked) bytes of a file, the first ``most`` of them where given, in parts."""
    total = 0
    try:
        with gzip.open(path) if _is_packed(path) else path.open("rb") as file:
            while most is None or total < most:
                part = file.read(_PART if most is None else min(_PART, most - total))
                if not part:
                    return
                total += len(part)
                yield part
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path.name} can not be unpacked ({error}); pack it again.") from None
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); check the file.") from None


class _Lines:
    """Looks at a file in parts for a line that is too long; short ones inside a part pass."""

    def __init__(self, name: str) -> None:
        self.name, self.ended, self.open = name, 0, 0

    def check(self, part: bytes) -> None:
        """Raise UserError where the line that is open at the start of a part goes on too long."""
        ends = [place for mark in (b"\n", b"\r") if (place := part.find(mark)) >= 0]
        if self.open + min(ends, default=len(part)) > MAX_LINE:
            raise UserError(
                f"{self.name}, line {self.ended + 1:,} has more than {MAX_LINE:,} bytes; save the "
                "file as comma-separated text with a line for every row."
            )
        self.ended += part.count(b"\n")
        last = max(part.rfind(b"\n"), part.rfind(b"\r"))
        self.open = len(part) - last - 1 if ends else self.open + len(part)


def _guess_delimiter(text: str) -> str:
    lines = text[:100_000].splitlines()[:1000]
    pairs = {line.count(PAIR) for line in lines[:-1] if line} or {text.count(PAIR)}
    if len(pairs) == 1 and min(pairs) > 0 and not any("\t" in line for line in lines):
        return PAIR
    line = re.sub(r'"[^"]*"', "", text[:100_000]).partition("\n")[0]
    if not any(sign in line for sign in DELIMITERS) and _spaced(lines):
        return " "
    return max(DELIMITERS, key=line.count)


def _spaced(lines: list[str]) -> bool:
    """Return whether lines are numbers with one space between them, as many in each.

    Example:
      >>> _spaced(["1 7 5", "2 7 3", "2 9"]), _spaced(["Red 7", "A 8"]), _spaced(["1 2", "1", ""])
      (True, False, False)
    """
    rows = [line.rstrip(" ") for line in lines[:-1] if line.strip()]
    form = re.compile(r"-?\d+(\.\d+)?( -?\d+(\.\d+)?)+")
    return len({row.count(" ") for row in rows}) == 1 and all(map(form.fullmatch, rows))


def _check_header(file: str, names: list[str]) -> list[str]:
    if len(names) > MAX_COLUMNS:
        raise UserError(f"{file}, row 1: {len(names):,} columns; keep at most {MAX_COLUMNS:,}.")
    counts = Counter(names)
    for name in names:
        if not name or counts[name] > 1:
            raise UserError(
                f"{file}, row 1: the column name {name[:80]!r} is "
                f"{'used twice' if name else 'empty'}; give every column its own name."
            )
        if len(name) > MAX_NAME or _CONTROL.search(name):
            raise UserError(
                f"{file}, row 1: the column name {name[:80]!r} is too long or has control "
                "characters; give the column a short plain name."
            )
    return names


def _starts(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); check the file.") from None


def _no_bomb(path: Path, unpacked: int) -> None:
    size = path.stat().st_size
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * size:
        raise UserError(
            f"{path.name} would unpack from {size:,} to more than {unpacked:,} bytes, which looks "
            "like a decompression bomb; unpack it yourself if you trust it."
        )
