"""Walk over an item table block by block, without a padded copy of it.

A table of V rows is V // chunk full blocks, walked by one ``scan``, and one shorter last block with
a static size of its own. A table that fits one block is not scanned at all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jmrec.kernels.positions import fold_live
from jmrec.types import Array

Carry = TypeVar("Carry")

LOWEST = -jnp.inf


def fold_blocks(
    step: Callable[[Carry, Any, int], Carry], init: Carry, rows: int, chunk: int
) -> Carry:
    """Fold ``step(carry, start, size)`` over the blocks of a table, first row first.

    Args:
      step: Gets the carry, the first row of the block (traced inside the scan) and its size
        (static), and returns the new carry of the same shapes and dtypes.
      init: The carry to begin with.
      rows: Number of rows V of the table, static.
      chunk: Rows of a full block, static.

    Returns:
      The last carry.

    Raises:
      ValueError: If ``chunk`` is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> table = jnp.arange(5.0)
      >>> add = lambda total, start, size: total + slice_block(table, start, size).sum()
      >>> float(fold_blocks(add, jnp.float32(0), rows=5, chunk=2))
      10.0
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    if rows <= chunk:
        return step(init, 0, rows)
    full, rest = divmod(rows, chunk)

    def body(carry: Carry, start: jax.Array) -> tuple[Carry, None]:
        return step(carry, start, chunk), None

    carry, _ = lax.scan(body, init, jnp.arange(full, dtype=jnp.int32) * chunk)
    return step(carry, full * chunk, rest) if rest else carry


def slice_block(table: jax.Array, start: Any, size: int) -> jax.Array:
    """Return rows ``start : start + size`` of ``table``; ``start`` may be traced."""
    return lax.dynamic_slice_in_dim(table, start, size)


def write_block(table: jax.Array, block: jax.Array, start: Any) -> jax.Array:
    """Write ``block`` into ``table`` at row ``start``; XLA does it in place inside a scan."""
    return lax.dynamic_update_slice_in_dim(table, block, start, 0)


class Side(NamedTuple):
    """What the logits ``states @ items.T + bias`` are made from.

    Attributes:
      states: [N, D].
      items: [V, D].
      bias: [V] or None.
    """

    states: jax.Array
    items: jax.Array
    bias: jax.Array | None


def make_side(states: Array, items: Array, bias: Array | None) -> Side:
    """Return a `Side` of jax arrays."""
    return Side(jnp.asarray(states), jnp.asarray(items), optional(bias))


def optional(array: Array | None) -> jax.Array | None:
    """Return ``array`` as a jax array; None stays None."""
    return None if array is None else jnp.asarray(array)


def block_items(items: jax.Array, valid: jax.Array | None, start: Any, size: int) -> jax.Array:
    """Return a block of item vectors, zero where not valid, so that 0 * NaN can not leak."""
    block = slice_block(items, start, size)
    if valid is None:
        return block
    return jnp.where(slice_block(valid, start, size)[:, None], block, 0)


def block_logits(
    side: Side, valid: jax.Array | None, start: Any, size: int, scale: Any = None
) -> jax.Array:
    """Return float32 logits [N, size] of one block: ``(states @ items.T + bias) * scale``.

    Rows that are not valid get -inf, whatever their vectors hold.
    """
    block = block_items(side.items, valid, start, size)
    logits = jnp.einsum("nd,vd->nv", side.states, block, preferred_element_type=jnp.float32)
    if side.bias is not None:
        logits = logits + slice_block(side.bias, start, size).astype(jnp.float32)
    if scale is not None:
        logits = logits * scale
    if valid is not None:
        logits = jnp.where(slice_block(valid, start, size), logits, LOWEST)
    return logits


