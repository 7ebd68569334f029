"""The DLRM against numpy, and what its masks promise."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.errors import SettingError
from jmrec.models.dlrm import DlrmConfig, Pairs, dlrm

CONFIG = DlrmConfig(
    numbers=3, items=6, users=5, categories=(4, 3), parts=(7, 2), past=4, width=5, bottom=(6,),
    top=(8, 4), prior=-1.5,
)  # fmt: skip


def drawn(config: DlrmConfig, rows: int = 9, past: int = 3) -> Pairs:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    def below(high: int, *shape: int) -> jax.Array:
        return jnp.asarray(random.integers(0, high, shape), jnp.int32)

    return Pairs(
        numbers=normal(rows, config.numbers),
        item=below(config.items, rows),
        user=below(config.users, rows),
        category=jnp.stack([below(each, rows) for each in config.categories], 1),
        parts=tuple(normal(rows, width) for width in config.parts),
        parts_ok=jnp.asarray(random.random((rows, len(config.parts))) < 0.7),
        past=normal(rows, past, config.past),
        past_label=below(3, rows, past),
        past_mask=jnp.asarray(random.random((rows, past)) < 0.6),
    )


def layer(params: dict, name: str, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])


def reference(c: DlrmConfig, params: dict, pairs: Pairs) -> np.ndarray:
    """Return the logits, one pair at a time."""
    pairs = jax.device_get(pairs)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    found = []
    for row in range(len(pairs.item)):
        x = np.asarray(pairs.numbers[row], np.float64)
        for n in range(len(c.bottom) + 1):
            x = np.maximum(layer(p, f"bottom{n}", x), 0)
        vectors = [x, p["items"][pairs.item[row]], p["users"][pairs.user[row]]]
        vectors += [p[f"category{k}"][pairs.category[row, k]] for k in range(len(c.categories))]
        read = [
            layer(p, f"part{k}", np.asarray(part[row], np.float64)) * bool(pairs.parts_ok[row, k])
            for k, part in enumerate(pairs.parts)
        ]
        vectors += read
        value = layer(p, "past", np.asarray(pairs.past[row], np.float64))
        value = value + p["past_label"][np.asarray(pairs.past_label[row])]
        target, out = sum(read), np.zeros(c.width)
        mask = np.asarray(pairs.past_mask[row])
        if mask.any():
            score = value @ layer(p, "query", target) / np.sqrt(c.width)
            weight = np.exp(score[mask] - score[mask].max())
            weight /= weight.sum()
            out = (weight[:, None] * (value * target + value)[mask]).sum(0)
        vectors.append(out)
        table = np.stack(vectors)
        if c.cross == "dot":
            products = [
                table[i] @ table[j] for i in range(len(table)) for j in range(i + 1, len(table))
            ]
            x = np.concatenate([table.ravel(), products])
        else:
            x = flat = table.ravel()
            for n in range(c.cross_layers):
                x = flat * layer(p, f"cross{n}", x) + x
        for n in range(len(c.top)):
            x = np.maximum(layer(p, f"top{n}", x), 0)
        found.append(layer(p, "logit", x)[0] + c.prior)
    return np.array(found)


@pytest.mark.parametrize("cross", ["dot", "dcn"])
def test_logits_are_those_of_numpy(cross: str) -> None:
    config = replace(CONFIG, cross=cross)
    model, pairs = dlrm(config), drawn(config)
    params = model.init(jax.random.key(1))
    # Tables that begin near zero would hide a wrong row.
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32), jax.device_get(params)
    )
    logits, _ = jax.jit(model.fns["score"])(params, pairs)
    np.testing.assert_allclose(logits, reference(config, params, pairs), rtol=2e-4, atol=2e-5)


def test_what_is_masked_changes_nothing() -> None:
    model, pairs = dlrm(CONFIG), drawn(CONFIG)
    params = model.init(jax.random.key(1))
    score = jax.jit(model.fns["score"])
    before, _ = score(params, pairs)
    other = replace(
        pairs,
        parts=tuple(
            jnp.where(pairs.parts_ok[:, k, None], part, 99.0) for k, part in enumerate(pairs.parts)
        ),
        past=jnp.where(pairs.past_mask[..., None], pairs.past, -7.0),
        past_label=jnp.where(pairs.past_mask, pairs.past_label, 1),
    )
    np.testing.assert_array_equal(before, score(params, other)[0])


def test_every_parameter_has_axes_and_tables_are_cut_by_rows() -> None:
    model = dlrm(CONFIG)
    params, axes = model.init(jax.random.key(0)), model.logical_axes(None)
    assert axes["items"] == axes["users"] == ("item", None)
    leaves = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
    for leaf, names in zip(jax.tree.leaves(params), leaves, strict=True):
        assert leaf.ndim == len(names)


def test_parts_may_be_left_out() -> None:
    for config in (
        DlrmConfig(numbers=2),
        DlrmConfig(numbers=2, parts=(3,)),
        DlrmConfig(numbers=0, items=3, users=3),
    ):
        model = dlrm(config)
        from jmrec.models.dlrm import example_pairs

        logits, _ = jax.jit(model.fns["score"])(
            model.init(jax.random.key(0)), example_pairs(config, 4)
        )
        assert logits.shape == (4,)
        assert np.isfinite(logits).all()


def test_senseless_sizes_are_refused() -> None:
    with pytest.raises(SettingError, match="cross='sum'"):
        DlrmConfig(numbers=1, cross="sum")
    with pytest.raises(SettingError, match="1 or more"):
        DlrmConfig(numbers=1, top=(0,))
