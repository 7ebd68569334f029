"""Ids that are one and are spelt in several ways."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from jmrec.commands.recommend import listed
from jmrec.data.folder import Raw, read_folder
from jmrec.data.ids import plain_id
from jmrec.errors import UserError

ZERO_WIDTH = "\u200b"


def _read(folder: Path, items: list[str], events: list[tuple[str, str, str]]) -> Raw:
    rows = "".join(f"{i},T{k}\n" for k, i in enumerate(items))
    (folder / "items.csv").write_text("item_id,title\n" + rows, encoding="utf-8")
    rows = "".join(",".join(row) + "\n" for row in events)
    (folder / "interactions.csv").write_text(
        "session_id,user_id,item_id\n" + rows, encoding="utf-8"
    )
    return read_folder(folder)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    ("spell", "says"),
    [
        (lambda n: f"{n}.0", "in other rows, and is read as that"),
        (lambda n: f"{n}.00", "in other rows, and is read as that"),
        (lambda n: f"{n:04d}", "in other rows, and is read as that"),
        (lambda n: f"{n}{ZERO_WIDTH}", "holds characters of no width"),
        (lambda n: f"\ufeff{n}", "holds characters of no width"),
    ],
)
def test_sessions_and_users_are_counted_once(
    tmp_path: Path, kind: int, spell: Callable[[int], str], says: str
) -> None:
    events = []
    for k in range(60):
        names = [str(k // 4 + 1), str(k // 4 + 1)]
        if k % 2:
            names[kind] = spell(k // 4 + 1)
        events.append((names[0], names[1], f"i{k % 5}"))
    raw = _read(tmp_path, [f"i{k}" for k in range(5)], events)
    found = raw.user if kind else raw.session
    assert found is not None
    assert len(found[1]) == 15
    assert found[0].tolist() == [k // 4 for k in range(60)]
    assert len(raw.item) == 60
    assert any(says in each and "(cells mended: 30)" in each for each in raw.warnings)


def test_zeros_that_may_mean_something_are_kept_and_said(tmp_path: Path) -> None:
    """7, 07 and 007 may be three; nothing tells which zeros were lost."""
    events = [(s, "u", "a") for s in ("7", "07", "007", "8", "12345") for _ in range(3)]
    raw = _read(tmp_path, ["a"], events)
    assert raw.session is not None
    assert raw.session[1] == ["7", "07", "007", "8", "12345"]
    (said,) = raw.warnings
    assert "make them one if zeros were lost (cells kept as they are: 6)" in said


def test_one_spelling_stays_as_it_is(tmp_path: Path) -> None:
    events = [(f"{k // 3}.0", f"{k // 3:05d}", "a") for k in range(30)]
    raw = _read(tmp_path, ["a"], events)
    assert raw.session is not None
    assert raw.user is not None
    assert (raw.session[1][3], raw.user[1][3], raw.warnings) == ("3.0", "00003", [])


@pytest.mark.parametrize(
    ("item", "event", "more"),
    [("7", "7.0", ""), ("0007", "7", "was a zero lost?"), ("7.0", "7", ""), ("7", "0007", "")],
)
def test_events_name_the_only_item_it_can_be(
    tmp_path: Path, item: str, event: str, more: str
) -> None:
    events = [("s", "u", event), ("s", "u", "x"), ("s", "u", event), ("s", "u", "9")]
    raw = _read(tmp_path, [item, "x"], events)
    assert raw.item.tolist() == [0, 1, 0]
    first, second = raw.warnings
    assert f"row 2: the item id {event!r} is not in items.csv, which has {item!r}" in first
    assert f"and is read as that; {more}".rstrip("; ") in first
    assert "the item id '9' is not in items.csv; add" in second


def test_events_that_may_name_two_items_are_left_out(tmp_path: Path) -> None:
    events = [("s", "u", "7"), ("s", "u", "x"), ("s", "u", "x"), ("s", "u", "x")]
    raw = _read(tmp_path, ["07", "007", "x"], events)
    assert raw.item.tolist() == [2, 2, 2]
    assert any("only in leading zeros" in each for each in raw.warnings)


def test_an_item_is_one_with_and_without_a_point(tmp_path: Path) -> None:
    events = [("s", "u", name) for name in ("1", "1.0", "2", "3.0", f"2{ZERO_WIDTH}")]
    raw = _read(tmp_path, ["1", "2", "1.0", "3.0", f"4{ZERO_WIDTH}", "5"], events)
    assert raw.items.ids == ["1", "2", "3.0", "4", "5"]
    assert raw.item.tolist() == [0, 0, 1, 2, 1]
    assert any("'1.0' stands in row 2 already" in each for each in raw.warnings)


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"item_id": ["0001", "0002"]}), tmp_path / "items.parquet")
    columns = {"item_id": pa.array([1.0, 2.0, None]), "user_id": ["7", "7.0", "8"]}
    pa.parquet.write_table(pa.table(columns), tmp_path / "interactions.parquet")
    raw = read_folder(tmp_path)
    assert raw.item.tolist() == [0, 1]
    assert raw.user is not None
    assert raw.user[0].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["7.5", "a7", "1e5", "7.0.1", "-7", "7-0", "٧x"])
def test_other_ids_are_plain(name: str) -> None:
    assert plain_id(name) == name


def test_strict_names_the_spelling(tmp_path: Path) -> None:
    _read(tmp_path, ["a"], [("7", "u", "a"), ("7.0", "u", "a")])
    with pytest.raises(UserError, match=r"row 3: session_id is '7\.0', which is '7' in other rows"):
        read_folder(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("12,57,3", ["12", "57", "3"]),
        ('"shoe, red",57', ["shoe, red", "57"]),
        ('57, "a,b"', ["57", "a,b"]),
        ('"say ""hi"", you"', ['say "hi", you']),
        ('12" tv,x', ['12" tv', "x"]),
    ],
)
def test_an_id_with_a_comma_can_be_named(words: str, ids: list[str]) -> None:
    assert listed(words) == ids
