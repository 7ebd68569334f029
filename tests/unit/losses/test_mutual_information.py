"""Bounds on correlated Gaussians, where I(x; y), the true critic and the true q are known.

x and e are standard normal in D dimensions and y = r x + sqrt(1 - r**2) e, so that
I(x; y) = -D / 2 log(1 - r**2).
"""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from jmrec import losses

infonce, jsd, nwj, smile = map(jax.jit, (losses.infonce, losses.jsd, losses.nwj, losses.smile))
vclub, l1out = map(jax.jit, (losses.vclub, losses.l1out))
mine = jax.jit(losses.mine)
gaussian_log_likelihood = jax.jit(losses.gaussian_log_likelihood)

R, D, N = 0.6, 2, 1500
TRUE = -D / 2 * np.log(1 - R**2)
STD = np.sqrt(1 - R**2)


def sample(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    return x, R * x + STD * rng.normal(size=(N, D))


def log_ratio(x, y):
    """[N, N] of log p(y_j | x_i) / p(y_j), the critic that makes the lower bounds tight."""
    given = norm.logpdf(y[None], R * x[:, None], STD)
    return (given - norm.logpdf(y)[None]).sum(-1)


@pytest.fixture(scope="module")
def critic():
    return log_ratio(*sample())


def test_lower_bounds_with_the_true_critic(critic):
    """Standard errors at N = 1500 are about 0.02."""
    for estimate in (infonce(critic), nwj(1 + critic), smile(critic, np.inf), smile(critic, 20)):
        assert float(estimate.mean()) == pytest.approx(TRUE, abs=0.06)


def test_lower_bounds_with_a_poor_critic_are_lower(critic):
    for estimate in (infonce(critic / 3), nwj(1 + critic / 3), smile(critic / 3, np.inf)):
        assert 0 < float(estimate.mean()) < TRUE - 0.05


def test_infonce_never_exceeds_the_log_of_the_batch():
    scores = 1e4 * np.eye(8)
    where = np.arange(8) < 5
    assert float(infonce(scores).mean()) == pytest.approx(np.log(8))
    assert float(infonce(scores, where=where)[:5].mean()) == pytest.approx(np.log(5))
    random = np.random.default_rng(0).normal(size=(20, 8, 8)) * 10
    assert all(float(infonce(s).max()) <= np.log(8) + 1e-5 for s in random)


def test_jsd_is_the_divergence_by_numerical_integration():
    """One dimension, on a grid: JSD of the joint density and the product of the marginals."""
    grid = np.linspace(-6, 6, 601)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    p = norm.pdf(x) * norm.pdf(y, R * x, STD)
    q = norm.pdf(x) * norm.pdf(y)
    half = (p + q) / 2
    area = (grid[1] - grid[0]) ** 2
    expected = area * 0.5 * (p * np.log(p / half) + q * np.log(q / half)).sum()
    sampled = [float(jsd(log_ratio(x[:, :1], y[:, :1])).mean()) for x, y in map(sample, range(3))]
    assert np.mean(sampled) == pytest.approx(expected, abs=0.006)
    assert 0.05 < expected < np.log(2)


@pytest.mark.parametrize("clip", [0.7, np.inf])
def test_formulas_by_hand(clip):
    """The estimates, written as means over pairs in numpy."""
    t = np.random.default_rng(0).normal(size=(7, 7))
    other = ~np.eye(7, dtype=bool)
    joint = np.diag(t)
    expected = {
        "infonce": joint - logsumexp(t, axis=1) + np.log(7),
        "nwj": joint - np.exp(t - 1)[other].reshape(7, 6).mean(1),
        "jsd": np.log(2)
        - 0.5 * (np.log1p(np.exp(-joint)) + np.log1p(np.exp(t[other])).reshape(7, 6).mean(1)),
        "smile": joint - np.log(np.exp(np.clip(t, -clip, clip))[other].mean()),
    }
    ours = {"infonce": infonce(t), "nwj": nwj(t), "jsd": jsd(t), "smile": smile(t, clip)}
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-4, atol=1e-5)


def test_gaussian_log_likelihood_against_scipy():
    rng = np.random.default_rng(0)
    mean, log_variance, y = rng.normal(size=(3, 4, 5, 2))
    expected = norm.logpdf(y, mean, np.exp(log_variance / 2)).sum(-1)
    np.testing.assert_allclose(
        gaussian_log_likelihood(mean, log_variance, y), expected, rtol=1e-4, atol=1e-5
    )


