"""Contrastive losses against plain loops."""

import jax
import numpy as np
import pytest

from jmrec import losses

info_nce = jax.jit(losses.info_nce, static_argnames="normalize")
symmetric_info_nce = jax.jit(losses.symmetric_info_nce)

RNG = np.random.default_rng(0)
A, P = RNG.normal(size=(2, 6, 4))
IDS = np.array([1, 1, 2, 3, 3, 4])
WHERE = np.array([True, True, True, False, True, True])


def by_hand(anchors, positives, temperature, ids, where):
    """One pair at a time: -log of the own pair's share of exp(cosine / temperature)."""
    losses = np.zeros(len(anchors))
    for i in np.flatnonzero(where):
        weights = {}
        for j in np.flatnonzero(where):
            if j == i or ids[j] != ids[i]:
                norms = np.linalg.norm(anchors[i]) * np.linalg.norm(positives[j])
                weights[j] = np.exp(anchors[i] @ positives[j] / norms / temperature)
        losses[i] = -np.log(weights[i] / sum(weights.values()))
    return losses


@pytest.mark.parametrize("ids", [np.arange(6), IDS])
@pytest.mark.parametrize("where", [np.ones(6, bool), WHERE])
def test_against_loops(ids, where):
    expected = by_hand(A, P, 0.3, ids, where)
    ours = info_nce(A, P, temperature=0.3, ids=ids, where=where)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    both = (expected + by_hand(P, A, 0.3, ids, where)) / 2
    ours = symmetric_info_nce(A, P, temperature=0.3, ids=ids, where=where)
    np.testing.assert_allclose(ours, both, rtol=1e-4, atol=1e-6)


def test_defaults_mean_all_rows_are_negatives():
    expected = by_hand(A, P, 0.3, np.arange(6), np.ones(6, bool))
    np.testing.assert_allclose(info_nce(A, P, temperature=0.3), expected, rtol=1e-4)


def test_equal_vectors_cost_the_log_of_the_batch():
    same = np.ones((5, 3))
    np.testing.assert_allclose(info_nce(same, same, temperature=0.1), np.log(5), rtol=1e-5)


def test_a_pair_without_negatives_costs_nothing():
    assert not info_nce(A, P, temperature=0.1, ids=np.zeros(6, int)).any()


def test_length_matters_only_without_normalisation():
    scaled = info_nce(3 * A, P, temperature=1.0)
    np.testing.assert_allclose(scaled, info_nce(A, P, temperature=1.0), rtol=1e-4)
    raw = info_nce(3 * A, P, temperature=3.0, normalize=False)
    np.testing.assert_allclose(raw, info_nce(A, P, temperature=1.0, normalize=False), rtol=1e-4)
    assert not np.allclose(raw, scaled)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"must both be \[B, D\]"):
        info_nce(A, P[:3], temperature=1.0)
    with pytest.raises(ValueError, match="ids must have shape"):
        info_nce(A, P, temperature=1.0, ids=np.arange(5))
    with pytest.raises(ValueError, match=r"images and texts must both be \[B, D\]"):
        losses.sigmoid_contrast(A, P[:3], temperature=1.0)
    with pytest.raises(ValueError, match=r"student and teacher must both be \[B, D\]"):
        losses.crd(A, P[:3], temperature=1.0, data_size=9)
    with pytest.raises(ValueError, match="labels must have shape"):
        losses.supervised_contrast(A, IDS[:3], temperature=1.0)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def softplus(x):
    return np.log1p(np.exp(x))


def test_sigmoid_contrast_against_loops():
    z = unit(A) @ unit(P).T / 0.3 - 2.0
    expected = np.zeros(6)
    for i in np.flatnonzero(WHERE):
        for j in np.flatnonzero(WHERE):
            if i == j:
                expected[i] += softplus(-z[i, j])
            elif IDS[i] != IDS[j]:
                expected[i] += softplus(z[i, j])
    ours = losses.sigmoid_contrast(A, P, temperature=0.3, bias=-2.0, ids=IDS, where=WHERE)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_crd_is_the_classifier_of_the_paper():
    """h = e / (e + N / M) tells a joint pair from N of the product, e = exp(<s, t> / T)."""
    e = np.exp(unit(P) @ unit(A).T / 0.5)
    expected = np.zeros(6)
    for i in np.flatnonzero(WHERE):
        others = [j for j in np.flatnonzero(WHERE) if IDS[j] != IDS[i]]
        ratio = len(others) / 40
        expected[i] = -np.log(e[i, i] / (e[i, i] + ratio))
        expected[i] -= sum(np.log(1 - e[i, j] / (e[i, j] + ratio)) for j in others)
    ours = losses.crd(A, P, temperature=0.5, data_size=40, ids=IDS, where=WHERE)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert not losses.crd(A, P, temperature=0.5, data_size=40, ids=np.zeros(6, int)).any()


def test_supervised_contrast_against_loops():
    z = np.exp(unit(A) @ unit(A).T / 0.4)
    expected = np.zeros(6)
    for i in np.flatnonzero(WHERE):
        others = [a for a in np.flatnonzero(WHERE) if a != i]
        total = sum(z[i, a] for a in others)
        same = [p for p in others if IDS[p] == IDS[i]]
        if same:
            expected[i] = -np.mean([np.log(z[i, p] / total) for p in same])
    ours = losses.supervised_contrast(A, IDS, temperature=0.4, where=WHERE)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    assert (expected > 0).sum() == 2
