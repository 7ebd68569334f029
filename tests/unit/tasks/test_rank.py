"""The rank task: what each strategy does to the logits, and what hiding hides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from jmrec.models.dlrm import DlrmConfig
from jmrec.tasks.rank import STRATEGIES, Balance, RankTask, gather

ROWS, F = 40, 3
CONFIG = DlrmConfig(numbers=F, items=1024, users=1024, parts=(4, 4), past=4, width=4, top=(8,))


def tables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "part/0": random.normal(size=(6, 4)).astype(np.float32),
        "part_ok/0": np.arange(6) != 2,
        "part/1": random.normal(size=(5, 4)).astype(np.float32),
        "part_ok/1": np.arange(5) != 0,
        "past/item": random.normal(size=(6, 4)).astype(np.float32),
        "empty/item": np.array([-1.0, 0.0, 0.0], np.float32),
        "empty/user": np.array([0.0, -2.0, 0.0], np.float32),
        "of/item": np.array([True, False, False]),
        "of/user": np.array([False, True, False]),
        "hides/item": np.array([False, True]),
        "hides/user": np.array([False, False]),
    }


def batch(rows: int = ROWS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        "numbers": random.normal(size=(rows, F)).astype(np.float32),
        "item_id": random.integers(1, 7, rows).astype(np.int32),
        "user_id": random.integers(1, 9, rows).astype(np.int32),
        "category": np.zeros((rows, 0), np.int32),
        "part_row": np.stack([random.integers(0, 6, rows), random.integers(0, 5, rows)], 1),
        "past": random.integers(0, 6, (rows, 3)).astype(np.int32),
        "past_label": random.integers(0, 3, (rows, 3)).astype(np.int32),
        "past_mask": random.random((rows, 3)) < 0.5,
        "label": (np.arange(rows) % 8 == 0).astype(np.int32),
    }


@pytest.mark.parametrize(
    "strategy", [each for each in STRATEGIES if each not in ("focal", "pairwise")]
)
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_the_shifted_logit_is_that_of_the_data(strategy: str, tau: float) -> None:
    balance = Balance(strategy, negative=940, positive=60, tau=tau)
    task = RankTask(CONFIG, balance, tables(), {})
    labels = np.concatenate([np.zeros(940, np.int32), np.ones(60 * balance.repeats, np.int32)])

    def total(z: float) -> float:
        logits = jnp.full(len(labels), z, jnp.float32)
        return float(task._loss(logits, jnp.asarray(labels), task.hparams).sum())

    best = minimize_scalar(total, bounds=(-8, 8), method="bounded").x
    # Repeats are whole numbers, and the shift knows the number.
    assert expit(best + balance.shift) == pytest.approx(0.06, abs=1e-3)


def test_hidden_pairs_are_read_as_if_nothing_had_been_known() -> None:
    given, rows = batch(), np.arange(ROWS)
    hidden = {"item": jnp.asarray(rows % 2 == 0), "user": jnp.asarray(rows % 3 == 0)}
    whole = gather(tables(), given)
    pairs = gather(tables(), given, hidden, hidden)
    for row in range(ROWS):
        item, user = row % 2 == 0, row % 3 == 0
        assert pairs.item[row] == (0 if item else given["item_id"][row])
        assert pairs.user[row] == (0 if user else given["user_id"][row])
        numbers = given["numbers"][row].copy()
        if item:
            numbers[0] = -1.0
        if user:
            numbers[1] = -2.0
        np.testing.assert_array_equal(pairs.numbers[row], numbers)
        assert bool(pairs.parts_ok[row, 0]) == bool(whole.parts_ok[row, 0])
        assert bool(pairs.parts_ok[row, 1]) == (bool(whole.parts_ok[row, 1]) and not item)
        assert bool(pairs.past_mask[row].any()) == (bool(whole.past_mask[row].any()) and not user)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loss_has_finite_gradients(strategy: str) -> None:
    task = RankTask(CONFIG, Balance(strategy, 35, 5), tables(), {})
    params, state = task.init(jax.random.key(0))
    frozen = task.frozen(None)[0]

    def mean(params: dict) -> jax.Array:
        total, count, _, _ = task.loss(
            params, state, frozen, batch(), jax.random.key(1), jnp.zeros((), jnp.int32),
            task.hparams,
        )  # fmt: skip
        return total / count

    # Compiled, as a step is: what is computed before it has to be numbers by then.
    value, gradient = jax.jit(jax.value_and_grad(mean))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert task.couples_examples == (strategy == "pairwise")
