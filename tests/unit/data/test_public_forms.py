"""Forms in which public data sets are downloaded, with made-up rows, and `jmrec data init`."""

import csv
import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data.description import Description, describe
from jmrec.data.folder import Raw, read_folder
from jmrec.data.guess import write_guess
from jmrec.data.header import check_names
from jmrec.data.pictures import picture_files
from jmrec.errors import UserError

START = 1_400_000_000
WORDS = [
    *("red", "blue", "soft", "warm", "large", "small", "kitchen"),
    *("garden", "music", "light", "power", "cable", "summer"),
]


def title(i: int) -> str:
    return f"{WORDS[i % 13]} {WORDS[(i * 5 + 1) % 13]} {WORDS[(i * 7 + 2) % 13]} {WORDS[i // 13]}"


def clicks(users: int = 60, items: int = 50) -> list[tuple[int, int, int, int]]:
    """Return (user, visit, item, unix seconds) in the order of time."""
    draw, found = random.Random(3), []
    for visit in range(3 * users):
        time = START + draw.randrange(80 * 86_400)
        for _ in range(draw.randint(2, 5)):
            item = min(int(draw.expovariate(3 / items)), items - 1)
            found.append((visit // 3, visit, item, time))
            time += draw.randint(5, 300)
    return sorted(found, key=lambda each: each[3])


EVENTS = clicks()


def date(time: int, form: str) -> str:
    return datetime.fromtimestamp(time, UTC).strftime(form)


def put(
    path: Path, rows: Sequence[Sequence[Any]], names: str = "", sign: str = ",", code: str = "utf-8"
) -> None:
    with path.open("w", newline="", encoding=code) as file:
        table = csv.writer(file, delimiter=sign, lineterminator="\n")
        table.writerows([*([names.split()] if names else []), *rows])


def found(folder: Path) -> tuple[Description, Raw, str]:
    """Return what init writes, what is read of it, and its text."""
    text = write_guess(folder).read_text(encoding="utf-8")
    return describe(folder), read_folder(folder, check_pictures=False), text


def assert_read(raw: Raw, items: Sequence[Any], times: Sequence[float]) -> None:
    assert [raw.items.ids[row] for row in raw.item] == [str(each) for each in items]
    if len(times):
        assert raw.time is not None
        assert raw.time.tolist() == list(times)


ITEMS, TIMES = [each[2] for each in EVENTS], [float(each[3]) for each in EVENTS]


def test_taobao(tmp_path: Path) -> None:
    rows = [(u + 7, i, i % 9 + 4000, "pv" if t % 9 else "buy", t) for u, _, i, t in EVENTS]
    put(tmp_path / "UserBehavior.csv", rows)
    said, raw, _ = found(tmp_path)
    assert_read(raw, ITEMS, TIMES)
    assert (said.interactions.event, said.interactions.user) == ("event", "user_id")
    assert said.items.category_columns == ("category_id",)


def test_foursquare(tmp_path: Path) -> None:
    """Tabs, latin-1, and times as Twitter writes them."""
    rows = [
        (u + 1, f"{i:024x}", f"{i % 5:024x}", ["Café", "Bar"][i % 2], 40.7, -74.0, -240,
         date(t, "%a %b %d %H:%M:%S +0000 %Y"))
        for u, _, i, t in EVENTS
    ]  # fmt: skip
    put(tmp_path / "dataset_TSMC2014_NYC.txt", rows, sign="\t", code="latin-1")
    said, raw, _ = found(tmp_path)
    assert_read(raw, [f"{i:024x}" for i in ITEMS], TIMES)
    assert raw.items.category_names["category"] == ["", "Bar", "Café"]
    assert said.interactions.user == "user_id"


def test_a_long_number_that_is_none_is_looked_at_at_once() -> None:
    """As ids of many digits with a letter at the end: no search through all ways to part them."""
    rows = [[f"{i:030d}x", str(i)] for i in range(50)]
    with pytest.raises(UserError, match="'7' looks like a value"):
        check_names("places.csv", [f"{7:030d}x", "7"], rows)


def test_last_fm_is_of_artists(tmp_path: Path) -> None:
    """And not of the table of people, which has a row for each."""
    rows = [(f"{u:040x}", f"{i:08x}-aa", title(i), t % 99) for u, _, i, t in sorted(EVENTS)]
    put(tmp_path / "usersha1-artmbid-artname-plays.tsv", rows, sign="\t")
    people = [(f"{u:040x}", "f", 20 + u % 9, "Germany", "Feb 1, 2007") for u in range(60)]
    put(tmp_path / "usersha1-profile.tsv", people, sign="\t")
    said, raw, _ = found(tmp_path)
    assert_read(raw, [row[1] for row in rows], [])
    assert said.items.title == "artist"
    assert raw.user is not None
    assert raw.user[1] == sorted({row[0] for row in rows})


@pytest.mark.parametrize("trail", ["", " "])
@pytest.mark.parametrize("ratings", ["ratings_data.txt", "mine.txt"])
def test_numbers_with_spaces_between(tmp_path: Path, trail: str, ratings: str) -> None:
    text = "".join(f"{u + 1} {i + 100} {1 + t % 5}{trail}\n" for u, _, i, t in EVENTS)
    (tmp_path / ratings).write_text(text)
    (tmp_path / "trust_data.txt").write_text("".join(f"{u} {u % 7} 1\n" for u in range(60)))
    if ratings == "mine.txt":
        with pytest.raises(UserError, match=r"mine.txt, row 1: .* column_names"):
            write_guess(tmp_path)
        return
    said, raw, _ = found(tmp_path)
    assert_read(raw, [i + 100 for i in ITEMS], [])
    assert raw.rating.tolist() == [1 + t % 5 for t in TIMES]
    assert said.interactions_file == ratings


def test_events_are_read_beside_a_file_that_nobody_knows(tmp_path: Path) -> None:
    rows = [(v, date(t, "%Y-%m-%dT%H:%M:%S.277Z"), i, 0) for _, v, i, t in EVENTS]
    put(tmp_path / "yoochoose-clicks.dat", rows)
    put(tmp_path / "yoochoose-test.dat", rows[:50])
    _, raw, text = found(tmp_path)
    assert_read(raw, ITEMS, [t + 0.277 for t in TIMES])
    assert "# Note: yoochoose-test.dat is not read" in text


def test_a_table_with_a_row_for_each_session_is_none_of_items(tmp_path: Path) -> None:
    views = [(v + 2, i + 100, date(t, "%Y-%m-%d %H:%M:%S")) for _, v, i, t in EVENTS]
    last = {v: (v + 2, i + 100, date(t + 9, "%Y-%m-%d %H:%M:%S")) for _, v, i, t in EVENTS}
    put(tmp_path / "train_sessions.csv", views, "session_id item_id date")
    put(tmp_path / "train_purchases.csv", [*last.values()], "session_id item_id date")
    facts = [(i + 100, k, (i * k) % 50) for i in range(50) for k in range(1, 9)]
    put(tmp_path / "item_features.csv", facts, "item_id feature_category_id feature_value_id")
    said, raw, text = found(tmp_path)
    assert (said.interactions.session, said.interactions.item) == ("session_id", "item_id")
    assert len(raw.item) == len(views) + len(last)
    assert "# Note: train_purchases.csv and train_sessions.csv have the same columns" in text
    assert "# Note: item_features.csv is not read" in text


def test_invoices(tmp_path: Path) -> None:
    """A short description is the title; what was given back is told."""
    rows = [
        (536365 + v, f"{i + 20000}A", title(i).upper(), -2 if t % 25 == 0 else 3,
         date(t, "%-m/%-d/%Y %-H:%M"), 1 + i * 37 % 50 / 10, f"{u + 12346}.0", "France")
        for u, v, i, t in EVENTS
    ]  # fmt: skip
    names = "InvoiceNo StockCode Description Quantity InvoiceDate UnitPrice CustomerID Country"
    put(tmp_path / "OnlineRetail.csv", rows, names)
    said, raw, text = found(tmp_path)
    assert_read(raw, [row[1] for row in rows], [t // 60 * 60 for t in TIMES])
    assert (said.items.title, said.interactions.user) == ("Description", "CustomerID")
    share = np.mean([row[3] < 0 for row in rows])
    assert f"# Note: {share:.1%} of the cells of 'Quantity' are below 0" in text


def test_months_and_days_of_no_year(tmp_path: Path) -> None:
    rows = [(u, i, i % 9, date(t, "%m%d"), t % 3) for u, _, i, t in EVENTS]
    put(tmp_path / "user_log.csv", rows, "user_id item_id cat_id time_stamp action_type")
    said, raw, text = found(tmp_path)
    truth = [datetime(2000, int(row[3][:2]), int(row[3][2:]), tzinfo=UTC) for row in rows]
    assert_read(raw, ITEMS, [each.timestamp() for each in truth])
    assert said.time_format == "%m%d"
    assert said.interactions.event == "action_type"
    assert "# Note: the times in time_stamp are months and days of no year" in text


def test_of_a_day_and_an_instant_the_instant_is_the_time(tmp_path: Path) -> None:
    east = 8 * 3600  # the days are those of another zone
    rows = [(u, i, date(t + east, "%Y%m%d"), 1000 * t + 311, t % 2) for u, _, i, t in EVENTS]
    put(tmp_path / "log.csv", rows, "user_id item_id date time_ms is_click")
    said, raw, _ = found(tmp_path)
    assert said.interactions.time == "time_ms"
    assert_read(raw, ITEMS, [t + 0.311 for t in TIMES])


def catalogue(folder: Path, names: str, rows: Callable[[int], Sequence[Any]]) -> None:
    put(folder / "products.csv", [rows(i) for i in range(50)], names)


def test_numbers_that_stand_for_something(tmp_path: Path) -> None:
    names = "item_id title aisle_id cate brand pages isbn13 n_steps ratings_5"
    catalogue(
        tmp_path,
        names,
        lambda i: (i, title(i), i % 7, i * 3 % 11, -1 + i % 5, i * 37 % 23, 978 * 10**10 + i * 37,
                   i * 17 % 23, i * 29 % 31),
    )  # fmt: skip
    rows = [(u, i, t) for u, _, i, t in EVENTS]
    put(tmp_path / "clicks.csv", rows, "user_id item_id timestamp")
    items = found(tmp_path)[0].items
    assert items.category_columns == ("aisle_id", "cate", "brand")
    assert items.number_columns == ("pages", "n_steps")
    assert items.never_use == ("ratings_5",)


def test_of_two_columns_of_people_the_one_without_gaps(tmp_path: Path) -> None:
    rows = [(f"76{u}" if u % 2 else "", f"name{u}", i, t) for u, _, i, t in EVENTS]
    put(tmp_path / "reviews.csv", rows, "user_id username item_id timestamp")
    said, raw, _ = found(tmp_path)
    assert said.interactions.user == "username"
    assert_read(raw, ITEMS, TIMES)


def test_orders_are_sessions_and_their_table_tells_more(tmp_path: Path) -> None:
    catalogue(tmp_path, "product_id product_name", lambda i: (i, title(i)))
    rows = [(v * 13, i, n) for n, (_, v, i, _) in enumerate(sorted(EVENTS, key=lambda e: e[1]))]
    put(tmp_path / "rows.csv", rows, "order_id product_id line")
    orders = {v * 13: (v * 13, u + 500, date(t, "%Y-%m-%d")) for u, v, _, t in EVENTS}
    put(tmp_path / "orders.csv", [*orders.values()], "order_id user_id purchased_at")
    said, raw, text = found(tmp_path)
    assert (said.interactions.session, said.interactions.user) == ("order_id", "")
    assert raw.session is not None
    assert len(raw.session[1]) == len(orders)
    assert "orders.csv has one row for each 'order_id' of rows.csv and is not read" in text
    assert "'user_id', 'purchased_at'" in text


def test_who_is_guessed_by_values_is_said(tmp_path: Path) -> None:
    catalogue(tmp_path, "song_id name", lambda i: (f"s{i}", title(i)))
    rows = [(f"m{u}=", f"s{i}", t % 2) for u, _, i, t in EVENTS]
    put(tmp_path / "train.csv", rows, "msno song_id target")
    said, _, text = found(tmp_path)
    assert said.interactions.user == "msno"
    assert "msno is taken for the user because of its values" in text


def test_mind(tmp_path: Path) -> None:
    """The history of a user stands in each of that user's rows."""
    news = [
        (f"N{i}", "sports", "nfl", title(i), f"{title(i)}. " * 9, "https://x.com/a", "[]", "[]")
        for i in range(50)
    ]
    put(tmp_path / "news.tsv", news, sign="\t")
    history: dict[int, list[str]] = {}
    for u, _, i, _ in EVENTS:
        history.setdefault(u, []).append(f"N{i}")
    rows = [
        (n, f"U{u}", date(t, "%-m/%-d/%Y %-I:%M:%S %p"), " ".join(history[u]), f"N{i}-1 N3-0")
        for n, (u, _, i, t) in enumerate(EVENTS[::9])
    ]
    put(tmp_path / "behaviors.tsv", rows, sign="\t")
    said, raw, text = found(tmp_path)
    columns = said.interactions
    assert (columns.item, columns.user, columns.time) == ("history", "user_id", "timestamp")
    assert columns.item_separator == " "
    assert len(raw.item) == sum(len(row[3].split()) for row in rows)
    again = len(rows) - len({row[3] for row in rows})
    assert f"{again} of the {len(rows)} lists in history of behaviors.tsv repeat another" in text
    assert "behaviors.tsv holds what was shown (ID-0) and clicked (ID-1)" in text


def test_events_of_items_that_the_table_lacks(tmp_path: Path) -> None:
    put(tmp_path / "items.csv", [(i, title(i)) for i in range(25)], "item_id title")
    rows = [(u, i, t) for u, _, i, t in EVENTS]
    put(tmp_path / "interactions.csv", rows, "user_id item_id timestamp")
    lost = np.mean([i >= 25 for i in ITEMS])
    assert 0.1 < lost < 0.5
    _, raw, text = found(tmp_path)
    assert f"# Note: {lost:.0%} of the cells of item_id name no item of items.csv" in text
    assert len(raw.item) == sum(i < 25 for i in ITEMS)


def test_lists_of_python(tmp_path: Path) -> None:
    """As pandas writes a list into a cell, and numpy."""
    foods = ["rice", "soy sauce", "salt", "basil"]
    catalogue(
        tmp_path,
        "id title ingredients",
        lambda i: (f"B{i}", title(i), str([foods[i % 4], foods[(i + 1) % 4]])),
    )
    lists: dict[int, list[str]] = {}
    for u, _, i, _ in EVENTS:
        lists.setdefault(u, []).append(f"B{i}")
    rows = [(f"u{u}", "[" + " ".join(map(repr, list_)) + "]") for u, list_ in lists.items()]
    put(tmp_path / "sessions.csv", rows, "user_id prev_items")
    said, raw, _ = found(tmp_path)
    assert said.interactions.item_separator == " "
    assert_read(raw, [each for list_ in lists.values() for each in list_], [])
    assert raw.items.text["ingredients"][0] == "rice, soy sauce"


def test_pictures_in_folders_under_images(tmp_path: Path) -> None:
    catalogue(tmp_path, "article_id name", lambda i: (f"01{i:03d}", title(i)))
    rows = [(u, f"01{i:03d}", t) for u, _, i, t in EVENTS]
    put(tmp_path / "clicks.csv", rows, "customer_id article_id timestamp")
    for i in range(50):
        inside = tmp_path / "images" / f"01{i // 10}"
        inside.mkdir(parents=True, exist_ok=True)
        (inside / f"01{i:03d}.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "images" / "01007.jpg").write_bytes(b"\xff\xd8\xff")
    said, raw, _ = found(tmp_path)
    assert said.items.picture == "{id}"
    assert all(raw.items.pictures)
    files = picture_files(tmp_path)
    assert (files["01006"], files["01007"]) == ("010/01006.jpg", "01007.jpg")


def nested(path: Path) -> None:
    rows = [
        {"session": s, "events": [{"aid": i, "ts": s + i, "type": "clicks"} for i in range(1, 4)]}
        for s in range(60)
    ]
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def playlists(path: Path) -> None:
    rows = [{"name": "a", "tracks": [{"pos": i, "uri": f"t{i}"} for i in range(3)]}] * 9
    (path / "mpd.slice.0-999.json").write_text(
        json.dumps({"info": {}, "playlists": rows}, indent=1)
    )


def matrix(path: Path) -> None:
    rows = [[9, *(99 if (u * i) % 3 else u * i % 20 - 10 for i in range(40))] for u in range(60)]
    put(path / "jester-data-1.csv", rows)


def films(path: Path) -> None:
    lines = [f"{m}:\n" + "".join(f"{u},3,2005-09-06\n" for u in range(9)) for m in range(1, 9)]
    (path / "combined_data_1.txt").write_text("".join(lines))
    put(path / "movie_titles.csv", [(m, 1990 + m, title(m)) for m in range(1, 9)])


def ragged(path: Path) -> None:
    lines = [" ".join(map(str, [u, *range(u % 7 + 2)])) for u in range(60)]
    (path / "train.txt").write_text("\n".join(lines) + "\n")


def unnamed(path: Path) -> None:
    put(path / "log.tsv", [(t, u, i) for u, _, i, t in EVENTS], "timestamp uid campaign", "\t")


def of_nobody(path: Path) -> None:
    catalogue(path, "id title", lambda i: (f"B{i}", title(i)))
    lists = [" ".join(f"B{(n * k) % 50}" for k in range(1, 5)) for n in range(60)]
    put(
        path / "sessions.csv",
        [(each, "DE" if len(each) % 2 else "UK") for each in lists],
        "prev locale",
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (nested, r"train.jsonl: each row holds a list of rows \('events', with aid, ts, type\)"),
        (playlists, r"mpd.*: each row holds a list of rows"),
        (matrix, r"jester-data-1.csv has 41 columns without names, as a matrix"),
        (films, r"combined_data_1.txt has the film of its rows in a line of its own"),
        (ragged, r"train.txt: its lines hold numbers with spaces between, more in one"),
        (unnamed, r"log.tsv: no column of one table names .* call their column of items item_id"),
        (of_nobody, r"sessions.csv: no column tells one visitor from another"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=says):
        write_guess(tmp_path)
    assert not (tmp_path / "dataset.toml").exists()
