"""Language losses: next-token cross-entropy."""

import jax
import jax.numpy as jnp

from jmrec.losses.masks import as_float32, check_shape, mask_inputs, mask_losses
from jmrec.types import Array


def token_cross_entropy(
    logits: Array, targets: Array, *, where: Array | None = None, label_smoothing: float = 0.0
) -> jax.Array:
    """Return the cross-entropy of each token, in nats.

    Compatible with jit, vmap and grad.

    Args:
      logits: [..., T, K] over K tokens.
      targets: int [..., T], the token that comes; ignored where masked.
      where: bool [..., T], False for masked positions.
      label_smoothing: Share e of the target's mass that is spread evenly over all K tokens: the
        target distribution is (1 - e) one-hot + e / K. May be traced.

    Returns:
      float32 [..., T], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Szegedy et al., Rethinking the Inception Architecture, 2015 (label smoothing):
      https://arxiv.org/abs/1512.00567

    Example:
      >>> import jax.numpy as jnp
      >>> losses = token_cross_entropy(jnp.zeros((2, 4)), jnp.array([1, 3]),
      ...                              where=jnp.array([True, False]))
      >>> [round(float(x), 4) for x in losses]
      [1.3863, 0.0]
    """
    check_shape("targets", targets, jnp.shape(logits)[:-1])
    check_shape("where", where, jnp.shape(logits)[:-1])
    logits = mask_inputs(as_float32(logits), where)
    targets = mask_inputs(jnp.asarray(targets), where)
    lse = jax.nn.logsumexp(logits, axis=-1)
    target_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    wanted = (1.0 - label_smoothing) * target_logit + label_smoothing * logits.mean(axis=-1)
    return mask_losses(lse - wanted, where)
