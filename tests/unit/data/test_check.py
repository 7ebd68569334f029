"""The figures of `jmrec data check`, counted by hand on a tiny data set."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from jmrec.data.check import CheckReport, check, hints, print_check
from jmrec.data.folder import Raw
from jmrec.data.prepared import build

# Twelve sessions, two of them cut; 0 -> 1 four times and never back, 2 <-> 3 both ways.
SESSIONS = [
    [0, 1],
    [0, 1],
    [0, 1, 0],
    [2, 3],
    [3, 2],
    [2, 3],
    [3, 2, 2],
    [0, 1],
    [4],
    [2, 3],
    [5, 1],
    [0, 1],
]


@pytest.fixture
def raw(make_raw: Callable[..., Raw]) -> Raw:
    item = [i for s in SESSIONS for i in s]
    session = [k for k, s in enumerate(SESSIONS) for _ in s]
    # Ten seconds between sessions, one second between events; session 3 has a tie.
    time = [10 * k + (0 if k == 3 else j) for k, s in enumerate(SESSIONS) for j in range(len(s))]
    raw = make_raw(item, session=session, time=time)
    text = {"title": ["a", "", "c", "d", "e", ""]}
    pictures = [b"x", b"x", b"y", b"", b"", b"x"]
    return replace(raw, items=replace(raw.items, text=text, pictures=pictures))


@pytest.fixture
def report(raw: Raw) -> CheckReport:
    return check(build(raw), raw)


def test_counts(report: CheckReport) -> None:
    assert (report.items, report.events, report.users) == (6, 25, 0)
    assert (report.sessions, report.sessions_two) == (12, 11)
    assert report.split_sessions == {"train": 8, "validation": 1, "test": 2}
    assert report.split_events == {"train": 18, "validation": 2, "test": 4}
    assert report.split_predictions == {"train": 10, "validation": 1, "test": 2}
    assert report.lengths[0] == report.lengths[50] == 2
    assert report.lengths[100] == 3
    assert report.cut_events == 0


def test_missing_and_shared(report: CheckReport) -> None:
    assert report.missing_text == {"title": 2}
    assert report.missing_pictures == 2
    assert report.identical_pictures == 3


def test_order_and_repeats(report: CheckReport) -> None:
    assert report.time_ties == pytest.approx(1 / 13)
    assert report.repeated_items == pytest.approx(2 / 25)
    # {0, 1}: 5 forward, 1 back; {2, 3}: 3 forward, 2 back: both seen often, neither one-way.
    assert (report.repeated_pairs, report.one_way_pairs, report.one_way_events) == (2, 0, 0)


def test_one_way_pairs(make_raw: Callable[..., Raw]) -> None:
    # {0, 1} one-way, {2, 3} both ways, and an item after itself is no pair.
    item = [0, 1] * 5 + [2, 3] * 4 + [3, 2] + [4, 4] * 5
    raw = make_raw(item, session=[i // 2 for i in range(30)], time=range(30))
    report = check(build(raw), raw)
    assert report.repeated_pairs == 2
    assert report.one_way_pairs == 0.5
    assert report.one_way_events == 0.5


def test_cold_targets_and_copies(report: CheckReport) -> None:
    # Items 4 (alone in its session) and 5 (a first item only) are in no training session.
    assert report.cold_items == 2
    assert report.cold_targets == {"validation": 0, "test": 0}
    assert report.longest_ten == 1
    # (0, 1) three times again, (2, 3) twice, (3, 2) never.
    assert report.duplicate_sessions == 5
    assert report.test_in_train == 1


def test_cut_events(raw: Raw) -> None:
    assert raw.time is not None
    time = raw.time.copy()
    time[1] = 1000.0  # the second event of the first session: after the split
    changed = replace(raw, time=time)
    assert check(build(changed), changed).cut_events == 2  # one event is left, no session


def test_print(report: CheckReport) -> None:
    out = io.StringIO()
    print_check(report, Console(file=out, width=100))
    text = out.getvalue()
    assert "2 sessions, 2 predictions, 0 (0.0%) of a cold item" in text
    assert "33% of the items have no title." in text
    assert max(map(len, text.splitlines())) <= 100


def test_hints_name_what_is_alarming(report: CheckReport) -> None:
    calm = replace(
        report,
        items=1000,
        events=10**6,
        time_ties=math.nan,
        longest_ten=0.01,
        repeated_items=0.0,
        identical_pictures=0,
        duplicate_sessions=0,
        test_in_train=0,
        split_sessions={"train": 8000, "validation": 1000, "test": 1000},
        early_events=0,
        languages={"en": 0.9, "de": 0.1},
    )
    assert hints(calm) == []
    changes: list[tuple[dict[str, Any], str]] = [
        ({"one_way_pairs": 0.99, "repeated_pairs": 100}, "one direction"),
        ({"time_ties": 0.2}, "same time"),
        ({"longest_ten": 0.35}, "ten longest"),
        ({"cold_targets": {"validation": 0, "test": 1}}, "test targets never occur"),
        ({"test_in_train": 183}, "stand in training"),
        ({"duplicate_sessions": 9}, "item for item"),
        ({"repeated_items": 0.2}, "exclude_seen"),
        ({"cut_events": 20_000}, "across a split"),
        ({"missing_text": {"title": 300}}, "30% of the items have no title"),
        ({"missing_pictures": 300}, "no picture"),
        ({"identical_pictures": 100}, "placeholder"),
        ({"early_events": 3}, "before 1995"),
        ({"first_time": ""}, "No time is read"),
        ({"duplicate_events": 2000}, "exported twice"),
        ({"languages": {"de": 0.8, "en": 0.2}}, "know English only"),
    ]
    for change, word in changes:
        found = hints(replace(calm, **change))
        assert len(found) == 1
        assert word in found[0]
