"""Folders without a table of items: the items are what the events name."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data.anonymise import anonymise
from jmrec.data.description import describe
from jmrec.data.folder import read_folder
from jmrec.data.guess import write_guess
from jmrec.data.guess_times import in_company
from jmrec.data.prepared import prepare
from jmrec.data.times import read_times
from jmrec.errors import UserError
from jmrec.main import main

TOML = """
[items]
file = "clicks.csv"
id = "sku"
category_columns = ["shelf"]

[interactions]
file = "clicks.csv"
item = "sku"
user = "visitor"
time = "ts"
"""


def clicks(count: int = 400, pause: int = 60) -> list[tuple[Any, ...]]:
    """Return visitor, item, its shelf, what was paid, and when."""
    draw, rows = random.Random(0), []
    for n in range(count):
        item = draw.randrange(30)
        when = 1_700_000_000 + (n // 5) * 90_000 + (n % 5) * pause
        rows.append((f"v{n // 5 % 40}", f"i{item}", f"s{item % 4}", draw.randrange(5, 900), when))
    return rows


def write(folder: Path, rows: list[tuple[Any, ...]], name: str = "clicks.csv") -> None:
    lines = ["visitor,sku,shelf,paid,ts", *(",".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")


def test_it_is_the_catalogue_that_a_table_of_its_first_rows_is(tmp_path: Path) -> None:
    alone, beside = tmp_path / "shop", tmp_path / "beside" / "shop"
    for folder in (alone, beside):
        folder.mkdir(parents=True)
        write(folder, clicks())
        (folder / "dataset.toml").write_text(TOML)
    first: dict[str, str] = {}
    for _, item, shelf, *_ in clicks():
        first.setdefault(item, shelf)
    table = ["sku,shelf", *(f"{item},{shelf}" for item, shelf in first.items())]
    (beside / "products.csv").write_text("\n".join(table) + "\n")
    (beside / "dataset.toml").write_text(TOML.replace("clicks.csv", "products.csv", 1))
    assert describe(alone).items_of_events
    assert not describe(beside).items_of_events
    one, two = prepare(alone, None, tmp_path / "one"), prepare(beside, None, tmp_path / "two")
    assert one.items.ids == two.items.ids == list(first)
    assert one.fingerprint == two.fingerprint
    np.testing.assert_array_equal(one.items.category["shelf"], two.items.category["shelf"])
    for name, split in one.splits.items():
        np.testing.assert_array_equal(split.items, two.splits[name].items)


def test_what_is_wrong_with_a_row_is_said_once(tmp_path: Path) -> None:
    rows = clicks()
    rows[7] = ("v1", "", "s1", 5, rows[7][-1])
    rows[9] = ("v1", "i1", "s1", 5, "soon")
    rows[11] = ("v1", "7", "s3", 5, rows[11][-1])
    rows[13] = ("v1", "7.0", "s0", 5, rows[13][-1])
    write(tmp_path, rows)
    (tmp_path / "dataset.toml").write_text(TOML)
    raw = read_folder(tmp_path)
    assert raw.items.ids.count("7") == 1
    assert "7.0" not in raw.items.ids
    assert "" not in raw.items.ids
    named = {row[1] for row in rows} - {"", "7.0"}
    assert set(raw.items.ids) == named
    assert len(raw.item) == len(rows) - 2
    for part in ("sku is empty", "'soon'"):
        assert sum(part in each for each in raw.warnings) == 1, raw.warnings


def test_items_of_a_given_test_split_are_items_too(tmp_path: Path) -> None:
    rows = clicks()
    write(tmp_path, rows[:-5])
    write(tmp_path, [*rows[-5:], ("z", "new", "s9", 4, rows[-1][-1] + 5)], "later.csv")
    text = TOML.replace('user = "visitor"', 'session = "visitor"\ntest_file = "later.csv"')
    (tmp_path / "dataset.toml").write_text(text)
    raw = read_folder(tmp_path)
    assert raw.items.ids[-1] == "new"
    assert raw.item[-1] == len(raw.items.ids) - 1


def test_a_row_of_several_items_is_no_table_of_them(tmp_path: Path) -> None:
    write(tmp_path, clicks())
    (tmp_path / "dataset.toml").write_text(TOML + 'item_separator = " "\n')
    with pytest.raises(UserError, match="name one file, in which a row lists several items"):
        describe(tmp_path)


def test_init_finds_the_items_in_the_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["visitorid,itemid,shelf,paid,event,timestamp"]
    rows += [f"{v},{i},{s},{p},view,{t}000" for v, i, s, p, t in clicks()]
    (tmp_path / "events.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "tree.csv").write_text("categoryid,parentid\n1016,213\n809,169\n")
    assert main(["data", "init", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "there is no table of items, so they are what events.csv names" in said
    assert "tree.csv is not read: it has no column of ids of items" in said
    found = describe(tmp_path)
    assert (found.items_file, found.items.id, found.interactions.item) == (
        "events.csv", "itemid", "itemid",
    )  # fmt: skip
    assert found.items.category_columns == ("shelf",)  # and no price, which differs by row
    assert not found.items.number_columns
    assert found.interactions.user == "visitorid"
    assert len(read_folder(tmp_path).items) == 30


def test_a_table_of_items_that_is_not_read_is_named(tmp_path: Path) -> None:
    """Else its titles would be left out in silence."""
    write(tmp_path, [(v, f"A{i}", s, p, t) for v, i, s, p, t in clicks()])
    (tmp_path / "goods.csv").write_text(
        "sku,title\n" + "".join(f"{n},Thing {n}\n" for n in range(9))
    )
    path = write_guess(tmp_path)
    assert "goods.csv is not read" in path.read_text()


def test_the_anonymised_copy_has_a_table_of_items(tmp_path: Path) -> None:
    (shop := tmp_path / "shop").mkdir()
    write(shop, clicks())
    (shop / "dataset.toml").write_text(TOML)
    anonymise(shop, tmp_path / "safe")
    before, after = read_folder(shop), read_folder(tmp_path / "safe")
    assert not after.description.items_of_events
    assert len(after.items) == len(before.items)
    assert sorted(np.bincount(after.item)) == sorted(np.bincount(before.item))


def test_recboles_files_are_read_as_they_are(tmp_path: Path) -> None:
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    rows += [f"{v}\t{i}\t{p % 5 + 1}.0\t{t}" for v, i, _, p, t in clicks()]
    (tmp_path / "beauty.inter").write_text("\n".join(rows) + "\n")
    items = ["item_id:token\ttitle:token_seq", *(f"i{n}\tCream {n}" for n in range(30))]
    (tmp_path / "beauty.item").write_text("\n".join(items) + "\n")
    write_guess(tmp_path)
    found = describe(tmp_path)
    assert (found.items.id, found.items.title) == ("item_id:token", "title:token_seq")
    events = found.interactions
    assert (events.user, events.rating, events.time) == (
        "user_id:token", "rating:float", "timestamp:float",
    )  # fmt: skip
    assert len(read_folder(tmp_path).item) == 400


@pytest.mark.parametrize(("pause", "split"), [(60, "session_start"), (7200, "event_time")])
def test_where_hardly_two_clicks_are_close_the_split_is_by_event(
    tmp_path: Path, pause: int, split: str
) -> None:
    write(tmp_path, clicks(pause=pause))
    write_guess(tmp_path)
    assert describe(tmp_path).split == split


def test_company_is_that_of_one_owner() -> None:
    times = read_times(["2026-01-01 10:00", "2026-01-01 10:20", "2026-01-01 10:25", ""])
    assert in_company(["a", "b", "a", "a"], times, 30) == pytest.approx(2 / 3)
    assert in_company(["a", "b", "a", "a"], times, 20) == 0
    assert in_company(["", "", "", "a"], times, 30) == 1
