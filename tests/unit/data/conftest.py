"""Small catalogue folders for the tests of the data layer."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jmrec.data import flat, records
from jmrec.data.description import Description
from jmrec.data.folder import Raw
from jmrec.data.prepared import load_prepared
from jmrec.data.schema import Items, Sessions

TOML = """
[dataset]
name = "shop"
exclude_seen = true

[items]
text_columns = ["tags"]
category_columns = ["brand"]
number_columns = ["price"]
list_columns = ["tags"]
"""


def _png(color: tuple[int, int, int], size: tuple[int, int] = (20, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    return _png


@pytest.fixture(scope="session")
def write_csv() -> Callable[[Path, Iterable[Sequence[object]]], None]:
    return _write_csv


@pytest.fixture(scope="session")
def as_before() -> Callable[[Path], None]:
    """Make prepared data what versions before flat arrays wrote: records alone, format 1."""

    def change(out: Path) -> None:
        records.write_rest(load_prepared(out), out)
        shutil.rmtree(out / flat.FOLDER)
        metadata = json.loads((out / "metadata.json").read_text())
        del metadata["checksums"]
        (out / "metadata.json").write_text(json.dumps(metadata | {"format": 1}, indent=1) + "\n")

    return change


@pytest.fixture(scope="session")
def make_shop() -> Callable[..., Path]:
    """Write a folder of 8 items and 40 sessions, with everything that a folder may have."""

    def make(path: Path, toml: str = TOML) -> Path:
        (path / "images").mkdir(parents=True)
        for i in range(6):
            (path / "images" / f"{i}.png").write_bytes(_png((40 * i, 0, 255 - 40 * i)))
        header = ["item_id", "title", "description", "image", "tags", "brand", "price", "secret"]
        rows = [
            [
                f"i{i}",
                f"Töy, no. {i}",
                "" if i == 3 else f'says "{i}"\nand more',
                f"images/{i}.png" if i < 6 else "",
                "red| big |" if i % 2 else "",
                ["", "Acme", "Zet"][i % 3],
                "" if i == 5 else i + 0.5,
                "x",
            ]
            for i in range(8)
        ]
        _write_csv(path / "items.csv", [header, *rows])
        random = np.random.default_rng(0)
        events = [
            [f"s{s}", f"u{s % 7}", f"i{random.integers(8)}", 1000 * s + k // 2, "view", 3.5]
            for s in range(40)
            for k in range(random.integers(1, 6))
        ]
        columns = ["session_id", "user_id", "item_id", "timestamp", "event", "rating"]
        _write_csv(path / "interactions.csv", [columns, *events])
        if toml:
            (path / "dataset.toml").write_text(toml, encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def make_raw() -> Callable[..., Raw]:
    """Build a Raw from plain lists of codes."""

    def make(
        item: Sequence[int],
        session: Sequence[int] | None = None,
        user: Sequence[int] | None = None,
        time: Sequence[float] | None = None,
        order: Sequence[float] | None = None,
        gap_minutes: float = 30.0,
    ) -> Raw:
        n, v = len(item), max(item) + 1
        titles = [f"t{i}" for i in range(v)]

        def group(codes: Sequence[int] | None, letter: str) -> tuple[np.ndarray, list[str]] | None:
            if codes is None:
                return None
            return np.array(codes), [f"{letter}{i}" for i in range(max(codes) + 1)]

        return Raw(
            description=Description(session_gap_minutes=gap_minutes),
            items=Items([f"i{i}" for i in range(v)], titles, {"title": titles}, [b""] * v),
            item=np.array(item, np.int32),
            session=group(session, "s"),
            user=group(user, "u"),
            time=None if time is None else np.array(time, np.float64),
            order=None if order is None else np.array(order, np.float64),
            event=np.zeros(n, np.int32),
            event_names=[""],
            rating=np.full(n, np.nan, np.float32),
            row=np.arange(2, n + 2),
            item_row=np.arange(2, v + 2),
            picture_names=[""] * v,
        )

    return make


@pytest.fixture(scope="session")
def make_sessions() -> Callable[..., Sessions]:
    """Build Sessions from lists of items; events get the times 0, 1, 2, ... unless given."""

    def make(lists: Sequence[Sequence[int]], times: Sequence[float] | None = None) -> Sessions:
        offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
        n = int(offsets[-1])
        return Sessions(
            ids=[str(i) for i in range(len(lists))],
            users=np.full(len(lists), -1, np.int32),
            offsets=offsets,
            items=np.array([i for x in lists for i in x], np.int32),
            times=np.arange(n, dtype=np.float64) if times is None else np.array(times, float),
            events=np.arange(n, dtype=np.int32) % 3,
            ratings=np.full(n, np.nan, np.float32),
        )

    return make
