"""What every loss promises: masks, gradients, jit, vmap, bfloat16.

One table of cases, one set of checks; the values are tested family by family beside this file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jmrec import losses

B, D, V = 6, 4, 11
WHERE = np.array([True, False, True, True, False, True])


@dataclass(frozen=True, eq=False)
class Case:
    """A loss of ``arrays`` (masked by example) and ``shared`` (not masked).

    ``pairs``: the arrays are [B, B], masked by row and by column.
    """

    loss: Callable
    arrays: dict[str, np.ndarray]
    shared: dict[str, np.ndarray] = field(default_factory=dict)
    pairs: bool = False

    def pick(self, keep: np.ndarray) -> dict[str, np.ndarray]:
        if self.pairs:
            return {key: array[keep][:, keep] for key, array in self.arrays.items()}
        return {key: array[keep] for key, array in self.arrays.items()}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


TARGETS = np.array([3, 0, 10, 3, 7, 1], np.int32)
TWO = {"a": normal(B, D), "b": normal(B, D, seed=1)}
UNLIKE = {"a": normal(B, D), "b": normal(B, D - 1)}
SCORES = {"scores": normal(B, B)}
GAUSSIAN = {
    "mean": normal(B, D),
    "log_variance": 0.3 * normal(B, D, seed=1),
    "y": normal(B, D, seed=2),
}
STATES = {"states": normal(B, D), "targets": TARGETS}
ITEMS = {"items": normal(V, D), "bias": normal(V)}
VALID = np.arange(V) != 5


def pair_loss(loss, **settings):
    return lambda a, where: loss(a["a"], a["b"], where=where, **settings)


def score_loss(loss, **settings):
    return lambda a, where: loss(a["scores"], where=where, **settings)


def gaussian_loss(loss):
    return lambda a, where: loss(a["mean"], a["log_variance"], a["y"], where=where)


def softmax_loss(a, where, chunk):
    return losses.full_softmax(
        a["states"],
        a["items"],
        a["targets"],
        bias=a["bias"],
        valid=VALID,
        where=where,
        temperature=0.7,
        chunk=chunk,
    )


def catalogue_loss(a, where, chunk):
    return losses.catalogue_kl(
        a["b"],
        a["teacher_items"],
        a["a"],
        a["items"],
        student_bias=a["bias"],
        temperature=2.0,
        valid=VALID,
        where=where,
        chunk=chunk,
    )


CASES = {
    "token_cross_entropy": Case(
        lambda a, where: losses.token_cross_entropy(
            a["logits"], a["targets"], where=where, label_smoothing=0.1
        ),
        {"logits": normal(B, V), "targets": TARGETS},
    ),
    "bag_cross_entropy": Case(
        lambda a, where: losses.bag_cross_entropy(
            a["logits"], a["tokens"], a["weights"], where=where
        ),
        {"logits": normal(B, V), "tokens": np.arange(B * 5, dtype=np.int32).reshape(B, 5) % V},
        {"weights": np.abs(normal(V))},
    ),
    "info_nce": Case(pair_loss(losses.info_nce, temperature=0.5), TWO),
    "info_nce, ids": Case(
        lambda a, where: losses.info_nce(
            a["a"], a["b"], temperature=0.5, where=where, ids=a["ids"], normalize=False
        ),
        {**TWO, "ids": np.array([7, 7, 7, 2, 2, 3], np.int32)},
    ),
    "symmetric_info_nce": Case(pair_loss(losses.symmetric_info_nce, temperature=0.5), TWO),
    "infonce": Case(score_loss(losses.infonce), SCORES, pairs=True),
    "nwj": Case(score_loss(losses.nwj), SCORES, pairs=True),
    "jsd": Case(score_loss(losses.jsd), SCORES, pairs=True),
    "smile": Case(score_loss(losses.smile, clip=0.8), SCORES, pairs=True),
    "gaussian_log_likelihood": Case(gaussian_loss(losses.gaussian_log_likelihood), GAUSSIAN),
    "vclub": Case(gaussian_loss(losses.vclub), GAUSSIAN),
    "l1out": Case(gaussian_loss(losses.l1out), GAUSSIAN),
    "orthogonality": Case(pair_loss(losses.orthogonality), UNLIKE),
    "hsic": Case(pair_loss(losses.hsic, bandwidth=1.5), UNLIKE),
    "hsic, own bandwidth": Case(pair_loss(losses.hsic), UNLIKE),
    "full_softmax, one block": Case(partial(softmax_loss, chunk=V), STATES, ITEMS),
    "full_softmax, blocks": Case(partial(softmax_loss, chunk=4), STATES, ITEMS),
    "bpr": Case(pair_loss(losses.bpr), {"a": normal(B), "b": normal(B, seed=1)}),
    "bpr, several negatives": Case(pair_loss(losses.bpr), {"a": normal(B), "b": normal(B, 3)}),
    "kl": Case(
        pair_loss(losses.kl, temperature=2.0, valid=VALID),
        {"a": normal(B, V), "b": normal(B, V, seed=1)},
    ),
    "catalogue_kl, blocks": Case(
        partial(catalogue_loss, chunk=4), TWO, {**ITEMS, "teacher_items": normal(V, D, seed=1)}
    ),
}
every_loss = pytest.mark.parametrize("name", CASES)

# Losses whose own gradient is cut on purpose, and by which input; their value still moves.
CUT = {"kl": ["a"], "catalogue_kl, blocks": ["b", "teacher_items"], "hsic, own bandwidth": "ab"}


def values_and_gradients(name, arrays, shared, where):
    """Values [B] and the gradients of their sum, weighted by unmasked rank, for all floats."""
    everything = {**arrays, **shared}

    def total(part):
        values = CASES[name].loss({**everything, **part}, where)
        rank = jnp.arange(values.shape[0]) if where is None else jnp.cumsum(where) - 1
        return (values * jnp.cos(rank)).sum(), values

    part = {
        key: array
        for key, array in everything.items()
        if jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating)
    }
    gradients, values = jax.grad(total, has_aux=True)(part)
    return values, gradients


FAST = {"xla_backend_optimization_level": 0}  # halves the compilation time
run = jax.jit(values_and_gradients, static_argnums=0, compiler_options=FAST)


def spoil(case: Case, value: float) -> dict[str, np.ndarray]:
    """The case's arrays with something else in every masked place."""
    spoilt = {}
    for key, array in case.arrays.items():
        array = array.copy()
        other = value if array.dtype == np.float32 else 9
        array[~WHERE] = other
        if case.pairs:
            array[:, ~WHERE] = other
        spoilt[key] = array
    return spoilt


