"""Classification metrics against sklearn with sample weights, and resamples against brute force."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as truth
from sklearn.exceptions import UndefinedMetricWarning

from jmrec.metrics import classification as ours
from jmrec.metrics.bootstrap import Resamples, ends, resampling_counts


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels of both classes, scores with many ties, and weights of which some are 0."""
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.permutation(np.r_[0, 1, rng.integers(0, 2, n - 2)])
    scores = rng.integers(-3, 4, n) / 2 if draw(st.booleans()) else rng.normal(size=n)
    weights = rng.integers(0, 4, n).astype(float) if draw(st.booleans()) else rng.random(n)
    weights[np.flatnonzero(labels == 1)[0]] = 1.0
    weights[np.flatnonzero(labels == 0)[0]] = 1.0
    return labels, scores, weights


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_areas_and_losses_are_those_of_sklearn(case: tuple) -> None:
    labels, scores, weights = case
    for w in (None, weights):
        auc = truth.roc_auc_score(labels, scores, sample_weight=w)
        assert ours.roc_auc(labels, scores, w) == pytest.approx(auc, abs=1e-12)
        precision = truth.average_precision_score(labels, scores, sample_weight=w)
        assert ours.average_precision(labels, scores, w) == pytest.approx(precision, abs=1e-12)
        loss = truth.log_loss(labels, sigmoid(scores), sample_weight=w)
        assert ours.log_loss(labels, scores, w) == pytest.approx(loss, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(-2, 2))
def test_rates_are_those_of_sklearn(case: tuple, threshold: float) -> None:
    labels, scores, weights = case
    called = (scores >= threshold).astype(int)
    found = ours.rates(labels, scores, threshold, weights)
    common = {"sample_weight": weights, "zero_division": np.nan}
    for value, name in ((found.precision, "precision"), (found.recall, "recall")):
        expected = getattr(truth, f"{name}_score")(labels, called, **common)
        assert value == pytest.approx(expected, nan_ok=True)
    f1 = truth.f1_score(labels, called, sample_weight=weights, zero_division=0.0)
    assert found.f1 == pytest.approx(f1)
    cells = truth.confusion_matrix(labels, called, sample_weight=weights, labels=[0, 1])
    assert found.fpr == pytest.approx(cells[0, 1] / cells[0].sum())
    shares = np.array([found.hits, found.false, found.missed])
    assert shares == pytest.approx(np.array([cells[1, 1], cells[0, 1], cells[1, 0]]) / cells.sum())


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([0.1, 0.5, 0.8, 1.0]))
def test_the_rate_at_a_recall_is_the_first_of_the_roc_curve(case: tuple, recall: float) -> None:
    labels, scores, weights = case
    fpr, tpr, _ = truth.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    at = np.flatnonzero(tpr >= recall - 1e-9)[0]
    part = min((recall - tpr[at - 1]) / (tpr[at] - tpr[at - 1]), 1.0)
    expected = fpr[at - 1] + part * (fpr[at] - fpr[at - 1])
    assert ours.fpr_at_recall(labels, scores, recall, weights) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_a_threshold_keeps_its_promise_and_no_better_one_does(
    case: tuple, recall: float, fpr: float
) -> None:
    labels, scores, _ = case
    every = np.append(np.unique(scores), np.inf)

    def reached(threshold: float) -> float:
        return (scores >= threshold)[labels == 1].mean()

    def wrong(threshold: float) -> float:
        return (scores >= threshold)[labels == 0].mean()

    chosen = ours.threshold_for_recall(labels, scores, recall)
    assert reached(chosen) >= recall - 1e-6
    assert all(reached(t) < recall for t in every[every > chosen] if reached(t) < reached(chosen))
    assert all(wrong(t) >= wrong(chosen) for t in every if reached(t) >= recall)
    chosen = ours.threshold_for_fpr(labels, scores, fpr)
    assert wrong(chosen) <= fpr + 1e-6
    assert all(reached(t) <= reached(chosen) for t in every if wrong(t) <= fpr)


def test_a_threshold_lies_between_scores() -> None:
    labels, scores = np.array([1, 0, 1]), np.float32([0.9, 0.6, 0.2])
    assert 0.6 < ours.threshold_for_recall(labels, scores, 0.5) < 0.9
    assert ours.threshold_for_fpr(np.array([0, 1]), np.array([2.0, 1.0]), 0.0) > 2.0
    with pytest.raises(ValueError, match="no positive"):
        ours.threshold_for_recall(np.zeros(3), scores, 0.5)
    with pytest.raises(ValueError, match="no negative"):
        ours.threshold_for_fpr(np.ones(3), scores, 0.5)


def test_ties_at_a_recall_are_broken_at_random() -> None:
    rng = np.random.default_rng(4)
    labels, scores = rng.integers(0, 2, 300), rng.integers(0, 3, 300).astype(float)
    broken = scores + rng.uniform(0, 1e-3, (400, 300))
    mean = np.mean([ours.fpr_at_recall(labels, each, 0.5) for each in broken])
    assert ours.fpr_at_recall(labels, scores, 0.5) == pytest.approx(mean, abs=0.01)
    precision = np.mean([ours.curve(labels, x).precision_at_recall(0.5)[0] for x in broken])
    found = ours.curve(labels, scores).precision_at_recall(0.5)[0]
    assert found == pytest.approx(precision, abs=0.01)


