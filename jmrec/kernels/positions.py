"""Walk over positions block by block, those that count first, and leave out the other blocks.

On a CPU the logits of a few hundred positions and items fit the cache, and a position that is only
padding need not be computed at all. On accelerators large products are quicker, and on a mesh a
walk would gather what is shared out: there all positions are one block.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

POSITIONS = 256
ITEMS_CPU = 256
ITEMS = 4096


class Positions(NamedTuple):
    """Positions in the order in which they are walked.

    Attributes:
      rows: int32 [blocks * size], the position that stands at each place; 0 where there is none.
      place: int32 [N], where each position stands.
      real: bool [blocks * size], whether a position stands there that counts.
      live: bool [blocks], whether a block has any of those.
    """

    rows: jax.Array
    place: jax.Array
    real: jax.Array
    live: jax.Array


def items_at_once(chunk: int | None) -> int:
    """Return how many items are a block: as asked, or what suits the devices."""
    if chunk is not None:
        return chunk
    return ITEMS_CPU if jax.default_backend() == "cpu" else ITEMS


def walk(n: int, where: jax.Array | None) -> Positions | None:
    """Return in which order N positions are walked; None where they are one block.

    Args:
      n: N, static.
      where: bool [N], the positions that count; None is all.
    """
    if n <= POSITIONS or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return None
    return real_first(jnp.ones(n, bool) if where is None else where, POSITIONS)


def real_first(where: jax.Array, size: int) -> Positions:
    """Return the positions that count before all others, in blocks.

    Args:
      where: bool [N], the positions that count.
      size: Positions in a block, static.

    Example:
      >>> found = real_first(jnp.array([False, True, False, False, True]), 2)
      >>> found.rows.tolist(), found.real.tolist(), found.live.tolist()
      ([1, 4, 0, 2, 3, 0], [True, True, False, False, False, False], [True, False, False])
      >>> found.rows[found.place].tolist()
      [0, 1, 2, 3, 4]
    """
    n = where.shape[0]
    order = jnp.argsort(~where, stable=True).astype(jnp.int32)
    place = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    rest = -n % size
    rows = jnp.pad(order, (0, rest))
    real = jnp.pad(where[order], (0, rest))
    return Positions(rows, place, real, real.reshape(-1, size).any(axis=1))


def fold_live(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, live: jax.Array | None, arrays: Any
) -> tuple[Any, Any]:
    """Fold ``step(carry, part) -> (carry, out)`` over the blocks of positions that are live.

    Args:
      step: What is done with a block; all its outputs have the positions as first axis.
      carry: What goes from block to block.
      live: bool [blocks]; None is one block, which is live.
      arrays: A tree of arrays [blocks * size, ...].

    Returns:
      The last carry, and the outputs of all blocks behind one another, 0 where a block is not live.

    Example:
      >>> double = lambda total, x: (total + x.sum(), 2 * x)
      >>> total, out = fold_live(double, 0, jnp.array([True, False]), jnp.arange(1, 5))
      >>> int(total), out.tolist()
      (3, [2, 4, 0, 0])
    """
    if live is None:
        return step(carry, arrays)
    blocks = live.shape[0]
    parts = jax.tree.map(lambda x: x.reshape(blocks, -1, *x.shape[1:]), arrays)
    first = jax.tree.map(lambda x: x[0], parts)
    _, shapes = jax.eval_shape(step, carry, first)

    def body(carry: Any, part: Any) -> tuple[Any, Any]:
        def dead(carry: Any, _: Any) -> tuple[Any, Any]:
            return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(part[0], step, dead, carry, part[1])

    carry, out = jax.lax.scan(body, carry, (live, parts))
    return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)
