"""Ranking losses against rax and against the sequential definition of Plackett and Luce."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rax
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp, softmax

from jmrec import losses

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(3, 6)).astype(np.float32)
LABELS = RNG.permuted(np.tile(np.arange(6.0), (3, 1)), axis=1).astype(np.float32)
VALID = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1]], bool)
masks = pytest.mark.parametrize("valid", [np.ones((3, 6), bool), VALID])

list_mle, listnet, plackett_luce = map(
    jax.jit, (losses.list_mle, losses.listnet, losses.plackett_luce)
)
rank_distil, pairwise_margin = map(jax.jit, (losses.rank_distil, losses.pairwise_margin))


@masks
def test_listnet_against_rax(valid):
    shares = softmax(np.where(valid, LABELS, -np.inf), axis=-1)
    expected = rax.softmax_loss(
        jnp.asarray(SCORES), jnp.asarray(shares), where=jnp.asarray(valid), reduce_fn=None
    )
    np.testing.assert_allclose(listnet(SCORES, LABELS, valid=valid), expected, rtol=1e-5)


def test_listnet_is_kl_plus_the_entropy_of_the_labels():
    p = softmax(LABELS, axis=-1)
    entropy = -(p * np.log(p)).sum(-1)
    expected = losses.kl(LABELS, SCORES) + entropy
    np.testing.assert_allclose(listnet(SCORES, LABELS), expected, rtol=1e-5)


@masks
def test_list_mle_against_rax(valid):
    expected = rax.listmle_loss(
        jnp.asarray(SCORES), jnp.asarray(LABELS), where=jnp.asarray(valid), reduce_fn=None
    )
    np.testing.assert_allclose(list_mle(SCORES, LABELS, valid=valid), expected, rtol=1e-5)


@masks
@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_pairwise_margin_against_rax(valid, margin):
    """rax's margin is 1: scores over the margin, and the loss times it."""
    expected = [
        margin * rax.pairwise_hinge_loss(jnp.asarray(s / margin), jnp.asarray(y), where=w)
        for s, y, w in zip(SCORES, LABELS, jnp.asarray(valid))
    ]
    ours = pairwise_margin(SCORES, LABELS, margin=margin, valid=valid)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def in_turn(scores, rest=()):
    """-log P of drawing the items in this order, with odds exp(score) among what is left."""
    left, log_p = [*scores, *rest], 0.0
    for score in scores:
        log_p += score - logsumexp(left)
        left = left[1:]
    return -log_p


def test_plackett_luce_in_turn():
    np.testing.assert_allclose(plackett_luce(SCORES), [in_turn(s) for s in SCORES], rtol=1e-5)
    rest = RNG.normal(size=(3, 4))
    ours = plackett_luce(SCORES, rest=logsumexp(rest, axis=1))
    np.testing.assert_allclose(ours, [in_turn(s, r) for s, r in zip(SCORES, rest)], rtol=1e-5)
    ours = plackett_luce(SCORES, valid=VALID)
    np.testing.assert_allclose(ours, [in_turn(s[v]) for s, v in zip(SCORES, VALID)], rtol=1e-5)
    no_rest = plackett_luce(SCORES, rest=np.full(3, -np.inf))
    np.testing.assert_allclose(no_rest, plackett_luce(SCORES), rtol=1e-6)


def test_the_probabilities_of_all_heads_sum_to_one():
    """Every ordered pick of 2 of 4 items, the other two in the rest."""
    scores = np.array([0.5, -1.0, 2.0, 0.0])
    total = 0.0
    for i, j in itertools.permutations(range(4), 2):
        others = [k for k in range(4) if k not in (i, j)]
        total += np.exp(-plackett_luce(scores[[i, j]], rest=logsumexp(scores[others])))
    assert float(total) == pytest.approx(1.0, rel=1e-5)


def test_rank_distil_by_hand():
    others = RNG.normal(size=(3, 2))
    expected = []
    for scores, low, valid in zip(SCORES, others, VALID):
        top = scores[valid]
        across = np.log1p(np.exp(low[None, :] - top[:, None]))
        expected.append(in_turn(top) / len(top) + 0.5 * across.mean())
    ours = rank_distil(SCORES, others, push=0.5, valid=VALID)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_lists_without_anything_cost_nothing():
    none = np.zeros((3, 6), bool)
    for loss in (listnet, list_mle, pairwise_margin):
        gradient = jax.grad(lambda s: loss(s, LABELS, valid=none).sum())(SCORES)  # noqa: B023
        assert not loss(SCORES, LABELS, valid=none).any()
        assert not gradient.any()
    assert not pairwise_margin(SCORES, np.ones((3, 6))).any()
    assert not plackett_luce(SCORES, valid=none, rest=np.ones(3)).any()
    assert not rank_distil(SCORES, SCORES[:, :2], valid=none).any()


def test_far_scores_stay_finite():
    far = np.array([[1e4, -1e4, 0.0]])
    value, gradient = jax.value_and_grad(lambda s: plackett_luce(s[:, ::-1]).sum())(far)
    assert float(value) == pytest.approx(3e4)
    assert np.isfinite(gradient).all()


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, 6, elements=st.floats(-20, 20, width=32)))
def test_the_order_of_the_scores_is_the_best_order(scores):
    best = float(list_mle(scores, scores))
    assert -1e-4 <= best <= float(list_mle(scores, LABELS[0])) + 1e-4


def test_wrong_shapes_are_named():
    for loss in (losses.listnet, losses.list_mle, losses.pairwise_margin):
        with pytest.raises(ValueError, match="labels must have shape"):
            loss(SCORES, LABELS[0])
    with pytest.raises(ValueError, match="valid must be broadcastable"):
        losses.plackett_luce(SCORES, valid=np.ones(5, bool))
    with pytest.raises(ValueError, match="rest must have shape"):
        losses.plackett_luce(SCORES, rest=np.zeros(4))
    with pytest.raises(ValueError, match="others must have shape"):
        losses.rank_distil(SCORES, np.zeros((4, 2)))
