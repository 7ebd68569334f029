"""Sums and gradients over microbatches."""

import jax
import jax.numpy as jnp
import pytest

from jmrec.training.step import gradient_sums


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
