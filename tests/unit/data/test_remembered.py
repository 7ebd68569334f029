"""Sessions that came after training: counted once each, whatever files they come in."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data.description import describe
from jmrec.data.folder import read_folder
from jmrec.data.forgotten import Forgotten
from jmrec.data.live import live_dataset
from jmrec.data.new_sessions import Counted, read_batch, read_begin
from jmrec.data.prepared import build
from jmrec.data.remembered import (
    Reading,
    Remembered,
    batch_name,
    read_remembered,
    write_batch,
    write_remembered,
)
from jmrec.data.schema import Dataset, Sessions
from jmrec.errors import UserError

ITEMS = 12
HEADER = ["session_id", "user_id", "item_id", "timestamp", "event"]
BEGIN = 1_700_000_000
KINDS = {
    "sessions": "",
    "history": '[dataset]\nsplit = "event_time"\n[interactions]\nsession = ""\n',
    "pauses": '[dataset]\nsession_gap_minutes = 10\n[interactions]\nsession = ""\n',
    "filtered": "[dataset]\nk_core = 4\nmin_session_length = 3\n",
    "untimed": '[interactions]\ntime = ""\nuser = ""\n',
}
Row = list[Any]


def made_rows(seed: int, count: int = 400) -> list[Row]:
    """Return events in the order of time: sessions overlap, some events stand there twice."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for n in range(count):
        visit = n // 7 + int(random.integers(0, 4))
        time = BEGIN + 40 * n + int(random.integers(0, 40))
        item = f"i{random.integers(ITEMS)}"
        event = ["view", "buy"][int(random.random() < 0.2)]
        rows.append([f"s{visit}", f"u{visit % 9}", item, time, event])
        if random.random() < 0.05:
            rows.append(list(rows[-1]))
    return sorted(rows, key=lambda row: row[3])


def write(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def start(folder: Path, rows: Sequence[Row], kind: str) -> tuple[Dataset, Remembered]:
    folder.mkdir()
    titles = [[f"i{i}", f"Item {i}"] for i in range(ITEMS)]
    with (folder / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["item_id", "title"], *titles])
    write(folder / "interactions.csv", rows)
    (folder / "dataset.toml").write_text(KINDS[kind])
    dataset = build(read_folder(folder))
    none = Remembered(Reading(describe(folder), dataset.has_time))
    return dataset, replace(none, begin=read_begin(folder, dataset, none))


def add(known: Remembered, dataset: Dataset, path: Path, **more: Any) -> tuple[Remembered, Counted]:
    batch, counted = read_batch(path, dataset, known, **more)
    return replace(known, batches=(*known.batches, batch)), counted


def plain(sessions: Sessions) -> list[Any]:
    ends = zip(sessions.offsets[:-1], sessions.offsets[1:])
    return [
        [sessions.items[a:b].tolist(), sessions.times[a:b].tolist(), sessions.events[a:b].tolist()]
        for a, b in ends
    ]


def same(one: Sessions, other: Sessions) -> bool:
    return one.ids == other.ids and all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in ("users", "offsets", "items", "times", "events", "ratings", "targets")
    )


def truth(rows: Sequence[Row], kind: str, names: list[str]) -> list[Any]:
    """Return all sessions of two events or more, by loops over all rows that there are."""
    column = 0 if kind in ("sessions", "filtered") else 1
    lists = defaultdict(list)
    for row in rows:
        lists[row[column]].append((float(row[3]), int(row[2][1:]), names.index(row[4])))
    found = []
    for who, events in lists.items():
        events.sort(key=lambda each: each[0])
        parts: list[list[Any]] = [[]]
        for each in events:
            if kind == "pauses" and parts[-1] and each[0] - parts[-1][-1][0] > 600:
                parts.append([])
            parts[-1].append(each)
        found += [(part[0][0], who, part) for part in parts if len(part) > 1]
    if kind == "filtered":
        found = filtered(found)
    return [part for *_, part in found]


