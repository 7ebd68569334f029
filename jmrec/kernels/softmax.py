"""Softmax cross-entropy over a large catalogue, one block of items at a time.

The logits [N, V] of N states over V items are never built when V > chunk: the forward pass keeps a
running logsumexp and the backward pass recomputes each block's logits (as in Wijmans et al., *Cut
Your Losses in Large-Vocabulary Language Models*, https://arxiv.org/abs/2411.09009). Products are
accumulated in float32 whatever the inputs' dtype.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.kernels.blocks import (
    LOWEST,
    Side,
    add_logsumexp,
    block_logits,
    check_side,
    finite_or_zero,
    fold_blocks,
    fold_gradients,
    make_side,
    optional,
)
from jmrec.kernels.positions import fold_live, items_at_once, walk
from jmrec.types import Array


def chunked_logsumexp(
    states: Array,
    items: Array,
    *,
    bias: Array | None = None,
    valid: Array | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """Return log(sum over items of exp(<state, item> + bias)) of each state.

    Compatible with jit, vmap, grad (states, items, bias), and rows sharded over devices.

    Args:
      states: [N, D].
      items: [V, D].
      bias: [V], added to the logits.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      chunk: Items per block, static; V <= chunk is one plain block. None is what suits the devices.

    Returns:
      float32 [N]; -inf where no item is valid.

    Raises:
      ValueError: If the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(chunked_logsumexp(jnp.zeros((1, 3)), jnp.ones((8, 3)), chunk=5)[0]), 4)
      2.0794
    """
    side, valid = make_side(states, items, bias), optional(valid)
    check_side(side, valid=valid)
    chunk, at = items_at_once(chunk), walk(len(side.states), None)
    if at is None:
        return _logsumexp(side, valid, None, chunk)
    return _logsumexp(side._replace(states=side.states[at.rows]), valid, at.live, chunk)[at.place]


def chunked_softmax_cross_entropy(
    states: Array,
    items: Array,
    targets: Array,
    *,
    bias: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """Return -log softmax(states @ items.T + bias)[target] of each state.

    Compatible with jit, vmap, grad (states, items, bias), and rows sharded over devices.

    Args:
      states: [N, D].
      items: [V, D].
      targets: int32 [N], rows of ``items``; ignored where masked.
      bias: [V], added to the logits.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      where: bool [N], False for masked examples (their states may hold anything).
      chunk: Items per block, static; V <= chunk is one plain block. None is what suits the devices.

    Returns:
      float32 [N], 0 where masked; +inf where the target is out of range or not valid, so that a
      training loop that checks its loss stops instead of learning from it.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024:
      https://arxiv.org/abs/2411.09009

    Example:
      >>> import jax.numpy as jnp
      >>> states, items = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> round(float(chunked_softmax_cross_entropy(states, items, jnp.array([0]))[0]), 4)
      0.3133
    """
    side, valid, where = make_side(states, items, bias), optional(valid), optional(where)
    targets = jnp.asarray(targets)
    check_targets(side, targets, valid=valid, where=where)
    at = walk(len(targets), where)
    if at is not None:
        side, targets, where = side._replace(states=side.states[at.rows]), targets[at.rows], at.real
    if where is not None:
        side = side._replace(states=jnp.where(where[:, None], side.states, 0))
    lse = _logsumexp(side, valid, None if at is None else at.live, items_at_once(chunk))
    loss = lse - target_logits(side, targets, valid)
    loss = loss if where is None else jnp.where(where, loss, 0.0)
    return loss if at is None else loss[at.place]


def check_targets(
    side: Side, targets: jax.Array, *, valid: jax.Array | None, where: jax.Array | None
) -> None:
    """Raise ValueError unless the masks and one target a state fit."""
    check_side(side, valid=valid, where=where)
    if targets.shape != side.states.shape[:1]:
        raise ValueError(f"targets must have shape {side.states.shape[:1]}, not {targets.shape}")


def softmax_cross_entropy_reference(
    states: Array,
    items: Array,
    targets: Array,
    *,
    bias: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return what `chunked_softmax_cross_entropy` returns, from the plain [N, V] logits."""
    logits = block_logits(make_side(states, items, bias), optional(valid), 0, len(items))
    if where is not None:
        logits = jnp.where(jnp.asarray(where)[:, None], logits, 0.0)
    log_probabilities = jax.nn.log_softmax(logits, axis=1)
    picked = jax.nn.one_hot(targets, len(items), dtype=bool)
    loss = -jnp.where(picked, log_probabilities, 0.0).sum(axis=1)
    return loss if where is None else jnp.where(where, loss, 0.0)


def target_logits(side: Side, targets: jax.Array, valid: jax.Array | None) -> jax.Array:
    """float32 [N]; -inf where the target is out of range or not valid."""
    known = (targets >= 0) & (targets < side.items.shape[0])
    rows = jnp.where(known, targets, 0)
    if valid is not None:
        known &= valid[rows]
    items = jnp.where(known[:, None], side.items[rows], 0)
    logits = jnp.einsum("nd,nd->n", side.states, items, preferred_element_type=jnp.float32)
    if side.bias is not None:
        logits = logits + side.bias[rows].astype(jnp.float32)
    return jnp.where(known, logits, LOWEST)


def _logsumexp(
    side: Side, valid: jax.Array | None, live: jax.Array | None, chunk: int
) -> jax.Array:
    """float32 [N]; anything for positions of blocks that are not live."""
    if live is None and side.items.shape[0] <= chunk:
        return _plain(side, valid)  # autodiff keeps the logits and saves recomputing them
    return _scanned(side, valid, live, chunk)


def _plain(side: Side, valid: jax.Array | None) -> jax.Array:
    return jax.nn.logsumexp(block_logits(side, valid, 0, side.items.shape[0]), axis=1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _scanned(side: Side, valid: jax.Array | None, live: jax.Array | None, chunk: int) -> jax.Array:
    """Running logsumexp over the blocks, float32 [N]."""

    def of_positions(carry: None, states: jax.Array) -> tuple[None, jax.Array]:
        part = side._replace(states=states)

        def step(carry: Any, start: Any, size: int) -> Any:
            peak, total = carry
            return add_logsumexp(peak, total, block_logits(part, valid, start, size))[:2]

        zeros = jnp.zeros(states.shape[:1], jnp.float32)
        peak, total = fold_blocks(step, (zeros + LOWEST, zeros), side.items.shape[0], chunk)
        return carry, finite_or_zero(peak) + jnp.log(total)

    return fold_live(of_positions, None, live, side.states)[1]


def _scanned_forward(
    side: Side, valid: jax.Array | None, live: jax.Array | None, chunk: int
) -> tuple[jax.Array, Any]:
    lse = _scanned(side, valid, live, chunk)
    return lse, (side, valid, live, lse)


def _scanned_backward(chunk: int, residuals: Any, cotangent: jax.Array) -> Any:
    side, valid, live, lse = residuals

    def gradients(part: Side, given: Any) -> Callable[[Any, int], jax.Array]:
        lse, cotangent = given
        shift = finite_or_zero(lse)

        def of_block(start: Any, size: int) -> jax.Array:
            logits = block_logits(part, valid, start, size)
            return cotangent[:, None] * jnp.exp(logits - shift[:, None])

        return of_block

    return fold_gradients(side, valid, live, chunk, gradients, (lse, cotangent)), None, None


_scanned.defvjp(_scanned_forward, _scanned_backward)
