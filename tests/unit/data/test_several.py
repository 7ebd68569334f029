"""Several files that are one table: read against the rows that they were written from."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmrec.data.anonymise import anonymise
from jmrec.data.description import describe
from jmrec.data.folder import Raw, read_folder
from jmrec.data.grown import Before, check_grown, in_old_rows
from jmrec.data.more_rows import read_more_events, read_own_events
from jmrec.data.prepared import build
from jmrec.data.remembered import Reading
from jmrec.data.source_files import source_changes, source_files
from jmrec.errors import UserError
from jmrec.systems.remembered import _with_times

COLUMNS = ["session_id", "user_id", "item_id", "timestamp", "event", "rating"]
START = 1_700_000_000
ITEMS = "item_id,title\n" + "".join(f"i{i},Shoe {i}\n" for i in range(9))
TOML = '[interactions]\nfile = ["jan.csv", "feb.csv"]\n'
Row = tuple[str, str, str, int, str, float]


def _rows() -> list[Row]:
    """150 events of 40 sessions, one every nine hours; sessions go on over the files' ends."""
    draw = random.Random(0)
    return [
        (f"s{k // 4}", f"uö{k // 8}", f"i{draw.randrange(9)}", START + 32_400 * k,
         draw.choice(["Klick", "Käufe"]), draw.randrange(8, 40) / 8)
        for k in range(150)
    ]  # fmt: skip


def _csv(
    path: Path,
    rows: list[Row],
    time: str | Callable[[int], object],
    columns: list[str] = COLUMNS,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(columns)
    for row in rows:
        when = datetime.fromtimestamp(row[3], UTC)
        cell = when.strftime(time) if isinstance(time, str) else time(row[3])
        cells = dict(zip(COLUMNS, [*row[:3], cell, row[4], str(row[5]).replace(".", ",")]))
        writer.writerow([cells[name] for name in columns])
    data = out.getvalue().encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "items.csv").write_text(ITEMS)
    return folder


def _is(raw: Raw, rows: list[Row]) -> None:
    """Check that a folder holds the rows, in their order."""
    assert raw.session is not None
    assert raw.user is not None
    assert raw.time is not None
    held = [
        (raw.session[1][s], raw.user[1][u], raw.items.ids[i], int(t), raw.event_names[e], float(r))
        for s, u, i, t, e, r in zip(
            raw.session[0], raw.user[0], raw.item, raw.time, raw.event, raw.rating
        )
    ]
    assert held == rows


