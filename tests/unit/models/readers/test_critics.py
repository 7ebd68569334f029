"""Critics: every pair by itself gives what all pairs together give, and a bound can be trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmrec import losses
from jmrec.models.readers.critics import KINDS, CriticConfig, critic

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_scores_of_all_pairs_are_those_of_each(kind: str) -> None:
    model = critic(CriticConfig(x=3, y=2, kind=kind, hidden=8, width=4))
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 3))
    y = jax.random.normal(jax.random.key(2), (5, 2))
    scores = jax.jit(lambda x, y: model.fns["scores"](params, x, y)[0])
    together = scores(x, y)
    assert together.shape == (4, 5)
    each = [[scores(x[i : i + 1], y[j : j + 1])[0, 0] for j in range(5)] for i in range(4)]
    np.testing.assert_allclose(together, each, rtol=1e-4, atol=1e-5)
    assert np.std(together) > 0


def test_bilinear_is_a_form_and_concatenated_a_network_of_both() -> None:
    x = jax.random.normal(jax.random.key(1), (4, 3))
    y = jax.random.normal(jax.random.key(2), (5, 2))
    x, y = np.asarray(x), np.asarray(y)
    model = critic(CriticConfig(x=3, y=2, kind="bilinear"))
    params = jax.device_get(model.init(jax.random.key(0)))
    expected = x @ params["form"]["kernel"] @ y.T / np.sqrt(2)
    np.testing.assert_allclose(model.fns["scores"](params, x, y)[0], expected, rtol=1e-4, atol=1e-6)

    model = critic(CriticConfig(x=3, y=2, kind="concatenated", hidden=6))
    params = model.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1, params)  # no bias is 0
    both = jnp.concatenate([jnp.repeat(x, 5, axis=0), jnp.tile(y, (4, 1))], axis=1)
    first = jnp.concatenate([params["x0"]["kernel"], params["y0"]["kernel"]])
    hidden = jax.nn.gelu(both @ first + params["x0"]["bias"] + params["y0"]["bias"])
    hidden = jax.nn.gelu(hidden @ params["pair1"]["kernel"] + params["pair1"]["bias"])
    expected = (hidden @ params["pair2"]["kernel"] + params["pair2"]["bias"]).reshape(4, 5)
    np.testing.assert_allclose(model.fns["scores"](params, x, y)[0], expected, rtol=1e-4, atol=1e-5)


@every_kind
def test_a_bound_rises_to_what_the_kind_can_see(kind: str) -> None:
    """y is x or -x at random: of the three only the bilinear critic cannot see it."""
    model = critic(CriticConfig(x=1, y=1, kind=kind, hidden=32, width=16))
    optimiser = optax.adam(1e-2)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jax.random.normal(key, (32, 1))
        return x, x * jax.random.rademacher(jax.random.fold_in(key, 1), (32, 1), jnp.float32)

    def value(params: dict, key: jax.Array) -> jax.Array:
        return losses.infonce(model.fns["scores"](params, *draw(key))[0]).mean()

    @jax.jit
    def train(params: dict) -> jax.Array:
        def step(carry: tuple, key: jax.Array) -> tuple:
            params, state = carry
            grads = jax.grad(lambda p: -value(p, key))(params)
            updates, state = optimiser.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1), 300)
        (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), keys)
        return jax.vmap(value, (None, 0))(params, jax.random.split(jax.random.key(2), 8)).mean()

    information = float(train(model.init(jax.random.key(0))))
    assert information > 0.4 if kind != "bilinear" else information < 0.1


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="critic 'deep' is not one of bilinear, separable"):
        CriticConfig(x=1, y=1, kind="deep")
