"""A CSV that is read in stretches is what it is when read at once, whatever it holds."""

import csv
import gzip
import io
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data import csv_rows, decoding, quotes, sources, tables
from jmrec.data.decoding import Text, decode, is_utf8
from jmrec.data.findings import Findings
from jmrec.data.quotes import Quotes, tidy_quotes
from jmrec.data.sources import Form, open_source
from jmrec.data.tables import read_table
from jmrec.errors import UserError

_cells = st.text('ab",\n\r é', max_size=5)
_rows = st.lists(st.lists(_cells, min_size=1, max_size=4), max_size=8)
_awkward = st.sampled_from(
    ["a", "12", "", " b ", '"c, d"', '"e""f"', "ü", "\ufffd", '"open', 'shut"', '"two\nlines"',
     '"x, 5\ny, 6"', '5" nail', ' "z, y"', '"q" ', '"e\\"', '"g \\"h\\" i"', '"\\\\"', '""',
     '"""', '"Red" hat', '"a\rb"', '"l\r\nm"', "a\0b"]
)  # fmt: skip
NAMES = ["item_id", "title", "more"]
PLAIN = Form()


@pytest.fixture
def small() -> Iterator[pytest.MonkeyPatch]:
    """Parts of a few bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_PART", 7)
        patch.setattr(decoding, "_PART", 3)
        patch.setattr(quotes, "_NEAR", 60)
        yield patch


def read(path: Path, block: int | None, form: Form = PLAIN, texts: list[str] = NAMES) -> Any:
    """Return cells, row numbers and warnings, or the error."""
    said = Findings()
    try:
        source = open_source(path.parent, "items", path.name, form)
        names = [name for name in source.header if name in NAMES]
        table = read_table(source, names, said, texts=texts, block=block)
    except UserError as error:
        return str(error)
    cells = {name: column.to_pylist() for name, column in table.columns.items()}
    return cells, table.rows.tolist(), said.warnings


def write(path: Path, rows: list[list[str]], end: str = "\n") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=end).writerows([NAMES, *rows])


@settings(max_examples=150, deadline=None)
@given(
    rows=_rows,
    raw=st.text('a",\n', max_size=40),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from(["", "none"]),
    block=st.integers(1, 30),
)
def test_stretches_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    raw: str,
    end: str,
    quoting: str,
    block: int,
) -> None:
    """Rows of any length, quoted well, then signs in any order."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([NAMES, *rows])
    path = tmp_path_factory.mktemp("csv") / "items.csv"
    path.write_bytes((text.getvalue() + raw).encode())
    form = Form(quoting=quoting)
    assert read(path, block, form) == read(path, None, form)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(_awkward, min_size=3, max_size=3), min_size=1, max_size=25),
    end=st.sampled_from(["\n", "\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8"] * 4 + ["utf-8-sig", "cp1252", "utf-16", "gb18030"]),
    given_=st.sampled_from(["", "", "", "cp1252", "utf-8", "utf-16", "idna", "rot13"]),
    told=st.booleans(),
    wide=st.booleans(),
    packed=st.booleans(),
    damage=st.one_of(st.none(), st.tuples(st.integers(0, 300), st.binary(max_size=2))),
    block=st.integers(1, 200),
)
def test_so_are_those_of_awkward_files(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    end: str,
    encoding: str,
    given_: str,
    told: bool,
    wide: bool,
    packed: bool,
    damage: tuple[int, bytes] | None,
    block: int,
) -> None:
    lines = [f"i{i},{','.join(row[: 2 + wide])}{',' * wide}" for i, row in enumerate(rows)]
    text = end.join(["sep=,"] * told + [",".join(NAMES) + "," * wide, *lines])
    data = text.encode(encoding, "replace")
    if damage:
        data = data[: damage[0]] + damage[1] + data[damage[0] :]
    path = tmp_path_factory.mktemp("csv") / "items.csv"
    path.write_bytes(gzip.compress(data) if packed else data)
    form, texts = Form(encoding=given_), ["title", "more"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quotes, "_NEAR", 60)
        whole = read(path, None, form, texts)
        patch.setattr(sources, "_PART", 7)
        patch.setattr(decoding, "_PART", 3)
        assert read(path, block, form, texts) == whole


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_was_written_is_read(tmp_path: Path, small: pytest.MonkeyPatch, end: str) -> None:
    """Cells of several lines, delimiters and quotes, by the writer of Python."""
    draw = random.Random(0)
    words = ["red", "a, b", 'say "no"', "two\nlines", "three\n\nlines, and more", "é", ""]
    rows = [[f"i{i}", draw.choice(words).strip(), draw.choice(words)] for i in range(80)]
    rows[40][0] = "\ufeffi40"  # which a reader may take for the mark of a file's beginning
    write(tmp_path / "items.csv", rows, end)
    for block in (1, 50, 400):
        cells, _, warnings = read(tmp_path / "items.csv", block)
        assert list(map(list, zip(*cells.values()))) == rows
        assert warnings == []


