"""Correlated Gaussians and the critics that are trained on them, against scipy and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from jmrec import losses
from jmrec.config import load_config
from jmrec.data.gaussians import FRESH, TRAIN, Gaussians, PairBatches, stream_key
from jmrec.evaluation.estimates import check, summarise
from jmrec.models.readers.critics import CriticConfig
from jmrec.tasks.gaussians import ESTIMATORS, OBJECTIVES, CriticTask, reads_critic

D, NATS = 20, 2.0
BATCH, BATCHES = 256, 40
SMALL = CriticConfig(x=3, y=3, kind="bilinear", hidden=4)


def test_the_experiment_names_every_estimator() -> None:
    assert load_config("experiments/losses_on_gaussians.py").estimators == tuple(ESTIMATORS)


def covariance(pairs: Gaussians) -> np.ndarray:
    """Of (x, y), by what the class says of r."""
    r, eye = float(pairs.correlation), np.eye(pairs.dimensions)
    return np.block([[eye, r * eye], [r * eye, eye]])


@pytest.mark.parametrize(("dimensions", "nats"), [(1, 0.3), (20, 2.0), (5, 8.0)])
def test_the_information_is_that_of_the_covariance(dimensions: int, nats: float) -> None:
    pairs = Gaussians(dimensions, nats)
    _, log_determinant = np.linalg.slogdet(covariance(pairs))
    assert -0.5 * log_determinant == pytest.approx(nats, rel=1e-4)


def test_density_ratio_and_conditional_against_scipy() -> None:
    pairs = Gaussians(3, 1.5)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    both = np.concatenate([np.repeat(x, 5, axis=0), np.tile(y, (4, 1))], axis=1)
    joint = stats.multivariate_normal(np.zeros(6), covariance(pairs)).logpdf(both).reshape(4, 5)
    apart = stats.norm.logpdf(x).sum(1)[:, None] + stats.norm.logpdf(y).sum(1)[None]
    np.testing.assert_allclose(pairs.log_ratio(x, y), joint - apart, rtol=1e-4, atol=1e-5)

    mean, log_variance = pairs.conditional(jnp.asarray(x))
    given = stats.norm.logpdf(y[:4], mean, np.exp(log_variance / 2)).sum(1)
    expected = np.diagonal(joint) - stats.norm.logpdf(x).sum(1)
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)


def test_pairs_are_drawn_with_that_covariance() -> None:
    pairs, count = Gaussians(3, 1.5), 20_000
    drawn = np.concatenate(pairs.draw(jax.random.key(0), count), axis=1)
    # A sample covariance of unit variances is off by sqrt(2 / count) at most, as a standard error.
    error = math.sqrt(2 / count)
    np.testing.assert_allclose(np.cov(drawn.T), covariance(pairs), atol=5 * error)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=5 * error)


def test_a_batch_is_a_function_of_seed_and_number() -> None:
    pairs = Gaussians(3, 1.5)
    batches = PairBatches(pairs, 6, seed=1)
    later = batches[4]
    assert later["x"].shape == later["y"].shape == (6, 3)
    for name in ("x", "y"):
        np.testing.assert_array_equal(PairBatches(pairs, 6, seed=1)[4][name], later[name])
        others = [batches[5], PairBatches(pairs, 6, seed=2)[4]]
        assert all(np.abs(each[name] - later[name]).min() > 0 for each in others)
    # One process of several reads its own rows of the same batch.
    part = PairBatches(pairs, 6, seed=1, read=lambda size: np.arange(size)[1::2])[4]
    np.testing.assert_array_equal(part["y"], later["y"][1::2])


def test_no_two_keys_of_a_run_are_the_same() -> None:
    """Parameters, updates, training pairs and fresh pairs each have a key of their own."""
    made = jax.random.split(jax.random.key(3), 2)
    streams = [stream_key(3, stream) for stream in (TRAIN, FRESH)]
    words = {tuple(np.asarray(jax.random.key_data(key))) for key in [*made, *streams]}
    assert len(words) == 4


@pytest.fixture(scope="module")
def with_the_truth() -> dict[str, np.ndarray]:
    """The estimate of each of 40 batches of 256, with the true critic or conditional."""

    @jax.jit
    def estimate(nats: jax.Array) -> dict[str, jax.Array]:
        pairs = Gaussians(D, nats)

        def one(n: jax.Array) -> dict[str, jax.Array]:
            x, y = pairs.draw(jax.random.fold_in(stream_key(7, FRESH), n), BATCH)
            scores, given = pairs.log_ratio(x, y), (*pairs.conditional(x), y)
            return {
                name: each.values(scores + each.best, jnp.inf).mean()
                if reads_critic(name)
                else each.values(*given).mean()
                for name, each in ESTIMATORS.items()
            }

        return jax.lax.map(one, jnp.arange(BATCHES))

    found = estimate(NATS)
    return {name: np.asarray(each) for name, each in found.items()}


@pytest.mark.parametrize("name", ["nwj", "mine", "jsd", "smile"])
def test_the_true_density_ratio_gives_the_truth(with_the_truth, name: str) -> None:
    found = summarise(with_the_truth[name])
    assert 0.005 < found["error"] < 0.05
    # 3.7 standard errors: a chance of 1 in 5000.
    assert abs(found["mean"] - NATS) < 3.7 * found["error"]


def test_bounds_with_the_truth_lie_on_their_side(with_the_truth) -> None:
    infonce, club = (summarise(with_the_truth[name]) for name in ("infonce", "club"))
    assert 1.85 < infonce["mean"] < NATS
    assert with_the_truth["infonce"].max() <= math.log(BATCH)
    r = math.sqrt(1 - math.exp(-2 * NATS / D))
    closed = D * r**2 / (1 - r**2)
    assert float(Gaussians(D, NATS).club) == pytest.approx(closed, rel=1e-4)
    assert abs(club["mean"] - closed) < 3.7 * club["error"]
    np.testing.assert_allclose(with_the_truth["vclub"], with_the_truth["club"], rtol=1e-3)
    l1out = summarise(with_the_truth["l1out"])
    assert NATS - 2 * l1out["error"] < l1out["mean"] < NATS + 0.15


def by_hand(objective: str, read: list[np.ndarray], average: float) -> np.ndarray:
    """The per-example objective in numpy; SMILE's clip is 0.3."""
    if objective == "likelihood":
        mean, log_variance, y = read
        return stats.norm.logpdf(y, mean, np.exp(log_variance / 2)).sum(1)
    (s,) = read
    size, own = len(s), np.diagonal(s)
    other = s[~np.eye(size, dtype=bool)].reshape(size, size - 1)
    return {
        "infonce": own - logsumexp(s, axis=1) + math.log(size),
        "nwj": own - np.exp(other - 1).mean(1),
        "mine": own - (logsumexp(other) - math.log(other.size)),
        "jsd": math.log(2) - (np.log1p(np.exp(-own)) + np.log1p(np.exp(other)).mean(1)) / 2,
        "smile": own - np.log(np.exp(np.clip(other, -0.3, 0.3)).mean()),
    }[objective]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_is_the_loss_and_its_estimators_are_logged(objective: str) -> None:
    task = CriticTask(objective, SMALL, hparams={"clip": 0.3, "decay": 0.75})
    params, state = task.init(jax.random.key(0))
    params = jax.tree.map(lambda p: 2 * p + 0.1, params)
    batch = PairBatches(Gaussians(3, 1.5), 8, seed=0)[0]
    if objective == "mine":
        state = {"average": jnp.float32(0.5)}

    @jax.jit
    def step(params, state):
        def loss(params):
            total, *rest = task.loss(params, state, {}, batch, None, 0, task.hparams)
            return total, rest

        return jax.value_and_grad(loss, has_aux=True)(params), task.read(params, **batch)

    ((total, (count, new, logged)), grads), read = step(params, state)
    read = [np.asarray(each, np.float64) for each in read]
    assert float(count) == 8
    assert float(total) == pytest.approx(-by_hand(objective, read, 0.5).sum(), rel=1e-4, abs=1e-4)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads))
    assert set(logged) == {n for n, each in ESTIMATORS.items() if each.objective == objective}
    if objective == "jsd":
        (scores,) = read
        expected = {"jsd": by_hand("nwj", [scores + 1], 0), "smile": by_hand("smile", read, 0)}
        for name, values in expected.items():
            assert float(logged[name][0]) == pytest.approx(values.sum(), rel=1e-4, abs=1e-4)
    if objective == "mine":
        other = read[0][~np.eye(8, dtype=bool)]
        moved = math.log(0.75 * math.exp(0.5) + 0.25 * np.exp(other).mean())
        assert float(new["average"]) == pytest.approx(moved, rel=1e-4)
    else:
        assert new == {}