@every_loss
def test_what_is_masked_changes_neither_value_nor_gradient(name):
    case = CASES[name]
    expected = run(name, case.arrays, case.shared, WHERE)
    assert not np.asarray(expected[0])[~WHERE].any()
    for value in (1e4, np.nan):
        ours = run(name, spoil(case, value), case.shared, WHERE)
        jax.tree.map(np.testing.assert_array_equal, ours, expected)


@every_loss
def test_masked_equals_subset(name):
    case = CASES[name]
    values, gradients = run(name, case.arrays, case.shared, WHERE)
    subset = run(name, case.pick(WHERE), case.shared, None)
    close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    close(np.asarray(values)[WHERE], subset[0])
    assert values.dtype == jnp.float32
    for key, gradient in gradients.items():
        gradient = np.asarray(gradient)
        if key in case.arrays:
            assert not gradient[~WHERE].any()
            gradient = gradient[WHERE][:, WHERE] if case.pairs else gradient[WHERE]
        close(gradient, subset[1][key])


@every_loss
def test_all_masked_is_zero_with_zero_gradients(name):
    case = CASES[name]
    for array in jax.tree.leaves(run(name, case.arrays, case.shared, np.zeros(B, bool))):
        assert not np.asarray(array).any()


@every_loss
def test_one_example_is_finite(name):
    case = CASES[name]
    for array in jax.tree.leaves(run(name, case.arrays, case.shared, np.arange(B) == 2)):
        assert np.isfinite(array).all()


@every_loss
def test_vmap(name):
    case = CASES[name]
    other = {key: array[::-1].copy() for key, array in case.arrays.items()}
    stacked = {key: np.stack([case.arrays[key], other[key]]) for key in case.arrays}
    mapped = jax.jit(
        jax.vmap(partial(values_and_gradients, name), (0, None, None)), compiler_options=FAST
    )
    together = mapped(stacked, case.shared, WHERE)
    for index, arrays in enumerate((case.arrays, other)):
        jax.tree.map(
            lambda both, one: np.testing.assert_allclose(
                both[index],  # noqa: B023
                one,
                rtol=2e-5,
                atol=2e-5,
            ),
            together,
            run(name, arrays, case.shared, WHERE),
        )


@every_loss
def test_bfloat16_is_within_a_hundredth_of_float32(name):
    case = CASES[name]
    half, full = (
        {
            key: jnp.asarray(array, jnp.bfloat16).astype(dtype)
            if array.dtype == np.float32
            else array
            for key, array in {**case.arrays, **case.shared}.items()
        }
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    loss = jax.jit(case.loss, compiler_options=FAST)
    values = loss(half, WHERE)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, loss(full, WHERE), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", [name for name in CASES if name not in CUT])
def test_gradients_against_finite_differences(name):
    case = CASES[name]
    arrays = {**case.arrays, **case.shared}
    part = {key: array for key, array in arrays.items() if array.dtype == np.float32}
    loss = jax.jit(lambda part: case.loss({**arrays, **part}, WHERE))
    check_grads(loss, (part,), order=1, modes=["rev"], eps=1e-2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("name", CUT)
def test_gradients_against_finite_differences_where_one_side_is_cut(name):
    case = CASES[name]
    arrays = {**case.arrays, **case.shared}
    if name.startswith("hsic"):  # the bandwidth is held: check against the same fixed one
        points = case.arrays
        squares = {
            key: ((x[WHERE][:, None] - x[WHERE][None]) ** 2).sum(-1) for key, x in points.items()
        }
        n = WHERE.sum()
        scaled = {key: x / np.sqrt(squares[key].sum() / (n * (n - 1))) for key, x in points.items()}
        fixed = pair_loss(losses.hsic, bandwidth=np.sqrt(0.5))
        np.testing.assert_allclose(case.loss(points, WHERE), fixed(scaled, WHERE), rtol=1e-4)
        return
    _, gradients = run(name, case.arrays, case.shared, WHERE)
    for key in CUT[name]:
        assert not np.asarray(gradients[key]).any()
    part = {
        key: array
        for key, array in arrays.items()
        if array.dtype == np.float32 and key not in CUT[name]
    }
    loss = jax.jit(lambda part: case.loss({**arrays, **part}, WHERE))
    check_grads(loss, (part,), order=1, modes=["rev"], eps=1e-2, atol=2e-2, rtol=2e-2)


def test_every_public_loss_is_a_case():
    public = {name for name in vars(losses) if not name.startswith("_")}
    functions = {name for name in public if callable(getattr(losses, name))} - {"sum_and_count"}
    assert functions == {name.split(",")[0] for name in CASES}
