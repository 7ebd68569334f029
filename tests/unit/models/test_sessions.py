"""The table of session encoders: one look from outside for all of them, causal or not."""

import json
from dataclasses import fields, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.models import codec
from jmrec.models.parts.rope import RopeScaling
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.student import StudentConfig
from jmrec.models.sessions.table import (
    ENCODERS,
    causal,
    encoder_name,
    item_vectors,
    session_config,
    session_model,
    session_rows,
)
from jmrec.models.sessions.transfer import ItemTokens, TransferConfig
from tests.unit.models.toy_encoders import (
    TOYS,
    MeanConfig,
    Whole,
    WholeConfig,
    registered,
    state,
    toy,
)

STACK = {"width": 8, "layers": 1, "heads": 2, "kv_heads": 1, "mlp": 8}
TINY = StackConfig(**STACK)


def small(name: str, kind: type):
    """A small config of any encoder: a new one in the table is tested like the others.

    Serving's tests have the same ones, so that their programs are found in the cache.
    """
    known = {each.name for each in fields(kind)}
    # At CORE's own temperature states have a length of 14, and float32 rounds them so much sooner.
    own = {"hidden": 8, "temperature": 1.0}
    settings = {"stack": STACK, "options": {n: own[n] for n in own if n in known}}
    features, ids = (6, 64) if "ids" in known else (8, 0)
    with registered():
        return session_config(name, settings, features=features, ids=ids, gaps=True, events=3)


KINDS = {name: each.config for name, each in {**ENCODERS, **TOYS}.items()}
CONFIGS = {
    **{name: small(name, kind) for name, kind in KINDS.items()},
    "transfer of tokens": TransferConfig(8, TINY, 8, ItemTokens(vocab=12, text=3, seen=2, width=4)),
}
B, L = 3, 5
LENGTHS = np.array([5, 1, 3])


@pytest.fixture(autouse=True)
def toys():
    with registered():
        yield


def sessions(config) -> dict:
    rng = np.random.default_rng(0)
    mask = np.arange(L) < LENGTHS[:, None]
    x = rng.normal(size=(B, L, 8)).astype(np.float32)
    if getattr(config, "tokens", None):
        x = {
            "text": rng.integers(1, 9, (B, L, 3)).astype(np.int32),
            "seen": rng.normal(size=(B, L, 2, 4)).astype(np.float32),
            "picture_ok": rng.random((B, L)) < 0.5,
        }
    gap = np.where(mask, rng.random((B, L)), 0).astype(np.float32)
    return {"x": x, "mask": mask, "gap": gap, "event": rng.integers(0, 3, (B, L))}


def learned(model):
    """Parameters of which none is zero."""
    params, rng = model.init(jax.random.key(0)), np.random.default_rng(1)
    return jax.tree.map(
        lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), jnp.float32), params
    )


@cache
def compiled(name: str):
    """An encoder's parameters, and its functions of what `sessions` makes, compiled once."""
    model = session_model(CONFIGS[name])
    params = learned(model)

    def program(fn: str):
        order = ("x", "mask", "gap", "event")
        return jax.jit(lambda given: model.fns[fn](params, *[given[name] for name in order])[0])

    return params, program("encode_session"), program("last_state")


