"""What every loss promises: masks, gradients, jit, vmap, bfloat16.

One table of cases (cases.py), one set of checks; values are tested here where a case has a closed
form, else family by family beside this file. test_table.py sees to it that no loss is left out.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.unit.losses.cases import CASES, WHERE, B, Case

every_loss = pytest.mark.parametrize("name", CASES)


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
    compiled, _ = run(name, case.arrays, case.shared, WHERE)
    np.testing.assert_allclose(case.loss(arrays, WHERE), compiled, rtol=2e-5, atol=2e-5)


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
    plain = case.surrogate or (lambda arrays: case.loss(arrays, WHERE))
    loss = jax.jit(lambda part: plain({**arrays, **part}))
    check_grads(loss, (part,), order=1, modes=["rev"], eps=1e-2, atol=2e-2, rtol=2e-2)
    gradients = jax.jit(jax.grad(lambda arrays: case.loss(arrays, WHERE).sum(), allow_int=True))(
        arrays
    )
    for key in case.cut:
        assert not np.asarray(gradients[key]).any()
    assert any(np.asarray(gradients[key]).any() for key in part)
    if case.surrogate is not None:
        expected = jax.grad(lambda part: plain({**arrays, **part}).sum())(part)
        for key in part:
            np.testing.assert_allclose(gradients[key], expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.truth])
def test_values_are_those_of_the_closed_form(name):
    case = CASES[name]
    arrays = {**case.arrays, **case.shared}
    floats = {
        key: array.astype(np.float64) for key, array in arrays.items() if array.dtype.kind == "f"
    }
    expected = case.truth({**arrays, **floats})
    assert type(expected) is np.ndarray, "a closed form in numpy calls no loss of jmrec"
    assert expected.dtype == np.float64
    values = jax.jit(case.loss, static_argnums=1)(arrays, None)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
