"""What every loss promises: masks, gradients, jit, vmap, bfloat16.

One table of cases (cases.py), one set of checks; values are tested here where a case has a closed
form, else family by family beside this file. test_table.py sees to it that no loss is left out.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from tests.unit.losses.cases import CASES, WHERE, B, Case

every_loss = pytest.mark.parametrize("name", CASES)


def values_and_gradients(name, arrays, shared, where, weights):
    """Values [B] and the gradients of their sum, weighted by ``weights`` [B], for all floats."""
    everything = {**arrays, **shared}

    def total(part):
        values = CASES[name].loss({**everything, **part}, where)
        return (values * weights).sum(), values

    part = {
        key: array
        for key, array in everything.items()
        if jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating)
    }
    gradients, values = jax.grad(total, has_aux=True)(part)
    return values, gradients


FAST = {"xla_backend_optimization_level": 0}  # halves the compilation time
# A case is compiled once with a mask and once without: the checks below ask these two programs.
compiled = jax.jit(values_and_gradients, static_argnums=0, compiler_options=FAST)


def by_rank(where):
    """Weights [B] of which an unmasked example's is that of its place among the unmasked."""
    return np.cos(np.cumsum(where) - 1).astype(np.float32)


def run(name, arrays, shared, where, weights=None):
    """Ask the program of a case: values and gradients in numpy, weighted by rank if not told."""
    if weights is None:
        size = len(next(iter(arrays.values())))
        weights = by_rank(np.ones(size, bool) if where is None else where)
    return jax.device_get(compiled(name, arrays, shared, where, weights))


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


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.entries])
def test_what_is_not_valid_changes_neither_value_nor_gradient(name):
    case = CASES[name]
    expected = run(name, case.arrays, case.shared, WHERE)
    for value in (1e4, np.nan):
        spoilt = {**case.arrays, **case.shared}
        for key, axis in case.entries.items():
            spoilt[key] = spoilt[key].copy()
            np.moveaxis(spoilt[key], axis, 0)[~case.valid] = value
        arrays = {key: spoilt[key] for key in case.arrays}
        ours = run(name, arrays, {key: spoilt[key] for key in case.shared}, WHERE)
        jax.tree.map(np.testing.assert_array_equal, ours, expected)
    for key, axis in case.entries.items():
        assert not np.moveaxis(np.asarray(expected[1][key]), axis, 0)[~case.valid].any()


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
def test_jit(name):
    case = CASES[name]
    arrays = {**case.arrays, **case.shared}
    values, _ = run(name, case.arrays, case.shared, WHERE)
    np.testing.assert_allclose(case.loss(arrays, WHERE), values, rtol=2e-5, atol=2e-5)


@every_loss
def test_vmap(name):
    case = CASES[name]
    other = {key: array[::-1].copy() for key, array in case.arrays.items()}
    stacked = {key: np.stack([case.arrays[key], other[key]]) for key in case.arrays}
    mapped = jax.jit(
        jax.vmap(partial(values_and_gradients, name, weights=by_rank(WHERE)), (0, None, None)),
        compiler_options=FAST,
    )
    together = jax.device_get(mapped(stacked, case.shared, WHERE))
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
    half = {
        key: array.astype(jnp.bfloat16) if array.dtype == np.float32 else array
        for key, array in {**case.arrays, **case.shared}.items()
    }
    full = {
        key: array.astype(np.float32) if array.dtype == jnp.bfloat16 else array
        for key, array in half.items()
    }
    values = jax.jit(case.loss, compiler_options=FAST)(half, WHERE)
    assert values.dtype == jnp.float32
    arrays, shared = ({key: full[key] for key in part} for part in (case.arrays, case.shared))
    np.testing.assert_allclose(values, run(name, arrays, shared, WHERE)[0], rtol=1e-2, atol=1e-2)


@every_loss
def test_gradients_against_finite_differences(name):
    """Of the loss, or of the case's surrogate, whose gradient must then be the loss's own."""
    case = CASES[name]
    arrays = {**case.arrays, **case.shared}
    part = {
        key: array
        for key, array in arrays.items()
        if array.dtype == np.float32 and key not in case.cut
    }

    def own(part, weights):
        shared = {key: part.get(key, array) for key, array in case.shared.items()}
        each = {key: part.get(key, array) for key, array in case.arrays.items()}
        return run(name, each, shared, WHERE, weights)

    @partial(jax.jit, compiler_options=FAST)
    def surrogate(part, weights):
        values, pull = jax.vjp(lambda part: case.surrogate({**arrays, **part}), part)
        return values, pull(weights)[0]

    ask = surrogate if case.surrogate else own
    ones = np.ones(B, np.float32)

    def pulled(part):
        def pull(weights):
            gradients = ask(part, np.asarray(weights))[1]
            return ({key: gradients[key] for key in part},)

        return ask(part, ones)[0], pull

    check_vjp(lambda part: ask(part, ones)[0], pulled, (part,), eps=1e-2, atol=2e-2, rtol=2e-2)
    gradients = own(part, ones)[1]
    for key in case.cut:
        assert not gradients[key].any()
    assert any(gradients[key].any() for key in part)
    if case.surrogate is not None:
        expected = surrogate(part, ones)[1]
        for key in part:
            np.testing.assert_allclose(gradients[key], expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.truth])
def test_values_are_those_of_the_closed_form(name):
    case = CASES[name]
    for where, arrays in ((np.ones(B, bool), case.arrays), (None, case.pick(WHERE))):
        expected = case.truth(
            {
                key: array.astype(np.float64) if array.dtype.kind == "f" else array
                for key, array in {**arrays, **case.shared}.items()
            }
        )
        assert type(expected) is np.ndarray, "a closed form in numpy calls no loss of jmrec"
        assert expected.dtype == np.float64
        values, _ = run(name, arrays, case.shared, where)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