def test_upper_bounds_with_the_true_conditional():
    """vCLUB of these Gaussians is D r**2 / (1 - r**2) in closed form, above I; L1Out nears I."""
    x, y = sample()
    log_variance = np.full_like(x, 2 * np.log(STD))
    club = float(vclub(R * x, log_variance, y).mean())
    assert club == pytest.approx(D * R**2 / (1 - R**2), abs=0.1)
    assert club > TRUE + 0.3
    assert float(l1out(R * x, log_variance, y).mean()) == pytest.approx(TRUE, abs=0.06)


def test_upper_bounds_vanish_when_independent():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(N, D))
    zero = np.zeros((N, D))
    for bound in (vclub, l1out):
        assert float(bound(zero, zero, y).mean()) == pytest.approx(0, abs=1e-3)


def test_upper_bounds_over_all_pairs_by_hand():
    rng = np.random.default_rng(2)
    mean, log_variance, y = rng.normal(size=(3, 6, 2)) + 3
    log_q = norm.logpdf(y[:, None], mean[None], np.exp(log_variance / 2)[None]).sum(-1)
    expected_club, expected_l1out = [], []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        expected_club.append(log_q[i, i] - np.mean([log_q[j, i] for j in others]))
        expected_l1out.append(log_q[i, i] - logsumexp([log_q[i, j] for j in others]) + np.log(5))
    np.testing.assert_allclose(vclub(mean, log_variance, y), expected_club, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(l1out(mean, log_variance, y), expected_l1out, rtol=1e-4, atol=1e-4)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"scores must be \[B, B\]"):
        infonce(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="mean must have shape"):
        vclub(np.zeros((3, 1)), np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"y must be \[B, D\]"):
        l1out(*np.zeros((3, 2, 2, 2)))
    with pytest.raises(ValueError, match=r"log_likelihoods must be \[B, B\]"):
        losses.club(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="average must have shape"):
        losses.mine(np.zeros((3, 3)), np.zeros(3))


def test_mine_is_the_donsker_varadhan_bound(critic):
    values, average = mine(critic, losses.MINE_START)
    np.testing.assert_allclose(values, smile(critic, np.inf), rtol=1e-4, atol=1e-5)
    others = np.exp(critic)[~np.eye(N, dtype=bool)]
    assert float(average) == pytest.approx(np.log(others.mean()), abs=1e-3)
    # The average of other batches changes the gradient, never the value.
    np.testing.assert_allclose(mine(critic, np.float32(3.0))[0], values, rtol=1e-4, atol=1e-5)


def test_the_average_of_mine_moves_as_told():
    rng = np.random.default_rng(0)
    state, expected = losses.MINE_START, None
    for n in range(5):
        scores = rng.normal(size=(6, 6))
        where = np.arange(6) < (6, 5, 4, 1, 6)[n]  # one example alone leaves it as it is
        _, state = mine(scores, state, decay=0.8, where=where)
        pairs = np.exp(scores)[where[:, None] & where[None] & ~np.eye(6, dtype=bool)]
        if pairs.size:
            mean = pairs.mean()
            expected = mean if expected is None else 0.8 * expected + 0.2 * mean
        assert float(state) == pytest.approx(np.log(expected), rel=1e-4)


def test_the_gradient_of_mine_is_divided_by_the_average():
    """d/ds of s_ii - mean(exp s) / average, the average a constant that holds this batch too."""
    scores = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    other = ~np.eye(6, dtype=bool)
    average = 0.9 * np.exp(2.0) + 0.1 * np.exp(scores)[other].mean()
    gradient = jax.grad(lambda s: mine(s, np.float32(2.0), decay=0.9)[0].mean())(scores)
    expected = np.eye(6) / 6 - other * np.exp(scores) / (30 * average)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_averages_of_huge_scores_are_finite():
    values, state = mine(np.full((4, 4), 500.0), losses.MINE_START)
    np.testing.assert_allclose(values, 0, atol=1e-4)
    assert float(state) == pytest.approx(500.0)


def test_club_with_the_true_conditional():
    x, y = sample()
    log_p = norm.logpdf(y[None], R * x[:, None], STD).sum(-1)
    values = jax.jit(losses.club)(log_p)
    assert float(values.mean()) == pytest.approx(D * R**2 / (1 - R**2), abs=0.1)
    log_variance = np.full_like(x, 2 * np.log(STD))
    np.testing.assert_allclose(values, vclub(R * x, log_variance, y), rtol=1e-3, atol=1e-3)
