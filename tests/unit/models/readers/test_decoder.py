"""The decoder's promises: the cache changes nothing, padding shifts nothing, axes are named."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.models.parts.rope import RopeScaling
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.decoder import CACHE_AXES, DecoderConfig, decoder, empty_cache
from jmrec.sharding import make_mesh, shardings
from jmrec.types import Model

STACK = StackConfig(
    width=12, layers=2, heads=4, kv_heads=2, mlp=10, head=4, qkv_bias=True, qk_norm=True
)
CONFIG = DecoderConfig(vocab=17, stack=STACK, tied=False, image_token=16)


@pytest.fixture(scope="module")
def tower() -> tuple[Model, dict]:
    model = decoder(CONFIG)
    params = model.init(jax.random.key(0))
    # Biases begin at zero: other numbers show whether they are used alike everywhere.
    keys = iter(jax.random.split(jax.random.key(1), 100))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    return model, params


@pytest.fixture(scope="module")
def logits_of(tower):
    model, params = tower
    fn = jax.jit(model.fns["lm_logits"])
    return lambda text, mask, seen=None: fn(params, text, mask, seen)[0]


def test_prefill_and_steps_give_the_logits_of_one_pass(tower, logits_of) -> None:
    model, params = tower
    rng = np.random.default_rng(0)
    text = rng.integers(0, 16, (3, 9)).astype(np.int32)
    want = logits_of(text, np.ones((3, 9), bool))
    lengths = np.array([2, 5, 4])
    mask = np.arange(5) < lengths[:, None]
    cache = empty_cache(CONFIG, 3, 9)
    (logits, cache), _ = jax.jit(model.fns["prefill"])(params, text[:, :5], mask, cache)
    step = jax.jit(model.fns["decode_step"])
    for _ in range(4):
        seen = np.asarray(cache["length"])
        np.testing.assert_allclose(logits, want[np.arange(3), seen - 1], atol=2e-5)
        (logits, cache), _ = step(params, text[np.arange(3), seen], cache)
    assert cache["length"].tolist() == [6, 9, 8]
    assert int(cache["slot"]) == 9


def test_padding_on_either_side_changes_nothing(logits_of) -> None:
    text = np.array([[3, 1, 4, 1, 5, 9]], np.int32)
    want = logits_of(text, np.ones((1, 6), bool))[0, :4]
    right = np.where(np.arange(6) < 4, text, 7)
    np.testing.assert_allclose(logits_of(right, np.arange(6)[None] < 4)[0, :4], want, atol=1e-5)
    left = np.concatenate([[[7, 7]], text[:, :4]], 1).astype(np.int32)
    np.testing.assert_allclose(logits_of(left, np.arange(6)[None] >= 2)[0, 2:], want, atol=1e-5)


def test_pictures_stand_in_the_places_of_the_image_token(tower, logits_of) -> None:
    _, params = tower
    text = np.array([[1, 16, 2, 16, 3]], np.int32)
    mask = np.ones((1, 5), bool)
    # The vectors of two words in the place of the pictures are those words themselves.
    table = params["embed"]["embedding"]
    want = logits_of(np.array([[1, 8, 2, 4, 3]], np.int32), mask)
    np.testing.assert_allclose(
        logits_of(text, mask, table[None, jnp.array([8, 4])]), want, atol=1e-5
    )
    assert not np.allclose(logits_of(text, mask, table[None, jnp.array([4, 8])]), want, atol=1e-3)


def test_every_parameter_and_cache_has_its_axes(tower) -> None:
    model, params = tower
    mesh = make_mesh()
    for rules in ("dp", "fsdp", "fsdp_tp"):
        shardings(model.logical_axes(params), params, mesh, rules)
        shardings(CACHE_AXES, empty_cache(CONFIG, 2, 3), mesh, rules)


@pytest.mark.parametrize("remat", [True, "dots_saveable"])
def test_remat_by_policy_changes_no_gradient(tower, remat) -> None:
    model, params = tower
    other = decoder(replace(CONFIG, stack=replace(STACK, remat=remat)))
    text, mask = np.array([[1, 2, 3]], np.int32), np.ones((1, 3), bool)

    def gradient(model: Model) -> dict:
        def loss(params: dict) -> jax.Array:
            return jnp.square(model.fns["lm_logits"](params, text, mask)[0]).sum()

        return jax.jit(jax.grad(loss))(params)

    for a, b in zip(jax.tree.leaves(gradient(model)), jax.tree.leaves(gradient(other))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_llama3_scaling_divides_long_waves_only() -> None:
    scaling = RopeScaling("llama3", 8.0, low=1.0, high=4.0, context=8192)
    waves = np.array([10.0, 2047.0, 4096.0, 8193.0, 1e6])
    got = np.asarray(scaling.stretch(jnp.asarray(2 * np.pi / waves))) * waves / (2 * np.pi)
    part = (8192 / 4096 - 1.0) / 3.0
    np.testing.assert_allclose(got, [1, 1, part + (1 - part) / 8, 1 / 8, 1 / 8], rtol=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"head": 3}, {"remat": "everything"}, {"rope_scaling": ("yarn", 2.0)}]
)
def test_impossible_settings_are_refused(wrong: dict) -> None:
    if "rope_scaling" in wrong:
        with pytest.raises(ValueError, match="yarn"):
            RopeScaling(*wrong["rope_scaling"])
    else:
        with pytest.raises(ValueError, match=r"head|remat"):
            StackConfig(**wrong)
