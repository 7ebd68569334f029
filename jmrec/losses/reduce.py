"""The one reducer: (sum, count) of per-example values.

Losses return per-example arrays and metrics come as (sum, count). Only whoever adds up over
devices, hosts, accumulation steps and batches divides, so that a short batch or padding never
weighs more than its examples.
"""

import jax
import jax.numpy as jnp

from jmrec.losses.masks import as_float32, mask_losses
from jmrec.types import Array


def sum_and_count(values: Array, where: Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Return the sum of the unmasked values and how many they are.

    Args:
      values: [...], one per example.
      where: bool, broadcastable to ``values``; False for masked examples.

    Returns:
      (sum, count), float32 scalars; (0, 0) when everything is masked.

    Raises:
      ValueError: If ``where`` does not broadcast to the shape of ``values``.

    Example:
      >>> import jax.numpy as jnp
      >>> total, count = sum_and_count(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False]))
      >>> float(total), float(count)
      (3.0, 2.0)
    """
    values = as_float32(values)
    if where is None:
        return values.sum(), jnp.float32(values.size)
    where = jnp.broadcast_to(jnp.asarray(where), values.shape)
    return mask_losses(values, where).sum(), where.sum(dtype=jnp.float32)
