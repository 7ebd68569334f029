"""Sessions against a slow reference, and splits against leaks."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jmrec.data.folder import Raw
from jmrec.data.schema import Sessions
from jmrec.data.sessions import sessionise, split_by_time, take, until
from jmrec.errors import UserError

RUNS = settings(max_examples=100, deadline=None)


@st.composite
def events(draw: Any, least: int = 1) -> dict[str, list[int]]:
    """Events of a few sessions that overlap in time, with many ties."""
    n = draw(st.integers(least, 60))

    def column(top: int) -> list[int]:
        return draw(st.lists(st.integers(0, top), min_size=n, max_size=n))

    return {"item": column(6), "group": column(n // 2), "time": column(200), "order": column(3)}


def _reference(
    group: list[int], time: Sequence[float], order: Sequence[float], gap: float = math.inf
) -> list[list[int]]:
    """Positions of each session's events, by plain loops."""
    out = []
    for g in dict.fromkeys(group):
        mine = [i for i in range(len(group)) if group[i] == g]
        mine.sort(key=lambda i: (time[i], order[i], i))
        session = [mine[0]]
        for previous, i in pairwise(mine):
            if time[i] - time[previous] > gap:
                out.append(session)
                session = []
            session.append(i)
        out.append(session)
    return sorted(out, key=lambda s: (time[s[0]], min(s)))


@RUNS
@given(data=events())
def test_sessions_by_id(make_raw: Callable[..., Raw], data: dict[str, list[int]]) -> None:
    got = sessionise(
        make_raw(data["item"], session=data["group"], time=data["time"], order=data["order"])
    )
    want = _reference(data["group"], data["time"], data["order"])
    assert [x.tolist() for x in got] == [[data["item"][i] for i in s] for s in want]
    assert got.times.tolist() == [data["time"][i] for s in want for i in s]
    assert got.ids == [f"s{data['group'][s[0]]}" for s in want]


@RUNS
@given(data=events(), gap=st.integers(1, 60))
def test_sessions_by_user_and_gap(
    make_raw: Callable[..., Raw], data: dict[str, list[int]], gap: int
) -> None:
    raw = make_raw(data["item"], user=data["group"], time=data["time"], gap_minutes=gap / 60)
    got = sessionise(raw)
    want = _reference(data["group"], data["time"], [0] * len(data["item"]), gap)
    assert [x.tolist() for x in got] == [[data["item"][i] for i in s] for s in want]
    assert got.users.tolist() == [data["group"][s[0]] for s in want]
    assert len(set(got.ids)) == len(got)


@RUNS
@given(data=events(), ordered=st.booleans())
def test_sessions_without_times(
    make_raw: Callable[..., Raw], data: dict[str, list[int]], ordered: bool
) -> None:
    order = data["order"] if ordered else None
    got = sessionise(make_raw(data["item"], user=data["group"], order=order))
    zeros = [0] * len(data["item"])
    want = sorted(_reference(data["group"], zeros, order or zeros), key=min)
    assert [x.tolist() for x in got] == [[data["item"][i] for i in s] for s in want]
    # The file's order stands for time: the session's places in the file, ascending.
    assert got.times.tolist() == [float(i) for s in want for i in sorted(s)]


