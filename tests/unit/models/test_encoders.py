"""Every session encoder beside its paper's formula in plain numpy, prefix by prefix."""

from dataclasses import fields
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit as sigmoid
from scipy.special import ndtr, softmax

from jmrec.errors import SettingError
from jmrec.models.sessions.table import ENCODERS, item_vectors, session_model, session_rows

D, N = 8, 7


def learned(model):
    """Parameters of which none is zero."""
    params, rng = model.init(jax.random.key(0)), np.random.default_rng(1)
    return jax.tree.map(
        lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), jnp.float32), params
    )


def linear(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def silu(x):
    return x * sigmoid(x)


def norm(x, p, epsilon):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    return x * p.get("scale", 1.0) + p.get("bias", 0.0)


def placed(p, x):
    """Items and the vectors of their positions, of which there are fewer than items."""
    return x + p["places"][np.minimum(np.arange(len(x)), len(p["places"]) - 1)]


def attention(x, p, heads=2):
    """Causal, one query after the other."""
    q, k, v = (linear(x, p[each]).reshape(len(x), heads, -1) for each in ("query", "key", "value"))
    seen = np.zeros_like(q)
    for i in range(len(x)):
        for h in range(heads):
            weight = softmax(k[: i + 1, h] @ q[i, h] / np.sqrt(q.shape[-1]))
            seen[i, h] = weight @ v[: i + 1, h]
    return linear(seen.reshape(x.shape), p["out"])


def gru(x, p):
    """The states after each of x [n, D]."""
    size = p["state"].shape[0]
    h, states = np.zeros(size), []
    for one in x:
        given, own = one @ p["input"]["kernel"], h @ p["state"]
        r = sigmoid(given[:size] + own[:size])
        z = sigmoid(given[size : 2 * size] + own[size : 2 * size])
        n = np.tanh(given[2 * size :] + r * own[2 * size :])
        h = (1 - z) * n + z * h
        states.append(h)
    return np.array(states)


def gru4rec(p, x, gap):
    return linear(gru(gru(x, p["gru_0"]), p["gru_1"])[-1], p["head"])


def narm(p, x, gap):
    h = gru(x, p["gru_0"])
    local = 0.0
    for each in h:
        hidden = sigmoid(h[-1] @ p["query"]["kernel"] + each @ p["key"]["kernel"])
        local = local + float(hidden @ p["attention"]["weight"][:, 0]) * each
    return np.concatenate([local, h[-1]]) @ p["head"]["kernel"]


def stamp(p, x, gap):
    last, mean = x[-1], x.mean(0)
    memory = mean
    for each in x:
        hidden = sigmoid(
            linear(each, p["item"]) + linear(last, p["last"]) + linear(mean, p["mean"])
        )
        memory = memory + float(hidden @ p["attention"]["weight"][:, 0]) * each
    return np.tanh(linear(memory, p["general"])) * np.tanh(linear(last, p["current"]))


def sasrec_blocks(p, x):
    for block in (p["block_0"], p["block_1"]):
        x = norm(x + attention(x, block), block["attention_norm"], 1e-12)
        y = linear(x, block["up"])
        y = linear(y * ndtr(y), block["down"])
        x = norm(x + y, block["mlp_norm"], 1e-12)
    return x


def sasrec(p, x, gap):
    return sasrec_blocks(p, norm(placed(p, x), p["norm"], 1e-12))[-1]


def core(p, x, gap):
    y = sasrec_blocks(p, norm(placed(p, x), p["norm"], 1e-12))
    state = softmax(linear(y, p["weigh"])[:, 0]) @ x
    return state / np.linalg.norm(state) / 0.07


def hstu(p, x, gap):
    n, heads, last = len(x), 2, len(p["places"]) - 1
    x = placed(p, x * np.sqrt(D))
    clock = np.cumsum(np.expm1(gap))
    for layer in (p["layer_0"], p["layer_1"]):
        u, v, q, k = np.split(silu(linear(norm(x, {}, 1e-6), layer["uvqk"])), 4, -1)
        q, k, v = (each.reshape(n, heads, -1) for each in (q, k, v))
        seen = np.zeros_like(q)
        for i in range(n):
            for j in range(i + 1):
                bucket = np.log(max(clock[i] - clock[j], 1.0)) / 0.301
                assert bucket == 0 or 0.01 < bucket % 1 < 0.99  # no rounding decides
                bias = layer["distance"][min(i - j, last)] + layer["time"][min(int(bucket), 128)]
                for h in range(heads):
                    seen[i, h] += silu(q[i, h] @ k[j, h] + bias) / (last + 1) * v[j, h]
        x = x + linear(u * norm(seen.reshape(x.shape), {}, 1e-6), layer["out"])
    return x[-1]


def ligr(p, x, gap):
    x = placed(p, x)
    for block in (p["block_0"], p["block_1"]):
        y = norm(x, block["attention_norm"], 1e-5)
        x = x + sigmoid(linear(x, block["attention_gate"])) * attention(y, block)
        y = norm(x, block["mlp_norm"], 1e-5)
        y = linear(silu(linear(y, block["gate"])) * linear(y, block["up"]), block["down"])
        x = x + sigmoid(linear(x, block["mlp_gate"])) * y
    return x[-1]


def caser(p, x, gap):
    """Each filter at each of its places in the last four items; zeros before the first."""
    size = 4
    picture = np.concatenate([np.zeros((size, D)), x])[-size:]
    vertical, kept = p["vertical"], []
    for k in range(vertical["kernel"].shape[1]):
        kept += [*(vertical["kernel"][:, k] @ picture + vertical["bias"][k])]
    for height in range(1, size + 1):
        layer = p[f"horizontal_{height}"]
        for k, bias in enumerate(layer["bias"]):
            filtered = layer["kernel"][:, k].reshape(height, D)
            starts = range(size - height + 1)
            places = [(picture[i : i + height] * filtered).sum() + bias for i in starts]
            kept.append(max(0.0, *places))
    return np.maximum(linear(np.array(kept), p["head"]), 0)


def srgnn(p, x, gap):
    h, click = np.unique(x, axis=0, return_inverse=True)
    click, edges = click.reshape(-1), np.zeros((len(h), len(h)))
    for a, b in pairwise(click):
        edges[a, b] = 1
    before = edges.T / np.maximum(edges.sum(0), 1)[:, None]
    after = edges / np.maximum(edges.sum(1), 1)[:, None]
    for _ in range(2):
        given = [
            before @ linear(h, p["before"]) + p["before_shift"],
            after @ linear(h, p["after"]) + p["after_shift"],
        ]
        given, own = linear(np.concatenate(given, 1), p["passed"]), linear(h, p["own"])
        reset, update = (sigmoid(given[:, at] + own[:, at]) for at in (slice(D), slice(D, 2 * D)))
        new = np.tanh(given[:, 2 * D :] + reset * own[:, 2 * D :])
        h = (1 - update) * h + update * new
    items = h[click]
    weight = sigmoid(linear(items[-1], p["query"]) + linear(items, p["key"])) @ p["weigh"]["kernel"]
    return linear(np.concatenate([(weight * items).sum(0), items[-1]]), p["head"])


def bert4rec(p, x, gap):
    """All positions see each other, and a hidden item that stands behind the last one."""
    y = norm(placed(p, np.concatenate([x, p["hidden"][None]])), p["norm"], 1e-12)
    for block in (p["block_0"], p["block_1"]):
        y = norm(y + both_ways(y, block), block["attention_norm"], 1e-12)
        z = linear(y, block["up"])
        y = norm(y + linear(z * ndtr(z), block["down"]), block["mlp_norm"], 1e-12)
    z = linear(y[-1], p["head"])
    return norm(z * ndtr(z), p["head_norm"], 1e-12)


def both_ways(x, p, heads=2):
    q, k, v = (linear(x, p[each]).reshape(len(x), heads, -1) for each in ("query", "key", "value"))
    weight = softmax(np.einsum("ihc,jhc->ijh", q, k) / np.sqrt(q.shape[-1]), axis=1)
    return linear(np.einsum("ijh,jhc->ihc", weight, v).reshape(x.shape), p["out"])


CASES = {
    "gru4rec": (gru4rec, {"hidden": 12, "layers": 2}),
    "narm": (narm, {"hidden": 12, "layers": 1}),
    "stamp": (stamp, {}),
    "sasrec": (sasrec, {"layers": 2, "heads": 2, "positions": 5}),
    "hstu": (hstu, {"layers": 2, "heads": 2, "positions": 5}),
    "ligr": (ligr, {"layers": 2, "heads": 2, "positions": 5}),
    "core": (core, {"layers": 2, "heads": 2, "positions": 5}),
    "caser": (caser, {"last": 4, "horizontal": 3, "vertical": 2}),
    "srgnn": (srgnn, {"steps": 2}),
    "bert4rec": (bert4rec, {"layers": 2, "heads": 2, "positions": 5}),
}


@cache
def reader(name: str):
    kind, sizes = ENCODERS[name].config, CASES[name][1]
    more = {"gaps": True} if "gaps" in {each.name for each in fields(kind)} else {}
    model = session_model(kind(features=3, ids=9, width=D, **sizes, **more))

    def encode(params, x, mask, gap, key, dropout):
        given = {"key": key, "train": dropout is not None, "dropout": dropout or 0.0}
        return model.fns["encode_session"](params, x, mask, gap, **given)[0]

    return model, learned(model), jax.jit(encode, static_argnames="dropout")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_an_encoder_is_its_papers_formula(name: str, seed: int) -> None:
    _, params, encode = reader(name)
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 4, N)  # some come more than once
    x = rng.normal(size=(4, D)).astype(np.float32)[items]
    seconds = np.array([0, 3, 40, 3, 7_000, 90_000, 11])
    gap = np.log1p(rng.permutation(seconds)).astype(np.float32)
    padded = np.stack([np.pad(x, ((0, 2), (0, 0)), constant_values=5.0)] * 2)
    mask, wide_gap = np.stack([np.arange(N + 2) < N] * 2), np.stack([np.pad(gap, (0, 2))] * 2)
    states = encode(params, padded, mask, wide_gap, jax.random.key(0), None)
    wide = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    x, gap = x.astype(np.float64), gap.astype(np.float64)
    want = [CASES[name][0](wide, x[: n + 1], gap[: n + 1]) for n in range(N)]
    for row in np.asarray(states):
        np.testing.assert_allclose(row[:N], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_dropout_drops_in_training_alone(name: str) -> None:
    _, params, encode = reader(name)
    shape = 2, N + 2  # as above: the program without dropout is there
    x, mask, gap = (
        np.ones((*shape, D), np.float32),
        np.ones(shape, bool),
        np.ones(shape, np.float32),
    )
    alike, other = (encode(params, x, mask, gap, jax.random.key(0), rate) for rate in (None, 0.5))
    np.testing.assert_allclose(*alike, rtol=1e-4, atol=1e-5)
    assert not np.allclose(*other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_make_no_sense_are_named(name: str) -> None:
    config = ENCODERS[name].config
    with pytest.raises(SettingError, match=f"the encoder {name} needs features, ids or both"):
        config(features=0, ids=0)
    for size in ("width", *CASES[name][1]):
        says = "the sizes of the encoder" if name == "sasrec" else f"{size} of the encoder"
        with pytest.raises(SettingError, match=f"{says} {name}"):
            config(features=0, ids=3, **{size: 0})


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("narm", {"item_dropout": 1.0}, "item_dropout of the encoder narm is 1.0"),
        ("core", {"hidden_dropout": -0.1}, "hidden_dropout of the encoder core is -0.1"),
        ("core", {"temperature": 0.0}, "temperature of the encoder core is 0.0"),
        ("core", {"heads": 3}, "heads=3 does not divide width=64"),
        ("hstu", {"heads": 3}, "heads=3 does not divide width=64"),
        ("ligr", {"heads": 3}, "heads=3 does not divide width=64"),
        ("ligr", {"mlp": -1}, "mlp of the encoder ligr is -1"),
        ("bert4rec", {"heads": 3}, "heads=3 does not divide width=64"),
        ("bert4rec", {"hide": 1.0}, "hide of the encoder bert4rec is 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_named(name: str, given: dict, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        ENCODERS[name].config(features=0, ids=3, **given)


def test_core_compares_by_the_cosine_and_sums_what_was_before() -> None:
    model, params, _ = reader("core")
    rng = np.random.default_rng(0)
    catalogue = {"features": rng.normal(size=(6, 3)).astype(np.float32), "ids": np.arange(6)}
    x = catalogue["features"] @ params["project"]["kernel"] + params["ids"][:6]
    table = item_vectors(model, params, catalogue)
    np.testing.assert_allclose(session_rows(model, params, catalogue, table), x, rtol=1e-5)
    want = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(table, want, rtol=1e-5, atol=1e-6)


def test_core_drops_what_a_session_is_compared_with_and_not_what_it_reads() -> None:
    model, params, _ = reader("core")
    drawn = {"key": jax.random.key(3), "train": True, "id_dropout": 0.5}
    catalogue = {"features": np.ones((6, 3), np.float32), "ids": np.arange(6)}
    table = np.asarray(item_vectors(model, params, catalogue, **drawn))
    raw = np.asarray(session_rows(model, params, catalogue, table, **drawn))
    # Both have lost the ids of the same items, the vectors of the table some numbers more.
    unknown = np.ones(3) @ params["project"]["kernel"] + params["ids"][8]
    dropped = np.isclose(raw, unknown, atol=1e-5).all(1)
    assert (raw != 0).all()
    assert 0 < (table == 0).mean() < 0.5
    assert 0 < dropped.sum() < 6
    kept = np.where(table == 0, 0, raw)
    want = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    np.testing.assert_allclose(table, want, rtol=1e-4, atol=1e-5)
