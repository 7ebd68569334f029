"""What several families do with feature vectors."""

import jax
import jax.numpy as jnp

from jmrec.losses.masks import at_least_one, full_mask, mask_inputs
from jmrec.types import Array


def unit(vectors: jax.Array) -> jax.Array:
    """Return the rows at length 1; a zero row stays zero, with a finite gradient."""
    squares = jnp.square(vectors).sum(axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))


def centre(x: jax.Array, where: Array | None) -> jax.Array:
    """Return x [B, D] less the mean of its unmasked rows; masked rows are 0."""
    count = at_least_one(full_mask(where, x.shape[0]).sum())
    x = mask_inputs(x, where)
    return mask_inputs(x - x.sum(axis=0) / count, where)


def squared_distances(x: jax.Array, where: Array | None) -> jax.Array:
    """Return the squared distances [B, B] of the rows of x [B, D], at least 0."""
    x = centre(x, where)  # keeps the expanded square accurate
    norms = jnp.square(x).sum(axis=1)
    return jnp.maximum(norms[:, None] + norms[None, :] - 2.0 * x @ x.T, 0.0)
