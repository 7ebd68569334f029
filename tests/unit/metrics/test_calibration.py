"""Calibration against simulation and sklearn: what is learned back, and that no order changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from jmrec.metrics.calibration import fit_platt, logit_of, odds_ratio, prior_correction
from jmrec.metrics.classification import ece, log_loss, roc_auc


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (labels, true logits) of a rare class."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-2.5, 1.5, n)
    return (rng.random(n) < expit(true)).astype(int), true


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 1.0), (0.1, -4.0), (1e-4, 20.0), (1e5, 1e6)])
def test_a_line_over_logits_is_taken_back(scale: float, shift: float) -> None:
    labels, true = drawn(20_000)
    line = fit_platt(labels, (true - shift) / scale)
    assert line.scale == pytest.approx(scale, rel=0.07)
    assert line.logits((true - shift) / scale) == pytest.approx(true, abs=0.4)
    assert ece(labels, line.probabilities((true - shift) / scale)) < 0.01


def test_it_is_the_line_of_logistic_regression() -> None:
    labels, true = drawn(20_000, 1)
    wrong = 2 * true + 3
    theirs = LogisticRegression(C=1e6, tol=1e-8).fit(wrong[:, None], labels)
    line = fit_platt(labels, wrong)
    # Platt's targets are off 0 and 1 by a thousandth here.
    assert line.scale == pytest.approx(theirs.coef_[0, 0], rel=5e-3)
    assert line.shift == pytest.approx(theirs.intercept_[0], rel=5e-3)
    twice = fit_platt(np.tile(labels, 2), np.tile(wrong, 2), np.repeat([1.0, 0.0], len(labels)))
    assert (twice.scale, twice.shift) == pytest.approx((line.scale, line.shift), rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.floats(1e-3, 1e3), st.booleans())
def test_no_order_changes(seed: int, n: int, spread: float, backwards: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[0, 1, rng.integers(0, 2, n - 2)])
    scores = (rng.normal(size=n) + (1 - 2 * backwards) * labels) * spread
    line = fit_platt(labels, scores)
    assert line.scale > 0
    assert roc_auc(labels, line.logits(scores)) == roc_auc(labels, scores)
    assert log_loss(labels, line.logits(scores)) < 3


def test_classes_that_are_told_apart_fully_stay_uncertain() -> None:
    labels = np.repeat([0, 1], 50)
    p = fit_platt(labels, np.where(labels, 5.0, -5.0)).probabilities(np.array([-5.0, 5.0]))
    assert p == pytest.approx([1 / 52, 51 / 52], abs=1e-3)


def test_equal_logits_become_the_share_of_positives() -> None:
    labels, _ = drawn(10_000)
    p = fit_platt(labels, np.full(10_000, 3.25)).probabilities(np.full(2, 3.25))
    assert p == pytest.approx(labels.mean(), abs=1e-3)
    one_class = fit_platt(np.zeros(100), np.random.default_rng(0).normal(size=100))
    assert np.isfinite([one_class.scale, one_class.shift]).all()
    with pytest.raises(ValueError, match="no row"):
        fit_platt(np.zeros(0), np.zeros(0))


@pytest.mark.parametrize("how", ["weights", "sampling"])
def test_the_prior_is_corrected_in_closed_form(how: str) -> None:
    """Trained on weighted or sampled rows and corrected, a model is that of all rows."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30_000, 2))
    true = 1.2 * x[:, 0] - 0.7 * x[:, 1] - 2.8
    y = (rng.random(len(x)) < expit(true)).astype(int)
    share = y.mean()
    if how == "weights":
        ratio = 9.0
        model = LogisticRegression(C=1e6).fit(x, y, sample_weight=np.where(y, ratio, 1.0))
    else:
        kept = np.flatnonzero(y | (rng.random(len(y)) < share / (1 - share)))
        ratio = odds_ratio(y[kept].mean(), share)
        model = LogisticRegression(C=1e6).fit(x[kept], y[kept])
    raw = model.decision_function(x)
    corrected = prior_correction(raw, ratio)
    assert ece(y, expit(raw)) > 0.2
    assert ece(y, expit(corrected)) < 0.01
    assert corrected == pytest.approx(true, abs=0.4)
    assert roc_auc(y, corrected) == roc_auc(y, raw)


def test_odds() -> None:
    assert odds_ratio(0.3, 0.3) == pytest.approx(1.0)
    assert logit(0.06) + np.log(odds_ratio(0.5, 0.06)) == pytest.approx(logit(0.5))
    assert logit_of(np.array([0.0, 0.2])) == pytest.approx([logit(1e-6), logit(0.2)])
    with pytest.raises(ValueError, match="have no odds"):
        odds_ratio(1.0, 0.5)
    with pytest.raises(ValueError, match="not above 0"):
        prior_correction(np.zeros(1), 0.0)
