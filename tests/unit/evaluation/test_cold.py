"""The cold panel against brute force over single ranks."""

from dataclasses import dataclass

import numpy as np
import pytest

from jmrec.evaluation import cold
from jmrec.evaluation.cold import GRID, choose_offset, cold_panel, score_spread
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers.blend import some_sessions
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.metrics.ranks import metric, session_mean

V = 40
COLD = np.arange(V) >= 30
COMMON = {"n_items": V, "exclude_seen": True}


@dataclass
class Learned:
    """A fixed random score for every (last item, item), cold items far below warm ones."""

    table: np.ndarray
    name: str = "learned"

    def prepare(self, features: object) -> None:
        pass

    def scores(self, prefixes, item_slice):
        return self.table[prefixes.last()][:, item_slice]


@pytest.fixture(scope="module")
def asked(make_sessions):
    rng = np.random.default_rng(0)
    lists = [rng.permutation(V)[: rng.integers(2, 30)].tolist() for _ in range(40)]
    return make_predictions(make_sessions(lists))


@pytest.fixture(scope="module")
def ranker(asked):
    """Knows where it goes from an item, cold or warm, but scores all cold items 4 lower."""
    table = np.random.default_rng(1).normal(size=(V, V))
    np.add.at(table, (asked.prefixes.last(), asked.target), 1.5)
    table[:, COLD] -= 4.0
    return Learned(table.astype(np.float32))


def test_spread_is_the_mean_deviation_over_the_catalogue(asked, ranker) -> None:
    scores = ranker.scores(asked.prefixes, slice(0, V))
    found = score_spread(ranker, asked, V, sample=len(asked))
    assert found == pytest.approx(scores.std(axis=1).mean(), rel=1e-6)
    scaled = Learned(ranker.table * 100 + 7)
    assert score_spread(scaled, asked, V, len(asked)) == pytest.approx(100 * found, rel=1e-4)


def test_the_offset_is_the_best_of_its_grid(asked, ranker) -> None:
    chosen = choose_offset(ranker, asked, cold=COLD, **COMMON)
    used = asked.take(asked.position <= 20)
    figures = []
    for offset in np.array(GRID) * chosen.spread:
        raised = Learned(ranker.table + np.where(COLD, np.float32(offset), 0).astype(np.float32))
        ranks = rank(raised, used, **COMMON).ranks[0]
        figures.append(session_mean(metric("MRR@20", ranks), used.session))
    assert chosen.overall == pytest.approx(figures, abs=1e-9)
    assert chosen.offset == chosen.grid[int(np.argmax(figures))]
    assert chosen.offset > 0
    assert chosen.warm[0] == max(chosen.warm)
    assert chosen.cold[-1] > chosen.cold[0]


def test_the_choice_does_not_depend_on_the_scale_of_scores(asked, ranker) -> None:
    chosen = choose_offset(ranker, asked, cold=COLD, **COMMON)
    scaled = choose_offset(Learned(ranker.table * 64), asked, cold=COLD, **COMMON)
    assert scaled.offset == pytest.approx(64 * chosen.offset)


def test_equal_offsets_give_the_smallest_and_a_warm_loss_can_be_allowed(asked, ranker) -> None:
    flat = StaticRule("flat", np.zeros(V, np.float32))
    assert choose_offset(flat, asked, cold=COLD, **COMMON).offset == 0
    none_cold = choose_offset(ranker, asked, cold=np.zeros(V, bool), **COMMON)
    assert none_cold.offset == 0
    bounded = choose_offset(ranker, asked, cold=COLD, warm_loss=0.3, **COMMON)
    index = bounded.grid.tolist().index(bounded.offset)
    assert bounded.warm[index] >= 0.7 * bounded.warm[0]
    affordable = bounded.warm >= 0.7 * bounded.warm[0]
    assert bounded.cold[index] == bounded.cold[affordable].max()