def fold_gradients(
    side: Side,
    valid: jax.Array | None,
    live: jax.Array | None,
    chunk: int,
    logit_gradients: Callable[[Side, Any], Callable[[Any, int], jax.Array]],
    given: Any,
) -> Side:
    """Return the gradients of a `Side`, given those of its logits block by block.

    Args:
      side: What the logits were made from.
      valid: bool [V] or None.
      live: bool, the blocks of positions that count, see `jmrec.kernels.positions.fold_live`.
      chunk: Rows of a full block, static.
      logit_gradients: ``(side, given) -> ((start, size) -> float32 [N, size])``, each for the
        positions of one block; 0 where an item is not valid.
      given: A tree of arrays [N, ...], what the gradients need beside the states.

    Returns:
      A `Side` of gradients in the dtypes of ``side``, accumulated in float32.
    """

    def of_positions(sums: Any, part: Any) -> tuple[Any, jax.Array]:
        states, own = part
        gradients = logit_gradients(side._replace(states=states), own)

        def step(carry: Any, start: Any, size: int) -> Any:
            d_states, d_items, d_bias = carry
            d_logits = gradients(start, size)
            block = block_items(side.items, valid, start, size)
            d_items = _add_block(
                d_items, _float32_einsum("nv,nd->vd", d_logits, states), start, size
            )
            if d_bias is not None:
                d_bias = _add_block(d_bias, d_logits.sum(axis=0), start, size)
            return d_states + _float32_einsum("nv,vd->nd", d_logits, block), d_items, d_bias

        zeros = jnp.zeros(states.shape, jnp.float32)
        d_states, *sums = fold_blocks(step, (zeros, *sums), side.items.shape[0], chunk)
        return tuple(sums), d_states

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (side.items, side.bias))
    (d_items, d_bias), d_states = fold_live(of_positions, zeros, live, (side.states, given))
    sums = Side(d_states, d_items, d_bias)
    return jax.tree.map(lambda total, array: total.astype(array.dtype), sums, side)


def _add_block(sums: jax.Array, block: jax.Array, start: Any, size: int) -> jax.Array:
    """Add ``block`` to rows ``start : start + size``; XLA does it in place inside a scan."""
    return write_block(sums, slice_block(sums, start, size) + block, start)


def _float32_einsum(spec: str, weights: jax.Array, vectors: jax.Array) -> jax.Array:
    """Multiply in the vectors' dtype (float32 weights are rounded to it), add in float32."""
    weights = weights.astype(vectors.dtype)
    return jnp.einsum(spec, weights, vectors, preferred_element_type=jnp.float32)


def finite_or_zero(lse: jax.Array) -> jax.Array:
    """Return ``lse`` with 0 for -inf: then exp(-inf - lse) is 0 and not NaN."""
    return jnp.where(lse == LOWEST, 0.0, lse)


def add_logsumexp(
    peak: jax.Array, total: jax.Array, logits: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Bring a running (peak, total of exp(logit - peak)), both [N], up to date with a block.

    Args:
      peak: float32 [N], the highest logit so far, -inf before the first.
      total: float32 [N].
      logits: float32 [N, size].

    Returns:
      The new peak and total, the factor [N] by which earlier totals shrink, and the block's
      weights exp(logit - peak) [N, size].
    """
    new_peak = jnp.maximum(peak, logits.max(axis=1))
    shift = finite_or_zero(new_peak)
    weights = jnp.exp(logits - shift[:, None])
    shrink = jnp.exp(peak - shift)
    return new_peak, total * shrink + weights.sum(axis=1), shrink, weights


def check_side(
    side: Side, *, valid: jax.Array | None = None, where: jax.Array | None = None
) -> None:
    """Raise ValueError unless states [N, D], items [V, D], bias [V], valid [V], where [N] fit."""
    states, items, bias = side
    if states.ndim != 2 or items.ndim != 2 or states.shape[1] != items.shape[1]:
        raise ValueError(
            f"states [N, D] and items [V, D] do not fit: {states.shape} and {items.shape}"
        )
    if items.shape[0] < 1:
        raise ValueError("the item table has no rows")
    for name, array, size in (
        ("bias", bias, items.shape[0]),
        ("valid", valid, items.shape[0]),
        ("where", where, states.shape[0]),
    ):
        if array is not None and array.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},), not {array.shape}")
