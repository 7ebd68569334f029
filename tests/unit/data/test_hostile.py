"""Malformed and hostile folders: one sentence and exit code 2, or a counted warning.

Each case is made from a good folder of 8 items and 40 sessions and run through the command line,
with and without --strict. A case that only warns without --strict says how many rows it counts.
"""

import csv
import gzip
import io
import os
import signal
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from jmrec.main import main
from jmrec.usage import measured


@dataclass(frozen=True)
class Case:
    """A folder's fault.

    Attributes:
      name: For pytest.
      make: Called with the good folder; breaks it.
      says: What the sentence must hold.
      counts: Without --strict: what the warning must hold beside that; "" for an error all the
        same.
      too_many: Whether it is one because more than half of the rows have the fault.
    """

    name: str
    make: Callable[[Path], None]
    says: str
    counts: str = ""
    too_many: bool = False


def cell(file: str, row: int, column: int, value: str) -> Callable[[Path], None]:
    """Set one cell of a CSV; rows as a spreadsheet counts them, the header is 1."""

    def make(shop: Path) -> None:
        path = shop / f"{file}.csv"
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
        rows[row - 1][column] = value
        with path.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(rows)

    return make


def item(row: int, column: int, value: str) -> Callable[[Path], None]:
    return cell("items", row, column, value)


def event(row: int, column: int, value: str) -> Callable[[Path], None]:
    return cell("interactions", row, column, value)


def whole_column(file: str, column: int, change: Callable[[str], str]) -> Callable[[Path], None]:
    """Change every cell of a column but the header."""

    def make(shop: Path) -> None:
        path = shop / f"{file}.csv"
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        for row in rows[1:]:
            row[column] = change(row[column])
        with path.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(rows)

    return make