def test_files_of_every_form_are_read_as_the_rows_they_hold(shop: Path) -> None:
    """Other orders of columns, delimiters, encodings, packing, forms of times and of numbers."""
    rows = _rows()
    parts = [rows[25 * k : 25 * k + 25] for k in range(6)]
    _csv(shop / "c1.csv", parts[0], "%d.%m.%Y %H:%M:%S", delimiter=";", encoding="cp1252")
    _csv(shop / "c2.csv", parts[1], "%Y-%m-%dT%H:%M:%SZ", COLUMNS[::-1], encoding="utf-16")
    _csv(shop / "c3.csv.gz", parts[2], lambda t: t, delimiter="\t", encoding="utf-8-sig")
    _csv(shop / "c4.csv", parts[3], lambda t: 1000 * t)
    cells = {name: [row[i] for row in parts[4]] for i, name in enumerate(COLUMNS)}
    times = pa.array([1_000_000 * t for t in cells["timestamp"]], pa.timestamp("us"))  # type: ignore[operator]
    pa.parquet.write_table(
        pa.table(cells | {"timestamp": times, "not read": cells["event"]}), shop / "c5.parquet"
    )
    lines = [dict(zip(COLUMNS, row)) for row in parts[5]]
    (shop / "c6.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    names = ["c1.csv", "c2.csv", "c3.csv.gz", "c4.csv", "c5.parquet", "c6.jsonl"]
    (shop / "dataset.toml").write_text(
        f'[dataset]\ndecimal = ","\n[interactions]\nfile = {json.dumps(names)}\n'
    )
    _is(read_folder(shop), rows)
    # And a data set is made of them as of one file.
    (shop / "dataset.toml").unlink()
    _csv(shop / "interactions.csv", rows, lambda t: t)
    (shop / "dataset.toml").write_text('[dataset]\ndecimal = ","\n')
    one = build(read_folder(shop))
    (shop / "dataset.toml").write_text(
        f'[dataset]\ndecimal = ","\n[interactions]\nfile = {json.dumps(names)}\n'
    )
    assert build(read_folder(shop)).fingerprint == one.fingerprint


def test_findings_name_the_file_and_its_row(shop: Path) -> None:
    rows = _rows()
    _csv(shop / "jan.csv", rows[:100], lambda t: t)
    later = [
        *rows[100:],
        ("s99", "uö99", "i77", START, "Klick", 1.0),
        ("s0", "other", *rows[0][2:]),
    ]
    _csv(shop / "feb.csv", later, lambda t: t)  # type: ignore[arg-type]
    (shop / "dataset.toml").write_text('[dataset]\ndecimal = ","\n' + TOML)
    raw = read_folder(shop)
    _is(raw, rows)
    said = "\n".join(raw.warnings)
    assert "feb.csv, row 52: the item id 'i77' is not in items.csv" in said
    assert "feb.csv, row 53: session 's0' belongs to another user in row 2 of jan.csv; give" in said


def test_items_of_several_files(shop: Path) -> None:
    _csv(shop / "interactions.csv", _rows(), lambda t: t)
    (shop / "items.csv").rename(shop / "old.csv")
    (shop / "new.csv").write_text("title;item_id\nHat 20;i20\nTwice;i3\n")
    (shop / "dataset.toml").write_text(
        '[dataset]\ndecimal = ","\n[items]\nfile = ["old.csv", "new.csv"]\n'
    )
    raw = read_folder(shop)
    assert raw.items.ids == [f"i{i}" for i in range(9)] + ["i20"]
    assert raw.items.titles[-1] == "Hat 20"
    assert "new.csv, row 3: the item id 'i3' stands in row 5 of old.csv already" in raw.warnings[0]


def test_a_pattern_takes_files_by_the_numbers_in_their_names(shop: Path) -> None:
    rows = [(*row[:3], 0, *row[4:]) for row in _rows()]
    columns = [name for name in COLUMNS if name != "timestamp"]  # so that their order tells
    for name, part in [("k_9", rows[:50]), ("k_10", rows[50:100]), ("k_11", rows[100:])]:
        _csv(shop / f"{name}.csv", part, lambda t: t, columns)  # type: ignore[arg-type]
    text = '[dataset]\ndecimal = ","\n[interactions]\nfile = "k_*.csv"\n'
    (shop / "dataset.toml").write_text(text)
    assert describe(shop).files("interactions") == ("k_9.csv", "k_10.csv", "k_11.csv")
    raw = read_folder(shop)
    assert [raw.items.ids[i] for i in raw.item] == [row[2] for row in rows]
    (shop / "dataset.toml").write_text(text + 'test_file = "k_11.csv"\n')
    assert describe(shop).files("interactions") == ("k_9.csv", "k_10.csv")


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ('["jan.csv", "gone.csv"]', "gone.csv does not exist"),
        ('["jan.csv", "jan.csv"]', "file names 'jan.csv' twice; name every file once"),
        ('"m*.csv"', "holds no file that fits 'm*.csv'"),
        ('["jan.csv", "../feb.csv"]', "file is '../feb.csv'; give the name of a file"),
        ('["jan.csv", 3]', "file must be a list of strings"),
        ('["jan.csv", "bare.csv"]', "bare.csv has no column 'event', which is read and other"),
    ],
)
def test_what_can_not_be_one_table_is_refused(shop: Path, file: str, says: str) -> None:
    _csv(shop / "jan.csv", _rows(), lambda t: t)
    _csv(shop / "bare.csv", _rows(), lambda t: t, [c for c in COLUMNS if c != "event"])
    (shop / "dataset.toml").write_text(f"[interactions]\nfile = {file}\n")
    with pytest.raises(UserError) as error:
        describe(shop)
    assert says in str(error.value)


def test_dates_that_do_not_tell_are_read_as_those_of_the_other_files(shop: Path) -> None:
    rows = _rows()
    early = [row for row in rows if datetime.fromtimestamp(row[3], UTC).day <= 12]
    others = [row for row in rows if datetime.fromtimestamp(row[3], UTC).day > 12]
    (shop / "dataset.toml").write_text('[dataset]\ndecimal = ","\n' + TOML)
    for order in ("%m/%d/%Y", "%d/%m/%Y"):
        _csv(shop / "jan.csv", early, f"{order} %H:%M:%S")
        _csv(shop / "feb.csv", others, f"{order} %H:%M:%S")
        _is(read_folder(shop), early + others)
    _csv(shop / "feb.csv", others, lambda t: t)  # which says nothing of days and months
    with pytest.raises(UserError, match=r"jan.csv, row 2: .* the other rows do not tell"):
        read_folder(shop)


