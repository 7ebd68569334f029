"""A CSV that is parsed in stretches is what it is when parsed at once, whatever it holds."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data import sources, tables
from jmrec.data.findings import Findings
from jmrec.data.sources import CSV, Source, is_utf8, open_source
from jmrec.data.tables import read_table
from jmrec.errors import UserError

_cells = st.text('ab",\n\r é', max_size=5)
_rows = st.lists(st.lists(_cells, min_size=1, max_size=4), max_size=8)


def _parsed(source: Source, data: bytes, block: int) -> Any:
    try:
        parts, *rest = tables._parse(source, data, ["x", "z"], block)
    except UserError as error:
        return str(error)
    cells = {
        name: [cell for part in each for cell in part.to_pylist()] for name, each in parts.items()
    }
    return cells, rest


@settings(max_examples=500)
@given(
    rows=_rows,
    raw=st.text('a",\n', max_size=40),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from(["", "none"]),
    block=st.integers(0, 30),
)
def test_stretches_are_the_whole(
    rows: list[list[str]], raw: str, end: str, quoting: str, block: int
) -> None:
    """Rows of any length, quoted well, then signs in any order."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([["x", "y", "z"], *rows])
    data = (text.getvalue() + raw).encode()
    source = Source(Path("t.csv"), ["x", "y", "z"], CSV, quoting=quoting, width=3)
    assert _parsed(source, data, block) == _parsed(source, data, len(data))


def test_row_numbers_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are left out are named by the numbers of a spreadsheet, in each stretch."""
    monkeypatch.setattr(tables, "_BLOCK", 40)
    rows = [f"i{k},{'a,b' if k % 7 == 5 else k}" for k in range(40)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *rows]))
    source, findings = open_source(tmp_path, "items"), Findings()
    table = read_table(source, source.header, findings, texts=source.header)
    kept = [k for k in range(40) if k % 7 != 5]
    assert table.columns["item_id"].to_pylist() == [f"i{k}" for k in kept]
    assert table.rows.tolist() == [k + 2 for k in kept]
    assert findings.warnings[0].startswith("items.csv, row 7: 3 cells where the header has 2")


@given(st.binary(max_size=40), st.booleans())
def test_utf8_in_parts(data: bytes, whole: bool) -> None:
    try:
        data.decode("utf-8")
        valid = True
    except UnicodeDecodeError as error:
        valid = not whole and error.reason == "unexpected end of data"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "_PART", 3)
        assert is_utf8(data, whole=whole) == valid
