"""Disentanglement against numpy's correlations and the textbook form of HSIC."""

import jax
import numpy as np
import pytest

from jmrec import losses

hsic = jax.jit(losses.hsic)
orthogonality = jax.jit(losses.orthogonality)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 2))


def test_orthogonality_is_the_mean_squared_correlation():
    correlations = np.corrcoef(A.T, B.T)[:3, 3:]
    ours = orthogonality(A, B)
    assert ours.shape == (9,)
    assert float(ours.mean()) == pytest.approx((correlations**2).mean(), rel=1e-4)


def test_orthogonality_does_not_see_shift_scale_or_constant_columns():
    expected = np.asarray(orthogonality(A, B))
    np.testing.assert_allclose(orthogonality(5 * A + 2, B - 7), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(orthogonality(A, np.ones((9, 4))), 0, atol=1e-6)


def textbook_hsic(a, b, bandwidths):
    n = len(a)
    kernels = []
    for x, bandwidth in zip((a, b), bandwidths):
        squares = ((x[:, None] - x[None]) ** 2).sum(-1)
        kernels.append(np.exp(-squares / (2 * bandwidth**2)))
    h = np.eye(n) - 1 / n
    return np.trace(kernels[0] @ h @ kernels[1] @ h) / n**2


@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
def test_hsic_against_the_textbook(bandwidth):
    expected = textbook_hsic(A, B, [bandwidth] * 2)
    assert float(hsic(A, B, bandwidth=bandwidth).mean()) == pytest.approx(expected, rel=1e-4)


def test_hsic_bandwidth_of_the_batch():
    bandwidths = []
    for x in (A, B):
        squares = ((x[:, None] - x[None]) ** 2).sum(-1)
        bandwidths.append(np.sqrt(squares.sum() / (9 * 8) / 2))
    expected = textbook_hsic(A, B, bandwidths)
    assert float(hsic(A, B).mean()) == pytest.approx(expected, rel=1e-4)


def test_hsic_is_accurate_far_from_the_origin():
    near = float(hsic(A, B, bandwidth=1.0).mean())
    assert float(hsic(A + 1000, B - 1000, bandwidth=1.0).mean()) == pytest.approx(near, rel=1e-2)


def test_only_hsic_sees_what_is_dependent_without_correlation():
    x = np.linspace(-1, 1, 201)[:, None]
    assert float(orthogonality(x, x**2).mean()) < 1e-6
    shuffled = np.random.default_rng(0).permutation(x**2)
    assert float(hsic(x, x**2).mean()) > 10 * float(hsic(x, shuffled).mean())


def test_wrong_shapes_are_named():
    for loss in (orthogonality, hsic):
        with pytest.raises(ValueError, match="do not fit"):
            loss(A, B[:4])
        with pytest.raises(ValueError, match="where must have shape"):
            loss(A, B, where=np.ones(4, bool))
    with pytest.raises(ValueError, match="do not fit"):
        losses.cross_covariance(A, B[:4])
    with pytest.raises(ValueError, match=r"must both be \[B, D\]"):
        losses.coral(A, B)


def test_cross_covariance_against_numpy():
    covariance = np.cov(A.T, B.T, ddof=0)[:3, 3:]
    expected = 0.5 * (covariance**2).sum()
    assert float(losses.cross_covariance(A + 7, B).mean()) == pytest.approx(expected, rel=1e-4)
    scaled = losses.cross_covariance(3 * A, B).mean()  # it sees the scale
    assert float(scaled) == pytest.approx(9 * expected, rel=1e-4)


def test_coral_against_numpy():
    other = RNG.normal(size=(9, 3)) * [0.5, 1.0, 2.0] + 4
    gap = np.cov(A.T) - np.cov(other.T)
    expected = (gap**2).sum() / (4 * 3**2)
    ours = losses.coral(A, other)
    assert ours.shape == (9,)
    assert float(ours.mean()) == pytest.approx(expected, rel=1e-4)
    # Rows do not belong together: any order is the same.
    assert float(losses.coral(A, other[::-1]).mean()) == pytest.approx(expected, rel=1e-4)
    assert float(losses.coral(A, A[::-1] + 3).mean()) == pytest.approx(0, abs=1e-6)
