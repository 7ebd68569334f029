"""Vocabulary-parallel kernels on 8 devices: the closed forms of numpy, whoever holds which rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from scipy.special import log_softmax, rel_entr, softmax

from jmrec.kernels import parallel_softmax_cross_entropy, parallel_topk
from tests.multidevice.parallel_kernels import COUNT, inputs

LAYOUTS = [f"{devices} {batch}" for devices in (4, 8) for batch in ("data", None)]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def found(on_eight: Any) -> dict[str, Any]:
    return on_eight("parallel_kernels.py")


def clean() -> dict[str, np.ndarray]:
    return {
        name: np.nan_to_num(array.astype(np.float64), nan=0.0)
        if array.dtype == np.float32
        else array
        for name, array in inputs().items()
    }


def logits_of(m: dict[str, np.ndarray], who: str = "") -> np.ndarray:
    logits = m[f"{who}states"] @ m[f"{who}items"].T + m[f"{who}bias"]
    return np.where(m["valid"], logits, -np.inf)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["softmax", "kl"])
def test_values_and_gradients_against_numpy(found: dict[str, Any], name: str, layout: str) -> None:
    m = clean()
    logits, where = logits_of(m), m["where"]
    if name == "softmax":
        values = -log_softmax(logits, axis=1)[np.arange(COUNT), m["targets"]]
        d_logits = softmax(logits, axis=1)
        d_logits[np.arange(COUNT), m["targets"]] -= 1
    else:
        p, q = softmax(logits_of(m, "teacher_") / 1.7, axis=1), softmax(logits / 1.7, axis=1)
        values, d_logits = rel_entr(p, q).sum(axis=1), (q - p) / 1.7
    d_logits *= (where * (1 + np.arange(COUNT)))[:, None]
    truth = {
        "states": d_logits @ m["items"],
        "items": d_logits.T @ m["states"],
        "bias": d_logits.sum(axis=0),
    }
    ours, gradients = found[f"{name} {layout}"]
    np.testing.assert_allclose(ours, np.where(where, values, 0), **TOLERANCE)
    for key, expected in truth.items():
        np.testing.assert_allclose(gradients[key], expected, err_msg=key, **TOLERANCE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_topk_against_a_stable_sort(found: dict[str, Any], layout: str) -> None:
    scores, rows = (np.array(each) for each in found[f"topk {layout}"])
    logits = logits_of(clean())
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :7]
    seen = np.arange(COUNT) != 1  # its state is NaN
    np.testing.assert_array_equal(rows[seen], expected[seen])
    np.testing.assert_allclose(
        scores[seen], np.take_along_axis(logits, expected, axis=1)[seen], rtol=1e-6
    )


def test_what_does_not_fit_is_named() -> None:
    mesh = jax.make_mesh((1, 1), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    states, items = jnp.ones((2, 3)), jnp.ones((4, 3))
    with pytest.raises(ValueError, match="no axis 'model', only data, tensor"):
        parallel_topk(states, items, 2, mesh=mesh, axis="model")
    with pytest.raises(ValueError, match="both lie on the mesh axis"):
        parallel_topk(states, items, 2, mesh=mesh, batch="tensor")
    with pytest.raises(ValueError, match="between 1 and the 4 items"):
        parallel_topk(states, items, 5, mesh=mesh)
    with pytest.raises(ValueError, match="targets must have shape"):
        parallel_softmax_cross_entropy(states, items, jnp.zeros(3, int), mesh=mesh)
