"""Predictions and ranks against brute force, one prediction and one item at a time."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.schema import Sessions
from jmrec.evaluation import protocol
from jmrec.evaluation.protocol import Prefixes, Ranker, chunks, make_predictions, rank


def sessions_of(lists: list[list[int]], times: list[float] | None = None) -> Sessions:
    flat = np.array([item for one in lists for item in one], np.int32)
    return Sessions(
        ids=[str(index) for index in range(len(lists))],
        users=np.arange(len(lists), dtype=np.int32),
        offsets=np.cumsum([0, *map(len, lists)]).astype(np.int64),
        items=flat,
        times=np.arange(len(flat), dtype=np.float64) if times is None else np.array(times),
        events=np.zeros(len(flat), np.int32),
        ratings=np.zeros(len(flat), np.float32),
    )


@dataclass
class Table:
    """Scores looked up by the prefix's sum and length, so that they depend on the prefix only."""

    table: np.ndarray
    name: str = "table"
    calls: int = 0
    largest: int = 0

    def prepare(self, features: object) -> None:
        pass

    def of(self, prefix: np.ndarray) -> np.ndarray:
        return self.table[(int(prefix.sum()) * 7 + len(prefix)) % len(self.table)]

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        self.calls += 1
        self.largest = max(self.largest, len(prefixes))
        return np.stack([self.of(prefix) for prefix in prefixes.expand()])[:, item_slice]


def brute(lists, window, table, candidates, exclude_seen, cold, offset, top):
    """Ranks and top lists by plain loops over the sessions themselves."""
    ranks, tops = [], []
    n_items = table.table.shape[1]
    for one in lists:
        positions = list(range(1, min(len(one) - 1, window) + 1))
        if len(one) - 1 > window:
            positions.append(len(one) - 1)
        for p in positions:
            scores = table.of(np.array(one[max(0, p - window) : p])).astype(np.float32)
            scores = np.where(cold, scores + np.float32(offset), scores)
            allowed = [
                i for i in range(n_items) if candidates[i] and not (exclude_seen and i in one[:p])
            ]
            target = one[p]
            if target in allowed:
                rivals = [i for i in allowed if i != target and scores[i] >= scores[target]]
                ranks.append(1 + len(rivals))
            else:
                ranks.append(21)
            order = sorted(allowed, key=lambda i: (-scores[i], i == target, i))[:top]
            tops.append(order + [-1] * (top - len(order)))
    return np.array(ranks), np.array(tops)


@given(
    data=st.data(),
    n_items=st.integers(2, 9),
    window=st.integers(1, 5),
    exclude_seen=st.booleans(),
    item_chunk=st.sampled_from([1, 2, 3, 100]),
    batch=st.sampled_from([1, 4, 512]),
)
@settings(max_examples=70, deadline=None)
def test_rank_is_brute_force(data, n_items, window, exclude_seen, item_chunk, batch) -> None:
    item = st.integers(0, n_items - 1)
    lists = data.draw(st.lists(st.lists(item, min_size=1, max_size=9), min_size=1, max_size=6))
    flags = st.lists(st.booleans(), min_size=n_items, max_size=n_items).map(np.array)
    cold, allowed, only = data.draw(flags), data.draw(flags), data.draw(flags)
    # Few distinct values: ties are the rule.
    values = st.lists(
        st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]), min_size=n_items, max_size=n_items
    )
    table = Table(np.array(data.draw(st.lists(values, min_size=3, max_size=3))))
    offsets = data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.5, -1.0]), min_size=1, max_size=3))
    predictions = make_predictions(sessions_of(lists), window)
    found = rank(
        table,
        predictions,
        n_items=n_items,
        exclude_seen=exclude_seen,
        cold=cold,
        offsets=offsets,
        top=4,
        allowed=allowed,
        only=only,
        item_chunk=item_chunk,
        batch=batch,
    )
    for index, offset in enumerate(offsets):
        ranks, tops = brute(lists, window, table, allowed & only, exclude_seen, cold, offset, top=4)
        assert found.ranks[index].tolist() == ranks.tolist()
        if index == 0:
            assert found.top_ids.reshape(-1, 4).tolist() == tops.reshape(-1, 4).tolist()
    # The top list says the same as the rank.
    for row, target, where in zip(found.top_ids, predictions.target, found.ranks[0], strict=True):
        at = np.flatnonzero(row == target)
        assert (at[0] + 1 if len(at) else 5) == min(where, 5)
    filled = found.top_ids >= 0
    assert (np.isfinite(found.top_scores) == filled).all()
    for scores, real in zip(found.top_scores, filled, strict=True):
        assert (np.diff(scores[real]) <= 0).all()


