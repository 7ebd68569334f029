"""Rank metrics against scikit-learn, rax and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
import rax
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from jmrec.metrics.ranks import NAMES, hit_rate, metric, ndcg, reciprocal_rank, session_mean


@pytest.fixture(scope="module")
def lists() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [P, V] without ties, targets [P], their ranks by counting."""
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.arange(40.0)[None].repeat(60, 0), axis=1)
    target = rng.integers(0, 40, 60)
    ranks = (scores >= scores[np.arange(60), target][:, None]).sum(axis=1)
    return scores, target, ranks


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_ndcg_is_that_of_scikit_learn(lists, k: int) -> None:
    scores, target, ranks = lists
    relevant = np.eye(40)[target]
    assert ndcg(ranks, k).mean() == pytest.approx(ndcg_score(relevant, scores, k=k), abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_hit_rate_is_top_k_accuracy(lists, k: int) -> None:
    scores, target, ranks = lists
    expected = top_k_accuracy_score(target, scores, k=k, labels=np.arange(40))
    assert hit_rate(ranks, k).mean() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 20])
def test_mrr_and_ndcg_are_those_of_rax(lists, k: int) -> None:
    scores, target, ranks = lists
    relevant = jnp.asarray(np.eye(40)[target])
    found = rax.mrr_metric(jnp.asarray(scores), relevant, topn=k)
    assert reciprocal_rank(ranks, k).mean() == pytest.approx(float(found), rel=1e-5, abs=1e-7)
    found = rax.ndcg_metric(jnp.asarray(scores), relevant, topn=k)
    assert ndcg(ranks, k).mean() == pytest.approx(float(found), rel=1e-5, abs=1e-7)


def test_ranks_of_one_to_n_have_the_harmonic_mrr() -> None:
    ranks = np.arange(1, 101)
    assert reciprocal_rank(ranks, 20).sum() == pytest.approx(sum(1 / r for r in range(1, 21)))
    assert hit_rate(ranks, 20).mean() == 0.2


def test_a_rank_beyond_every_cutoff_counts_nothing_and_the_first_everything() -> None:
    for name in NAMES:
        assert metric(name, np.array([1, 101])).tolist() == [1.0, 0.0]


def test_session_mean_weighs_sessions_not_predictions() -> None:
    values = np.array([1.0, 0.0, 0.0, 0.0, 1.0])
    assert session_mean(values, np.array([3, 8, 8, 8, 8])) == pytest.approx((1 + 0.25) / 2)
    assert np.isnan(session_mean(np.zeros(0), np.zeros(0, int)))
