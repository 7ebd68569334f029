"""Feature distillation against numpy, sklearn and scipy."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from sklearn.metrics import mean_squared_error

from jmrec import losses

RNG = np.random.default_rng(0)
T, S = RNG.normal(size=(2, 5, 4))
NARROW = RNG.normal(size=(5, 3))


def test_feature_mse_against_sklearn():
    expected = [mean_squared_error(t, s) for t, s in zip(T, S)]
    np.testing.assert_allclose(losses.feature_mse(T, S), expected, rtol=1e-5)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (T, S)]
    expected = [mean_squared_error(t, s) for t, s in zip(*unit)]
    ours = losses.feature_mse(T, 3 * S, normalize=True)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_feature_cosine_against_scipy():
    expected = [cosine(t, s) for t, s in zip(T, S)]
    np.testing.assert_allclose(losses.feature_cosine(T, 7 * S), expected, rtol=1e-4)
    np.testing.assert_allclose(losses.feature_cosine(T, -T), 2, rtol=1e-5)
    np.testing.assert_allclose(losses.feature_cosine(T, 0 * T), 1)


def test_fitnets_is_the_mse_of_the_projection():
    projection, bias = RNG.normal(size=(3, 4)), RNG.normal(size=4)
    expected = ((T - (NARROW @ projection + bias)) ** 2).mean(1)
    ours = losses.fitnets(T, NARROW, projection, bias=bias)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    best, *_ = np.linalg.lstsq(T[:3], NARROW[:3], rcond=None)  # the student lies in T's span
    np.testing.assert_allclose(losses.fitnets(NARROW[:3], T[:3], best), 0, atol=1e-6)


def test_layer_map_averages_over_its_pairs():
    layers = RNG.normal(size=(4, 5, 4))
    expected = (
        np.asarray(losses.feature_cosine(layers[1], S))
        + np.asarray(losses.feature_cosine(layers[3], T))
    ) / 2
    ours = losses.layer_map(layers, [S, T], [(1, 0), (-1, 1)], feature_loss=losses.feature_cosine)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize(("teacher", "student"), [(12, 12), (12, 3), (7, 3), (5, 4), (1, 1)])
def test_uniform_layers(teacher, student):
    pairs = losses.uniform_layers(teacher, student)
    theirs = [t for t, _ in pairs]
    assert [s for _, s in pairs] == list(range(student))
    assert theirs == sorted(set(theirs))
    assert theirs[-1] == teacher - 1
    gaps = np.diff([-1, *theirs])
    assert gaps.max() - gaps.min() <= 1


def test_wrong_shapes_are_named():
    for loss in (losses.feature_mse, losses.feature_cosine):
        with pytest.raises(ValueError, match="student must have shape"):
            loss(T, NARROW)
    with pytest.raises(ValueError, match="projection must have shape"):
        losses.fitnets(T, NARROW, np.eye(4))
    with pytest.raises(ValueError, match="at least one pair"):
        losses.layer_map([T], [S], [])
    with pytest.raises(ValueError, match="layer 1 of students, which have 1"):
        losses.layer_map([T], [S], [(0, 1)])
    with pytest.raises(ValueError, match="5 layers can not follow 4"):
        losses.uniform_layers(4, 5)
