"""The bootstrap against brute force, theory and simulated coverage."""

import time

import numpy as np
import pytest

from jmrec.metrics.bootstrap import interval, paired, resampling_counts


def test_every_resample_draws_as_many_clusters_as_there_are() -> None:
    counts = resampling_counts(17, 200)
    assert counts.shape == (200, 17)
    assert (counts.sum(axis=1) == 17).all()
    assert counts.mean() == 1.0
    assert counts.var() == pytest.approx(1 - 1 / 17, abs=0.1)


def test_interval_is_the_quantile_of_resampled_ratios() -> None:
    rng = np.random.default_rng(1)
    values, clusters = rng.random(50), rng.integers(0, 9, 50)
    counts = resampling_counts(9, 300, seed=4)
    means = []
    for draw in counts:
        pool = np.concatenate(
            [np.tile(values[clusters == c], int(times)) for c, times in enumerate(draw)]
        )
        means.append(pool.mean())
    found = interval(values, clusters, draws=300, seed=4)
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), rel=1e-6)


def test_single_unit_clusters_give_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, 4000)
    low, high = interval(values, np.arange(4000))
    error = values.std() / np.sqrt(4000)
    assert (values.mean() - low) / error == pytest.approx(1.96, abs=0.12)
    assert (high - values.mean()) / error == pytest.approx(1.96, abs=0.12)


def test_clusters_of_copies_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    values = np.repeat(rng.random(100), 25)
    alone = np.ptp(interval(values, np.arange(2500)))
    together = np.ptp(interval(values, np.repeat(np.arange(100), 25)))
    assert together / alone == pytest.approx(5.0, rel=0.15)


def test_coverage_is_near_its_level() -> None:
    rng = np.random.default_rng(5)
    inside, trials = 0, 300
    for _ in range(trials):
        users = rng.normal(0.0, 1.0, 60)
        clusters = np.repeat(np.arange(60), 4)
        values = users[clusters] + rng.normal(0.0, 1.0, 240)
        low, high = interval(values, clusters, draws=400)
        inside += low <= 0.0 <= high
    assert 0.90 <= inside / trials <= 0.98


def test_paired_comparison_sees_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(6)
    base = rng.random(200)
    better = base + 0.02 + rng.normal(0, 0.01, 200)
    users = np.arange(200)
    apart = [interval(one, users) for one in (base, better)]
    assert apart[0][1] > apart[1][0]
    found = paired(better, base, users)
    assert found.verdict == "above"
    assert found.difference == pytest.approx(0.02, abs=0.003)
    assert paired(base, better, users).verdict == "below"
    assert paired(base, rng.permutation(base), users).verdict == "not told apart"


def test_seeds_are_averaged_before_pairing() -> None:
    a = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert paired(a, np.zeros(3), np.arange(3)).difference == 0.5
    found = paired(a, np.full(3, 0.5), np.arange(3))
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.verdict == "not told apart"


def test_many_clusters_are_fast_and_nothing_is_nan_only_where_empty() -> None:
    values = np.random.default_rng(7).random((8000, 4))
    started = time.perf_counter()
    ends = interval(values, np.arange(8000))
    assert time.perf_counter() - started < 10
    assert (ends[0] < values.mean(axis=0)).all()
    assert (values.mean(axis=0) < ends[1]).all()
    assert np.isnan(interval(np.zeros((0, 4)), np.zeros(0, int))).all()


def test_p_is_twice_the_rarer_side_of_0_among_the_resamples() -> None:
    rng = np.random.default_rng(8)
    for shift, users in ((0.0, np.arange(40)), (0.2, np.arange(40) // 3), (3.0, np.arange(40))):
        a, b = rng.normal(shift, 1.0, 40), rng.normal(0.0, 1.0, 40)
        drawn = []
        for counts in resampling_counts(len(set(users.tolist()))):
            weight = counts[users]
            drawn.append(((a - b) * weight).sum() / weight.sum())
        below, above = (np.array(drawn) <= 0).sum(), (np.array(drawn) >= 0).sum()
        found = paired(a, b, users)
        assert found.p == pytest.approx(min(1.0, 2 * (min(below, above) + 1) / 2001))
        assert [found.low, found.high] == interval(a - b, users).tolist()
    assert found.p == pytest.approx(2 / 2001)  # of one of 3.0 no resample is at 0 or below
    assert paired(np.ones(4), np.ones(4), np.arange(4)).p == 1.0
    assert paired(np.zeros(0), np.zeros(0), np.zeros(0, int)).p == 1.0
