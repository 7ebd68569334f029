"""What Amazon Reviews 2023 becomes: tables, published splits, pictures, a data set of TFDS."""

import io
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jmrec.data.amazon import core_of, make_folder
from jmrec.data.amazon_builder import AmazonReviews2023
from jmrec.data.amazon_pictures import fetch_pictures
from jmrec.data.amazon_rows import Faults, item_row, price, review_row
from jmrec.data.downloads import Web
from jmrec.data.folder import read_folder
from jmrec.data.prepared import build, load_prepared
from jmrec.data.schema import SPLITS, Dataset
from jmrec.data.sessions import sessionise
from jmrec.errors import UserError
from jmrec.main import main
from tests.unit.data.amazon_delivery import (
    ITEMS,
    REVIEWS,
    Delivery,
    Rows,
    draw_items,
    draw_reviews,
    lines,
    pack,
    serving,
    status,
)

THINGS = list(draw_items(40))
SAID = list(draw_reviews(500, 60, 40))
SPLIT_MS = (1_628_643_414_042, 1_658_002_729_837)
"""As the release's own script has them."""
Event = tuple[str, str, int]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with serving() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        yield found


def delivery(reviews: Rows = SAID, items: Rows = THINGS) -> Delivery:
    return Delivery({REVIEWS: pack(lines(reviews)), ITEMS: pack(lines(items))})