def test_mine_begins_without_an_average() -> None:
    _, state = CriticTask("mine", SMALL).init(jax.random.key(0))
    assert float(state["average"]) == losses.MINE_START


def test_the_standard_error_is_that_of_independent_batches() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = summarise(values)
    assert found["error"] == pytest.approx(stats.sem(values))
    assert (found["mean"], found["highest"]) == (pytest.approx(values.mean()), values.max())


@pytest.mark.parametrize(
    ("name", "mean", "holds"),
    [
        ("infonce", 1.9, [True, True, True]),
        ("infonce", 1.5, [True, True, False]),
        ("infonce", 5.6, [False, False, True]),
        ("nwj", 2.09, [True]),
        ("mine", 2.11, [False]),
        ("jsd", 1.7, [True, True]),
        ("jsd", 1.5, [True, False]),
        ("smile", 2.5, [False]),
        ("smile", 2.3, [True]),
        ("club", 1.91, [True]),
        ("club", 1.89, [False]),
        ("vclub", 0.1, []),
    ],
)
def test_what_must_hold_is_checked(name: str, mean: float, holds: list[bool]) -> None:
    row = {"nats": 2.0, "seed": 0, "name": name, "kind": ESTIMATORS[name].kind}
    found = check([{**row, "mean": mean, "error": 0.05, "highest": mean}], batch_size=256)
    assert [each["holds"] for each in found] == holds