def test_each_file_is_fingerprinted(shop: Path) -> None:
    _csv(shop / "k_1.csv", _rows()[:75], lambda t: t)
    _csv(shop / "k_2.csv", _rows()[75:], lambda t: t)
    (shop / "dataset.toml").write_text('[interactions]\nfile = "k_*.csv"\n')
    before = source_files(shop)
    assert set(before) == {"dataset.toml", "items.csv", "k_1.csv", "k_2.csv"}
    _csv(shop / "k_3.csv", _rows()[:3], lambda t: t)
    assert source_changes(before, source_files(shop)) == "k_3.csv is new"


def test_a_file_that_comes_later_continues_the_data(shop: Path) -> None:
    """What `jmrec run --data=continue` asks for; a pattern takes the new month in by itself."""
    rows = _rows()
    (shop / "dataset.toml").write_text(
        '[dataset]\ndecimal = ","\n[interactions]\nfile = "k_*.csv"\n'
    )
    _csv(shop / "k_1.csv", rows[:100], lambda t: t)
    old = build(read_folder(shop))
    _csv(shop / "k_2.csv", rows[100:], "%Y-%m-%d %H:%M:%S")
    raw = read_folder(shop)
    _is(raw, rows)
    check_grown(old, in_old_rows(raw, Before.of(old)))
    _csv(shop / "k_1.csv", rows[4:100], lambda t: t)
    with pytest.raises(UserError, match="one of them is of session 's0'"):
        check_grown(old, in_old_rows(read_folder(shop), Before.of(old)))


def test_a_text_that_swallows_a_row_is_left_out_of_its_file(shop: Path) -> None:
    """Which needs the delimiter and the columns of that file."""
    head = "item_id;session_id;timestamp;review\n"
    rows = "".join(f'i{k % 9};s{k // 3};{START + k};"good shoe {k}"\n' for k in range(60))
    (shop / "jan.csv").write_text(head + rows)
    odd = 'i1,s90,1700000500,"fine\ni2,s90,1700000501,more, or less"\n'
    (shop / "feb.csv").write_text(head.replace(";", ",") + rows.replace(";", ",") + odd)
    (shop / "dataset.toml").write_text(TOML)
    raw = read_folder(shop)
    assert len(raw.item) == 120
    (said,) = raw.warnings
    assert said.startswith("feb.csv, row 62: review holds another row, so a quote is opened and")


@pytest.mark.parametrize("times", ["", "week"])
def test_an_anonymised_folder_has_them_as_one(shop: Path, tmp_path: Path, times: str) -> None:
    rows = _rows()
    _csv(shop / "jan.csv", rows[:100], "%d.%m.%Y %H:%M:%S", delimiter=";")
    _csv(shop / "feb.csv", rows[100:], lambda t: t)
    (shop / "dataset.toml").write_text(
        '[dataset]\ndecimal = ","\n' + TOML + 'label = "rating <= 2"\n'
    )
    anonymise(shop, tmp_path / "safe", times=times)
    raw = read_folder(tmp_path / "safe")
    assert raw.description.interactions_file == "interactions.csv"
    assert [raw.items.ids[i] for i in raw.item] == [row[2] for row in rows]
    assert raw.label is not None
    assert raw.label.tolist() == [int(row[5] <= 2) for row in rows]


def test_new_events_are_read_as_the_last_file(shop: Path) -> None:
    """`jmrec remember`: a few dates alone would not tell the day from the month."""
    rows = _rows()
    _csv(shop / "jan.csv", rows[:75], "%d.%m.%Y %H:%M:%S")
    _csv(shop / "feb.csv", rows[75:], "%m/%d/%Y %H:%M")
    (shop / "dataset.toml").write_text(TOML)
    assert _with_times(describe(shop), shop).time_format == "%m/%d/%Y %H:%M"
    _csv(shop / "feb.csv", rows[75:], "%Y-%m-%dT%H:%M:%SZ")  # needs none
    assert _with_times(describe(shop), shop).time_format == "%d.%m.%Y %H:%M:%S"
    _csv(shop / "feb.csv", rows[75:], lambda t: 1000 * t)
    assert _with_times(describe(shop), shop).time_format == "ms"