def data(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda shop: void((shop / name).write_bytes(content))


def lines(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the bytes of a file."""
    return lambda shop: void((shop / file).write_bytes(change((shop / file).read_bytes())))


def instead(name: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    """Remove a file and put something else in its place."""

    def make(shop: Path) -> None:
        (shop / name).unlink()
        put(shop / name)

    return make


def picture(content: bytes) -> Callable[[Path], None]:
    return data("images/2.png", content)


def both(*makes: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda shop: void([make(shop) for make in makes])


def void(_: object) -> None:
    return None


def toml(key: str, value: str, table: str = "dataset") -> Callable[[Path], None]:
    return lines(
        "dataset.toml",
        lambda d: d.replace(f"[{table}]".encode(), f"[{table}]\n{key} = {value}".encode()),
    )


def secret(path: Path) -> Path:
    """A file outside the folder."""
    outside = path.parent.parent / "secret.csv"
    outside.write_text("item_id,title\nstolen,password\n")
    return outside


def huge_png(side: int) -> bytes:
    """A whole, valid PNG of one bit a pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 2) * side), 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def png_with_text_bomb() -> bytes:
    """A small picture with 50 MB of compressed comment."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    plain = huge_png(8)
    return (
        plain[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000))) + plain[33:]
    )


def gzip_bomb(path: Path) -> None:
    """2 GB in 2 MB: many small members, one after the other."""
    plain = path.with_name("items.csv")
    path.write_bytes(gzip.compress(plain.read_bytes()) + gzip.compress(b"a,b\n" * 2_500_000) * 200)
    plain.unlink()


def parquet_bomb(path: Path) -> None:
    """Many row groups of the same long text."""
    table = pa.table({"item_id": ["x" * 100_000] * 100, "title": ["t"] * 100})
    with pa.parquet.ParquetWriter(
        path, table.schema, compression="zstd", use_dictionary=False
    ) as writer:
        for _ in range(30):
            writer.write_table(table)


def parquet(path: Path, columns: dict[str, object]) -> None:
    pa.parquet.write_table(pa.table(columns), path)


ITEMS, EVENTS = "items.csv", "interactions.csv"
FORMULA = "=cmd|' /C calc'!A0"
LEFT, EMPTY, KEPT, MENDED = (
    "(rows left out: {})", "(cells taken as empty: {})", "(cells kept as they are: {})",
    "(cells mended: {})",
)  # fmt: skip

CASES = [
    # Paths that leave the folder, and files that are none.
    Case("picture-parent", item(4, 3, "../../../etc/passwd"), "items.csv, row 4: the picture '../../../etc/passwd' lies outside images/; give a path", EMPTY.format(1)),
    Case("picture-absolute", item(4, 3, "/etc/passwd"), "items.csv, row 4: the picture '/etc/passwd' lies outside", EMPTY.format(1)),
    Case("picture-link", instead("images/2.png", lambda p: p.symlink_to("/etc/passwd")), "items.csv, row 4: the picture 'images/2.png' lies outside", EMPTY.format(1)),
    Case("picture-loop", instead("images/2.png", lambda p: p.symlink_to(p.name)), "items.csv, row 4: the picture 'images/2.png' can not be read", EMPTY.format(1)),
    Case("picture-pipe", instead("images/2.png", os.mkfifo), "items.csv, row 4: the picture 'images/2.png' can not be read", EMPTY.format(1)),
    Case("picture-dots", item(4, 3, "images/../images/2.png"), "items.csv, row 4: the picture 'images/../images/2.png' has '..' in it; give a plain path", EMPTY.format(1)),
    Case("picture-nul", item(4, 3, "a\0b.png"), "items.csv, row 4: the picture 'a\\x00b.png' can not be read", EMPTY.format(1)),
    Case("table-link", instead(ITEMS, lambda p: p.symlink_to(secret(p))), "items.csv is a link that leaves the folder; copy the file itself"),
    Case("table-loop", instead(EVENTS, lambda p: p.symlink_to(p.name)), "interactions.csv can not be read (a loop of links?); check"),
    Case("table-pipe", instead(EVENTS, os.mkfifo), "interactions.csv is a pipe or a device, not a file; put"),
    Case("table-folder", instead(ITEMS, Path.mkdir), "items.csv is a folder, not a file; put"),
    Case("table-missing", lambda s: (s / EVENTS).unlink(), "interactions.csv does not exist; give the table that name, or name the table in dataset.toml"),
    Case("table-twice", lambda s: parquet(s / "items.parquet", {"item_id": ["a"]}), "has both items.csv and items.parquet; keep one"),
    Case("table-elsewhere", toml("file", '"../secret.csv"', "items"), "[items]: file is '../secret.csv'; give the name of a file that lies in the folder"),
    Case("toml-pipe", instead("dataset.toml", os.mkfifo), "dataset.toml is a pipe or a device"),
    Case("toml-link", instead("dataset.toml", lambda p: p.symlink_to(secret(p))), "dataset.toml is a link that leaves the folder"),
    Case("toml-huge", lines("dataset.toml", lambda d: d + b"#" * 2_000_000), "dataset.toml has more than 1,000,000 bytes; write a shorter"),
    Case("toml-deep", lines("dataset.toml", lambda d: d + b"x = " + b"[" * 20_000), "dataset.toml: ", ""),
    # Bombs.
    Case("gzip-bomb", lambda s: gzip_bomb(s / "items.csv.gz"), "items.csv.gz would unpack from"),
    Case("parquet-bomb", both(lambda s: (s / ITEMS).unlink(), lambda s: parquet_bomb(s / "items.parquet")), "items.parquet would unpack from"),
    Case("picture-30000", picture(huge_png(30_000)), "items.csv, row 4: the picture 'images/2.png' has more than 40,000,000 pixels; mend", EMPTY.format(1)),
    Case("picture-comment", picture(png_with_text_bomb()), "items.csv, row 4: the picture 'images/2.png' does not decode", EMPTY.format(1)),
    # Pictures that are none.
    Case("picture-html", picture(b"<!DOCTYPE html><title>404</title>"), "items.csv, row 4: the picture 'images/2.png' is none of PNG, JPEG, WEBP, GIF, BMP, TIFF but a web page", EMPTY.format(1)),
    Case("picture-cut", lines("images/2.png", lambda d: d[:60]), "items.csv, row 4: the picture 'images/2.png' does not decode; mend", EMPTY.format(1)),
    Case("picture-void", picture(b""), "items.csv, row 4: the picture 'images/2.png' is an empty file; mend", EMPTY.format(1)),
    Case("picture-all-gone", whole_column("items", 3, lambda c: "no.png"), "items.csv, row 2: the picture 'no.png' can not be read from images/; put the file there or empty the cell", too_many=True),
    # Files as a whole.
    Case("empty", data(ITEMS, b""), "items.csv: no header row can be read; save"),
    Case("header-only", data(EVENTS, b"item_id,session_id\n"), "interactions.csv has no rows; give"),
    Case("header-missing", lines(EVENTS, lambda d: d.partition(b"\r\n")[2]), "looks like a value and not like the name of a column; put"),
    Case("header-twice", lines(ITEMS, lambda d: d.replace(b"secret", b"title", 1)), "items.csv, row 1: the column name 'title' is used twice; give"),
    Case("header-control", lines(ITEMS, lambda d: d.replace(b"secret", b"\x1b[2J", 1)), "items.csv, row 1: the column name '\\x1b[2J' is too long or has control characters; give"),
    Case("header-wide", lines(ITEMS, lambda d: b",".join(b"c%d" % i for i in range(50_000)) + b"\n"), "items.csv, row 1: 50,000 columns; keep"),
    Case("header-quotes", lines(ITEMS, lambda d: b'"' + d), "items.csv"),
    Case("nul-file", data(ITEMS, bytes(5_000)), "items.csv, row 1: the column name"),
    Case("excel", data(ITEMS, b"PK\x03\x04" + bytes(100)), "items.csv is a zip or Excel file; save"),
    Case("gzip-cut", instead(ITEMS, lambda p: p.write_bytes(gzip.compress(bytes(5_000))[:-9])), "items.csv can not be unpacked"),
    Case("parquet-broken", data(ITEMS, b"PAR1" + bytes(100) + b"PAR1"), "items.csv is no whole Parquet file"),
    Case("parquet-nested", both(lambda s: (s / ITEMS).unlink(), lambda s: parquet(s / "items.parquet", {n: [{"a": 1}] * 8 for n in ("item_id", "title", "description", "image", "tags", "brand", "price")})), "items.parquet: the column 'item_id' holds struct<a: int64>, which is no plain value; write"),
    Case("quote-open", lines(EVENTS, lambda d: d.replace(b"\r\ns3,", b'\r\n"s3,', 1)), "a quote is opened and never closed; close or double it"),
    Case("utf8-cut", lines(ITEMS, lambda d: d.replace("Töy, no. 5".encode(), b"T\xc3y, no. 5")), "items.csv, row 7: a cell is not UTF-8; name the file's encoding as encoding = ", "broken: 1)"),
    Case("latin1", lines(ITEMS, lambda d: d.decode().encode("latin-1")), "items.csv, row 2: a cell is not UTF-8, so the file is read as cp1252; if that is right, write encoding", "under [dataset] in dataset.toml, else"),
    Case("encoding-none", toml("encoding", '"zip_codec"'), "can not be read as 'zip_codec', which is no text encoding; write"),
    # Rows.
    Case("line-huge", lines(ITEMS, lambda d: d + b"i9," + b"x" * 40_000_000), "items.csv, line 17 has more than 16,777,216 bytes; save"),
    Case("number-5000", item(6, 6, "9" * 5_000), "items.csv, row 6: price is '" + "9" * 40 + "'..., not a number", EMPTY.format(1)),
    Case("row-short", lines(EVENTS, lambda d: d.replace(b",view,3.5", b"", 1)), "interactions.csv, row 2: 4 cells where the header has 6; check the delimiters", LEFT.format(1)),
    Case("row-long", lines(EVENTS, lambda d: d.replace(b",view,3.5", b",view,3.5,x", 2)), "interactions.csv, row 2: 7 cells where the header has 6", LEFT.format(2)),
    Case("rows-all-ragged", lines(EVENTS, lambda d: d.replace(b",3.5", b",3,5")), "interactions.csv, row 2: 7 cells where the header has 6; check the delimiters and quotes of this row and the one before", too_many=True),
    Case("quote-swallows", lines(EVENTS, lambda d: d.replace(b"s2,", b'"s2,', 1).replace(b"s30,", b'"s30,', 1)), "interactions.csv, row 8: session_id holds a line break, so a quote is opened"),
    # Ids.
    Case("id-empty", item(5, 0, " "), "items.csv, row 5: item_id is empty; fill", LEFT.format(1)),
    Case("id-twice", item(3, 0, "i0"), "items.csv, row 3: the item id 'i0' stands in row 2 already; give", LEFT.format(1)),
    Case("id-10000", item(5, 0, "x" * 10_000), "items.csv, row 5: item_id has more than 1,000 characters; give", LEFT.format(1)),
    Case("id-control", item(5, 0, "i\x1b[31m3"), "items.csv, row 5: item_id is 'i\\x1b[31m3', which holds control", LEFT.format(1)),
    Case("id-nul", event(5, 2, "i\x001"), "interactions.csv, row 5: item_id is 'i\\x001', which holds control", LEFT.format(1)),
    Case("id-bom-in-the-middle", event(5, 2, "\ufeffi1"), "interactions.csv, row 5: item_id is '\\ufeffi1', which holds characters of no width", MENDED.format(1)),
    Case("id-formula", both(item(5, 0, FORMULA)), f"items.csv, row 5: item_id is \"{FORMULA}\", which a spreadsheet would run as a formula; remove", KEPT.format(1)),
    Case("id-case", item(5, 0, "I1"), "items.csv, row 5: item_id 'I1' differs from that of row 3 only in case, white space or Unicode's normal form; make", KEPT.format(1)),
    Case("id-normal-form", both(item(3, 0, "café"), item(5, 0, "cafe\u0301")), "items.csv, row 5: item_id 'café' differs from that of row 3 only in", KEPT.format(1)),
    Case("id-unknown", event(7, 2, "i99"), "interactions.csv, row 7: the item id 'i99' is not in items.csv; add", LEFT.format(1)),
    Case("id-other-case", event(7, 2, "I1"), "interactions.csv, row 7: the item id 'I1' is not in items.csv, which has 'i1'; add", LEFT.format(1)),
    Case("ids-all-unknown", whole_column("interactions", 2, lambda c: f"{c}.0x"), "is not in items.csv; add the item or remove the event", too_many=True),
    Case("session-empty", event(7, 0, ""), "interactions.csv, row 7: session_id is empty; fill", LEFT.format(1)),
    Case("session-10000", event(7, 0, "s" * 10_000), "interactions.csv, row 7: session_id has more than 1,000 char", LEFT.format(1)),
    Case("session-of-two", event(3, 1, "u99"), "belongs to another user in row", LEFT.format(1)),
    # Numbers, times, texts.
    Case("price-nan", item(6, 6, "nan"), "items.csv, row 6: price is 'nan', a word for nothing", "(cells taken as empty: 'nan' 1)"),
    Case("price-infinite", item(6, 6, "1e999"), "items.csv, row 6: price is '1e999', not a number; write", EMPTY.format(1)),
    Case("price-comma", whole_column("items", 6, lambda c: c.replace(".", ",")), "items.csv, row 2: price is '0,5', not a number; write decimal = \",\" under [dataset] in dataset.toml", too_many=True),
    Case("rating-text", event(7, 5, "5 stars"), "interactions.csv, row 7: rating is '5 stars', not a number", EMPTY.format(1)),
    Case("time-text", event(7, 3, "soon"), "interactions.csv, row 7: timestamp is 'soon', not a time; write unix seconds or ISO 8601", LEFT.format(1)),
    Case("time-infinite", event(7, 3, "inf"), "interactions.csv, row 7: timestamp is 'inf', not a time", LEFT.format(1)),
    Case("time-empty", event(7, 3, ""), "interactions.csv, row 7: timestamp is empty; fill", LEFT.format(1)),
    Case("time-milliseconds", event(7, 3, "1700000000000"), "interactions.csv, row 7: timestamp is '1700000000000', too large for unix seconds; divide by 1000", LEFT.format(1)),
    Case("times-milliseconds", whole_column("interactions", 3, lambda c: f"{1_700_000 + int(c)}000000"), "such numbers are read as milliseconds; if that is right, write time_format = \"ms\" under [dataset] in dataset.toml", 'else "s"'),
    Case("time-future", event(7, 3, "9999-12-31T23:59:59Z"), "interactions.csv, row 7: timestamp is '9999-12-31T23:59:59Z', outside the years 1900 to 2200; mend", LEFT.format(1)),
    Case("time-past", event(7, 3, "0001-01-01"), "interactions.csv, row 7: timestamp is '0001-01-01', outside the years", LEFT.format(1)),
    Case("times-dates", whole_column("interactions", 3, lambda c: "20261121"), "interactions.csv, row 2: timestamp is '20261121', and such numbers are read as dates written as %Y%m%d; if that is right, write time_format", 'else "s"'),
    Case("text-formula", item(5, 1, FORMULA), "items.csv, row 5: title is \"=cmd|", KEPT.format(1)),
    Case("text-control", item(5, 1, "a\x1b]0;b\x07"), "items.csv, row 5: title holds control characters, which are removed; mend", MENDED.format(1)),
    Case("text-huge", item(5, 1, "x" * 3_000_000), "items.csv, row 5: title has more than 100,000 characters and is cut; check", MENDED.format(1)),
    Case("category-huge", item(5, 5, "x" * 3_000), "items.csv, row 5: brand is '" + "x" * 40 + "'..., which is too long", EMPTY.format(1)),
    Case("event-control", event(7, 4, "vi\x00ew"), "interactions.csv, row 7: event is 'vi\\x00ew', which is too long or holds", EMPTY.format(1)),
    Case("window-backwards", both(toml("available_from", '"secret"', "items"), toml("available_until", '"price"', "items"), whole_column("items", 7, lambda c: ""), item(3, 7, "2026-01-01")), "items.csv, row 3: price is before secret; mend", EMPTY.format(1)),
    # Descriptions.
    Case("toml-broken", data("dataset.toml", b"[dataset"), "dataset.toml: ", ""),
    Case("toml-markup", both(toml("k_core", "true")), "dataset.toml, [dataset]: k_core must be a whole number; mend"),
    Case("toml-name", lines("dataset.toml", lambda d: d.replace(b'"shop"', b'"a\\u001b[2Jb"')), "dataset.toml, [dataset]: name must be short and on one line; give"),
    Case("toml-delimiter", toml("delimiter", '"ab"'), "dataset.toml, [dataset]: delimiter must be one character"),
    Case("k-core-too-large", toml("k_core", "1000"), "k_core = 1000 and min_session_length = 2 leave no session in training; make"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A pipe that is read would be waited for without end."""

    def stop(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def told(capsys: pytest.CaptureFixture[str], start: str) -> list[str]:
    """Return what was said on stderr, every line of it one sentence."""
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    found = err.splitlines()
    for line in found:
        assert line.startswith(start)
        assert line.endswith((".", "?"))
        assert len(line) < 500
        assert line.isprintable()
    return [line.removeprefix(start) for line in found]


def test_there_are_enough_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_strict(
    case: Case, tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop")
    case.make(shop)
    before = files(tmp_path)
    assert main(["data", "prepare", str(shop), "--out", str(tmp_path / "o/out"), "--strict"]) == 2
    (sentence,) = told(capsys, "jmrec: ")
    assert case.says in sentence
    assert ";" in sentence or ":" in sentence
    assert files(tmp_path) == before


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_without_strict(
    case: Case, tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop")
    case.make(shop)
    before = files(tmp_path)
    if case.counts:
        assert main(["data", "check", str(shop)]) == 0
        warnings = told(capsys, "jmrec: warning: ")
        (warning,) = [each for each in warnings if case.says in each]
        assert case.counts in warning
        # An item that is left out takes its events with it; nothing else may be said.
        others = [each for each in warnings if each != warning]
        assert all("is not in items.csv" in each for each in others)
    else:
        assert main(["data", "prepare", str(shop), "--out", str(tmp_path / "o/out")]) == 2
        (sentence,) = told(capsys, "jmrec: ")
        assert case.says in sentence
        assert ("rows are like that)" in sentence) == case.too_many
    assert files(tmp_path) == before


def test_a_good_folder_says_nothing(
    tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop")
    assert main(["data", "prepare", str(shop), "--out", str(tmp_path / "out"), "--strict"]) == 0
    assert told(capsys, "jmrec: ") == []


@pytest.mark.parametrize("name", ["gzip-bomb", "parquet-bomb", "picture-30000", "text-huge"])
def test_memory_is_bounded(name: str, tmp_path: Path, make_shop: Callable[..., Path]) -> None:
    """In a process of its own, whose peak is compared with that of the good folder."""
    shop = make_shop(tmp_path / "shop")

    def peak() -> float:
        run = measured([sys.executable, "-m", "jmrec", "data", "check", str(shop)])
        assert run.code in (0, 2)
        assert "Traceback" not in run.said
        return run.peak_bytes / 1e6

    good = peak()
    next(case for case in CASES if case.name == name).make(shop)
    assert peak() < good + 250


def test_markup_in_names_is_text(
    tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich would take [/red] for a tag that closes nothing."""
    shop = make_shop(tmp_path / "shop")
    for name, old, new in [
        ("dataset.toml", '"shop"', '"[/red]"'),
        ("dataset.toml", '"tags"', '"[/blue]"'),
        ("items.csv", "tags", "[/blue]"),
    ]:
        path = shop / name
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert main(["data", "check", str(shop)]) == 0
    out = capsys.readouterr().out
    assert "[/red]" in out
    assert "[/blue]" in out