@RUNS
@given(
    data=events(least=20),
    fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.2, 0.1), (0.4, 0.3, 0.3)]),
    keep_single=st.booleans(),
)
def test_no_leak(
    make_raw: Callable[..., Raw],
    data: dict[str, list[int]],
    fractions: tuple[float, float, float],
    keep_single: bool,
) -> None:
    sessions = sessionise(make_raw(data["item"], session=data["group"], time=data["time"]))
    try:
        splits = split_by_time(sessions, fractions, keep_single=keep_single)
    except UserError:
        assume(False)
    train, validation, test = splits["train"], splits["validation"], splits["test"]
    start = {name: part.times[part.offsets[:-1]] for name, part in splits.items()}
    assert train.times.max() <= start["validation"].min()
    assert train.times.max() <= start["test"].min()
    assert validation.times.max() <= start["test"].min()
    for name, part in splits.items():
        assert (np.diff(start[name]) >= 0).all()
        assert part.lengths.min() >= (1 if keep_single and name == "train" else 2)
    ids = [i for part in splits.values() for i in part.ids]
    assert len(ids) == len(set(ids))
    # A session is whole, or cut short at the end where the next split begins.
    two = [times[0] for times in _times(sessions) if len(times) >= 2]
    share = [fractions[0], fractions[0] + fractions[1]]
    cut, cut_test = (two[math.floor(f * len(two) + 1e-9)] for f in share)
    whole = dict(zip(sessions.ids, zip(sessions, _times(sessions))))
    for part, end in [(train, cut), (validation, cut_test), (test, math.inf)]:
        for i, x in zip(part.ids, part):
            items, times = whole[i]
            assert x.tolist() == items[times <= end].tolist()


def _times(sessions: Sessions) -> list[np.ndarray]:
    return np.split(sessions.times, sessions.offsets[1:-1])


def test_shares_and_single_events(make_sessions: Callable[..., Sessions]) -> None:
    """Ten sessions of two and three of one; the singles lie in train, in it, and in test."""
    lists = [[0], *[[1, 2]] * 5, [3], *[[1, 2]] * 4, [4], [1, 2]]
    sessions = make_sessions(lists)
    splits = split_by_time(sessions)
    assert [len(splits[s]) for s in ("train", "validation", "test")] == [8, 1, 1]
    assert set(splits["train"].items.tolist()) == {1, 2}
    kept = split_by_time(sessions, keep_single=True)
    assert [len(kept[s]) for s in ("train", "validation", "test")] == [10, 1, 1]
    assert set(kept["train"].items.tolist()) == {0, 1, 2, 3}
    # 0.7 + 0.2 is below 0.9 in floating point; the share is floor(9) all the same.
    assert [len(s) for s in split_by_time(sessions, (0.7, 0.2, 0.1)).values()] == [7, 2, 1]


def test_a_session_over_the_cut_ends_there(make_sessions: Callable[..., Sessions]) -> None:
    lists = [[1, 2, 3, 4], [1, 2], [5, 6], [7, 8]]
    sessions = make_sessions(lists, times=[0, 1, 20, 21, 2, 3, 20, 30, 30, 31])
    splits = split_by_time(sessions, (0.5, 0.25, 0.25))
    assert [x.tolist() for x in splits["train"]] == [[1, 2, 3], [1, 2]]
    assert [x.tolist() for x in splits["validation"]] == [[5, 6]]
    assert [x.tolist() for x in splits["test"]] == [[7, 8]]


@pytest.mark.parametrize(
    "fractions", [(1.0, 0.0, 0.0), (0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)]
)
def test_wrong_fractions(
    make_sessions: Callable[..., Sessions], fractions: tuple[float, ...]
) -> None:
    with pytest.raises(UserError, match="add up to 1"):
        split_by_time(make_sessions([[0, 1]] * 10), fractions)


def test_too_few_sessions(make_sessions: Callable[..., Sessions]) -> None:
    with pytest.raises(UserError, match="too few to split"):
        split_by_time(make_sessions([[0, 1]] * 4))
    overlapping = make_sessions([[0, 1]] * 10, times=[t for i in range(10) for t in (i, 100 + i)])
    with pytest.raises(UserError, match="overlap the split"):
        split_by_time(overlapping)


def test_take_and_until(make_sessions: Callable[..., Sessions]) -> None:
    sessions = make_sessions([[5, 6], [7], [8, 9, 4]])
    taken = take(sessions, np.array([2, 0]))
    assert taken.ids == ["2", "0"]
    assert [x.tolist() for x in taken] == [[8, 9, 4], [5, 6]]
    assert taken.times.tolist() == [3, 4, 5, 0, 1]
    assert taken.events.tolist() == [0, 1, 2, 0, 1]
    assert [x.tolist() for x in until(sessions, 3)] == [[5, 6], [7], [8]]
    assert len(take(sessions, np.array([], int)).items) == 0
