"""Next-item losses against rax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rax

from jmrec import losses

bpr = jax.jit(losses.bpr)
full_softmax = jax.jit(losses.full_softmax, static_argnames="chunk")

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(2, 3, 4)).astype(np.float32)
ITEMS = RNG.normal(size=(9, 4)).astype(np.float32)
BIAS = RNG.normal(size=9).astype(np.float32)
TARGETS = RNG.integers(0, 9, size=(2, 3))


@pytest.mark.parametrize("chunk", [4, 9])
@pytest.mark.parametrize("valid", [None, np.isin(np.arange(9), [*TARGETS.flat, 1, 2])])
def test_full_softmax_against_rax(chunk, valid):
    assert valid is None or not valid.all()
    ours = full_softmax(
        STATES, ITEMS, TARGETS, bias=BIAS, valid=valid, temperature=0.5, chunk=chunk
    )
    scores = jnp.asarray(STATES @ ITEMS.T / 0.5 + BIAS)
    where = None if valid is None else jnp.broadcast_to(valid, scores.shape)
    expected = rax.softmax_loss(scores, jnp.eye(9)[TARGETS], where=where, reduce_fn=None)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_bpr_against_rax():
    positive, negative = RNG.normal(size=(2, 5)).astype(np.float32)
    for i in range(5):
        scores = jnp.array([positive[i], negative[i]])
        expected = rax.pairwise_logistic_loss(scores, jnp.array([1.0, 0.0]), reduce_fn=jnp.sum)
        assert float(bpr(positive, negative)[i]) == pytest.approx(float(expected), rel=1e-5)


def test_bpr_averages_over_negatives():
    positive, negatives = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3, 4))
    each = [bpr(positive, negatives[..., m]) for m in range(4)]
    np.testing.assert_allclose(bpr(positive, negatives), np.mean(each, axis=0), rtol=1e-5)


def test_bpr_of_far_scores_is_finite():
    np.testing.assert_allclose(bpr(np.array([-1e4, 1e4]), np.zeros(2)), [1e4, 0])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="targets must have shape"):
        full_softmax(STATES, ITEMS, TARGETS[0])
    with pytest.raises(ValueError, match="negative_scores must have shape"):
        bpr(np.zeros(3), np.zeros((4, 2)))
