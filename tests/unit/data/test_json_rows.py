"""JSON lines and arrays of objects as they come, against the same shop as CSV."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.findings import Findings
from jmrec.data.folder import read_folder
from jmrec.data.guess import write_guess
from jmrec.data.json_rows import json_header, read_json_rows
from jmrec.data.prepared import build
from jmrec.data.sources import open_source
from jmrec.data.tables import read_table
from jmrec.errors import UserError
from jmrec.main import main

Rows = list[dict[str, Any]]


def _rows(path: Path) -> Rows:
    """Return a table of the shop with types of its own: numbers, lists, nulls, absent keys."""
    numbers = {"price", "rating", "timestamp"}
    rows = []
    for cells in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")):
        row: dict[str, Any] = {}
        for place, (name, cell) in enumerate(cells.items()):
            if name == "tags":
                row[name] = [part for part in cell.split("|") if part]
            elif not cell:
                row |= {name: None} if place % 2 else {}
            elif name in numbers:
                row[name] = float(cell) if "." in cell else int(cell)
            else:
                row[name] = cell
        rows.append(row)
    return rows


def _lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=len(row) % 2 == 0) + "\n" for row in rows)


FORMS: dict[str, Callable[[Rows], bytes]] = {
    "lines": lambda rows: _lines(rows).encode(),
    "windows lines without an end": lambda r: _lines(r).rstrip().replace("\n", "\r\n").encode(),
    "empty lines, byte order mark": lambda r: _lines(r).replace("\n", "\n\n").encode("utf-8-sig"),
    "utf-16": lambda rows: _lines(rows).encode("utf-16"),
    "packed": lambda rows: gzip.compress(_lines(rows).encode()),
    "array": lambda rows: json.dumps(rows).encode(),
    "array over lines": lambda rows: json.dumps(rows, indent=2).encode(),
    "objects over lines": lambda r: "\n".join(json.dumps(x, indent=1) for x in r).encode(),
    "python literals": lambda rows: "".join(f"{row}\n" for row in rows).encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_shop_in_json_is_the_shop_in_csv(
    tmp_path: Path, make_shop: Callable[..., Path], form: str, suffix: str
) -> None:
    one, two = make_shop(tmp_path / "one"), make_shop(tmp_path / "two")
    for name in ("items", "interactions"):
        path = two / f"{name}.csv"
        (two / f"{name}{suffix}").write_bytes(FORMS[form](_rows(path)))
        path.unlink()
    raw = read_folder(two, strict=True)
    assert build(raw).fingerprint == build(read_folder(one)).fingerprint


def test_a_csv_beside_a_json_file_is_read_as_before(
    tmp_path: Path, make_shop: Callable[..., Path]
) -> None:
    shop = make_shop(tmp_path / "shop")
    before = build(read_folder(shop)).fingerprint
    (shop / "items.json").write_text("[]")
    assert build(read_folder(shop)).fingerprint == before


def _table(folder: Path, text: str) -> tuple[dict[str, list[str]], list[int], list[str]]:
    (folder / "items.jsonl").write_text(text, encoding="utf-8", errors="surrogatepass")
    source, findings = open_source(folder, "items"), Findings()
    table = read_table(source, source.header, findings, texts=source.header)
    cells = {name: column.to_pylist() for name, column in table.columns.items()}
    return cells, table.rows.tolist(), findings.warnings


def test_numbers_keep_their_digits_and_ids_lose_their_point(tmp_path: Path) -> None:
    text = (
        '{"item_id": 12345678901234567890123, "price": 19.10}\n'
        '{"item_id": 7.0, "price": 1e3, "gone": NaN}\n'
        '{"item_id": "007", "price": 0.1, "sold": true}\n'
    )
    cells, rows, said = _table(tmp_path, text)
    assert cells == {
        "item_id": ["12345678901234567890123", "7", "007"],
        "price": ["19.10", "1000", "0.1"],
        "gone": ["", "", ""],
        "sold": ["", "", "true"],
    }
    assert (rows, said) == ([1, 2, 3], [])


def test_what_lies_deeper_is_named_by_its_path(tmp_path: Path) -> None:
    row = {
        "parent_asin": "B1",
        "images": [{"thumb": "a", "large": "b"}, {"thumb": "c", "large": None}],
        "details": {"Brand": "Ox", "Rank": {"Home": 3}},
        "description": [],
        "features": ["warm", "red"],
    }
    cells, _, _ = _table(tmp_path, json.dumps(row) + "\n")
    assert cells == {
        "parent_asin": ["B1"],
        "images.thumb": ["a|c"],
        "images.large": ["b"],
        "details.Brand": ["Ox"],
        "details.Rank.Home": ["3"],
        "description": [""],
        "features": ["warm|red"],
    }


def test_a_cut_line_is_left_out_and_told(tmp_path: Path) -> None:
    text = '{"item_id": "a"}\n\n{"item_id": "b", "ti\n[1, 2]\n{"item_id": "\\ud800c"}\n'
    text += '{"item_id": "d"}\n{"i'
    cells, rows, said = _table(tmp_path, text)
    assert (cells, rows) == ({"item_id": ["a", "\ufffdc", "d"]}, [1, 5, 6])
    (sentence,) = said
    assert sentence.startswith("items.jsonl, row 3: no JSON object")
    assert sentence.endswith("(rows left out: 3).")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"item_id": 1}, {"item_id": ', "items.jsonl, row 2: no valid JSON from here on"),
        ('[{"item_id": 1}', "items.jsonl, row 2: no valid JSON from here on"),
        ('{"item_id": \n{"item_id"\n', "items.jsonl: no row can be read"),
        ("{}\n{}\n", "items.jsonl: no row can be read"),
        ('{"' + 201 * "a" + '": 1}\n', "is too long"),
        ('{"a\\u001b[31m": 1}\n', "control characters"),
        ("".join(f'{{"c{i}": 1}}\n' for i in range(10_001)), "10,001 columns"),
        ('{"a": ' + 100_000 * "[" + "\n", "no row can be read"),
        ("{'a': " + 100_000 * "(" + "\n", "no row can be read"),
    ],
)
def test_what_is_no_table_gets_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=r"items\.jsonl") as error:
        _table(tmp_path, text)
    assert says in str(error.value)


def test_a_literal_runs_nothing(tmp_path: Path) -> None:
    text = "{'item_id': 'a'}\n{'item_id': __import__('os').getcwd()}\n{'item_id': 9**9**9}\n"
    cells, rows, _ = _table(tmp_path, text + "{'item_id': u'b'}\n{'item_id': ('c',)}\n")
    assert (cells, rows) == ({"item_id": ["a", "b", "c"]}, [1, 4, 5])


def test_data_init_reads_json_lines(
    tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop")
    for name, own in [("items", "meta.jsonl"), ("interactions", "reviews.jsonl.gz")]:
        path = shop / f"{name}.csv"
        packed = gzip.compress if own.endswith(".gz") else bytes
        (shop / own).write_bytes(packed(_lines(_rows(path)).encode()))
        path.unlink()
    (shop / "dataset.toml").unlink()
    text = write_guess(shop).read_text()
    assert 'file = "meta.jsonl"' in text
    assert 'file = "reviews.jsonl.gz"' in text
    assert main(["data", "check", str(shop)]) == 0
    assert "Traceback" not in capsys.readouterr().err


_plain = st.one_of(
    st.none(), st.booleans(), st.text(max_size=4), st.integers(), st.floats(allow_nan=False)
)
_keys = st.text("ab.é\u0000", min_size=1, max_size=2)
_json = st.recursive(
    _plain,
    lambda x: st.lists(x, max_size=2) | st.dictionaries(_keys, x, max_size=2),
    max_leaves=4,
)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(_keys, _json, min_size=1, max_size=3), min_size=1, max_size=4))
def test_every_row_is_read_or_told(rows: Rows) -> None:
    """Whatever a file holds, each line is a row, and a plain value stands in its own column."""
    data = _lines(rows).encode()
    try:
        header = json_header("f", data)
    except UserError:
        return  # nothing but empty objects
    cells, numbers, broken, _ = read_json_rows("f", data, header, "|")
    assert numbers == list(range(1, len(rows) + 1))
    assert not broken
    for place, row in enumerate(rows):
        for name, value in row.items():
            if isinstance(value, str) and not any("." in key for key in row):
                assert cells[name][place].as_py() == value