@given(
    lengths=st.lists(st.integers(1, 12), min_size=0, max_size=8),
    window=st.integers(1, 6),
    batch=st.integers(1, 9),
)
@settings(max_examples=80, deadline=None)
def test_predictions_are_each_scored_position_once(lengths, window, batch) -> None:
    rng = np.random.default_rng(sum(lengths))
    lists = [rng.integers(0, 50, n).tolist() for n in lengths]
    times = np.cumsum(rng.integers(0, 100, sum(lengths))).astype(float).tolist()
    made = make_predictions(sessions_of(lists, times), window)
    expected = []
    start = 0
    for index, one in enumerate(lists):
        for p in range(1, len(one)):
            if p <= window or p == len(one) - 1:
                prefix = one[max(0, p - window) : p]
                last = p == len(one) - 1
                expected.append((index, p, one[p], last, prefix, one[:p], times[start + p - 1]))
        start += len(one)
    assert len(made) == len(expected)
    row, seen = made.seen()
    for i, (session, p, target, last, prefix, before, time) in enumerate(expected):
        assert (made.session[i], made.position[i], made.target[i]) == (session, p, target)
        assert made.is_last[i] == last
        assert made.length[i] == len(lists[session])
        assert made.user[i] == session
        assert made.prefixes.expand()[i].tolist() == prefix
        assert made.prefixes.last()[i] == prefix[-1]
        assert made.time[i] == made.prefixes.time[i] == time
        assert seen[row == i].tolist() == before
    assert (np.diff(made.prefixes.window) >= 0).all()
    parts = list(chunks(made, batch))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(made)))
    windows = [set(made.prefixes.window[part].tolist()) for part in parts]
    assert sum(map(len, windows)) == len(set().union(*windows))


def test_gaps_are_log_seconds_inside_the_window() -> None:
    made = make_predictions(sessions_of([[1, 2, 3, 4]], [10.0, 10.0, 13.0, 20.0]), window=2)
    # Positions 1 and 2 read the first window, the last prediction the two items before it.
    assert made.prefixes.windows.tolist() == [[1, 2], [2, 3]]
    assert made.prefixes.gaps == pytest.approx(np.array([[0, 0], [0, np.log(4.0)]]))
    assert made.prefixes.window.tolist() == [0, 0, 1]
    assert made.prefixes.end.tolist() == [0, 1, 1]


def test_long_sessions_have_fifty_positions_and_their_last() -> None:
    made = make_predictions(sessions_of([list(range(51)), list(range(52)), list(range(120))]))
    assert np.bincount(made.session).tolist() == [50, 51, 51]
    assert made.position[made.is_last].tolist() == [50, 51, 119]
    assert made.prefixes.expand()[-1].tolist() == list(range(69, 119))
    assert made.target[-1] == 119


def test_taking_predictions_keeps_only_their_windows() -> None:
    made = make_predictions(sessions_of([[1, 2, 3], [4, 5], [6, 7, 8]]))
    some = made.take(np.array([1, 4]))
    assert [prefix.tolist() for prefix in some.prefixes.expand()] == [[1, 2], [6, 7]]
    assert len(some.prefixes.windows) == 2
    assert some.target.tolist() == [3, 8]
    assert made.take(made.position == 1).target.tolist() == [2, 5, 7]


def test_nan_and_infinite_scores_never_help() -> None:
    lists = [[0, 1], [0, 2], [0, 3]]
    table = Table(np.array([[0.0, np.nan, -np.inf, np.inf]]))
    made = make_predictions(sessions_of(lists))
    found = rank(table, made, n_items=4, exclude_seen=False, top=4)
    assert found.ranks[0].tolist() == [4, 4, 1]
    broken = Table(np.full((1, 4), np.nan))
    assert rank(broken, made, n_items=4, exclude_seen=False).ranks[0].tolist() == [4, 4, 4]


