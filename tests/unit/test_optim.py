"""Against formulas written with numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmrec.errors import UserError
from jmrec.optim import (
    OptimConfig,
    freeze,
    gradient_sums,
    make_optimizer,
    merge,
    opt_state_shardings,
    partition,
)


def rates(config: OptimConfig, steps: list[int], rate: float = 0.5) -> np.ndarray:
    schedule = jax.jit(make_optimizer(config).schedule)
    return np.array([schedule(jnp.int32(n), {"learning_rate": rate}) for n in steps])


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
        tx = make_optimizer(config, given).tx
        updates, _ = tx.update(grads, tx.init(params), params)
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
    tx = make_optimizer(config, axes).tx
    updates, _ = tx.update(grads, tx.init(params), params)
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
        state = make_optimizer(OptimConfig(muon=muon), axes).tx.init(params)
        placed = opt_state_shardings(state, places, "whole")
        expected = jax.tree.map(
            lambda x: {(3, 2): "cut", (2,): "near"}.get(jnp.shape(x), "whole"), state
        )
        assert placed == expected
        assert sorted(set(jax.tree.leaves(placed))) == ["cut", "near", "whole"]


def test_partition_and_merge_are_inverse() -> None:
    params = {"tower": {"layer_0": {"w": 1, "b": 2}, "norm": 3}, "head": {"w": 4}}
    for patterns in (["^tower/"], ["/w$"], ["norm", "head"], ["."]):
        trainable, frozen = partition(params, patterns)
        assert merge(trainable, frozen) == params
        mask = jax.tree.leaves(freeze(params, patterns))
        assert len(jax.tree.leaves(frozen)) == sum(mask)
    assert partition(params, []) == (params, {})
    with pytest.raises(UserError, match="'touer' is found in no parameter"):
        partition(params, ["touer"])
    with pytest.raises(ValueError, match="both trees hold 'w'"):
        merge({"w": 1}, {"w": 2})


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
