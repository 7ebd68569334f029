"""Token cross-entropy against optax and the closed form."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmrec.losses import bag_cross_entropy, sum_and_count, token_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 3, 5)).astype(np.float32)
TARGETS = RNG.integers(0, 5, size=(2, 3))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_against_optax(smoothing):
    labels = optax.smooth_labels(jnp.eye(5)[TARGETS], smoothing)
    np.testing.assert_allclose(
        token_cross_entropy(LOGITS, TARGETS, label_smoothing=smoothing),
        optax.softmax_cross_entropy(LOGITS, labels),
        rtol=1e-5,
    )


def test_equal_logits_cost_the_log_of_the_vocabulary():
    losses = token_cross_entropy(np.full((4, 7), 3.0), np.arange(4))
    np.testing.assert_allclose(losses, np.log(7), rtol=1e-6)


def test_huge_logits_stay_finite():
    losses = token_cross_entropy(np.array([[1e30, -1e30], [-1e4, 1e4]]), np.array([0, 0]))
    np.testing.assert_allclose(losses, [0.0, 2e4])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="targets must have shape"):
        token_cross_entropy(LOGITS, TARGETS[0])
    with pytest.raises(ValueError, match="where must have shape"):
        token_cross_entropy(LOGITS, TARGETS, where=np.ones(3, bool))


def test_sum_and_count():
    values = np.array([[1.0, 2.0], [4.0, np.nan]])
    total, count = sum_and_count(values, np.array([[True, True], [True, False]]))
    assert (float(total), float(count)) == (7.0, 3.0)
    total, count = sum_and_count(values[0])
    assert (float(total), float(count)) == (3.0, 2.0)
    total, count = sum_and_count(values, np.array([[True], [False]]))
    assert (float(total), float(count)) == (3.0, 2.0)
    total, count = sum_and_count(values, np.zeros((2, 2), bool))
    assert (float(total), float(count)) == (0.0, 0.0)
    assert sum_and_count(values.astype(jnp.bfloat16))[0].dtype == jnp.float32


def test_bag_cross_entropy_is_the_cross_entropy_of_the_weighted_set():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 6))
    tokens = np.array([[2, 5, 5, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    weights = np.array([9.0, 0.0, 3.0, 1.0, 1.0, 1.0])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = [-(0.75 * log_p[0, 2] + 0.25 * log_p[0, 5]), 0.0, 0.0]
    np.testing.assert_allclose(bag_cross_entropy(logits, tokens, weights), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="weights must have shape"):
        bag_cross_entropy(logits, tokens, weights[:5])
