"""The blocks against plain numpy, and the promises of the masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.models.parts.basic import drop
from jmrec.models.parts.pooling import mean_and_max
from jmrec.models.parts.rope import rotate
from jmrec.models.parts.transformer import Attention, Stack, StackConfig, causal, positions_of
from jmrec.models.sessions.context import Direct

TINY = StackConfig(width=8, layers=2, heads=4, kv_heads=2, mlp=12)


def test_grouped_query_attention_is_attention_with_repeated_keys() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 8)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
    module = Attention(TINY)
    positions, allowed = positions_of(jnp.asarray(mask)), causal(jnp.asarray(mask))
    boxed = module.init(jax.random.key(0), x, positions, allowed)
    params = nn.unbox(boxed)["params"]
    got, _ = module.apply({"params": params}, x, positions, allowed)

    def turned(name: str, heads: int) -> np.ndarray:
        out = (x @ np.asarray(params[name]["kernel"])).reshape(2, 5, heads, 2)
        if name == "value":
            return out
        angle = np.asarray(positions)[..., None]  # one frequency: base ** 0
        a, b = out[..., :1], out[..., 1:]
        cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    q, k, v = turned("query", 4), turned("key", 2), turned("value", 2)
    k, v = np.repeat(k, 2, axis=2), np.repeat(v, 2, axis=2)
    out = np.zeros((2, 5, 4, 2))
    for b in range(2):
        for h in range(4):
            for t in range(5):
                keys = [s for s in range(t + 1) if mask[b, s]]
                logits = np.array([q[b, t, h] @ k[b, s, h] for s in keys]) / np.sqrt(2)
                weights = np.exp(logits - logits.max())
                out[b, t, h] = (weights / weights.sum()) @ v[b, keys, h]
    want = out.reshape(2, 5, 8) @ np.asarray(params["out"]["kernel"])
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_padding_and_the_future_change_nothing() -> None:
    module = Stack(TINY)
    mask = jnp.array([[True, True, True, False]])
    x = jax.random.normal(jax.random.key(1), (1, 4, 8))
    params = nn.unbox(module.init(jax.random.key(0), x, positions_of(mask), causal(mask)))
    run = lambda x: module.apply(params, x, positions_of(mask), causal(mask))[0]  # noqa: E731
    base = run(x)
    np.testing.assert_array_equal(run(x.at[:, 3].set(9.0))[:, :3], base[:, :3])
    np.testing.assert_array_equal(run(x.at[:, 2].set(9.0))[:, :2], base[:, :2])
    assert not np.allclose(run(x.at[:, 0].set(9.0))[:, 1], base[:, 1])


def test_rotary_scores_depend_on_the_distance_only() -> None:
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    at = lambda x, p: rotate(x, jnp.array([[p]]), 100.0)  # noqa: E731
    scores = [jnp.sum(at(q, p + 3) * at(k, p)) for p in (0, 5, 11)]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-4)


def test_dropout_keeps_the_mean_and_takes_a_traced_rate() -> None:
    x = jnp.ones(200_000)
    dropped = jax.jit(drop)(x, 0.3, jax.random.key(0))
    assert abs(float(dropped.mean()) - 1) < 0.01
    assert abs(float((dropped == 0).mean()) - 0.3) < 0.01
    assert drop(x, 0.3, None) is x


def test_remat_changes_no_value_and_no_gradient() -> None:
    from dataclasses import replace

    mask = jnp.ones((2, 3), bool)
    x = jax.random.normal(jax.random.key(1), (2, 3, 8))
    args = (positions_of(mask), causal(mask))
    params = nn.unbox(jax.jit(Stack(TINY).init)(jax.random.key(0), x, *args))

    def loss(config: StackConfig) -> object:
        module = Stack(config)
        run = jax.value_and_grad(lambda p: jnp.square(module.apply(p, x, *args)[0]).sum())
        return jax.jit(run)(params)

    for a, b in zip(jax.tree.leaves(loss(TINY)), jax.tree.leaves(loss(replace(TINY, remat=True)))):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_gathering_nothing_gives_zeros_and_finite_gradients() -> None:
    x = jnp.full((1, 2, 3), 5.0)
    nothing = jnp.zeros((1, 2), bool)
    np.testing.assert_array_equal(mean_and_max(x, nothing), np.zeros((1, 6)))
    np.testing.assert_array_equal(jax.grad(lambda x: mean_and_max(x, nothing).sum())(x), 0 * x)


@pytest.mark.parametrize(
    "wrong", [{"width": 10, "heads": 4}, {"heads": 4, "kv_heads": 3}, {"dtype": "float16"}]
)
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"width|kv_heads|dtype"):
        StackConfig(**wrong)


def test_the_direct_path_is_the_sum_of_its_five_matrices() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    mask = np.array([[True] * 5, [True, True, True, False, False]])
    layer = Direct(4)
    params = nn.unbox(layer.init(jax.random.key(0), x, mask))
    out = np.asarray(layer.apply(params, x, mask))
    last, before, third, first, mean = np.split(
        np.asarray(params["params"]["matrices"]["kernel"]), 5
    )
    for b, t in [(0, 0), (0, 1), (0, 4), (1, 2)]:
        want = x[b, t] @ last + x[b, 0] @ first + x[b, : t + 1].mean(0) @ mean
        want = want + (x[b, t - 1] @ before if t >= 1 else 0)
        want = want + (x[b, t - 2] @ third if t >= 2 else 0)
        np.testing.assert_allclose(out[b, t], want, rtol=1e-4, atol=1e-5)


def test_the_direct_path_sees_neither_the_future_nor_padding() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 6, 3)).astype(np.float32)
    mask = np.array([[True] * 4 + [False] * 2])
    layer = Direct(4)
    params = layer.init(jax.random.key(0), x, mask)
    base = layer.apply(params, x, mask)
    later = x.copy()
    later[:, 2:] += 5.0
    np.testing.assert_array_equal(layer.apply(params, later, mask)[:, :2], base[:, :2])
    padded = x.copy()
    padded[:, 4:] = np.nan
    assert np.isfinite(layer.apply(params, padded, mask)).all()
