"""Losses for imbalanced classes against optax, sklearn and numpy."""

import jax
import numpy as np
import optax
import pytest
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from jmrec import losses

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(12, 3)), np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
Z, Y = RNG.normal(size=12), np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
COUNTS = np.bincount(LABELS)


def picked(logits, labels=LABELS):
    return np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)[:, 0]


def test_class_weighted_against_sklearn():
    weights = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    p = np.exp(log_softmax(LOGITS, axis=1))
    expected = log_loss(LABELS, p, normalize=False, sample_weight=weights[LABELS])
    ours = losses.class_weighted(LOGITS, LABELS, weights)
    assert float(ours.sum()) == pytest.approx(expected, rel=1e-5)
    two = np.array([0.5, 4.0])
    expected = log_loss(Y, expit(Z), normalize=False, sample_weight=two[Y])
    assert float(losses.class_weighted(Z, Y, two).sum()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_against_optax(gamma):
    ours = losses.focal(Z, Y, gamma=gamma, weights=np.array([0.75, 0.25]))
    z, y = np.float32(Z), np.float32(Y)
    expected = optax.losses.sigmoid_focal_loss(z, y, alpha=0.25, gamma=gamma)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    log_p = picked(LOGITS)
    expected = -((1 - np.exp(log_p)) ** gamma) * log_p
    np.testing.assert_allclose(losses.focal(LOGITS, LABELS, gamma=gamma), expected, rtol=1e-4)


def test_binary_logits_are_two_class_logits():
    both = np.stack([np.zeros(12), Z], axis=1)
    prior, counts = np.array([0.9, 0.1]), np.array([90, 10])
    for loss in (
        lambda z: losses.class_weighted(z, Y, prior),
        lambda z: losses.focal(z, Y, gamma=1.5),
        lambda z: losses.logit_adjusted(z, Y, prior),
        lambda z: losses.class_balanced(z, Y, counts),
    ):
        np.testing.assert_allclose(loss(Z), loss(both), rtol=1e-6)


def test_focal_is_accurate_where_the_model_is_sure():
    z = np.array([30.0, 60.0, -60.0])
    value, gradient = jax.value_and_grad(lambda z: losses.focal(z, np.ones(3, int)).sum())(z)
    each = losses.focal(z, np.ones(3, int), gamma=0.5)
    assert float(each[0]) == pytest.approx(np.exp(-30) ** 1.5, rel=1e-3, abs=1e-12)
    assert float(each[2]) == pytest.approx(60.0, rel=1e-5)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    impossible = np.array([[0.0, -np.inf]])
    assert float(losses.focal(impossible, np.zeros(1, int), gamma=0.0)[0]) == 0.0


def test_logit_adjusted_against_numpy():
    prior = COUNTS / COUNTS.sum()
    expected = -picked(LOGITS + 0.7 * np.log(prior))
    ours = losses.logit_adjusted(LOGITS, LABELS, COUNTS, tau=0.7)  # a factor does not matter
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_logit_adjustment_learns_the_balanced_posterior():
    """One feature value, 90 % of class 0: plain logits learn the odds 9, adjusted ones 1."""
    labels = np.array([0] * 9 + [1])

    def best(loss):
        grid = np.linspace(-4, 4, 1601)
        total = jax.vmap(lambda z: loss(z + np.zeros(10)).sum())(grid)
        return grid[np.argmin(total)]

    assert best(lambda z: losses.focal(z, labels, gamma=0.0)) == pytest.approx(-np.log(9), abs=0.01)
    prior = np.array([0.9, 0.1])
    assert best(lambda z: losses.logit_adjusted(z, labels, prior)) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_number_weights_by_the_formula(beta):
    counts = np.array([1000, 30, 1])
    expected = (1 - beta) / (1 - beta ** np.float64(counts))
    expected *= 3 / expected.sum()
    np.testing.assert_allclose(losses.effective_number_weights(counts, beta), expected, rtol=1e-3)
    with_none = losses.effective_number_weights(np.array([1000, 0, 30, 1]), beta)
    np.testing.assert_allclose(with_none, np.insert(expected, 1, 0), rtol=1e-3)


def test_class_balanced_is_focal_with_those_weights():
    weights = np.asarray(losses.effective_number_weights(COUNTS, 0.9))
    log_p = picked(LOGITS)
    expected = -weights[LABELS] * (1 - np.exp(log_p)) ** 2 * log_p
    ours = losses.class_balanced(LOGITS, LABELS, COUNTS, beta=0.9, gamma=2.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    near = losses.class_balanced(LOGITS, LABELS, COUNTS, beta=0.99999)  # one over the count
    inverse = (1 / COUNTS) * 3 / (1 / COUNTS).sum()
    np.testing.assert_allclose(near, -inverse[LABELS] * log_p, rtol=2e-2)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="labels must have shape"):
        losses.focal(LOGITS, LABELS[:4])
    with pytest.raises(ValueError, match="weights must have shape"):
        losses.class_weighted(Z, Y, np.ones(3))
    with pytest.raises(ValueError, match="prior must have shape"):
        losses.logit_adjusted(LOGITS, LABELS, np.ones(2))


def test_pairwise_logistic_by_all_pairs():
    where = np.arange(12) % 5 != 4
    ours = losses.pairwise_logistic(Z, Y, where=where)
    rest = [j for j in range(12) if Y[j] == 0 and where[j]]
    for i in range(12):
        each = [np.log1p(np.exp(Z[j] - Z[i])) for j in rest]
        expected = np.mean(each) if Y[i] == 1 and where[i] else 0.0
        assert float(ours[i]) == pytest.approx(expected, rel=1e-5)
    assert not np.any(losses.pairwise_logistic(Z, np.ones(12, int)))
