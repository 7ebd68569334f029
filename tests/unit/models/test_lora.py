"""LoRA against its closed form in numpy: applied, merged, trained alone, saved small."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmrec.checkpoint.params import load_params, save_params
from jmrec.errors import UserError
from jmrec.models.parts.lora import LoraConfig, applied, init_lora, lora_axes, merged
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.decoder import DecoderConfig, decoder
from jmrec.sharding import make_mesh, shardings
from jmrec.types import Model

STACK = StackConfig(width=12, layers=3, heads=2, kv_heads=1, mlp=10, qkv_bias=True, remat=True)
LORA = LoraConfig(("attention/query$", "layers[1:2]/(gate|down)", "head"), rank=2, alpha=6.0)
TEXT, MASK = np.array([[3, 1, 4, 1, 5]], np.int32), np.ones((1, 5), bool)


@pytest.fixture(scope="module")
def tower() -> tuple[Model, dict, dict]:
    model = decoder(DecoderConfig(vocab=11, stack=STACK, tied=False))
    params = model.init(jax.random.key(0))
    lora = init_lora(LORA, params, jax.random.key(1))
    key = iter(jax.random.split(jax.random.key(2), 99))
    return (
        model,
        params,
        jax.tree.map(lambda p: p + 0.3 * jax.random.normal(next(key), p.shape), lora),
    )


@pytest.fixture(scope="module")
def logits(tower):
    model, _, _ = tower

    @jax.jit
    def run(params: dict, lora: dict | None = None) -> jax.Array:
        if lora is not None:
            lora = applied(LORA, lora, params)
        return model.fns["lm_logits"](params, TEXT, MASK, lora=lora)[0]

    return run


def test_fresh_updates_change_nothing_and_trained_ones_do(tower, logits) -> None:
    _, params, lora = tower
    fresh = init_lora(LORA, params, jax.random.key(1))
    np.testing.assert_allclose(logits(params, fresh), logits(params), atol=1e-6)
    assert np.abs(logits(params, lora) - logits(params)).max() > 0.1


def test_merged_is_the_closed_form_and_gives_what_applied_gives(tower, logits) -> None:
    _, params, lora = tower
    whole = merged(LORA, lora, params)
    want = jax.tree.map(np.array, params)
    blocks, updates = want["stack"]["blocks"], jax.tree.map(np.asarray, lora["stack"]["blocks"])
    scale = 6.0 / 2
    for n in range(3):
        a, b = (updates["attention"]["query"][name][n] for name in ("a", "b"))
        blocks["attention"]["query"]["kernel"][n] += scale * a @ b
    for name in ("gate", "down"):
        blocks[name]["kernel"][1] += scale * updates[name]["a"][0] @ updates[name]["b"][0]
    want["head"]["kernel"] += scale * np.asarray(lora["head"]["a"] @ lora["head"]["b"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), whole, want)
    np.testing.assert_allclose(logits(whole), logits(params, lora), atol=1e-5)


def test_only_the_updates_learn(tower) -> None:
    model, params, _ = tower
    lora = init_lora(LORA, params, jax.random.key(1))
    tx = optax.adam(3e-2)

    @jax.jit
    def step(lora: dict, state: optax.OptState) -> tuple:
        def loss(lora: dict) -> jax.Array:
            out, _ = model.fns["lm_logits"](params, TEXT, MASK, lora=applied(LORA, lora, params))
            return optax.softmax_cross_entropy_with_integer_labels(out[:, :-1], TEXT[:, 1:]).mean()

        value, gradient = jax.value_and_grad(loss)(lora)
        updates, state = tx.update(gradient, state)
        return value, gradient, optax.apply_updates(lora, updates), state

    state = tx.init(lora)
    first, gradient, lora, state = step(lora, state)
    # Where b is zero, a has no gradient yet, and every b has one.
    for place in (gradient["stack"]["blocks"]["attention"]["query"], gradient["head"]):
        assert not np.any(place["a"])
        assert np.all(np.abs(place["b"]).max((-2, -1)) > 0)
    for _ in range(30):
        last, _, lora, state = step(lora, state)
    assert last < 0.2 * first
    assert {leaf.shape[0] for leaf in jax.tree.leaves(lora["stack"]["blocks"]["gate"])} == {1}


def test_the_updates_are_saved_alone_and_small(tower, tmp_path: Path) -> None:
    model, params, lora = tower
    save_params(tmp_path / "lora", lora, {"rank": LORA.rank})
    back, _ = load_params(tmp_path / "lora")
    jax.tree.map(np.testing.assert_array_equal, back, lora)
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    # Query 3 x (12 + 12), gate and down (12 + 10) each, head (12 + 11), all times the rank.
    assert count(lora) == 2 * (3 * 24 + 2 * 22 + 23) < count(params) / 5
    axes = lora_axes(LORA, params, model.logical_axes(params))
    for rules in ("dp", "fsdp_tp"):
        shardings(axes, lora, make_mesh(), rules)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("attention/quary",), "names no matrix; there are"),
        (("layers[2:9]/query",), "layers 2 to 9, and stack/blocks/attention/query has 3"),
        (("layers[0:1]/head",), "head has no layers to choose"),
        (("(query",), "no regular expression"),
    ],
)
def test_targets_that_are_not_there_are_named(tower, targets, said) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        init_lora(LoraConfig(targets), tower[1], jax.random.key(0))


def test_the_first_target_that_fits_counts(tower) -> None:
    config = LoraConfig(("layers[:1]/query", "query|key"), rank=1)
    lora = init_lora(config, tower[1], jax.random.key(0))["stack"]["blocks"]["attention"]
    assert jax.tree.map(jnp.shape, lora) == {
        "query": {"a": (1, 12, 1), "b": (1, 1, 12)},
        "key": {"a": (3, 12, 1), "b": (3, 1, 6)},
    }