def reader(name: str):
    params, encode, _ = compiled(name)
    return params, encode, sessions(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_later_item_changes_no_earlier_state_and_padding_none(name: str) -> None:
    params, encode, asked = reader(name)
    states = np.asarray(encode(asked))
    catalogue = {"features": np.ones((4, CONFIGS[name].features), np.float32), "ids": np.arange(4)}
    table = item_vectors(session_model(CONFIGS[name]), params, catalogue)
    assert states.shape == (B, L, table.shape[1])
    assert states.dtype == np.float32
    assert np.isfinite(states).all()
    for place in range(1, L):

        def changed(array, place=place):
            array = np.array(array)
            later = array[:, place:]  # a sum with one number is nothing new after a layer norm
            array[:, place:] = later + 1 if array.dtype.kind == "i" else 1 - later
            return array

        others = {**jax.tree.map(changed, asked), "mask": asked["mask"]}
        moved = np.asarray(encode(others))
        np.testing.assert_allclose(moved[:, :place], states[:, :place], atol=1e-6)
        assert (np.abs(moved - states).max(-1)[place < LENGTHS, place] > 1e-3).all()
    # A wider window says the same of what it holds.
    more = ((0, 0), (0, 3), (0, 0), (0, 0))
    wide = jax.tree.map(lambda array: np.pad(array, more[: np.ndim(array)]), asked)
    again = np.asarray(encode(wide))[:, :L]
    np.testing.assert_allclose(again[asked["mask"]], states[asked["mask"]], atol=1e-5)


@pytest.mark.parametrize("name", ["mean", "whole"])
def test_each_prefix_is_encoded_by_itself(name: str) -> None:
    params, encode, asked = reader(name)
    states = np.asarray(encode(asked))
    for row, length in enumerate(LENGTHS):
        for n in range(1, length + 1):
            want = state(CONFIGS[name], params, asked["x"][row, :n], asked["gap"][row, :n])
            np.testing.assert_allclose(states[row, n - 1], want, rtol=1e-5, atol=1e-5)


def test_prefixes_have_the_gradient_of_what_they_are() -> None:
    """Beside the sum over prefixes that are encoded one by one, without any expansion."""
    model, alone = session_model(CONFIGS["whole"]), toy(Whole)(CONFIGS["whole"])
    params, asked = learned(model), sessions(CONFIGS["whole"])
    weight = np.random.default_rng(1).normal(size=(B, L, 8)).astype(np.float32)
    weight *= asked["mask"][..., None]

    def together(params, x):
        states, _ = model.fns["encode_session"](params, x, asked["mask"], asked["gap"])
        return (states * weight).sum()

    def by_one(params, x):
        total = 0.0
        for row, length in enumerate(LENGTHS):
            for n in range(1, length + 1):
                gap = asked["gap"][row : row + 1, :n]
                one, _ = alone.fns["encode_session"](
                    params, x[row : row + 1, :n], jnp.ones((1, n), bool), gap
                )
                total += (one[0] * weight[row, n - 1]).sum()
        return total

    ours, theirs = (jax.jit(jax.grad(f, (0, 1)))(params, asked["x"]) for f in (together, by_one))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


def test_prefixes_drop_each_for_itself_and_the_key_decides() -> None:
    model = session_model(WholeConfig(features=3, ids=4, power=0))  # all items weigh the same
    params, x, mask = learned(model), np.ones((1, 4, 8), np.float32), np.ones((1, 4), bool)

    @partial(jax.jit, static_argnums=1)
    def encode(key, train):
        return model.fns["encode_session"](params, x, mask, key=key, train=train, dropout=0.5)[0]

    def read(seed: int, train: bool = True) -> np.ndarray:
        return np.asarray(encode(jax.random.key(seed), train))

    np.testing.assert_array_equal(read(0), read(0))
    assert not np.array_equal(read(0), read(1))
    np.testing.assert_allclose(read(0, train=False)[0], np.arange(1, 5)[:, None] * np.ones(8))
    # One draw for all prefixes would drop the first item from all of them or from none.
    first = np.diff(read(0)[0], axis=0, prepend=0)
    assert len(np.unique(first)) > 2


def test_what_is_tapped_of_prefixes_has_their_axis() -> None:
    model, asked = session_model(CONFIGS["whole"]), sessions(CONFIGS["whole"])
    _, tapped = model.fns["encode_session"](
        model.init(jax.random.key(0)), asked["x"], asked["mask"], taps=("x",)
    )
    assert tapped["x"].shape == (L, B, L, 8)
    assert not tapped["x"][0, :, 1:].any()  # the first prefix has seen the first item alone


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_state_is_that_after_the_last_item(name: str) -> None:
    _, encode, last_state = compiled(name)
    asked = sessions(CONFIGS[name])
    want = np.asarray(encode(asked))[np.arange(B), LENGTHS - 1]
    later = jax.tree.map(lambda array: np.array(array), asked)
    for row, length in enumerate(LENGTHS):  # what padding holds is read by nobody
        for array in jax.tree.leaves({name: later[name] for name in ("x", "gap", "event")}):
            # Of an encoder that is not causal nothing but zeros arrive there.
            array[row, length:] = 1 if causal(CONFIGS[name]) or array.dtype.kind != "f" else np.nan
    np.testing.assert_allclose(last_state(later), want, rtol=1e-5, atol=1e-6)


PACKING = [name for name, each in ENCODERS.items() if each.packs] + ["transfer of tokens"]


@pytest.mark.parametrize("name", PACKING)
def test_sessions_that_share_a_row_are_encoded_as_each_alone(name: str) -> None:
    _, encode, given = reader(name)
    alone = np.asarray(encode(given))
    # The three sessions, 5 + 1 + 3 items, behind one another, and two places of padding.
    row = [(b, at) for b, length in enumerate(LENGTHS) for at in range(length)] + [(1, 4)] * 2
    b, at = np.array(row).T
    packed = jax.tree.map(lambda x: np.asarray(x)[b, at][None], given)
    packed["mask"] = np.array([[1] * 5 + [2] + [3] * 3 + [0] * 2], np.int32)
    together = np.asarray(encode(packed))[0]
    np.testing.assert_allclose(together[:9], alone[b[:9], at[:9]], rtol=1e-5, atol=1e-6)
    assert np.isfinite(together).all()


def test_an_encoder_in_the_wrong_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "whole", replace(ENCODERS["whole"], causal=True))
    config = CONFIGS["whole"]
    model, asked = session_model(config), sessions(config)
    with pytest.raises(ValueError, match=r"whole: encode_session gave \(3, 8\) for sessions"):
        model.fns["encode_session"](model.init(jax.random.key(0)), asked["x"], asked["mask"])


