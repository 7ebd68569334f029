"""The chunked kernels against numpy in float64, at awkward table sizes and under every mask."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.special import log_softmax, logsumexp, rel_entr, softmax

from jmrec.kernels import (
    chunked_kl,
    chunked_logsumexp,
    chunked_softmax_cross_entropy,
    chunked_topk,
)
from jmrec.kernels.blocks import fold_blocks, slice_block
from jmrec.kernels.positions import fold_live
from jmrec.kernels.softmax import softmax_cross_entropy_reference

CHUNK = 8
ONE_BLOCK, BLOCKS = CHUNK, 2 * CHUNK + 3
SIZES = [1, 13, CHUNK - 1, ONE_BLOCK, CHUNK + 1, BLOCKS]  # 13 is the prime
NAMES = ["logsumexp", "cross entropy", "kl"]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
every_kernel = pytest.mark.parametrize("name", NAMES)
both_paths = pytest.mark.parametrize("rows", [ONE_BLOCK, BLOCKS])


def make(rows: int, count: int = 5, dim: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of all kernels; the last row of `valid` is True, `where` masks example 1."""
    rng = np.random.default_rng(seed)
    valid = rng.random(rows) < 0.7
    valid[-1] = True
    return {
        "states": rng.normal(size=(count, dim)).astype(np.float32),
        "items": rng.normal(size=(rows, dim)).astype(np.float32),
        "bias": rng.normal(size=rows).astype(np.float32),
        "teacher_states": rng.normal(size=(count, dim + 1)).astype(np.float32),
        "teacher_items": rng.normal(size=(rows, dim + 1)).astype(np.float32),
        "teacher_bias": rng.normal(size=rows).astype(np.float32),
        "temperature": np.float32(1.7),
        "targets": rng.choice(np.flatnonzero(valid), size=count).astype(np.int32),
        "valid": valid,
        "where": np.arange(count) != 1,
    }


def loss_of(name, m, chunk):
    """Values [N] of a kernel; for chunk=None of one block or of the plain reference."""
    whole = chunk or len(m["items"])
    if name == "logsumexp":
        return chunked_logsumexp(
            m["states"], m["items"], bias=m["bias"], valid=m["valid"], chunk=whole
        )
    masks = {"valid": m["valid"], "where": m["where"]}
    if name == "cross entropy":
        kernel = softmax_cross_entropy_reference
        if chunk:
            kernel = partial(chunked_softmax_cross_entropy, chunk=chunk)
        return kernel(m["states"], m["items"], m["targets"], bias=m["bias"], **masks)
    return chunked_kl(
        m["teacher_states"],
        m["teacher_items"],
        m["states"],
        m["items"],
        teacher_bias=m["teacher_bias"],
        student_bias=m["bias"],
        temperature=m["temperature"],
        chunk=whole,
        **masks,
    )


DIFFERENTIABLE = ("states", "items", "bias")


def values_and_gradients(name, m, chunk):
    """Values [N], and gradients of their sum weighted by 1..N so that examples can not swap."""

    def total(part):
        values = loss_of(name, {**m, **part}, chunk)
        return (values * jnp.arange(1, 1 + values.shape[0])).sum(), values

    part = {key: m[key] for key in DIFFERENTIABLE if m[key] is not None}
    gradients, values = jax.grad(total, has_aux=True)(part)
    return values, gradients


# The data is an argument: all tests of one shape share one compilation.
FAST = {"xla_backend_optimization_level": 0}  # halves the compilation time
run = jax.jit(values_and_gradients, static_argnums=(0, 2), compiler_options=FAST)


def true_logits(states, items, bias, valid) -> np.ndarray:
    logits = states.astype(np.float64) @ items.astype(np.float64).T + bias
    return np.where(valid, logits, -np.inf)


def student_logits(m):
    return true_logits(m["states"], m["items"], m["bias"], m["valid"])


def truth(name, m):
    """Values and gradients in closed form, numpy float64."""
    logits = student_logits(m)
    everyone = np.arange(len(logits))
    where = m["where"]
    if name == "logsumexp":
        values, d_logits, where = logsumexp(logits, axis=1), softmax(logits, axis=1), where | True
    elif name == "cross entropy":
        values = -log_softmax(logits, axis=1)[everyone, m["targets"]]
        d_logits = softmax(logits, axis=1)
        d_logits[everyone, m["targets"]] -= 1
    else:
        teacher = true_logits(
            m["teacher_states"], m["teacher_items"], m["teacher_bias"], m["valid"]
        )
        temperature = float(m["temperature"])
        p, q = softmax(teacher / temperature, axis=1), softmax(logits / temperature, axis=1)
        values, d_logits = rel_entr(p, q).sum(axis=1), (q - p) / temperature
    d_logits *= (where * (1 + everyone))[:, None]
    return np.where(where, values, 0), {
        "states": d_logits @ m["items"],
        "items": d_logits.T @ m["states"],
        "bias": d_logits.sum(axis=0),
    }