def filtered(found: list[Any]) -> list[Any]:
    while True:
        count = Counter(event[1] for *_, part in found for event in part)
        less = [
            (begin, who, [event for event in part if count[event[1]] >= 4])
            for begin, who, part in found
        ]
        less = [each for each in less if len(each[2]) >= 3]
        if less == found:
            return found
        found = less


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["sessions", "history", "pauses", "filtered"])
def test_sessions_are_those_of_plain_loops_whatever_files_they_come_in(
    kind: str, seed: int, tmp_path: Path
) -> None:
    rows = made_rows(seed)
    cut = 250
    while rows[cut][3] == rows[cut - 1][3]:
        cut += 1
    dataset, none = start(tmp_path / "shop", rows[:cut], kind)
    edges = [cut, *(edge for edge in (270, 310, 333, 390) if edge > cut), len(rows)]
    parts = [rows[a:b] for a, b in pairwise(edges)]
    many, few, late = none, none, none
    for n, part in enumerate(parts):
        many, counted = add(many, dataset, write(tmp_path / f"{n}.csv", part))
        assert counted.events == len(part)
        assert (counted.known, counted.continued > 0) == (0, True)
    few, _ = add(few, dataset, write(tmp_path / "all.csv", rows[cut:]))
    late, _ = add(late, dataset, write(tmp_path / "early.csv", rows[cut:300]))
    late, counted = add(late, dataset, write(tmp_path / "whole.csv", rows[cut:]))  # all until now
    assert counted.known == 300 - cut
    found = [live_dataset(dataset, each).splits["train"] for each in (many, few, late)]
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    wanted = [list(map(list, zip(*part))) for part in truth(rows, kind, dataset.event_names)]
    assert len(wanted) > 8
    # In the order of time, and where two events have one time in that of the file.
    got = [[times, items, events] for items, times, events in plain(found[0])]
    assert sorted(got) == sorted(wanted)
    starts = found[0].times[found[0].offsets[:-1]]
    assert kind == "filtered" or (np.diff(starts) >= 0).all()
    assert all((np.diff(times) >= 0).all() for _, times, _ in plain(found[0]))


@pytest.mark.parametrize("cuts", [[], [30], [5, 40, 41]])
def test_without_times_a_session_goes_on_where_it_is_given_whole(
    cuts: list[int], tmp_path: Path
) -> None:
    lists = [[f"s{n}", [int(i) for i in np.random.default_rng(n).integers(0, ITEMS, 2 + n % 5)]]
             for n in range(90)]  # fmt: skip

    def rows(part: Sequence[Any]) -> list[Row]:
        return [[name, "", f"i{item}", "", "view"] for name, items in part for item in items]

    dataset, none = start(tmp_path / "shop", rows(lists[:40]), "untimed")
    known = none
    for n, (a, b) in enumerate(zip([0, *cuts], [*cuts, 50])):
        if b > a:
            path = write(tmp_path / f"{n}.csv", rows(lists[40 + a : 40 + b]))
            known, _ = add(known, dataset, path)
    more = [lists[70][0], [*lists[70][1], 3, 3]], [lists[2][0], [*lists[2][1], 7]]
    known, counted = add(known, dataset, write(tmp_path / "more.csv", rows(more)))
    assert (counted.events, counted.continued) == (3, 2)
    assert counted.known == len(lists[70][1]) + len(lists[2][1])
    with pytest.raises(UserError, match="all of its events were counted before"):
        add(known, dataset, write(tmp_path / "more.csv", rows(more)))
    odd = write(tmp_path / "odd.csv", rows([["s70", [(lists[70][1][0] + 1) % 9]]]))
    with pytest.raises(UserError, match="session 's70' is known and begins otherwise here"):
        add(known, dataset, odd)
    live = live_dataset(dataset, known).splits["train"]
    wanted = {name: list(items) for name, items in lists} | dict(more)
    assert dict(zip(live.ids, (items for items, *_ in plain(live)))) == wanted
    assert live.ids[:3] == ["s0", "s1", "s2"]
    one, _ = add(none, dataset, write(tmp_path / "one.csv", rows(lists[40:])))
    one, _ = add(one, dataset, tmp_path / "more.csv")
    assert same(live, live_dataset(dataset, one).splits["train"])