def test_no_two_encoders_share_a_config_and_names_are_found_by_it() -> None:
    kinds = [each.config for each in ENCODERS.values()]
    assert len(set(kinds)) == len(kinds)
    for name, config in CONFIGS.items():
        assert encoder_name(config) == name.split()[0]
    with pytest.raises(ValueError, match="StackConfig is the config of no session encoder"):
        encoder_name(TINY)


def test_an_encoder_reads_its_own_vectors_or_what_the_items_are() -> None:
    own, tower = (session_model(CONFIGS[name]) for name in ("student", "transfer"))
    rng = np.random.default_rng(0)
    catalogue = {"features": rng.normal(size=(6, 6)).astype(np.float32), "ids": np.arange(6) % 4}
    params = own.init(jax.random.key(0))
    table = item_vectors(own, params, catalogue)
    want, _ = own.fns["item_table"](params, catalogue["features"], catalogue["ids"])
    np.testing.assert_array_equal(table, want)
    assert session_rows(own, params, catalogue, table) is table
    e = {"features": rng.normal(size=(6, 8)).astype(np.float32)}
    params = tower.init(jax.random.key(0))
    table = item_vectors(tower, params, e)
    np.testing.assert_array_equal(table, tower.fns["item_table"](params, e["features"])[0])
    assert session_rows(tower, params, e, table) is e["features"]
    assert session_rows(tower, params, {**e, "tokens": {"text": 1}}, table) == {"text": 1}


READ = {"features": 3, "ids": 4, "gaps": True, "events": 2}


