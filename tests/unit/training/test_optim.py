"""Against formulas written with numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmrec.errors import UserError
from jmrec.training.optim import (
    OptimConfig,
    make_optimizer,
    opt_state_shardings,
    traced_numbers,
)


def rates(config: OptimConfig, steps: list[int], rate: float = 0.5) -> np.ndarray:
    schedule = jax.jit(make_optimizer(config).schedule)
    hparams = {"learning_rate": rate, "optim": traced_numbers(config)}
    return np.array([schedule(jnp.int32(n), hparams) for n in steps])


def first_update(config: OptimConfig, axes: Any, grads: Any, params: Any) -> Any:
    optimizer = make_optimizer(config, axes)
    hparams = {"optim": traced_numbers(config)}
    return optimizer.update(grads, optimizer.init(params), params, hparams)[0]


def test_schedules() -> None:
    steps = list(range(12))
    np.testing.assert_allclose(rates(OptimConfig(), steps), 0.5)
    n = np.array(steps, np.float64)
    part = np.clip((n - 4) / 6, 0, 1)
    rise = (n + 1) / 4
    linear = np.where(n < 4, rise, 1 - part) * 0.5
    cosine = np.where(n < 4, rise, 0.5 * (1 + np.cos(np.pi * part))) * 0.5
    for name, expected in (("linear", linear), ("cosine", cosine)):
        config = OptimConfig(schedule=name, warmup=4, steps=10)
        np.testing.assert_allclose(rates(config, steps), expected, atol=1e-7)
    constant = rates(OptimConfig(warmup=4), steps)
    np.testing.assert_allclose(constant, 0.5 * np.minimum(rise, 1))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="sawtooth"):
        make_optimizer(OptimConfig(schedule="sawtooth"))
    with pytest.raises(UserError, match="needs more steps"):
        make_optimizer(OptimConfig(schedule="cosine", warmup=5, steps=5))


def test_first_update_is_clipped_adam_and_decays_matrices_only() -> None:
    config = OptimConfig(clip=1.0, weight_decay=0.1, eps=1e-3)
    params = {"w": jnp.full((2, 2), 3.0), "b": jnp.full(2, 3.0), "stack": jnp.full((4, 2), 3.0)}
    grads = jax.tree.map(lambda p: jnp.full(p.shape, 7.0), params)
    axes = {"w": ("embed", "mlp"), "b": ("mlp",), "stack": ("layers", "embed")}
    norm = 7 * np.sqrt(14)
    adam = (7 / norm) / (7 / norm + 1e-3)  # bias-corrected moments of one gradient g: g, g * g
    for given, stacked in ((None, adam + 0.3), (axes, adam)):
        updates = first_update(config, given, grads, params)
        np.testing.assert_allclose(updates["w"], adam + 0.3, rtol=1e-5)
        np.testing.assert_allclose(updates["b"], adam, rtol=1e-5)
        np.testing.assert_allclose(updates["stack"], stacked, rtol=1e-5)


def test_muon_makes_matrices_orthogonal_and_leaves_tables_to_adam() -> None:
    axes = {
        "w": ("embed", "mlp"),
        "stack": {"w": ("layers", "embed", "mlp"), "scale": ("layers", "embed")},
        "table": ("vocab", "embed"),
    }
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 4), "stack": {"w": (2, 4, 4), "scale": (2, 4)}, "table": (5, 4)}
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    params = jax.tree.map(jnp.ones, shapes, is_leaf=is_shape)
    grads = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s)), shapes, is_leaf=is_shape)
    config = OptimConfig(clip=0.0, muon=5.0)
    updates = first_update(config, axes, grads, params)
    for update, grad in zip(
        [updates["w"], *updates["stack"]["w"]], [grads["w"], *grads["stack"]["w"]]
    ):
        left, _, right = np.linalg.svd(np.asarray(grad, np.float64))
        # Five Newton-Schulz steps bring singular values to about 1, not exactly.
        singular = left.T @ np.asarray(update / config.muon, np.float64) @ right.T
        np.testing.assert_allclose(np.diag(singular), 1.0, atol=0.35)
        np.testing.assert_allclose(singular - np.diag(np.diag(singular)), 0.0, atol=0.05)
    plain = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps, nesterov=True)
    adam, _ = plain.update(grads, plain.init(params), params)
    np.testing.assert_allclose(updates["table"], adam["table"], rtol=1e-6)
    np.testing.assert_allclose(updates["stack"]["scale"], adam["stack"]["scale"], rtol=1e-6)
    with pytest.raises(ValueError, match="axes"):
        make_optimizer(config)


def test_every_moment_lies_where_its_parameter_lies() -> None:
    axes = {"w": ("embed", "mlp"), "b": ("mlp",)}
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    places = {"w": "cut", "b": "near"}
    for muon in (0.0, 5.0):
        state = make_optimizer(OptimConfig(muon=muon), axes).init(params)
        placed = opt_state_shardings(state, places, "whole")
        expected = jax.tree.map(
            lambda x: {(3, 2): "cut", (2,): "near"}.get(jnp.shape(x), "whole"), state
        )
        assert placed == expected
        assert sorted(set(jax.tree.leaves(placed))) == ["cut", "near", "whole"]