@pytest.fixture(scope="module")
def shop(server: tuple[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a delivery in which some events lie exactly at the moments of the split."""
    base, handler = server
    rows = [dict(row) for row in SAID]
    most = Counter(row["user_id"] for row in rows).most_common(1)[0][0]
    own = sorted((row for row in rows if row["user_id"] == most), key=lambda r: r["timestamp"])
    for row, moment in zip(own[4:], [*SPLIT_MS, *(ms - 1 for ms in SPLIT_MS)]):
        row["timestamp"] = moment
    again = [dict(row, timestamp=row["timestamp"] + 5, rating=1.0) for row in rows[::50]]
    handler.delivery = delivery(again + rows)
    folder = tmp_path_factory.mktemp("amazon") / "shop"
    counts = make_folder(folder, "All_Beauty", Web(base))
    assert counts["interactions"] == 500
    assert counts["items"] == 40
    (folder / "truth.json").write_text(json.dumps(rows))
    return folder


def by_hand(shop: Path) -> list[Event]:
    """Return the 5-core by plain loops: users and items go one by one until all have five."""
    rows = json.loads((shop / "truth.json").read_text())
    events = [(row["user_id"], row["parent_asin"], row["timestamp"]) for row in rows]
    while True:
        user, item = (Counter(event[k] for event in events) for k in (0, 1))
        gone = [e for e in events if user[e[0]] < 5 or item[e[1]] < 5]
        if not gone:
            return events
        events.remove(gone[0])


def asked(dataset: Dataset, split: str) -> list[tuple[str, tuple[str, ...], str]]:
    """Return (user, items before, target) of each prediction."""
    part, ids, out = dataset.splits[split], dataset.items.ids, []
    for n, user in enumerate(part.ids):
        rows = range(part.offsets[n], part.offsets[n + 1])
        for at in rows[1:]:
            if part.targets[at]:
                past = tuple(ids[part.items[k]] for k in rows if k < at)
                out.append((user.rpartition(":")[0] or user, past, ids[part.items[at]]))
    return sorted(out)


def histories(events: list[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event[2]):
        found[event[0]].append(event)
    return found


def test_the_5core_is_that_of_plain_loops(shop: Path) -> None:
    rows = pq.read_table(shop / "interactions_5core.parquet").to_pylist()
    truth = by_hand(shop)
    assert 100 < len(truth) < 500
    found = [(row["user_id"], row["parent_asin"], row["timestamp"]) for row in rows]
    assert sorted(found) == sorted(truth)
    items = pq.read_table(shop / "items_5core.parquet")["parent_asin"].to_pylist()
    assert set(items) == {event[1] for event in truth}
    assert len(items) == len(set(items))


@pytest.mark.parametrize("seed", range(20))
def test_a_core_goes_on_until_nothing_more_goes(seed: int) -> None:
    draw = np.random.default_rng(seed)
    user, item = draw.integers(30, size=80), draw.integers(20, size=80)
    keep = draw.random(80) < 0.9
    left = set(np.flatnonzero(keep).tolist())
    while True:
        gone = {
            n
            for n in left
            if sum(user[m] == user[n] for m in left) < 3
            or sum(item[m] == item[n] for m in left) < 3
        }  # fmt: skip
        if not gone:
            break
        left.discard(min(gone))
    assert np.flatnonzero(core_of(user, item, keep, 3)).tolist() == sorted(left)


def test_leave_last_out_is_that_of_the_release(shop: Path) -> None:
    dataset = build(read_folder(shop, shop / "5core_last_out.toml"))
    truth: dict[str, Any] = {name: [] for name in SPLITS}
    for user, events in histories(by_hand(shop)).items():
        items = [event[1] for event in events]
        for at in range(1, len(items)):
            name = {len(items) - 1: "test", len(items) - 2: "validation"}.get(at, "train")
            truth[name].append((user, tuple(items[:at]), items[at]))
    assert {name: asked(dataset, name) for name in SPLITS} == {
        name: sorted(each) for name, each in truth.items()
    }


def test_the_split_by_time_is_that_of_the_release(shop: Path) -> None:
    dataset = build(read_folder(shop, shop / "5core_timestamp.toml"))
    truth: dict[str, Any] = {name: [] for name in SPLITS}
    for user, events in histories(by_hand(shop)).items():
        for at in range(1, len(events)):
            name = SPLITS[sum(events[at][2] >= moment for moment in SPLIT_MS)]
            truth[name].append((user, tuple(e[1] for e in events[:at]), events[at][1]))
    assert {name: asked(dataset, name) for name in SPLITS} == {
        name: sorted(each) for name, each in truth.items()
    }


def test_sessions_end_at_a_pause_of_a_day(shop: Path) -> None:
    raw = read_folder(shop)
    assert raw.description.items.never_use == (
        "average_rating", "rating_number", "bought_together",
    )  # fmt: skip
    rows = json.loads((shop / "truth.json").read_text())
    events = [(row["user_id"], row["parent_asin"], row["timestamp"]) for row in rows]
    pauses = sum(
        b[2] - a[2] > 86_400_000
        for each in histories(events).values()
        for a, b in itertools.pairwise(each)
    )
    assert len(sessionise(raw)) == pauses + len(histories(events))
    assert set(raw.items.text) == {"title", "description", "features", "details", "categories"}


def test_reviews_can_be_ranked(shop: Path) -> None:
    dataset = build(read_folder(shop, shop / "reviews.toml"), sessions=False)
    assert dataset.ratings is not None
    rows = sorted(json.loads((shop / "truth.json").read_text()), key=lambda r: r["timestamp"])
    assert dataset.ratings.labels.tolist() == [int(row["rating"] <= 2) for row in rows]
    assert dataset.ratings.reviews == [f"{row['title']}\n{row['text']}" for row in rows]


def test_the_cells_of_a_line() -> None:
    faults = Faults("meta.jsonl.gz")
    row = {
        "parent_asin": "B01", "title": None, "description": ["<p>Soft &amp; <b>warm</b>\u2028</p>"],
        "features": ["one", 2, None, ["deep"]], "price": "$1,299.00", "store": "A\x1b[2Jcme",
        "details": {"Brand": "<i>Acme</i>", "Best Sellers Rank": {"x": 1}, "Weight": 3, "L": [1],
                    "Date First Available": "May 1, 2020", "Customer Reviews": "4.5"},
        "categories": ["Beauty", "Hair"], "main_category": None, "bought_together": ["B02", None],
        "average_rating": "NaN", "rating_number": 10**400,
    }  # fmt: skip
    assert item_row(row, faults) == (
        "B01", "", "Soft & warm", "one\n2", "Brand: Acme\nWeight: 3", "Beauty > Hair", "",
        "A [2Jcme", 1299.0, None, None, "B02",
    )  # fmt: skip
    assert item_row({"parent_asin": " "}, faults) is None
    read = {"": None, "None": None, "from 9.99": 9.99, "—": None, "9,99": None, "1,000": 1000.0}
    assert {text: price(text) for text in read} == read
    assert price(float("nan")) is None
    assert price(-1) is None
    review = {"user_id": "AE1", "parent_asin": "B01", "timestamp": 1_600_000_000_123, "rating": 4,
              "title": "Half \ud83d", "text": "a<br />b", "helpful_vote": None}  # fmt: skip
    assert review_row(review, faults) == (
        "AE1", "B01", 1_600_000_000_123, 4.0, "Half \ud83d\na b", "", False, None,
    )  # fmt: skip


def test_half_a_character_does_not_end_it(server: tuple[str, Any], tmp_path: Path) -> None:
    base, handler = server
    rows = [dict(SAID[0], text="half \ud83d"), *SAID[1:]]
    things = [dict(THINGS[0], title="half \udc00"), *THINGS[1:]]
    handler.delivery = delivery(rows, things)
    make_folder(tmp_path, "All_Beauty", Web(base))
    table = pq.read_table(tmp_path / "interactions.parquet")
    assert table["review"][0].as_py().endswith("half \ufffd")


@pytest.fixture
def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def shop_of_mine(folder: Path) -> Path:
    """A folder that is none of the release's."""
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "items.csv").write_text("item_id\n1\n")
    return folder / "mine"


def test_the_command(
    server: tuple[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, png: bytes,
) -> None:  # fmt: skip
    """Sizes first; then a folder that check and prepare read, and pictures."""
    base, handler = server
    things = [json.loads(json.dumps(row).replace("https://m.media-amazon.com", base))
              for row in THINGS]  # fmt: skip
    handler.delivery = delivery(items=things)
    pictures = [f"/data/images/I/{n}l.jpg" for n in range(6)]
    handler.delivery.files |= dict.fromkeys(pictures, png)
    handler.delivery.etags |= dict.fromkeys(pictures, "")
    folder = tmp_path / "shop"
    ask = ["data", "amazon", str(folder), "--category", "All_Beauty", "--base", base]
    assert main(ask) == 0
    sizes = [f"{len(handler.delivery.files[path]):,} bytes" for path in (REVIEWS, ITEMS)]
    out = capsys.readouterr().out
    assert all(size in out for size in sizes)
    assert "Give --yes" in out
    assert {method for method, _, _ in handler.delivery.log} == {"HEAD"}
    assert not folder.exists()

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert main([*ask, "--yes", "--pictures", "5"]) == 0
    out = capsys.readouterr().out
    assert "All_Beauty.jsonl.gz: 100 %" in out
    assert "500 interactions" in out
    assert "pictures of 5 items" in out
    assert "no licence" in out
    assert [path for _, path, _ in handler.delivery.log if "/I/" in path] == pictures[:5]
    assert main(["data", "check", str(folder)]) == 0
    for name in ("5core_last_out", "5core_timestamp"):
        toml = str(folder / f"{name}.toml")
        assert main(["data", "check", str(folder), "--toml", toml]) == 0
        out_folder = tmp_path / name
        words = ["data", "prepare", str(folder), "--toml", toml, "--out", str(out_folder)]
        assert main(words) == 0
        assert load_prepared(out_folder).fingerprint
    assert sum(map(bool, load_prepared(out_folder).items.pictures)) > 0
    capsys.readouterr()
    for wrong in (
        [*ask[:4], "all beauty", *ask[5:]], [*ask, "--pictures", "few"],
        [*ask[:-1], "file:///etc"], [*ask, "--sha256", str(tmp_path / "none"), "--yes"],
        [*ask[:4], "Books", *ask[5:]], [*ask[:2], str(shop_of_mine(tmp_path)), *ask[3:]],
    ):  # fmt: skip
        assert main(wrong) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert error.count("\n") == 1, error


def test_pictures_are_fetched_politely(server: tuple[str, Any], tmp_path: Path, png: bytes) -> None:
    base, handler = server
    host = base.removesuffix("/data")
    addresses = [
        f"{host}/0.png", f"{host}/missing.png", "http://10.0.0.1/x.png", "file:///etc/passwd",
        f"{host}/page.png", f"{host}/5.png", f"{host}/busy.png",
    ]  # fmt: skip
    things = [
        {"parent_asin": f"B{n}", "images": [{"variant": "MAIN", "large": url}]}
        for n, url in enumerate(addresses)
    ]
    things.insert(0, {"parent_asin": "../up", "images": [{"large": f"{host}/0.png"}]})
    things.insert(0, {"parent_asin": "none", "images": [{"large": None}]})
    handler.delivery = delivery(items=things)
    kept = {"/0.png": png, "/page.png": b"<html>", "/5.png": png[:30], "/busy.png": png}
    handler.delivery.files |= kept
    handler.delivery.etags |= dict.fromkeys(kept, "")
    handler.delivery.plan["/busy.png"] = [status(429, Retry_After="9")]
    meta = tmp_path / "meta.jsonl.gz"
    meta.write_bytes(handler.delivery.files[ITEMS])
    now, waits = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    web = Web(base, pace=0.5, sleep=sleep, clock=lambda: now[0])
    said: list[str] = []
    assert fetch_pictures(tmp_path, meta, web, None, said.append) == 2
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["B0.png", "B6.png"]
    assert waits == [0.5, 0.5, 0.5, 0.5, 9.0]
    for part in ("names no file", "can not be had", "not asked for", "none of", "not decode"):
        assert sum(part in each for each in said) >= 1, (part, said)
    handler.delivery.log.clear()
    assert fetch_pictures(tmp_path, meta, web, None, said.append) == 2
    assert {path for _, path, _ in handler.delivery.log} == {"/missing.png", "/page.png", "/5.png"}


def test_missing_pictures_end_nothing_and_a_server_that_is_down_does(
    server: tuple[str, Any], tmp_path: Path
) -> None:
    base, handler = server
    things = [{"parent_asin": f"B{n}", "images": [{"large": f"{base}/{n}.png"}]} for n in range(45)]
    handler.delivery = delivery(items=things)
    meta = tmp_path / "meta.jsonl.gz"
    meta.write_bytes(handler.delivery.files[ITEMS])
    web, said = Web(base, sleep=lambda seconds: None), list[str]()
    assert fetch_pictures(tmp_path, meta, web, 30, said.append) == 0
    assert len(handler.delivery.log) == 30
    assert [each.count("30)") for each in said] == [1]
    down = [status(503)] * 6
    handler.delivery.plan |= {f"/data/{n}.png": list(down) for n in range(45)}
    handler.delivery.log.clear()
    with pytest.raises(UserError, match="20 pictures one after the other can not be had"):
        fetch_pictures(tmp_path, meta, web, None)
    assert len(handler.delivery.log) == 20 * 6


def test_a_data_set_of_tfds(server: tuple[str, Any], tmp_path: Path, shop: Path) -> None:
    base, handler = server
    handler.delivery = delivery()
    sources = {}
    for config in ("sessions", "5core_last_out", "5core_timestamp", "items", "reviews"):
        builder = AmazonReviews2023(f"{config}_All_Beauty", tmp_path, Web(base))
        builder.download_and_prepare()
        sources[config] = builder.as_data_source()
    asked_for = [path for method, path, _ in handler.delivery.log if method == "GET"]
    assert sorted(asked_for) == sorted([REVIEWS, ITEMS])  # once for all of them
    folder = tmp_path / "amazon" / "All_Beauty"
    for config in ("sessions", "5core_last_out", "5core_timestamp"):
        toml = folder / ("dataset.toml" if config == "sessions" else f"{config}.toml")
        dataset = build(read_folder(folder, toml))
        for name, part in dataset.splits.items():
            records = sorted(sources[config][name], key=lambda record: record["row"])
            assert [record["id"].decode() for record in records] == part.ids
            for key in ("items", "times"):
                flat = np.concatenate([record[key] for record in records])
                assert np.array_equal(flat, getattr(part, key))
            if config != "sessions":
                flat = np.concatenate([record["targets"] for record in records])
                assert np.array_equal(flat, part.targets)
    assert len(sources["items"]["catalogue"]) == 40
    again = tfds.builder("amazon_reviews_2023/sessions_All_Beauty", data_dir=tmp_path)
    assert len(again.as_data_source("test")) == len(sources["sessions"]["test"])
    with pytest.raises(UserError, match="no config of amazon_reviews_2023"):
        AmazonReviews2023("sessions_All_Cars", tmp_path)
    assert sum(len(block["labels"]) for block in sources["reviews"]["rows"]) == 500