def test_row_numbers_go_on(tmp_path: Path) -> None:
    """Rows that are left out are named by the numbers of a spreadsheet, in each stretch."""
    rows = [f"i{k},{'a,b' if k % 7 == 5 else k}" for k in range(40)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *rows]))
    cells, numbers, warnings = read(tmp_path / "items.csv", 40)
    kept = [k for k in range(40) if k % 7 != 5]
    assert cells["item_id"] == [f"i{k}" for k in kept]
    assert numbers == [k + 2 for k in kept]
    assert warnings[0].startswith("items.csv, row 7: 3 cells where the header has 2")


def test_faults_of_later_stretches_have_their_rows(
    tmp_path: Path, small: pytest.MonkeyPatch
) -> None:
    """A quote, a broken character, a cell with a line break: each far behind the first stretch."""
    rows = [f"i{k},hät {k},{k}" for k in range(200)]
    rows[100] = 'i100,"hat,7'
    rows[150] = "i150,h\udcffat,8"
    path = tmp_path / "items.csv"
    text = "\n".join([",".join(NAMES), *rows, ""])
    path.write_bytes(text.encode("utf-8", "surrogateescape") + b'i900,"a, b",9\n' * 3)
    warnings = read(path, 70)[2]
    assert "items.csv, row 102: a quote is opened and not closed" in warnings[0]
    assert "items.csv, row 152: a cell is not UTF-8" in warnings[1]
    lines = text.replace('"hat', "hat").replace("h\udcffat", '"h\nat"')
    path.write_bytes(lines.encode())
    assert read(path, 70, texts=["more"]).startswith("items.csv, row 152: title holds a line break")
    text = text.replace("hät", "hat").replace("h\udcffat", "größer")
    path.write_bytes(text.encode("cp1252"))
    assert "items.csv, row 152: a cell is not UTF-8, so" in read(path, 70)[2][0]


@given(st.binary(max_size=40), st.booleans())
def test_utf8_in_parts(data: bytes, whole: bool) -> None:
    try:
        data.decode("utf-8")
        valid = True
    except UnicodeDecodeError as error:
        valid = not whole and error.reason == "unexpected end of data"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding, "_PART", 3)
        assert is_utf8(data, whole=whole) == valid


@settings(max_examples=150)
@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.tuples(
            st.text(max_size=30),
            st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "cp1251", "shift_jis", "big5"]),
        ).map(lambda pair: pair[0].encode(pair[1], "replace")),
    ),
    encoding=st.sampled_from(["", "", "utf-8", "utf-16", "cp1252", "cp932", "gb18030", "utf-32"]),
    part=st.integers(1, 9),
)
def test_text_in_parts(data: bytes, encoding: str, part: int) -> None:
    parts = [data[at : at + part] for at in range(0, len(data), part)]
    text, (whole, name) = Text("t.csv", lambda: parts, encoding), decode("t.csv", data, encoding)
    if decoding.without_told(data) != data:
        return
    assert b"".join(text.parts()) == whole
    assert text.encoding == name
    assert text.is_ascii == data.isascii()
    if name == "utf-8" and not text.is_utf8:
        with pytest.raises(UnicodeDecodeError) as error:
            data.decode()
        assert text.broken == error.value.start


