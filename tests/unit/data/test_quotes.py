"""Quotes as they come: the rows that are read are those that were written, in whatever form."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jmrec.data import quotes
from jmrec.data.folder import Raw, read_folder
from jmrec.data.guess import write_guess
from jmrec.data.quotes import tidy_quotes
from jmrec.errors import UserError
from jmrec.main import main

HEAD = ["item_id", "title", "price", "description"]
TOML = '[items]\nnumber_columns = ["price"]\n'


def _rows(count: int = 60) -> list[list[str]]:
    draw = random.Random(0)
    words = ["red", "big", "shoe", "hat", "for, rain", "12 inch"]
    return [
        [
            f"i{i}",
            f"{draw.choice(words)} {i}",
            f"{i}.5",
            f"{draw.choice(words)}; {draw.choice(words)}",
        ]
        for i in range(count)
    ]


def _quoted(cell: str, escape: str = '""') -> str:
    return f'"{cell.replace(chr(34), escape)}"' if set(cell) & set(',"\n') else cell


def _read(folder: Path, text: str, toml: str = TOML) -> Raw:
    folder.mkdir(exist_ok=True)
    (folder / "items.csv").write_text(text, encoding="utf-8", newline="")
    events = "".join(f"i{k % 9},u{k // 3}\n" for k in range(60))
    (folder / "interactions.csv").write_text("item_id,user_id\n" + events)
    (folder / "dataset.toml").write_text(toml)
    return read_folder(folder)


def _same(raw: Raw, rows: list[list[str]]) -> None:
    assert raw.items.ids == [row[0] for row in rows]
    assert raw.items.titles == [row[1] for row in rows]
    assert raw.items.number["price"].tolist() == [float(row[2]) for row in rows]
    assert raw.items.text["description"] == [row[3] for row in rows]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "lone",
    [
        {5: '"Big shoe', 35: '"Red hat'},  # thirty rows between them
        {5: '"Big shoe', 35: 'Monitor 24"'},  # the second one closes a cell
        {40: '"Big shoe'},  # never closed
        {5: '"a', 6: '"b', 7: '"c', 50: '"d'},
    ],
)
def test_a_lone_quote_swallows_no_row(tmp_path: Path, lone: dict[int, str], end: str) -> None:
    """Between them stand cells that are quoted as they should be."""
    rows = _rows()
    for i, title in lone.items():
        rows[i][1] = title
    lines = [
        ",".join(c if c == lone.get(i) else _quoted(c) for c in row) for i, row in enumerate(rows)
    ]
    raw = _read(tmp_path, end.join([",".join(HEAD), *lines, ""]))
    _same(raw, rows)
    assert raw.item_row.tolist() == list(range(2, 62))
    (said,) = raw.warnings
    assert f"items.csv, row {min(lone) + 2}: a quote is opened and not closed" in said
    assert 'write quoting = "none" under [dataset]' in said


@pytest.mark.parametrize("title", ['"Red" hat', '"Red hat" 7', '"a" or b'])
def test_a_quoted_word_at_the_start_keeps_its_quotes(tmp_path: Path, title: str) -> None:
    """Where a cell goes on behind the quote, the quotes are signs of it."""
    rows = _rows()
    rows[7][1] = rows[30][1] = title
    lines = [",".join(c if c == title else _quoted(c) for c in row) for row in rows]
    raw = _read(tmp_path, "\n".join([",".join(HEAD), *lines, ""]))
    _same(raw, rows)
    assert "items.csv, row 9: a quote is opened" in raw.warnings[0]


@pytest.mark.parametrize("table", ["dataset", "items"])
def test_quotes_may_be_characters(tmp_path: Path, table: str) -> None:
    rows = [[cell.replace(",", "") for cell in row] for row in _rows()]
    for i, title in {3: '"Big" shoe', 4: '"hat', 8: '"', 9: '"boot"'}.items():
        rows[i][1] = title
    text = "\n".join(",".join(row) for row in [HEAD, *rows])
    toml = {"dataset": f'[dataset]\nquoting = "none"\n{TOML}', "items": f'{TOML}quoting = "none"\n'}
    raw = _read(tmp_path, text, toml[table])
    _same(raw, rows)
    assert raw.warnings == []
    with pytest.raises(UserError, match=r'quoting must be "none" or left out'):
        _read(tmp_path, text, f'{TOML}quoting = "some"\n')


@pytest.mark.parametrize(
    "change",
    [
        lambda cell: _quoted(cell, '\\"'),
        lambda cell: '"' + cell.replace('"', '\\"') + '"',
        lambda cell: " " + _quoted(cell),
        lambda cell: _quoted(cell) + " ",
        lambda cell: f'  "{cell.replace(chr(34), chr(34) * 2)}"  ',
    ],
    ids=["backslash", "all-backslash", "space-before", "space-after", "spaces"],
)
def test_quotes_of_other_writers(tmp_path: Path, change: Callable[[str], str]) -> None:
    rows = _rows()
    for i, title in {
        2: 'the "best", or so',
        7: '"A" and "B"',
        11: 'size 5"',
        12: '12" 13"',
    }.items():
        rows[i][1] = title
    rows[20][3] = 'first line, "one"\nsecond, two'
    raw = _read(tmp_path, "\n".join(",".join(map(change, row)) for row in [HEAD, *rows]))
    _same(raw, rows)
    assert raw.warnings == []


def test_texts_of_several_lines_stay_one_cell(tmp_path: Path) -> None:
    """Also where a line of one has as many delimiters as a row."""
    rows = _rows(30)
    rows[3][3] = "good, but\nsmall, red, of leather, warm"
    rows[4][3] = 'i9 says\ni8, "well", no, maybe'
    rows[5][1] = "one\n\ntwo"
    text = "\n".join(",".join(map(_quoted, row)) for row in [HEAD, *rows]) + "\n"
    raw = _read(tmp_path, text)
    _same(raw, rows)
    assert raw.warnings == []
    assert tidy_quotes(text.encode(), ",", 4).data == text.encode()


def test_rows_that_can_not_be_told_are_said(tmp_path: Path) -> None:
    rows = [row[:] for row in _rows()]
    lines = [",".join(map(_quoted, row)) for row in rows]
    lines[5] = 'i5,"Big shoe'  # too few cells: what the quote has swallowed is no rows
    lines[6], lines[9] = "i6,hat,6.5,x", 'i9,"hat,9.5,x'
    lines[7], lines[8] = "i7,hat,7.5,x", "i8,hat,8.5,x"
    raw = _read(tmp_path, "\n".join([",".join(HEAD), *lines]))
    assert any("row 7: a quote closes in the middle of a cell" in each for each in raw.warnings)


def test_a_lone_quote_in_an_id_is_no_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows()
    rows[5][0], rows[9][0] = '"i5', '"i9'
    text = "\n".join(",".join(c if c[0] == '"' else _quoted(c) for c in r) for r in [HEAD, *rows])
    with pytest.raises(
        UserError, match=r"row \d+: item_id holds a line break, so a quote is opened"
    ):
        _read(tmp_path, text)
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("mark", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n"])
def test_a_first_line_for_spreadsheets(tmp_path: Path, mark: str) -> None:
    rows = _rows()
    text = mark + "\n".join(";".join(f'"{c}"' for c in row) for row in [HEAD, *rows])
    raw = _read(tmp_path, text)
    _same(raw, rows)
    assert raw.item_row[0] == 2  # a spreadsheet does not show the line
    assert raw.warnings == []


@pytest.mark.parametrize(("head", "row"), [(",", ","), ("", ","), (",", ""), (",,,", ",,,")])
def test_a_delimiter_at_the_end_of_rows(tmp_path: Path, head: str, row: str) -> None:
    rows = _rows()
    lines = [",".join(map(_quoted, each)) + row for each in rows]
    raw = _read(tmp_path, "\n".join([",".join(HEAD) + head, *lines]))
    _same(raw, rows)
    assert raw.warnings == []
    (tmp_path / "dataset.toml").unlink()
    write_guess(tmp_path)
    assert read_folder(tmp_path).items.titles == [each[1] for each in rows]


def test_a_column_without_a_name_that_holds_something_is_refused(tmp_path: Path) -> None:
    lines = [",".join(map(_quoted, each)) + ",x" for each in _rows()]
    with pytest.raises(UserError, match="column name '' is empty"):
        _read(tmp_path, "\n".join([",".join(HEAD) + ",", *lines]))


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ('"a","b, c",1\r\n"","x",2\n', True),
        ('"a",1', True),
        ('a,"b\nc",1\n', False),  # a cell of two lines may have swallowed a row
        ('a,"b\rc",1\n', False),
        ('"a ""b""",1\n', False),
        ('"a" ,1\n', False),
        (' "a",1\n', False),
        ('"a,1\n2,b"\n', False),
        ('5" nail,1\n6" nail,2\n', False),
        ('"a\\"",1\n', False),
    ],
)
def test_what_is_tidy_is_seen_at_once(text: str, tidy: bool) -> None:
    assert quotes.is_tidy(text.encode(), b",") == tidy


@pytest.mark.parametrize("part", [1, 7, 2**24])
def test_what_is_seen_at_once_changes_nothing(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(part)
    cells = np.array(['"a"', '""', '"b, c"', '"x;y"', "a", "", '" s"', '"s "', '"a""b"',
                      '"l\nm"', ' "z"', '"q" ', '"w', 'v"', '"e\\"'])  # fmt: skip
    monkeypatch.setattr(quotes, "_PART", part)
    seen = 0
    for _ in range(600):
        some = cells[: draw.integers(5, len(cells) + 1)]
        rows = draw.choice(some, (draw.integers(1, 6), 3))
        mark, end = draw.choice([",", ";", "\t"]), draw.choice(["\n", "\r\n", "\r"])
        data = str(end).join(map(str(mark).join, rows)).encode()
        found = tidy_quotes(data, str(mark), 3, [0])
        seen += b'"' in data and quotes.is_tidy(data, str(mark).encode())
        with monkeypatch.context() as patch:
            patch.setattr(quotes, "is_tidy", lambda *_: False)
            assert found == tidy_quotes(data, str(mark), 3, [0])
    assert 60 < seen < 540
