"""Relations of a batch against loops and scipy's distances."""

import itertools

import jax
import numpy as np
import optax
import pytest
from scipy.spatial.distance import cosine, pdist, squareform

from jmrec import losses

distance_relations, angle_relations = map(
    jax.jit, (losses.distance_relations, losses.angle_relations)
)
similarity_preserving, cka = map(jax.jit, (losses.similarity_preserving, losses.cka))

RNG = np.random.default_rng(0)
T, S = RNG.normal(size=(7, 5)), RNG.normal(size=(7, 3)) * 3
TURN, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
FAR = T + 4


def huber(difference):
    return np.asarray(optax.losses.huber_loss(np.asarray(difference)))


def test_distance_relations_against_scipy():
    scaled = [squareform(pdist(x)) / pdist(x).mean() for x in (T, S)]
    expected = huber(scaled[1] - scaled[0]).sum(1) / 6
    np.testing.assert_allclose(distance_relations(T, S), expected, rtol=1e-3, atol=1e-5)


def test_angle_relations_against_loops():
    expected = np.zeros(7)
    for j in range(7):
        others = [i for i in range(7) if i != j]
        gaps = [
            cosine(S[i] - S[j], S[k] - S[j]) - cosine(T[i] - T[j], T[k] - T[j])
            for i, k in itertools.permutations(others, 2)
        ]
        expected[j] = huber(gaps).mean()
    np.testing.assert_allclose(angle_relations(T, S), expected, rtol=1e-3, atol=1e-5)


def test_similarity_preserving_against_numpy():
    rows = []
    for x in (T, S):
        g = x @ x.T
        rows.append(g / np.linalg.norm(g, axis=1, keepdims=True))
    expected = ((rows[0] - rows[1]) ** 2).sum() / 7**2
    assert float(similarity_preserving(T, S).mean()) == pytest.approx(expected, rel=1e-4)


def test_cka_by_centred_kernels():
    """The [B, B] form: tr(K H L H) over the root of the two with themselves."""
    h = np.eye(7) - 1 / 7
    k, l = (h @ x @ x.T @ h for x in (T, S))  # noqa: E741
    expected = 1 - (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())
    assert float(cka(T, S).mean()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        (distance_relations, -2 * FAR @ TURN + 1),
        (angle_relations, 2 * FAR @ TURN + 1),
        (similarity_preserving, 2 * T @ TURN),
        (cka, -2 * FAR @ TURN + 1),
    ],
)
def test_what_each_does_not_see(loss, same):
    """Turning and scaling, and (but for dot products) shifting, cost nothing."""
    teacher = T if loss is similarity_preserving else FAR
    assert float(loss(teacher, same).mean()) == pytest.approx(0, abs=1e-4)
    assert float(loss(teacher, S).mean()) > 1e-2


def test_features_that_do_not_vary_have_finite_gradients():
    flat = np.ones((7, 3), np.float32)
    for loss in (distance_relations, angle_relations, similarity_preserving, cka):
        value, gradient = jax.value_and_grad(lambda s: loss(T, s).sum())(flat)  # noqa: B023
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    np.testing.assert_allclose(cka(T, flat), 1)


def test_wrong_shapes_are_named():
    for loss in (distance_relations, angle_relations, similarity_preserving, cka):
        with pytest.raises(ValueError, match="do not fit"):
            loss(T, S[:4])
        with pytest.raises(ValueError, match="where must have shape"):
            loss(T, S, where=np.ones(4, bool))
