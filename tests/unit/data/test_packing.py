"""Packed batches: every window once an epoch, and each batch a function of its number."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.packing import fill_rows, packed_batches
from jmrec.data.pipeline import cut_windows
from jmrec.data.schema import Sessions
from jmrec.errors import UserError

LENGTHS = [2, 1, 9, 4, 30, 11, 3, 10, 5, 21, 6, 2, 2, 12]


@pytest.fixture
def sessions(make_sessions: Callable[..., Sessions]) -> Sessions:
    """Every event is an item of its own, so an item tells which transition it begins."""
    ends = np.cumsum(LENGTHS)
    lists = [list(range(end - n, end)) for n, end in zip(LENGTHS, ends)]
    return make_sessions(lists, times=[t**1.5 for t in range(ends[-1])])


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60), longer=st.integers(0, 5))
def test_rows_have_a_place_for_every_window(sizes: list[int], longer: int) -> None:
    length = max(sizes) + longer
    rows = fill_rows(np.array(sizes), length)
    assert rows.place.shape[1] == length
    ordered = sorted(sizes)
    found: list[int] = []
    for place, number, within in zip(rows.place, rows.number, rows.within):
        real = number > 0
        assert (real == (place >= 0)).all()
        assert not real[np.argmin(real) :].any() or real.all()  # padding is at the right
        for each in range(1, number.max() + 1):
            mine = number == each
            (own,) = set(place[mine].tolist())
            assert within[mine].tolist() == list(range(ordered[own]))
            found.append(own)
    assert sorted(found) == list(range(len(sizes)))
    # What fits into an earlier row is there: no two rows could be one.
    filled = np.sort((rows.number > 0).sum(axis=1))
    assert len(filled) < 2 or filled[0] + filled[1] > length


def _windows(batch: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
    return [
        tuple(items[numbers == each].tolist())
        for items, numbers in zip(batch["item"], batch["mask"])
        for each in range(1, numbers.max() + 1)
    ]


def test_an_epoch_is_every_window_once(sessions: Sessions) -> None:
    windows = cut_windows(sessions, 10)
    wanted = sorted(tuple(range(a, a + n)) for a, n in zip(windows.start, windows.size))
    rows = len(fill_rows(windows.size, 10).place)
    batches = packed_batches(sessions, rows=rows, length=10, seed=5)
    epochs = [_windows(batches[n]) for n in range(3)]
    assert [sorted(each) for each in epochs] == [wanted] * 3
    assert len({tuple(each) for each in epochs}) == 3  # another order every time
    some = packed_batches(sessions, rows=4, length=10, seed=5)
    joined = [each for n in range(rows) for each in _windows(some[n])]
    assert joined == [each for n in range(4) for each in _windows(batches[n])]


def test_what_a_batch_says_of_an_event(sessions: Sessions) -> None:
    batch = packed_batches(sessions, rows=5, length=10, seed=1, places=True)[3]
    first = {int(a) for a in cut_windows(sessions, 10).start}
    for at in np.ndindex(*batch["mask"].shape):
        item = int(batch["item"][at])
        if not batch["mask"][at]:
            assert (item, batch["target"][at], batch["target_ok"][at], batch["gap"][at]) == (0,) * 4
            continue
        assert batch["target"][at] == item + 1 == batch["place"][at] + 1
        assert batch["target_ok"][at]
        gap = 0.0 if item in first else np.log1p(item**1.5 - (item - 1) ** 1.5)
        assert batch["gap"][at] == pytest.approx(gap, rel=1e-5)
    assert not packed_batches(sessions, rows=5, length=10, seed=1, has_time=False)[3]["gap"].any()


def test_batches_follow_their_number_and_each_process_reads_its_share(sessions: Sessions) -> None:
    one, two = (packed_batches(sessions, rows=6, length=10, seed=7) for _ in range(2))
    other = packed_batches(sessions, rows=6, length=10, seed=8)
    for n in (9, 0, 4):
        assert all((one[n][name] == two[n][name]).all() for name in one[n])
    assert any((one[n]["item"] != other[n]["item"]).any() for n in range(3))
    half = packed_batches(
        sessions, rows=6, length=10, seed=7, read=lambda rows: np.arange(0, rows, 2)
    )
    assert (half[4]["item"] == one[4]["item"][::2]).all()


def test_nothing_to_learn_is_said(make_sessions: Callable[..., Sessions]) -> None:
    with pytest.raises(UserError, match="nothing to learn"):
        packed_batches(make_sessions([[1], [2]]), rows=2, length=10, seed=0)