@pytest.mark.parametrize("encoding", ["punycode", "idna", "rot13", "no such"])
def test_what_is_no_encoding_of_texts_is_refused(encoding: str) -> None:
    with pytest.raises(UserError, match=f"t.csv can not be read as '{encoding}', which is no text"):
        Text("t.csv", lambda: [b"item_id,title\n" * 3], encoding)


@pytest.mark.parametrize("part", [1, 2, 3, 100])
def test_lines_of_text_in_parts(part: int) -> None:
    data = b"a" * 30 + b"\r\nb\rc\n\r\n\n\rd"
    text = Text("t.csv", lambda: [data[at : at + part] for at in range(0, len(data), part)])
    for place in range(len(data)):
        assert text.line_of(place) == len(data[:place].splitlines(keepends=True)) - (
            not data[:place].endswith((b"\r", b"\n")) and place > 0
        )


@settings(max_examples=250, deadline=None)
@given(
    rows=st.lists(st.lists(_awkward, min_size=3, max_size=3), min_size=1, max_size=20),
    end=st.sampled_from(["\n", "\r\n"]),
    sizes=st.lists(st.integers(1, 60), min_size=1),
)
def test_quotes_in_parts(rows: list[list[str]], end: str, sizes: list[int]) -> None:
    data = end.join(map(",".join, rows)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quotes, "_NEAR", 40)
        whole = tidy_quotes(data, ",", 3, [0])
        some, out = Quotes(data, ",", 3, [0]), b""
        swallowed: list[tuple[int, int]] = []
        doubtful: list[int] = []
        begin = 0
        while begin < len(data):
            size = sizes[begin % len(sizes)]
            found = some.more(data[begin : begin + size], last=begin + size >= len(data))
            begin += size
            swallowed += [(a + len(out), b + len(out)) for a, b in found.swallowed]
            doubtful += [place + len(out) for place in found.doubtful]
            out += found.data
            assert not out or begin >= len(data) or out.endswith(b"\n")
    assert (out, swallowed, doubtful) == (whole.data, whole.swallowed, whole.doubtful)
    assert some.held == 0


def test_no_file_is_too_large(tmp_path: Path, small: pytest.MonkeyPatch) -> None:
    """Neither are columns; what can not be cut is, and the sentence says why."""
    small.setattr(csv_rows, "MAX_BYTES", 2_000)
    small.setattr(tables, "MAX_BYTES", 500)
    path = tmp_path / "items.csv"
    rows = [[f"i{k}", "a\nb" if k % 9 else "a, b", "c"] for k in range(400)]
    write(path, rows)
    source = open_source(tmp_path, "items", "items.csv")
    table = read_table(source, NAMES, Findings(), texts=["title"], block=300)
    assert table.columns["title"].type == pa.large_string()
    assert table.columns["title"].to_pylist() == [row[1] for row in rows]
    assert path.stat().st_size > 2_000
    path.write_text("\r".join([",".join(NAMES), *['i1,"b, c",2'] * 400]))
    assert "items.csv: more than 2,000 bytes can not be told apart" in read(path, 300)
    path.write_text(",".join(NAMES) + '\ni0,"a,1\n' + "i1,b,2\n" * 400)
    assert "can not be told apart" in read(path, 300)
    path.write_text(",".join(NAMES) + "\ni0,a\0,1\n" + "i1,b,2\n" * 400)
    assert "can not be told apart" in read(path, 300)


def test_a_file_is_not_held(tmp_path: Path) -> None:
    """70 MB of a column that is not read need no 70 MB."""
    path = tmp_path / "items.csv"
    with path.open("w") as file:
        file.write("item_id,title,more,words\n")
        file.writelines(f'i{k},"hat, {k}",{k},"{"word " * 350}"\n' for k in range(40_000))
    size = path.stat().st_size
    assert size > 70e6
    source = open_source(tmp_path, "items", "items.csv")
    tracemalloc.start()
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    table = read_table(source, ["item_id", "more"], Findings(), texts=[], block=2**21)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 40_000
    assert peak < size / 2
    assert pool.bytes_allocated() - before < size / 10
