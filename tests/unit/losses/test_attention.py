"""Attention distillation against plain numpy, head by head."""

import jax
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from jmrec import losses

attention_transfer = jax.jit(losses.attention_transfer)
minilm_relations = jax.jit(losses.minilm_relations, static_argnames="heads")

RNG = np.random.default_rng(0)
T, S = RNG.normal(size=(2, 5, 8)), RNG.normal(size=(2, 5, 4))
VALID = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
lengths = pytest.mark.parametrize("valid", [np.ones((2, 5), bool), VALID])


@lengths
def test_attention_transfer_against_numpy(valid):
    expected = []
    for t, s, v in zip(T, S, valid):
        maps = [(x[v] ** 2).sum(1) for x in (t, s)]  # a sum or a mean: the length is 1 anyway
        maps = [m / np.linalg.norm(m) for m in maps]
        expected.append(((maps[0] - maps[1]) ** 2).sum())
    np.testing.assert_allclose(attention_transfer(T, S, valid=valid), expected, rtol=1e-4)


@lengths
@pytest.mark.parametrize("heads", [1, 2])
def test_minilm_relations_head_by_head(valid, heads):
    expected = []
    for t, s, v in zip(T, S, valid):
        costs = []
        for h in range(heads):
            relations = []
            for x in (t, s):
                width = x.shape[1] // heads
                part = x[v][:, h * width : (h + 1) * width]
                relations.append(softmax(part @ part.T / np.sqrt(width), axis=-1))
            costs.append(rel_entr(*relations).sum(-1).mean())
        expected.append(np.mean(costs))
    ours = minilm_relations(T, S, heads=heads, valid=valid)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_the_same_relations_cost_nothing():
    turn, _ = np.linalg.qr(RNG.normal(size=(8, 8)))
    np.testing.assert_allclose(minilm_relations(T, T @ turn, heads=1), 0, atol=1e-5)
    np.testing.assert_allclose(attention_transfer(T, -2 * T @ turn), 0, atol=1e-5)


def test_without_a_position_nothing_is_lost():
    none = np.zeros((2, 5), bool)
    for loss in (
        lambda s: attention_transfer(T, s, valid=none),
        lambda s: minilm_relations(T, s, heads=2, valid=none),
    ):
        value, gradient = jax.value_and_grad(lambda s: loss(s).sum())(S)  # noqa: B023
        assert float(value) == 0
        assert not gradient.any()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="do not fit"):
        losses.attention_transfer(T, S[:, :4])
    with pytest.raises(ValueError, match="heads 3 does not divide the teacher's width 8"):
        losses.minilm_relations(T, S, heads=3)
    with pytest.raises(ValueError, match="valid must be broadcastable"):
        losses.attention_transfer(T, S, valid=np.ones(4, bool))
    with pytest.raises(ValueError, match="where must have shape"):
        losses.attention_transfer(T, S, where=np.ones(3, bool))
