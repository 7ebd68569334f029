"""From the states of a sequence to one vector."""

import jax
import jax.numpy as jnp


def mean_and_max(x_BxTxD: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    """Return mean and maximum over real positions, float32 [B, 2 D]; zeros where there is none.

    In the mean one word that matters among forty is diluted; the maximum keeps it.

    Example:
      >>> x, mask = jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> mean_and_max(x, mask).tolist()
      [[2.0, 3.0]]
    """
    x, mask = x_BxTxD.astype(jnp.float32), mask_BxT[..., None]
    if not x.shape[1]:
        return jnp.zeros((x.shape[0], 2 * x.shape[2]))
    mean = jnp.where(mask, x, 0.0).sum(1) / jnp.maximum(mask.sum(1), 1)
    most = jnp.where(mask, x, -1e30).max(1)
    return jnp.concatenate([mean, jnp.where(mask.any(1), most, 0.0)], -1)