def test_an_event_is_counted_once_and_the_file_is_told(tmp_path: Path) -> None:
    rows = made_rows(4)
    dataset, none = start(tmp_path / "shop", rows[:250], "sessions")
    part = dataset.splits["train"]
    event = dataset.event_names[part.events[0]]
    old = [[part.ids[0], "u0", f"i{part.items[0]}", int(part.times[0]), event]]
    path = write(tmp_path / "a.csv", old)
    with pytest.raises(UserError, match=r"a\.csv: all of its events were counted before; nothing"):
        add(none, dataset, path)
    new = [["n1", "u1", "i3", BEGIN + 90_000, "view"], ["n1", "u1", "i4", BEGIN + 90_001, "view"]]
    known, counted = add(none, dataset, write(tmp_path / "a.csv", [*new, new[0]]))
    assert (counted.events, counted.sessions, counted.continued) == (3, 1, 0)
    # The third copy is new, two are not.
    known, counted = add(known, dataset, write(tmp_path / "a.csv", [*new, new[0], new[0]]))
    assert (counted.events, counted.known, counted.continued) == (1, 3, 1)
    live = live_dataset(dataset, known)
    assert plain(live.splits["train"])[live.splits["train"].ids.index("n1")][0] == [3, 3, 3, 4]
    # Another type of event at that moment is another event; a type that is new gets a new code.
    other = [["n1", "u1", "i3", BEGIN + 90_000, "share"]]
    known, counted = add(known, dataset, write(tmp_path / "a.csv", other))
    assert counted.events == 1
    assert live_dataset(dataset, known).event_names == [*dataset.event_names, "share"]
    # Spelt as a program spells numbers.
    known, _ = add(known, dataset, write(tmp_path / "a.csv", [["71", "", "i1", BEGIN, "view"]]))
    again = [["71.0", "", "i1", BEGIN, "view"], ["71.0", "", "i2", BEGIN + 1, "view"]]
    known, counted = add(known, dataset, write(tmp_path / "a.csv", again))
    assert (counted.events, counted.known) == (1, 1)
    assert "'71.0' is read as '71'" in " ".join(counted.warnings)


def test_what_a_file_must_not_be(tmp_path: Path) -> None:
    dataset, none = start(tmp_path / "shop", made_rows(5)[:250], "sessions")
    with pytest.raises(UserError, match=r"no\.csv is no file"):
        add(none, dataset, tmp_path / "no.csv")
    (tmp_path / "a.csv").write_text("session_id,item_id\nx,i1\n")
    with pytest.raises(UserError, match=r"has no column 'event', which the interactions of"):
        add(none, dataset, tmp_path / "a.csv")
    rows = [["x", "u", item, BEGIN + 90_000, "view"] for item in ("i1", "new", "i2", "i3")]
    _, counted = add(none, dataset, write(tmp_path / "a.csv", rows))
    assert counted.events == 3
    assert "the item id 'new' is not in the catalogue" in " ".join(counted.warnings)
    with pytest.raises(UserError, match=r"'new' is not in the catalogue.*3 of 4 rows"):
        add(none, dataset, write(tmp_path / "a.csv", [*[rows[1]] * 3, rows[0]]))


def test_new_items_come_with_what_they_say(tmp_path: Path) -> None:
    dataset, none = start(tmp_path / "shop", made_rows(6)[:250], "sessions")
    (tmp_path / "items.csv").write_text("item_id,title\ni1,Known\nn1,Lamp\nn2,Bowl\n")
    rows = [["x", "u", item, BEGIN + 90_000, "view"] for item in ("i1", "n1", "n1")]
    path = write(tmp_path / "a.csv", rows)
    known, counted = add(none, dataset, path, items_path=tmp_path / "items.csv")
    assert (known.items.ids, known.items.titles) == (["n1", "n2"], ["Lamp", "Bowl"])
    assert (counted.items, counted.events) == (2, 3)
    items = replace(
        dataset.items, ids=[*dataset.items.ids, "n1", "n2"], titles=[""] * (ITEMS + 2),
        pictures=[b""] * (ITEMS + 2), text={"title": [""] * (ITEMS + 2)},
        available_from=np.zeros(0), available_until=np.zeros(0),
    )  # fmt: skip
    grown = replace(dataset, items=items)
    assert live_dataset(grown, known).train_count[ITEMS] == 2
    with pytest.raises(UserError, match="were counted before"):
        add(known, grown, path, items_path=tmp_path / "items.csv")


