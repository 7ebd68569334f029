"""Exact top-k over a large catalogue, one block of items at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jmrec.kernels.blocks import (
    LOWEST,
    block_logits,
    check_side,
    fold_blocks,
    make_side,
    optional,
)
from jmrec.types import Array


def chunked_topk(
    states: Array,
    items: Array,
    k: int,
    *,
    bias: Array | None = None,
    valid: Array | None = None,
    chunk: int = 4096,
) -> tuple[jax.Array, jax.Array]:
    """Return the k items with the highest ``<state, item> + bias`` of each state.

    Compatible with jit, vmap, and rows sharded over devices.

    Args:
      states: [N, D].
      items: [V, D].
      k: How many, static, at most V.
      bias: [V], added to the scores.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      chunk: Items per block, static; V <= chunk is one plain block.

    Returns:
      Scores float32 [N, k], highest first, and rows int32 [N, k]; equal scores by lower row. Where
      fewer than k items are valid, the rest has score -inf and row -1.

    Raises:
      ValueError: If the shapes do not fit or k is not in 1..V.

    Example:
      >>> import jax.numpy as jnp
      >>> items = jnp.array([[1.0], [3.0], [2.0], [3.0]])
      >>> scores, rows = chunked_topk(jnp.ones((1, 1)), items, 3, chunk=2)
      >>> rows.tolist()
      [[1, 3, 2]]
    """
    side, valid = make_side(states, items, bias), optional(valid)
    check_side(side, valid=valid)
    count, rows = states.shape[0], items.shape[0]
    if not 1 <= k <= rows:
        raise ValueError(f"k must be between 1 and the {rows} items, not {k}")

    def step(carry: Any, start: Any, size: int) -> Any:
        scores = block_logits(side, valid, start, size)
        scores, columns = lax.top_k(scores, min(k, size))
        # Earlier blocks come first: top_k takes the earlier of equal scores, the lower row.
        scores = jnp.concatenate([carry[0], scores], axis=1)
        found = jnp.concatenate([carry[1], columns.astype(jnp.int32) + start], axis=1)
        scores, columns = lax.top_k(scores, k)
        return scores, jnp.take_along_axis(found, columns, axis=1)

    init = (jnp.full((count, k), LOWEST, jnp.float32), jnp.full((count, k), -1, jnp.int32))
    scores, found = fold_blocks(step, init, rows, chunk)
    return scores, jnp.where(scores == LOWEST, -1, found)
