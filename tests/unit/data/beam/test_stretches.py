"""Files read in stretches hold the rows, and the faults, that one reader finds."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.beam.recorder import Record, Recorder, Step, merged, plain, replay
from jmrec.data.beam.stretches import Plan, cut, look_at, read_stretch
from jmrec.data.findings import Findings
from jmrec.data.sources import open_source
from jmrec.data.tables import Table, read_table
from jmrec.errors import UserError

CELLS = st.sampled_from(
    ["a", "", " b ", '"c, d"', '"e""f"', "ü\ufffd", "0", '"open', '"two\nlines"']
)


def in_stretches(
    folder: Path, file: str, columns: set[str], texts: set[str], size: int
) -> tuple[Table | None, list[str], bool]:
    """Return the table, what was said, and whether the file was cut."""
    source = open_source(folder, "interactions", file)
    stretches = cut(0, source, size)
    plan = Plan.of([look_at(each, source) for each in stretches][::-1])
    blocks = []
    records: list[tuple[Step, Record]] = []
    for stretch in stretches:
        recorder = Recorder((0, 0), {}, 0.0)
        try:
            blocks += read_stretch(stretch, plan, source, columns, texts, "|", recorder, 3)
        except UserError as error:
            recorder.error(stretch.number, error)
        records += recorder.records.items()
    steps = {step for step, _ in records}
    found = [(s, plain(merged([r for each, r in records if each == s]))) for s in sorted(steps)]
    said = Findings()
    try:
        replay(found, said)
    except UserError as error:
        return None, [str(error)], bool(plan.before)
    tables = [block.table for block in blocks]
    names = [name for name in source.header if name in columns]
    whole = {name: pa.concat_arrays([t.columns[name] for t in tables]) for name in names}
    rows = np.concatenate([t.rows for t in tables])
    numeric = tables[0].numeric
    if blocks[0].numeric is not None:
        numeric = merged([b.numeric for b in blocks if b.numeric is not None]).columns
    return Table(source.name, whole, rows, numeric), said.warnings, bool(plan.before)


def by_one(
    folder: Path, file: str, columns: set[str], texts: set[str]
) -> tuple[Table | None, list[str]]:
    said = Findings()
    try:
        source = open_source(folder, "interactions", file)
        return read_table(source, columns, said, texts=texts, list_separator="|"), said.warnings
    except UserError as error:
        return None, [str(error)]


def same(folder: Path, file: str, columns: set[str], texts: set[str], size: int) -> bool:
    """Compare both; return whether the file was cut."""
    truth, warnings = by_one(folder, file, columns, texts)
    found, said, was_cut = in_stretches(folder, file, columns, texts, size)
    assert said == warnings
    assert (truth is None) == (found is None)
    if truth is not None and found is not None:
        assert found.rows.tolist() == truth.rows.tolist()
        assert found.numeric == truth.numeric
        for name, cells in truth.columns.items():
            assert found.columns[name].to_pylist() == cells.to_pylist()
    return was_cut


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=12),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
    size=st.integers(1, 60),
)
def test_a_csv(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    ending: str,
    last: bool,
    size: int,
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    lines = ["user_id,item_id,review", *(",".join(row) for row in rows)]
    text = ending.join(lines) + ending * last
    (folder / "c.csv").write_bytes(text.encode())
    try:
        open_source(folder, "interactions", "c.csv")
    except UserError:
        return
    same(folder, "c.csv", {"item_id", "review"}, {"review"}, size)


def test_a_plain_csv_is_cut_and_another_is_not(tmp_path: Path) -> None:
    rows = "".join(f'u{i},i{i},"good, {i}"\n' for i in range(50))
    good = "user_id,item_id,review\n" + rows
    cases = {
        "plain.csv": (good.encode(), True),
        "marked.csv": (b"\xef\xbb\xbf" + good.encode(), True),
        "lines.csv": (good.replace("good, 7", "good\n7").encode(), False),
        "cp1252.csv": (good.replace("good, 7", "größer").encode("cp1252"), False),
        "utf16.csv": (good.encode("utf-16"), False),
        "told.csv": (b"sep=,\n" + good.encode(), False),
        "nul.csv": (good.replace("good, 7", "good\0").encode(), False),
        "mac.csv": (good.replace("\n", "\r").encode(), False),
    }
    for file, (data, expected) in cases.items():
        (tmp_path / file).write_bytes(data)
        for size in (40, 10_000):
            assert same(tmp_path, file, {"item_id", "review"}, {"review"}, size) == expected, file


def test_json_lines_are_cut_and_an_array_is_not(tmp_path: Path) -> None:
    rows = [{"a": i if i != 30 else "x", "b": [i, 2], "c": i} for i in range(60)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines[:20], "{broken", "", *lines[20:]]))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    for size in (50, 500, 10_000):
        assert same(tmp_path, "a.jsonl", {"a", "b", "c"}, set(), size)
        assert not same(tmp_path, "b.json", {"a", "b", "c"}, set(), size)


@pytest.mark.parametrize("size", [1, 2_000, 10**6])
def test_parquet_is_cut_between_groups_of_rows(tmp_path: Path, size: int) -> None:
    columns = {"a": list(range(100)), "b": [0.5] * 100, "c": ["", None] * 50}
    table = pa.table({name: pa.array(cells) for name, cells in columns.items()})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=13)
    assert same(tmp_path, "a.parquet", {"a", "b", "c"}, set(), size)
    assert same(tmp_path, "a.parquet", {"c"}, set(), size)
