"""Small session data sets, made or real, shared by the tests of evaluation."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.schema import Dataset, Items, Sessions

TEXT = ("title_clean", "genres", "directors", "actors", "overview", "keywords")


def build_sessions(
    lists: list[list[int]],
    users: list[int] | None = None,
    times: list[list[float]] | None = None,
) -> Sessions:
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    flat = np.array([item for one in lists for item in one], np.int32)
    flat_times = np.arange(len(flat)) if times is None else np.concatenate([[], *times])
    return Sessions(
        ids=[str(index) for index in range(len(lists))],
        users=np.array(users if users is not None else [-1] * len(lists), np.int32),
        offsets=offsets,
        items=flat,
        times=flat_times.astype(np.float64),
        events=np.zeros(len(flat), np.int32),
        ratings=np.full(len(flat), np.nan, np.float32),
    )


def build_dataset(
    splits: dict[str, Sessions], texts: list[str], exclude_seen: bool = False, name: str = "small"
) -> Dataset:
    items = Items(
        ids=[str(index) for index in range(len(texts))],
        titles=texts,
        text={"title": texts},
        pictures=[b""] * len(texts),
    )
    return Dataset(name, items, splits, exclude_seen, fingerprint="")


@pytest.fixture(scope="session")
def make_sessions() -> Callable[..., Sessions]:
    return build_sessions


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    return build_dataset


def read_movies(folder: Path) -> Dataset:
    """Movies as jmrec.data would prepare it, read by hand: split by session start, 80/10/10."""
    with (folder / "items.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    row_of = {row["item_id"]: index for index, row in enumerate(rows)}
    found: dict[str, list[tuple[float, int, int]]] = {}
    with (folder / "interactions.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            event = (float(line["timestamp"]), row_of[line["item_id"]], int(line["user_id"]))
            found.setdefault(line["session_id"], []).append(event)
    ordered = sorted(found.values(), key=lambda events: events[0][0])
    # The cuts fall on the sessions that can be predicted from.
    kept = [events for events in ordered if len(events) > 1]
    cuts = [kept[len(kept) * part // 10][0][0] for part in (8, 9)]
    splits = {}
    for name, low, high in zip(
        ("train", "validation", "test"), (-np.inf, *cuts), (*cuts, np.inf), strict=True
    ):
        part = [e for e in ordered if low <= e[0][0] < high and (name == "train" or len(e) > 1)]
        splits[name] = build_sessions(
            [[item for _, item, _ in events] for events in part],
            [events[0][2] for events in part],
            [[time for time, _, _ in events] for events in part],
        )
    items = Items(
        ids=[row["item_id"] for row in rows],
        titles=[row["title_clean"] for row in rows],
        text={name: [row[name].replace("|", ", ") for row in rows] for name in TEXT},
        pictures=[b""] * len(rows),
        number={"year": np.array([float(row["year"] or "nan") for row in rows], np.float32)},
    )
    return Dataset("movies", items, splits, exclude_seen=True, fingerprint="", has_users=True)


@pytest.fixture(scope="session")
def movies(shared_data: Path) -> Dataset:
    return read_movies(shared_data / "movies")
