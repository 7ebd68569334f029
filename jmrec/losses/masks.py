"""How every loss masks: inputs before the computation, outputs after it."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.types import Array


def as_float32(array: Array) -> jax.Array:
    """Return ``array`` as float32, the dtype every loss computes in."""
    return jnp.asarray(array).astype(jnp.float32)


def mask_inputs(array: jax.Array, where: Array | None) -> jax.Array:
    """Return ``array`` with 0 at masked examples, so that what stands there can not leak.

    Args:
      array: [..., *rest].
      where: bool [...] (the leading dimensions), or None.

    Returns:
      The array, same shape; with no gradient into masked examples.
    """
    if where is None:
        return array
    where = jnp.asarray(where)
    return jnp.where(where.reshape(where.shape + (1,) * (array.ndim - where.ndim)), array, 0)


def mask_losses(losses: jax.Array, where: Array | None) -> jax.Array:
    """Return per-example ``losses`` with 0 at masked examples."""
    return losses if where is None else jnp.where(jnp.asarray(where), losses, 0.0)


def full_mask(where: Array | None, size: int) -> jax.Array:
    """Return ``where`` as bool [size], all True for None."""
    return jnp.ones((size,), bool) if where is None else jnp.asarray(where)


def pair_mask(where: Array | None, size: int) -> jax.Array:
    """Return bool [size, size]: True for pairs of two different unmasked examples."""
    mask = full_mask(where, size)
    return mask[:, None] & mask[None, :] & ~jnp.eye(size, dtype=bool)


def at_least_one(count: jax.Array) -> jax.Array:
    """Return ``count`` as float32, at least 1: a divisor for sums over what may be nothing."""
    return jnp.maximum(count.astype(jnp.float32), 1.0)


def check_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``array`` is None or has this shape."""
    if array is not None and jnp.shape(array) != shape:
        raise ValueError(f"{name} must have shape {shape}, not {jnp.shape(array)}")


def flatten_leading(array: Array, leading: tuple[int, ...]) -> jax.Array:
    """Return ``array`` [*leading, *rest] as [prod(leading), *rest]."""
    array = jnp.asarray(array)
    return array.reshape((math.prod(leading), *array.shape[len(leading) :]))


def log_softmax(logits: jax.Array, valid: Array | None) -> jax.Array:
    """Return log-probabilities over the last axis, 0 (not -inf) where not valid.

    So that p * log p stays finite; `probabilities` gives the p that belong to them.

    Args:
      logits: float32 [..., K].
      valid: bool, broadcastable to [..., K], or None.
    """
    if valid is None:
        return jax.nn.log_softmax(logits, axis=-1)
    logits = jnp.where(valid, logits, -jnp.inf)
    log_p = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return jnp.where(valid, log_p, 0.0)


def probabilities(log_p: jax.Array, valid: Array | None) -> jax.Array:
    """Return exp(log_p), 0 where not valid."""
    return jnp.exp(log_p) if valid is None else jnp.where(valid, jnp.exp(log_p), 0.0)


def entry_mask(name: str, valid: Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Return ``valid`` as bool of this shape, all True for None.

    Raises:
      ValueError: If it does not broadcast to the shape.
    """
    if valid is None:
        return jnp.ones(shape, bool)
    try:
        return jnp.broadcast_to(jnp.asarray(valid), shape)
    except ValueError:
        raise ValueError(
            f"{name} must be broadcastable to {shape}, not {jnp.shape(valid)}"
        ) from None
