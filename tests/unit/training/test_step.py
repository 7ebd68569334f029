"""Sums and gradients over microbatches, and what the programs of an update hold."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.sharding import make_mesh
from jmrec.training import OptimConfig
from jmrec.training.step import TrainStep, gradient_sums


def test_gradient_sums_hands_the_state_on_and_gives_each_microbatch_a_key() -> None:
    def loss(params, state, batch, key):  # type: ignore[no-untyped-def]
        draw = jax.random.uniform(key)
        new = {"seen": state["seen"] + batch["x"].sum()}
        return params * draw, batch["x"].size, new, {"draw": (draw, 1)}

    batch = {"x": jnp.arange(6.0)}
    key = jax.random.key(0)
    (_, count, metrics, grad), state = gradient_sums(
        loss, jnp.float32(1), {"seen": jnp.float32(0)}, batch, key, accumulate=3
    )
    draws = sum(float(jax.random.uniform(jax.random.fold_in(key, a))) for a in range(3))
    assert float(state["seen"]) == 15
    assert float(count) == 6
    assert float(grad) == pytest.approx(draws, rel=1e-6)
    assert float(metrics["draw"][0]) == pytest.approx(draws, rel=1e-6)
    assert int(metrics["draw"][1]) == 3


class Begun:
    """A task of one vector, which begins with numbers that are given."""

    name = "begun"
    hparams = {"learning_rate": 0.1}  # noqa: RUF012
    couples_examples = False

    def __init__(self, begin: np.ndarray) -> None:
        self.begin = begin

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        return {"drawn": jax.random.normal(key, (3,)), "w": self.begin}, {"mean": self.begin + 1}

    def logical_axes(self) -> Any:
        return {"drawn": ("embed",), "w": ("embed",)}

    def state_axes(self) -> Any:
        return None

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        return {}, None

    def loss(self, params, state, frozen, batch, key, step, hparams):  # type: ignore[no-untyped-def]
        return (params["w"] ** 2).sum(), 1.0, state, {}


def test_what_a_task_begins_with_is_no_constant_of_a_program() -> None:
    programs = set()
    for seed in (1, 2):
        begin = np.random.default_rng(seed).normal(size=5).astype(np.float32)
        step = TrainStep(Begun(begin), OptimConfig(), make_mesh("dp"))
        state = step.initialise(0)
        np.testing.assert_array_equal(state.params["w"], begin)
        np.testing.assert_array_equal(state.task_state["mean"], begin + 1)
        key = jax.random.key(0)
        programs.add(step._initialise.lower(step._given, key, key).as_text())
    assert len(programs) == 1
