"""Every session encoder beside its paper's formula in plain numpy, prefix by prefix."""

import jax
import numpy as np
import pytest
from scipy.special import expit as sigmoid

from jmrec.errors import SettingError
from jmrec.models.sessions.table import ENCODERS, session_model

D = 8


def learned(model):
    """Parameters of which none is zero."""
    params = model.init(jax.random.key(0))
    return jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape), params)


def linear(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


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


def gru4rec(p, x):
    return linear(gru(gru(x, p["gru_0"]), p["gru_1"])[-1], p["head"])


def narm(p, x):
    h = gru(x, p["gru_0"])
    local = 0.0
    for each in h:
        hidden = sigmoid(h[-1] @ p["query"]["kernel"] + each @ p["key"]["kernel"])
        local = local + float(hidden @ p["attention"]["weight"][:, 0]) * each
    return np.concatenate([local, h[-1]]) @ p["head"]["kernel"]


def stamp(p, x):
    last, mean = x[-1], x.mean(0)
    memory = mean
    for each in x:
        hidden = sigmoid(
            linear(each, p["item"]) + linear(last, p["last"]) + linear(mean, p["mean"])
        )
        memory = memory + float(hidden @ p["attention"]["weight"][:, 0]) * each
    return np.tanh(linear(memory, p["general"])) * np.tanh(linear(last, p["current"]))


CASES = {
    "gru4rec": (gru4rec, {"hidden": 12, "layers": 2}),
    "narm": (narm, {"hidden": 12}),
    "stamp": (stamp, {}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_an_encoder_is_its_papers_formula(name: str, seed: int) -> None:
    reference, sizes = CASES[name]
    model = session_model(ENCODERS[name].config(features=0, ids=9, width=D, **sizes))
    params = learned(model)
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 6, 7)  # some come twice
    x = rng.normal(size=(6, D)).astype(np.float32)[items]
    mask = np.arange(9) < 7
    padded = np.pad(x, ((0, 2), (0, 0)), constant_values=5.0)
    encode = jax.jit(lambda params, x: model.fns["encode_session"](params, x, mask[None])[0])
    states = encode(params, padded[None])
    wide = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    want = [reference(wide, x[: n + 1].astype(np.float64)) for n in range(7)]
    np.testing.assert_allclose(np.asarray(states)[0, :7], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_make_no_sense_are_named(name: str) -> None:
    config = ENCODERS[name].config
    with pytest.raises(SettingError, match=f"the encoder {name} needs features, ids or both"):
        config(features=0, ids=0)
    for size in ("width", *CASES[name][1]):
        with pytest.raises(SettingError, match=f"{size} of the encoder {name} is 0; raise it"):
            config(features=0, ids=3, **{size: 0})


@pytest.mark.parametrize("name", CASES)
def test_dropout_drops_in_training_alone(name: str) -> None:
    model = session_model(ENCODERS[name].config(features=3, ids=0, width=D))
    params, x, mask = learned(model), np.ones((2, 4, D), np.float32), np.ones((2, 4), bool)

    def read(train: bool) -> np.ndarray:
        key = jax.random.key(0)
        given = {"key": key, "train": train, "dropout": 0.5}
        return np.asarray(
            jax.jit(lambda: model.fns["encode_session"](params, x, mask, **given)[0])()
        )

    np.testing.assert_allclose(*read(train=False), rtol=1e-4, atol=1e-5)
    assert not np.allclose(*read(train=True), rtol=1e-2, atol=1e-2)