def assert_close(ours, expected, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **(tolerance or TOLERANCE)), ours, expected)


@every_kernel
@pytest.mark.parametrize("rows", SIZES)
def test_values_and_gradients_against_numpy(name, rows):
    m = make(rows)
    assert_close(run(name, m, CHUNK), truth(name, m))


@every_kernel
def test_the_plain_references_against_numpy(name):
    m = make(BLOCKS)
    assert_close(run(name, m, None), truth(name, m))


@every_kernel
def test_gradients_against_finite_differences(name):
    m = make(BLOCKS)
    loss = jax.jit(lambda *inputs: loss_of(name, {**m, **dict(zip(DIFFERENTIABLE, inputs))}, CHUNK))
    inputs = [m[key] for key in DIFFERENTIABLE]
    check_grads(loss, inputs, order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


@every_kernel
def test_without_bias_and_masks(name):
    m = make(BLOCKS)
    bare = {**m, "bias": None, "teacher_bias": None, "valid": None, "where": None}
    zero = np.zeros(BLOCKS, np.float32)
    full = {
        **m,
        "bias": zero,
        "teacher_bias": zero,
        "valid": np.ones(BLOCKS, bool),
        "where": np.ones(5, bool),
    }
    values, gradients = truth(name, full)
    assert_close(run(name, bare, CHUNK), (values, {k: gradients[k] for k in ("states", "items")}))


@every_kernel
@both_paths
def test_what_is_masked_can_not_leak(name, rows):
    m = make(rows)
    m["valid"][0] = False
    m["targets"][:] = rows - 1
    dirty = {key: value.copy() for key, value in m.items()}
    for key in ("items", "teacher_items", "bias", "teacher_bias"):
        dirty[key][~m["valid"]] = np.nan
    if name != "logsumexp":
        dirty["targets"][~m["where"]] = -1
        for key in ("states", "teacher_states"):
            dirty[key][~m["where"]] = np.nan
    jax.tree.map(np.testing.assert_array_equal, run(name, dirty, CHUNK), run(name, m, CHUNK))


@pytest.mark.parametrize("name", ["cross entropy", "kl"])
@both_paths
@pytest.mark.parametrize("nothing_valid", [False, True])
def test_all_masked_is_zero_with_zero_gradients(name, rows, nothing_valid):
    m = make(rows)
    m["where"] = np.zeros_like(m["where"])
    if nothing_valid:
        m["valid"] = np.zeros_like(m["valid"])
    for array in jax.tree.leaves(run(name, m, CHUNK)):
        assert not np.asarray(array).any()


@both_paths
def test_nothing_valid(rows):
    m = make(rows)
    m["valid"] = np.zeros_like(m["valid"])
    values, gradients = run("logsumexp", m, CHUNK)
    assert np.isneginf(values).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    for array in jax.tree.leaves(run("kl", m, CHUNK)):
        assert not np.asarray(array).any()


@both_paths
def test_an_impossible_target_is_an_infinite_loss(rows):
    m = make(rows)
    m["valid"][0] = False
    m["where"][:] = True
    m["targets"] = np.array([0, rows - 1, -1, rows, rows - 1], np.int32)
    values, _ = run("cross entropy", m, CHUNK)
    assert np.isposinf(values).tolist() == [True, False, True, True, False]


@every_kernel
def test_vmap(name):
    m = make(BLOCKS)
    other = {**m, "states": 2 * m["states"], "items": -m["items"], "valid": m["valid"] | True}
    stacked = {key: np.stack([m[key], other[key]]) for key in m}
    values, gradients = jax.jit(
        jax.vmap(lambda both: values_and_gradients(name, both, CHUNK)), compiler_options=FAST
    )(stacked)
    for index, single in enumerate((m, other)):
        picked = jax.tree.map(lambda array: array[index], (values, gradients))  # noqa: B023
        assert_close(picked, truth(name, single))


@every_kernel
@both_paths
def test_bfloat16_accumulates_in_float32(name, rows):
    """Values equal those of float32 on the same rounded inputs: only the inputs are rounded."""
    m = make(rows)
    m["targets"][:] = rows - 1
    half = {
        key: jnp.asarray(value, jnp.bfloat16) if key in DIFFERENTIABLE else value
        for key, value in m.items()
    }
    rounded = {key: np.asarray(half[key], np.float32) for key in DIFFERENTIABLE}
    values, gradients = run(name, half, CHUNK)
    expected, expected_gradients = run(name, {**m, **rounded}, CHUNK)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    for key, gradient in gradients.items():
        assert gradient.dtype == jnp.bfloat16
        largest = np.abs(expected_gradients[key]).max()
        difference = np.asarray(gradient, np.float32) - expected_gradients[key]
        assert np.abs(difference).max() <= 1e-2 * largest


def test_kl_teaches_the_student_only():
    m = make(BLOCKS)
    teacher = {key: m[key] for key in ("teacher_states", "teacher_items", "temperature")}
    gradients = jax.jit(jax.grad(lambda part: loss_of("kl", {**m, **part}, CHUNK).sum()))(teacher)
    assert not any(np.asarray(gradient).any() for gradient in gradients.values())


def test_another_temperature_compiles_nothing():
    m = make(BLOCKS)
    run("kl", m, CHUNK)
    before = run._cache_size()
    hot = {**m, "temperature": np.float32(4.0)}
    assert_close(run("kl", hot, CHUNK), truth("kl", hot))
    assert run._cache_size() == before


def array_sizes(jaxpr) -> list[int]:
    """Sizes of all arrays that a jaxpr computes, in nested jaxprs too."""
    sizes = []
    for equation in jaxpr.eqns:
        sizes += [var.aval.size for var in equation.outvars if hasattr(var.aval, "size")]
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                sizes += array_sizes(inner)
    return sizes


@pytest.mark.parametrize("name", [*NAMES, "top-k"])
def test_no_array_of_states_by_catalogue(name):
    count, rows = 32, 4 * CHUNK + 3
    m = make(rows, count=count)

    def largest(chunk):
        if name == "top-k":
            jaxpr = jax.make_jaxpr(lambda states: chunked_topk(states, m["items"], 3, chunk=chunk))
            return max(array_sizes(jaxpr(m["states"]).jaxpr))
        jaxpr = jax.make_jaxpr(lambda inputs: values_and_gradients(name, inputs, chunk))
        return max(array_sizes(jaxpr(m).jaxpr))

    assert largest(CHUNK) < count * rows
    assert largest(rows) >= count * rows  # the one plain block: the check can see such an array


@settings(max_examples=5, deadline=None)
@given(
    rows=st.integers(1, 30),
    count=st.integers(1, 6),
    dim=st.integers(1, 5),
    chunk=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_any_shape(rows, count, dim, chunk, seed):
    m = make(rows, count, dim, seed)
    for name in ("cross entropy", "kl"):
        expected, _ = truth(name, m)
        values = jax.jit(loss_of, static_argnums=(0, 2), compiler_options=FAST)(name, m, chunk)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


topk = jax.jit(chunked_topk, static_argnames=("k", "chunk"))


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("k", [1, 11])
def test_topk_against_numpy_with_ties(rows, k):
    m = make(rows)
    for key in DIFFERENTIABLE:  # whole numbers: exact scores, many ties
        m[key] = np.round(m[key])
    k = min(k, rows)
    all_scores = true_logits(m["states"], m["items"], m["bias"], np.ones(rows, bool))
    found = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(all_scores, found, axis=1)
    assert_close(topk(m["states"], m["items"], k, bias=m["bias"], chunk=CHUNK), (scores, found))


@both_paths
def test_topk_never_returns_what_is_not_valid(rows):
    m = make(rows)
    m["valid"] = np.arange(rows) % 4 == 3
    m["items"][~m["valid"]] = np.nan
    k = int(m["valid"].sum()) + 1
    scores, found = topk(m["states"], m["items"], k, valid=m["valid"], chunk=CHUNK)
    assert scores.dtype == jnp.float32
    assert found.dtype == jnp.int32
    assert (np.sort(found, axis=1) == [-1, *np.flatnonzero(m["valid"])]).all()
    assert (np.asarray(found)[:, -1] == -1).all()
    assert np.isneginf(np.asarray(scores)[:, -1]).all()


def test_topk_vmap():
    m = make(BLOCKS)
    stacked = np.stack([m["states"], -m["states"]])
    _, found = jax.vmap(lambda states: topk(states, m["items"], 4, chunk=CHUNK))(stacked)
    expected = np.argsort(-(stacked @ m["items"].T), axis=-1, kind="stable")[..., :4]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rows", SIZES)
def test_blocks_cover_every_row_once_without_padding(rows):
    table = jnp.arange(1.0, rows + 1)
    sizes = []

    def step(carry, start, size):
        sizes.append(size)
        return carry + slice_block(table, start, size).sum()

    assert float(fold_blocks(step, jnp.float32(0), rows, CHUNK)) == rows * (rows + 1) / 2
    assert max(sizes) <= CHUNK


def test_wrong_shapes_are_named():
    m = make(5)
    states, items = m["states"], m["items"]
    with pytest.raises(ValueError, match="do not fit"):
        chunked_logsumexp(states, m["teacher_items"])
    with pytest.raises(ValueError, match="bias must have shape"):
        chunked_logsumexp(states, items, bias=np.zeros(4))
    with pytest.raises(ValueError, match="targets must have shape"):
        chunked_softmax_cross_entropy(states, items, np.zeros((5, 1), int))
    with pytest.raises(ValueError, match="where must have shape"):
        chunked_softmax_cross_entropy(states, items, m["targets"], where=np.ones(4, bool))
    with pytest.raises(ValueError, match="differ in rows"):
        chunked_kl(states, items, states, items[:3])
    with pytest.raises(ValueError, match="between 1 and the 5"):
        chunked_topk(states, items, 6)
    with pytest.raises(ValueError, match="no rows"):
        chunked_logsumexp(states, items[:0])
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        fold_blocks(lambda carry, start, size: carry, 0, 3, 0)


def plain(name: str, m: dict[str, jax.Array]) -> jax.Array:
    """What a kernel gives, from whole logits: values [N]."""
    logits, teacher = (
        jnp.where(m["valid"], m[a] @ m[b].T + m[c], -jnp.inf)
        for a, b, c in (
            ("states", "items", "bias"),
            ("teacher_states", "teacher_items", "teacher_bias"),
        )
    )
    if name == "logsumexp":
        return jax.nn.logsumexp(logits, axis=1)
    if name == "cross entropy":
        found = -jax.nn.log_softmax(logits)[np.arange(len(logits)), m["targets"]]
    else:
        p, q = (jax.nn.log_softmax(x / m["temperature"]) for x in (teacher, logits))
        found = jnp.where(m["valid"], jnp.exp(p) * (p - jnp.where(m["valid"], q, 0)), 0)
        found = found.sum(axis=1)
    return jnp.where(m["where"], found, 0.0)


@partial(jax.jit, static_argnums=0)
def both_ways(name: str, m: dict[str, jax.Array], weights: jax.Array) -> list[tuple]:
    """Values, and gradients of their weighted sum: in blocks of positions, and plain."""

    def total(part: dict[str, jax.Array], chunk: int | None) -> tuple[jax.Array, jax.Array]:
        given = {**m, **part}
        values = loss_of(name, given, chunk) if chunk else plain(name, given)
        return (values * weights).sum(), values

    part = {key: m[key] for key in DIFFERENTIABLE}
    return [jax.grad(total, has_aux=True)(part, chunk) for chunk in (CHUNK, None)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("real", [0, 1, 255, 256, 257, 700])
def test_positions_in_blocks_give_what_the_plain_ones_give(name: str, real: int) -> None:
    m = make(BLOCKS, count=700)
    m["where"] = np.zeros(700, bool)
    m["where"][np.random.default_rng(real).permutation(700)[:real]] = True
    weights = np.random.default_rng(1).normal(size=700).astype(np.float32)
    (found, values), (expected, want) = both_ways(name, m, weights)
    np.testing.assert_allclose(values, want, **TOLERANCE)
    for key in DIFFERENTIABLE:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-4)


def test_a_block_of_padding_is_not_computed() -> None:
    turns: list[int] = []

    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        jax.debug.callback(lambda first: turns.append(int(first)), x[0])
        return carry + x.sum(), x

    live = jnp.array([True, False, True, False])
    total, out = jax.jit(partial(fold_live, step))(jnp.int32(0), live, jnp.arange(8))
    jax.effects_barrier()
    assert (int(total), out.tolist()) == (10, [0, 1, 0, 0, 4, 5, 0, 0])
    assert turns == [0, 4]