def test_panel_numbers_are_those_of_plain_ranks(asked, ranker) -> None:
    offset = 3.0
    plain = rank(ranker, asked, **COMMON)
    panel = cold_panel(ranker, asked, plain, cold=COLD, offset=offset, **COMMON)
    scores = ranker.scores(asked.prefixes, slice(0, V)).astype(np.float32)
    row, item = asked.seen()
    scores[row, item] = -np.inf

    def ranks_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = table[np.arange(len(asked)), asked.target][:, None]
        order = np.argsort(-table, axis=1, kind="stable")[:, :20]
        listed = np.isfinite(np.take_along_axis(table, order, axis=1))
        share = (COLD[order] & listed).sum(axis=1) / listed.sum(axis=1)
        return (table >= own).sum(axis=1), share

    before, share_before = ranks_of(scores)
    after, share_after = ranks_of(scores + np.where(COLD, np.float32(offset), np.float32(0)))
    among, _ = ranks_of(np.where(COLD, scores, -np.inf))
    early, new = asked.position <= 20, COLD[asked.target]

    def mean(values: np.ndarray, which: np.ndarray) -> float:
        found = [values[which & (asked.session == s)] for s in np.unique(asked.session[which])]
        return float(np.mean([one.mean() for one in found]))

    hit = [(ranks <= 20).astype(float) for ranks in (before, after, among)]
    rr = [np.where(ranks <= 20, 1 / ranks, 0) for ranks in (before, after)]
    expected = {
        "n": (early & new).sum(),
        "HR@20 among cold": mean(hit[2], early & new),
        "HR@20": mean(hit[0], early & new),
        "MRR@20": mean(rr[0], early & new),
        "offset": offset,
        "HR@20 with offset": mean(hit[1], early & new),
        "MRR@20 with offset": mean(rr[1], early & new),
        "warm HR@20 lost": mean(hit[0], early & ~new) - mean(hit[1], early & ~new),
        "warm MRR@20 with offset": mean(rr[1], early & ~new),
        "share of cold in top 20": mean(share_before, early),
        "share of cold in top 20 with offset": mean(share_after, early),
    }
    assert panel == pytest.approx(expected)
    assert panel["MRR@20 with offset"] > panel["MRR@20"]
    assert panel["warm HR@20 lost"] > 0


def test_a_rule_that_only_pushes_new_items_up_shows_itself(asked) -> None:
    pusher = StaticRule("pusher", COLD.astype(np.float32))
    plain = rank(pusher, asked, **COMMON)
    panel = cold_panel(pusher, asked, plain, cold=COLD, offset=0.0, **COMMON)
    assert panel["share of cold in top 20"] == pytest.approx(
        np.mean([share_of(asked, s) for s in np.unique(asked.session)])
    )
    # Ten cold items tie: each target ranks behind the other unseen ones, so all are hits at 20
    # among the cold, and none is told apart from the others.
    assert panel["HR@20 among cold"] == 1.0
    assert panel["MRR@20"] < 0.25


def share_of(asked, session: int) -> float:
    shares = []
    for index in np.flatnonzero((asked.session == session) & (asked.position <= 20)):
        start = asked.seen_start[index]
        seen = asked.seen_items[start : start + asked.position[index]]
        unseen = np.setdiff1d(np.arange(V), seen)
        shares.append(min(COLD[unseen].sum(), 20) / min(len(unseen), 20))
    return float(np.mean(shares))


def test_without_cold_targets_the_panel_has_no_numbers(asked, ranker) -> None:
    warm = asked.take(~COLD[asked.target])
    panel = cold_panel(ranker, warm, rank(ranker, warm, **COMMON), cold=COLD, offset=1.0, **COMMON)
    assert panel["n"] == 0
    assert panel["HR@20"] is panel["HR@20 among cold"] is panel["MRR@20 with offset"] is None
    assert panel["warm MRR@20 with offset"] is not None


def test_of_many_scores_a_draw_of_sessions_chooses(asked, ranker, monkeypatch) -> None:
    whole = choose_offset(ranker, asked, cold=COLD, **COMMON)
    monkeypatch.setattr(cold, "ENOUGH", 1)
    assert choose_offset(ranker, asked, cold=COLD, **COMMON).offset == whole.offset
    monkeypatch.setattr(cold, "CHOOSING", 100 * V)
    some = choose_offset(ranker, asked, cold=COLD, **COMMON)
    drawn = some_sessions(asked.take(asked.place <= 20), 100, 0)
    assert 0 < len(drawn) <= 100 < (asked.place <= 20).sum()
    monkeypatch.undo()
    same = choose_offset(ranker, drawn, cold=COLD, **COMMON)
    assert same.offset == some.offset
    for name in ("overall", "warm", "cold"):
        assert np.array_equal(getattr(same, name), getattr(some, name))
    assert not np.array_equal(whole.overall, some.overall)