def test_what_cannot_be_known_is_no_number() -> None:
    ones, scores = np.ones(3, int), np.arange(3.0)
    assert np.isnan(ours.roc_auc(ones, scores))
    assert np.isnan(ours.average_precision(1 - ones, scores))
    assert np.isnan(ours.fpr_at_recall(1 - ones, scores, 0.5))
    assert np.isnan(ours.rates(ones, scores, 9.0).precision)
    assert ours.rates(ones, scores, 9.0).f1 == 0
    with pytest.raises(ValueError, match="finite"):
        ours.roc_auc(np.array([0, 1]), np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="2 weights for 3 rows"):
        ours.roc_auc(np.array([0, 1, 1]), scores, np.ones(2))


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    assert ours.log_loss(np.array([1]), np.array([-800.0])) == pytest.approx(800.0)


def test_ece_by_hand_and_by_bins_of_equal_mass() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(3000)
    y = rng.random(3000) < p**2
    order = np.argsort(p)
    expected = np.mean([abs(y[part].mean() - p[part].mean()) for part in np.split(order, 10)])
    assert ours.ece(y, p, bins=10) == pytest.approx(expected, abs=1e-3)
    assert np.bincount(ours.mass_bins(p, 10)) == pytest.approx(np.full(10, 300), abs=1)
    assert ours.ece(y, p**2) < 0.03 < ours.ece(y, p)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 8))
def test_ece_of_whole_weights_is_that_of_copies(case: tuple, bins: int) -> None:
    labels, scores, weights = case
    times = np.rint(weights * 2).astype(int) + 1
    p = sigmoid(scores)
    which = ours.mass_bins(p, bins)
    assert all(len(set(which[p == value])) == 1 for value in np.unique(p))
    gaps = [(times[which == b] * (labels - p)[which == b]).sum() for b in range(which.max() + 1)]
    expected = np.abs(gaps).sum() / times.sum()
    assert ours.ece(labels, p, times, bins) == pytest.approx(expected)


METRICS = {
    "roc": (truth.roc_auc_score, ours.roc_auc),
    "pr": (truth.average_precision_score, ours.average_precision),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("ties", [False, True])
def test_resamples_are_copies_of_whole_clusters(name: str, ties: bool) -> None:
    theirs, mine = METRICS[name]
    rng = np.random.default_rng(1)
    labels, clusters = rng.integers(0, 2, 200), rng.integers(0, 12, 200)
    scores = rng.normal(size=200) + labels
    scores = scores.round() if ties else scores
    counts = resampling_counts(12, 40, seed=3)
    expected = []
    for draw in counts:
        rows = np.repeat(np.arange(200), draw[clusters].astype(int))
        expected.append(theirs(labels[rows], scores[rows]))
    resamples = Resamples.of(clusters, 40, seed=3)
    found = resamples.values(lambda w: mine(labels, scores, w))
    assert found == pytest.approx(np.array(expected), abs=1e-9)
    few = np.flatnonzero(clusters < 6)
    subset = resamples.values(lambda w: mine(labels[few], scores[few], w), few)
    rows = np.repeat(few, counts[0][clusters[few]].astype(int))
    assert subset[0] == pytest.approx(theirs(labels[rows], scores[rows]))


def test_many_rows_are_added_up_without_an_error() -> None:
    """Where float32 would round, float64 is taken."""
    n = 60_000
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 2, n), rng.normal(size=n)
    weights = np.stack([rng.integers(0, 2000, n), np.ones(n)], 1).astype(np.float32)
    found = ours.roc_auc(labels, scores, weights)
    expected = truth.roc_auc_score(labels, scores, sample_weight=weights[:, 0].astype(float))
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_the_interval_covers_the_truth() -> None:
    """Scores of two normals: the area is known, and clusters share nothing."""
    from scipy.stats import norm

    area, inside = norm.cdf(1 / np.sqrt(2)), 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        labels = (rng.random(300) < 0.3).astype(int)
        scores = rng.normal(size=300) + labels
        resamples = Resamples.of(np.arange(300), 200)
        low, high = ends(resamples.values(lambda w, y=labels, s=scores: ours.roc_auc(y, s, w)))
        inside += low <= area <= high
    assert 88 <= inside <= 99


def test_resamples_without_a_class_are_left_out_while_they_are_few() -> None:
    draws = np.arange(200.0)
    draws[:5] = np.nan
    assert ends(draws) == pytest.approx(np.quantile(draws[5:], [0.025, 0.975]))
    draws[:20] = np.nan
    assert np.isnan(ends(draws)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetricWarning)
        warnings.simplefilter("error", RuntimeWarning)
        both = ends(np.stack([draws, np.arange(200.0)]))
    assert np.isnan(both[0]).all()
    assert both[1] == pytest.approx(np.quantile(np.arange(200.0), [0.025, 0.975]))
