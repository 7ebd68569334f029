"""Batches: every transition once an epoch, and each batch a function of its number."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.pipeline import (
    choose_buckets,
    cut_windows,
    item_batches,
    session_batches,
    shuffle_within,
)
from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.types import Batch

LENGTHS = [2, 1, 9, 4, 30, 11, 3, 10, 5, 21, 6, 2, 2, 12]
BUCKETS = ((3, 4), (10, 2))


@pytest.fixture
def sessions(make_sessions: Callable[..., Sessions]) -> Sessions:
    """Every event is an item of its own, so an item tells which transition it begins."""
    ends = np.cumsum(LENGTHS)
    lists = [list(range(end - n, end)) for n, end in zip(LENGTHS, ends)]
    return make_sessions(lists, times=[t**1.5 for t in range(ends[-1])])


def _transitions(sessions: Sessions) -> set[int]:
    return {int(i) for s in sessions for i in s[:-1]}


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20), length=st.integers(1, 12))
def test_windows_hold_every_transition_once(
    make_sessions: Callable[..., Sessions], lengths: list[int], length: int
) -> None:
    ends = np.cumsum(lengths)
    sessions = make_sessions([list(range(e - n, e)) for n, e in zip(lengths, ends)])
    windows = cut_windows(sessions, length)
    starts = [i for a, n in zip(windows.start, windows.size) for i in range(a, a + n)]
    assert len(starts) == len(set(starts))
    assert set(starts) == _transitions(sessions)
    assert len(windows) == 0 or 1 <= windows.size.min() <= windows.size.max() <= length


def test_an_epoch_of_a_bucket_is_every_window_once(sessions: Sessions) -> None:
    batches = session_batches(sessions, buckets=BUCKETS, seed=5)
    sizes = cut_windows(sessions, 10).size
    per_epoch = {3: int((sizes <= 3).sum()), 10: int((sizes > 3).sum())}
    first: dict[int, list[tuple[int, ...]]] = {3: [], 10: []}
    for n in range(60):
        batch = batches[n]
        length = batch["item"].shape[1]
        assert batch["item"].shape == ({3: 4, 10: 2}[length], length)
        first[length] += [tuple(x[m].tolist()) for x, m in zip(batch["item"], batch["mask"])]
    seen: list[int] = []
    for length, windows in first.items():
        n = per_epoch[length]
        epochs = [windows[k * n : (k + 1) * n] for k in range(3)]
        assert all(len(epoch) == n for epoch in epochs)
        assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
        assert len(set(epochs[0])) == n
        assert len({tuple(epoch) for epoch in epochs}) == 3  # another order every time
        seen += [item for window in epochs[0] for item in window]
    assert len(seen) == len(set(seen))
    assert set(seen) == _transitions(sessions)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 14), min_size=1, max_size=20),
    length=st.integers(1, 12),
    share=st.sampled_from([0.5, 0.8, 0.95]),
)
def test_no_fewer_buckets_would_leave_so_little_padding(
    make_sessions: Callable[..., Sessions], lengths: list[int], length: int, share: float
) -> None:
    """Against every choice of so many lengths, tried one by one."""
    sessions = make_sessions([list(range(n)) for n in lengths])
    sizes = cut_windows(sessions, length).size

    def real(edges: tuple[int, ...]) -> float:
        return float(sizes.sum() / np.array(edges)[np.searchsorted(edges, sizes)].sum())

    def most(n: int) -> float:
        others = sorted({*sizes.tolist()} - {sizes.max()})
        return max(real((*few, int(sizes.max()))) for few in combinations(others, n - 1))

    found = choose_buckets(sessions, length, 48, unit=8, share=share)
    edges = tuple(each for each, _ in found)
    assert real(edges) == pytest.approx(most(len(edges)))
    assert real(edges) >= share
    assert len(edges) == 1 or most(len(edges) - 1) < share
    for edge, rows in found:
        assert rows % 8 == 0
        assert 0 <= 48 * length - edge * rows < 8 * edge


def test_there_are_at_most_eight_buckets(make_sessions: Callable[..., Sessions]) -> None:
    sessions = make_sessions([list(range(n)) for n in range(2, 50)])
    assert len(choose_buckets(sessions, 50, 32, share=0.99)) == 8


def test_buckets_take_turns_in_proportion(sessions: Sessions) -> None:
    batches = session_batches(sessions, buckets=BUCKETS, seed=0)
    sizes = cut_windows(sessions, 10).size
    short, long = (sizes <= 3).sum() / 4, (sizes > 3).sum() / 2
    lengths = np.array([batches[n]["item"].shape[1] for n in range(200)])
    got = (lengths == 3).cumsum()
    want = np.arange(1, 201) * short / (short + long)
    assert np.abs(got - want).max() <= 1


def test_content_of_a_batch(sessions: Sessions) -> None:
    known = np.ones(sum(LENGTHS), bool)
    known[::3] = False
    batch = session_batches(sessions, buckets=BUCKETS, seed=1, known=known)[0]
    dtypes = {key: value.dtype for key, value in batch.items()}
    assert dtypes == {
        "item": np.int32,
        "mask": bool,
        "target": np.int32,
        "target_ok": bool,
        "gap": np.float32,
        "event": np.int32,
    }
    for row in range(len(batch["item"])):
        mask = batch["mask"][row]
        n = int(mask.sum())
        assert mask.tolist() == [True] * n + [False] * (len(mask) - n)
        item = batch["item"][row]
        for p in range(len(mask)):
            if not mask[p]:
                values = [batch[key][row, p] for key in batch]
                assert values == [0] * len(values)
                continue
            i = int(item[p])
            assert batch["target"][row, p] == i + 1
            assert batch["target_ok"][row, p] == known[i + 1]
            assert batch["event"][row, p] == i % 3
            gap = 0 if p == 0 else np.log1p(i**1.5 - (i - 1) ** 1.5)
            assert batch["gap"][row, p] == pytest.approx(gap, rel=1e-5)
    assert not session_batches(sessions, buckets=BUCKETS, seed=1, has_time=False)[0]["gap"].any()


def _same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_a_batch_is_a_function_of_seed_and_number(sessions: Sessions) -> None:
    one, two = (session_batches(sessions, buckets=BUCKETS, seed=7) for _ in range(2))
    forward = [one[n] for n in range(10)]
    assert all(_same(forward[n], two[n]) for n in reversed(range(10)))
    assert _same(one[10**6], two[10**6])
    other = session_batches(sessions, buckets=BUCKETS, seed=8)
    assert not all(_same(forward[n], other[n]) for n in range(10))


@pytest.mark.parametrize("kind", ["sessions", "items"])
def test_the_shares_of_a_batch_are_the_batch(sessions: Sessions, kind: str) -> None:
    def batches(read: Callable[[int], np.ndarray] | None) -> Any:
        if kind == "sessions":
            return session_batches(sessions, buckets=BUCKETS, seed=3, read=read)
        return item_batches({"x": np.arange(9) ** 2}, np.arange(9), batch_size=4, seed=3, read=read)

    whole = batches(None)
    # Every other row: a process's devices need not lie side by side.
    shares = [batches(lambda size, first=first: np.arange(first, size, 2)) for first in (0, 1)]
    for n in (0, 1, 7):
        for name, array in whole[n].items():
            for first, share in enumerate(shares):
                np.testing.assert_array_equal(share[n][name], array[first::2])


def test_one_bucket_and_an_empty_one(
    sessions: Sessions, make_sessions: Callable[..., Sessions]
) -> None:
    assert session_batches(sessions, buckets=[(50, 3)], seed=0)[4]["item"].shape == (3, 50)
    short = make_sessions([[1, 2], [3, 4]])
    shapes = {session_batches(short, buckets=BUCKETS, seed=0)[n]["item"].shape for n in range(9)}
    assert shapes == {(4, 3)}
    with pytest.raises(UserError, match="nothing to learn"):
        session_batches(make_sessions([[1], [2]]), buckets=BUCKETS, seed=0)


def test_item_batches() -> None:
    arrays = {"text": np.arange(60).reshape(20, 3), "ok": np.arange(20) % 2 == 0}
    rows = np.array([1, 2, 3, 5, 8, 13, 19])
    batches = item_batches(arrays, rows, batch_size=4, seed=3)
    drawn = np.concatenate([batches[n]["row"] for n in range(7)])
    assert drawn.dtype == np.int32
    for epoch in drawn.reshape(4, 7):
        assert sorted(epoch) == rows.tolist()
    assert len({tuple(epoch) for epoch in drawn.reshape(4, 7)}) > 1
    batch = batches[2]
    np.testing.assert_array_equal(batch["text"], arrays["text"][batch["row"]])
    np.testing.assert_array_equal(batch["ok"], arrays["ok"][batch["row"]])
    assert _same(batch, item_batches(arrays, rows, batch_size=4, seed=3)[2])
    assert not _same(batch, item_batches(arrays, rows, batch_size=4, seed=4)[2])
    with pytest.raises(UserError, match="no item"):
        item_batches(arrays, rows[:0], batch_size=4, seed=3)


def test_shuffle_within(sessions: Sessions) -> None:
    shuffled = shuffle_within(sessions, 1)
    for before, after in zip(sessions, shuffled):
        assert sorted(before) == sorted(after)
    assert any(a.tolist() != b.tolist() for a, b in zip(sessions, shuffled))
    np.testing.assert_array_equal(shuffled.events, shuffled.items % 3)  # they move together
    np.testing.assert_array_equal(shuffled.times, sessions.times)
    np.testing.assert_array_equal(shuffled.items, shuffle_within(sessions, 1).items)
    assert not np.array_equal(shuffled.items, shuffle_within(sessions, 2).items)