def test_who_was_forgotten_does_not_come_back(tmp_path: Path) -> None:
    dataset, none = start(tmp_path / "shop", made_rows(7)[:250], "sessions")
    gone = Forgotten.new().adding(["u77"], ["s90"])
    rows = [
        [session, user, "i1", BEGIN + 90_000, "view"]
        for session, user in (("s80", "u1"), ("s81", "u77"), ("s90", "u3"), ("s82", ""))
    ]
    known, counted = add(none, dataset, write(tmp_path / "a.csv", rows), forgotten=gone)
    assert known.batches[0].events.ids == ["s80", "s82"]
    assert known.batches[0].user_ids == ["u1"]
    assert known.batches[0].events.users.tolist() == [0, -1]
    assert counted.forgotten == 2
    assert "2 events of people who were forgotten are left out." in counted.sentences()


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_read_back_is_what_was_written(kind: str, tmp_path: Path) -> None:
    rows = made_rows(8)
    if kind == "untimed":
        rows.sort(key=lambda row: int(row[0][1:]))
    dataset, known = start(tmp_path / "shop", rows[:250], kind)
    new = [["n1", "u1", "i3", BEGIN + 90_000, "view"], ["n1", "u1", "i4", BEGIN + 90_001, "buy"]]
    known, _ = add(known, dataset, write(tmp_path / "a.csv", new))
    new[0][0] = new[1][0] = "n2"
    (tmp_path / "items.csv").write_text("item_id,title\nn1,Lamp\n")
    path = write(tmp_path / "a.csv", [*new, ["n2", "u2", "n1", BEGIN + 95_000, ""]])
    known, _ = add(known, dataset, path, items_path=tmp_path / "items.csv")
    known = replace(known, batches=(known.batches[0], replace(known.batches[1], solved=True)))
    (tmp_path / "kept").mkdir()
    assert read_remembered(tmp_path / "kept") is None
    write_remembered(known, tmp_path / "kept")
    found = read_remembered(tmp_path / "kept")
    assert found is not None
    assert found.reading == replace(
        known.reading, description=replace(known.reading.description, given=frozenset())
    )
    assert [each.solved for each in found.batches] == [False, True]
    assert found.solved == found
    for one, other in zip(found.batches, known.batches, strict=True):
        assert same(one.events, other.events)
        assert one.copies.tolist() == other.copies.tolist()
        lists = ("item_ids", "event_names", "user_ids")
        assert [getattr(one, name) for name in lists] == [getattr(other, name) for name in lists]
        assert (one.items.ids, one.items.text) == (other.items.ids, other.items.text)


def test_damage_is_told(tmp_path: Path) -> None:
    dataset, known = start(tmp_path / "shop", made_rows(9)[:250], "sessions")
    known, _ = add(known, dataset, write(tmp_path / "a.csv", [["n", "u", "i1", BEGIN, "view"]]))
    kept = tmp_path / "kept"
    write_remembered(known, kept)
    write_batch(known.batches[0], kept / batch_name(3))
    with pytest.raises(UserError, match=r"kept is damaged \(a batch is missing\)"):
        read_remembered(kept)
    (kept / batch_name(3)).rename(kept / batch_name(2))
    assert read_remembered(kept) is not None
    path = kept / batch_name(1) / "batch.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"item_ids": ["i2"]}))
    with pytest.raises(UserError, match=r"0001: batch\.json is not what was written"):
        read_remembered(kept)
    path.unlink()
    with pytest.raises(UserError, match=r"0001: batch\.json is missing"):
        read_remembered(kept)
    (path.parent / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"0001: checksums\.json is missing"):
        read_remembered(kept)