def test_no_more_than_a_batch_is_asked_at_once_and_one_slice_only_once() -> None:
    lists = [list(range(5))] * 30
    made = make_predictions(sessions_of(lists))
    table = Table(np.zeros((1, 5)))
    calls: list[tuple[int, int]] = []
    rank(
        table,
        made,
        n_items=5,
        exclude_seen=True,
        batch=16,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert table.largest <= 16
    assert table.calls == len(calls) == len(list(chunks(made, 16)))
    assert calls[-1] == (len(made), len(made))


def test_offsets_need_cold_items_and_empty_input_is_fine() -> None:
    made = make_predictions(sessions_of([[0, 1]]))
    table = Table(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="cold"):
        rank(table, made, n_items=3, exclude_seen=False, offsets=(1.0,))
    nothing = make_predictions(sessions_of([[1]]))
    assert rank(table, nothing, n_items=3, exclude_seen=False).ranks.shape == (1, 0)
    assert len(make_predictions(sessions_of([]))) == 0
    assert isinstance(table, Ranker)


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.sampled_from([1, 2, 7, 60, 100_000]),
    n_items=st.sampled_from([30, 700, 1201]),
    top=st.sampled_from([1, 5, 20]),
    item_chunk=st.sampled_from([97, 600, 5000]),
    seed=st.integers(0, 1000),
)
def test_the_best_are_those_of_sorting(
    kinds: int, n_items: int, top: int, item_chunk: int, seed: int
) -> None:
    """With many scores alike: by score, then by row, the target after what it is tied with."""
    rng = np.random.default_rng(seed)
    lists = [[first, *rng.integers(0, n_items, 3).tolist()] for first in range(5)]
    table = rng.integers(-kinds, kinds + 1, (15, n_items)).astype(np.float32) / 7
    table[rng.random(table.shape) < 0.1] = np.nan
    allowed = rng.random(n_items) < 0.8
    predictions = make_predictions(sessions_of(lists))

    class Given:
        name = "given"

        def prepare(self, features: object) -> None: ...

        def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
            return table[3 * prefixes_row(prefixes) + prefixes.end, item_slice]

    def prefixes_row(prefixes: Prefixes) -> np.ndarray:
        return np.array([lists.index(head[:4].tolist()) for head in prefixes.windows])[
            prefixes.window
        ]

    ranked = rank(
        Given(), predictions, n_items=n_items, exclude_seen=False, top=top, allowed=allowed,
        item_chunk=item_chunk,
    )  # fmt: skip
    rows = np.repeat(np.arange(5), 3) * 3 + np.tile(np.arange(3), 5)
    for row, target, items in zip(rows, predictions.target, ranked.top_ids):
        low = np.finfo(np.float32).min
        scores = [(low if np.isnan(x) else x) for x in table[row].tolist()]
        order = sorted(
            np.flatnonzero(allowed).tolist(), key=lambda v: (-scores[v], v == target, v)
        )  # fmt: skip
        assert items.tolist() == (order[:top] + [-1] * top)[:top]


@pytest.mark.parametrize(("few", "calls"), [(1, "whole"), (32, "slices")])
def test_a_larger_catalogue_is_scored_once_for_fewer_predictions(
    few: int, calls: str, make_sessions, monkeypatch
) -> None:
    rng = np.random.default_rng(few)
    asked = make_predictions(make_sessions([rng.integers(0, 90, 3).tolist() for _ in range(50)]))
    table = rng.integers(0, 5, (90, 90)).astype(np.float32)
    asked_for: list[tuple[int, int]] = []

    class Counting(Table):
        def scores(self, prefixes, item_slice):
            asked_for.append((len(prefixes), item_slice.stop - item_slice.start))
            return super().scores(prefixes, item_slice)

    common = {"n_items": 90, "exclude_seen": True, "cold": np.arange(90) > 70, "offsets": (0.0, 1)}
    truth = rank(Table(table), asked, batch=8, item_chunk=90, **common)
    monkeypatch.setattr(protocol, "ITEM_CHUNK", 40)
    monkeypatch.setattr(protocol, "FEW", few)
    found = rank(Counting(table), asked, batch=8, **common)
    for name in ("ranks", "top_ids", "top_scores"):
        assert np.array_equal(getattr(found, name), getattr(truth, name))
    scored = sum(rows * items for rows, items in asked_for)
    assert scored == len(asked) * 90 * (1 if calls == "whole" else 2)
    assert max(rows * items for rows, items in asked_for) <= 8 * 40