def test_a_config_takes_what_its_class_has() -> None:
    # As it was before there were options.
    group = ConfigDict({"stack": STACK, "train": {"steps": 3}})
    student = StudentConfig(features=3, ids=4, stack=TINY, gaps=True, events=2)
    assert session_config("student", group, **READ) == student
    none = {**group, "options": ConfigDict()}
    assert session_config("student", none, **READ) == student
    assert session_config("mean", group, **READ) == MeanConfig(features=3, ids=4, width=8)
    options = ConfigDict({"power": 2})
    assert session_config("whole", {**group, "options": options}, **READ) == WholeConfig(
        features=3, ids=4, width=8, gaps=True, power=2
    )
    tower = session_config(
        "transfer", {"stack": STACK, "options": {"out": 5}}, **{**READ, "ids": 0}
    )
    assert tower == TransferConfig(features=3, stack=TINY, out=5, gaps=True, events=2)


@pytest.mark.parametrize(
    ("name", "options", "read", "says"),
    [
        ("nobody", {}, {}, r'student.encoder="nobody" is not one of student, sasrec, transfer'),
        ("whole", {"powre": 2}, {}, "options.powre: whole has no such option; did you mean"),
        ("whole", {"zzz": 2}, {}, "zzz: whole has no such option; it has power"),
        ("whole", {"power": 1.5}, {}, "options.power is 1.5; give it a value of type int"),
        ("whole", {"power": True}, {}, "student.options.power is True"),
        ("mean", {"scale": "big"}, {}, "student.options.scale is 'big'; .* of type float"),
        ("mean", {"width": 3}, {}, "student.options.width: mean has no such option"),
        ("student", {"features": 9}, {}, "student.options.features: student has no such option"),
        ("transfer", {}, {}, "the encoder transfer reads no ids of items; give it none"),
        ("transfer", {}, {"ids": 0, "features": 0}, "transfer reads the features of items"),
        ("student", {}, {"ids": 0, "features": 0}, "a student needs features, ids or both"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(name, options, read, says) -> None:
    with pytest.raises(UserError, match=says):
        session_config(name, {"stack": STACK, "options": options}, **{**READ, **read})
    with pytest.raises(UserError, match="has no field 'wide', did you mean"):
        session_config("student", {"stack": {"wide": 3}}, **READ)
    with pytest.raises(UserError, match="width 7 over heads 2"):
        session_config("student", {"stack": {"width": 7, "heads": 2}}, **READ)


st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(
    StackConfig,
    st.builds(
        StackConfig,
        width=st.sampled_from([8, 16]),
        heads=st.just(2),
        kv_heads=st.sampled_from([1, 2]),
        remat=st.sampled_from([False, True, "none", "dots_saveable"]),
        rope_base=...,
        qkv_bias=...,
        rope_scaling=st.none()
        | st.builds(RopeScaling, kind=st.just("linear"), factor=st.just(2.0)),
    ),
)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_every_registered_config_comes_back_from_json(data) -> None:
    kind = data.draw(st.sampled_from(list(KINDS.values())))
    try:
        config = data.draw(st.builds(kind, **{each.name: ... for each in fields(kind)}))
    except ValueError:  # sizes that do not go together
        reject()
    with registered():
        again = codec.decode(json.loads(json.dumps(codec.encode(config))))
    assert again == config
    assert [type(getattr(again, f.name)) for f in fields(again)] == [
        type(getattr(config, f.name)) for f in fields(config)
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"model": "nobody"},
            "there is no model 'nobody', known are student, .*; use the",
        ),
        ({"config": {"features": 3}}, "student.ids is missing"),
        ({"config": {"features": 3, "ids": 0, "idz": 1}}, "student has no field 'idz', did you"),
        ({"config": {"features": "3", "ids": 0}}, "student.features is '3'; .* of type int"),
        ({"config": {"features": 3, "ids": 0, "stack": {"width": None}}}, "student.stack.width is"),
        ({"config": {"features": 3, "ids": 0, "stack": 8}}, "student.stack is 8; .*StackConfig"),
    ],
)
def test_plain_values_that_are_no_config_are_one_sentence(change: dict, says: str) -> None:
    plain = codec.encode(replace(CONFIGS["student"], ids=0))
    with pytest.raises(UserError, match=says):
        codec.decode({**plain, **change})
    with pytest.raises(ValueError, match="of no session encoder"):
        codec.encode(TINY)
