"""The kernels on a table that one device holds, or whose rows lie over the mesh in context.

A step whose mesh shares out the rows of tables (see `jmrec.kernels.spread`) walks each device's own
rows; all else is the chunked kernel of one device. Results differ within rounding.
"""

from typing import Any

import jax

from jmrec.kernels.divergence import chunked_kl
from jmrec.kernels.parallel import (
    parallel_kl,
    parallel_logsumexp,
    parallel_softmax_cross_entropy,
    parallel_topk,
)
from jmrec.kernels.positions import items_at_once
from jmrec.kernels.softmax import chunked_logsumexp, chunked_softmax_cross_entropy
from jmrec.kernels.spread import examples, spread
from jmrec.kernels.topk import chunked_topk
from jmrec.types import Array


def catalogue_cross_entropy(
    states: Array, items: Array, targets: Array, *, chunk: int | None = None, **masks: Any
) -> jax.Array:
    """Return what `chunked_softmax_cross_entropy` returns, float32 [N]; see there.

    Example:
      >>> import jax.numpy as jnp
      >>> losses = catalogue_cross_entropy(jnp.zeros((2, 3)), jnp.ones((8, 3)), jnp.array([0, 1]))
      >>> [round(float(loss), 4) for loss in losses]
      [2.0794, 2.0794]
    """
    if where := _where(states, items, chunk):
        return parallel_softmax_cross_entropy(states, items, targets, **masks, **where)
    return chunked_softmax_cross_entropy(states, items, targets, chunk=chunk, **masks)


def catalogue_logsumexp(
    states: Array, items: Array, *, chunk: int | None = None, **masks: Any
) -> jax.Array:
    """Return what `chunked_logsumexp` returns, float32 [N]; see there.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(catalogue_logsumexp(jnp.zeros((1, 3)), jnp.ones((8, 3)))[0]), 4)
      2.0794
    """
    if where := _where(states, items, chunk):
        return parallel_logsumexp(states, items, **masks, **where)
    return chunked_logsumexp(states, items, chunk=chunk, **masks)


def catalogue_divergence(
    teacher_states: Array,
    teacher_items: Array,
    student_states: Array,
    student_items: Array,
    *,
    chunk: int | None = None,
    **more: Any,
) -> jax.Array:
    """Return what `chunked_kl` returns, float32 [N]; see there.

    Example:
      >>> import jax.numpy as jnp
      >>> same = jnp.eye(3)
      >>> catalogue_divergence(same, same, same, same).tolist()
      [0.0, 0.0, 0.0]
    """
    where = _where(student_states, student_items, chunk)
    kernel = parallel_kl if where else chunked_kl
    own = where or {"chunk": chunk}
    return kernel(teacher_states, teacher_items, student_states, student_items, **more, **own)


def catalogue_best(
    states: Array, items: Array, k: int, *, chunk: int = 4096, **masks: Any
) -> tuple[jax.Array, jax.Array]:
    """Return what `chunked_topk` returns, float32 and int32 [N, k]; see there.

    Example:
      >>> import jax.numpy as jnp
      >>> catalogue_best(jnp.ones((1, 1)), jnp.array([[1.0], [3.0], [2.0]]), 2)[1].tolist()
      [[1, 2]]
    """
    if where := _where(states, items, chunk):
        return parallel_topk(states, items, k, **masks, **where)
    return chunked_topk(states, items, k, chunk=chunk, **masks)


def _where(states: Array, items: Array, chunk: int | None) -> dict[str, Any]:
    """Return where the rows and the states lie; nothing where one device holds the table."""
    axes = spread(items.shape[0])
    if not axes:
        return {}
    return {
        "mesh": jax.sharding.get_abstract_mesh(),
        "axis": axes,
        "batch": examples(states.shape[0]),
        "chunk": items_at_once(chunk),
    }