def test_remembering_reads_the_list_and_then_one_file_more(shop: Path, tmp_path: Path) -> None:
    rows = _rows()
    _csv(shop / "jan.csv", rows[:75], "%d.%m.%Y %H:%M:%S", delimiter=";")
    _csv(shop / "feb.csv", rows[75:120], "%Y-%m-%d %H:%M:%S")
    (shop / "dataset.toml").write_text('[dataset]\ndecimal = ","\n' + TOML)
    description, items = describe(shop), read_folder(shop).items
    _is(read_own_events(shop, description, items), rows[:120])
    _csv(tmp_path / "march.csv", rows[120:], lambda t: t)
    _is(read_more_events(tmp_path / "march.csv", description, items), rows[120:])
    _csv(tmp_path / "jan.csv", rows[120:], lambda t: t, COLUMNS[1:])  # a name of the list
    with pytest.raises(UserError, match=r"jan.csv has no column 'session_id', which the inter"):
        read_more_events(tmp_path / "jan.csv", description, items)


def test_times_with_and_without_a_zone_are_said_once(shop: Path) -> None:
    rows = _rows()
    _csv(shop / "jan.csv", rows[:100], "%Y-%m-%d %H:%M:%S")
    _csv(shop / "feb.csv", rows[100:], "%Y-%m-%dT%H:%M:%S+00:00")
    (shop / "dataset.toml").write_text('[dataset]\ndecimal = ","\n' + TOML)
    raw = read_folder(shop)
    _is(raw, rows)
    (said,) = [each for each in raw.warnings if "zone" in each]
    assert said.startswith("jan.csv, row 2: timestamp is '2023-11-14 22:13:20' without a zone, and")
    assert "'2023-12-22 10:13:20" not in said
    assert "in row 2 of feb.csv has one; those without a zone are read as UTC" in said
    assert said.endswith("(cells kept as they are: 100).")
    assert not np.isnan(raw.rating).any()


def test_two_formats_in_one_file_are_said_of_its_rows(shop: Path) -> None:
    rows = _rows()
    _csv(shop / "jan.csv", rows[:100], lambda t: t)
    _csv(
        shop / "feb.csv",
        rows[100:],
        lambda t: (
            t if t == rows[107][3] else datetime.fromtimestamp(t, UTC).strftime("%d.%m.%Y %T")
        ),
    )
    (shop / "dataset.toml").write_text('[dataset]\ndecimal = ","\n' + TOML)
    raw = read_folder(shop)
    _is(raw, rows)
    (said,) = [each for each in raw.warnings if "two formats" in each]
    assert said.startswith(f"feb.csv, row 9: timestamp is '{rows[107][3]}' here and ")
    assert "in row 2 of feb.csv, two formats" in said


def test_numbers_of_a_file_that_holds_them_as_numbers_keep_their_point(shop: Path) -> None:
    """Beside a file whose points stand between thousands."""
    rows = [f"i{k};{k}.{k:03d},5" for k in range(1, 9)]
    (shop / "old.csv").write_text("item_id;price\n" + "\n".join(rows))
    table = pa.table({"item_id": ["i20", "i21"], "price": [1.125, 2.375]})
    pa.parquet.write_table(table, shop / "new.parquet")
    _csv(shop / "interactions.csv", _rows(), lambda t: t)
    (shop / "dataset.toml").write_text(
        '[dataset]\ndecimal = ","\n[items]\nfile = ["old.csv", "new.parquet"]\n'
        'number_columns = ["price"]\n'
    )
    price = read_folder(shop).items.number["price"]
    assert price.tolist() == [*(1001 * k + 0.5 for k in range(1, 9)), 1.125, 2.375]


def test_a_reading_of_before_there_were_several_files_is_read(shop: Path) -> None:
    _csv(shop / "interactions.csv", _rows(), lambda t: t)
    old = Reading(describe(shop), True)
    found = old.to_json()
    del found["description"]["several"]
    del found["description"]["items"]["pictures"]
    assert Reading.from_json(found) == Reading(replace(old.description, given=frozenset()), True)
    (shop / "dataset.toml").write_text('[interactions]\nfile = ["interactions.csv", "b.csv"]\n')
    _csv(shop / "b.csv", _rows(), lambda t: t)
    new = Reading(replace(describe(shop), given=frozenset()), True)
    assert Reading.from_json(json.loads(json.dumps(new.to_json()))) == new
