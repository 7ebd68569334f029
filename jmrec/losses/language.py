"""Language losses: the cross-entropy of a token, and of a whole bag of them."""

import jax
import jax.numpy as jnp

from jmrec.losses.masks import as_float32, check_shape, mask_inputs, mask_losses
from jmrec.types import Array


def token_cross_entropy(
    logits: Array, targets: Array, *, where: Array | None = None, label_smoothing: float = 0.0
) -> jax.Array:
    """Return the cross-entropy of each token, in nats.

    Compatible with jit, vmap and grad.

    Use: to learn a text token by token.
    Formula: log sum_k exp z_k - ((1 - e) z_target + e mean_k z_k).

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
    # Not taken by its place: the gradient of that scatters into an array of the logits' size.
    target = jnp.arange(logits.shape[-1]) == targets[..., None]
    target_logit = jnp.where(target, logits, 0.0).sum(axis=-1)
    wanted = (1.0 - label_smoothing) * target_logit + label_smoothing * logits.mean(axis=-1)
    return mask_losses(lse - wanted, where)


def bag_cross_entropy(
    logits: Array, tokens: Array, weights: Array, *, where: Array | None = None
) -> jax.Array:
    """Return the cross-entropy of a weighted bag of tokens, in nats.

    The target distribution gives each token that occurs, however often, its weight, and sums to 1.
    Compatible with jit, vmap and grad.

    Use: to learn which words a text holds and not their order (a picture from its caption, say).
    Formula: -sum_k b_k log softmax(z)_k, b_k ~ weight_k where token k occurs.

    Args:
      logits: [..., K] over K tokens.
      tokens: int [..., T] in 0..K-1; 0 is padding and never a target.
      weights: float [K], not negative; the tokens' weights (their inverse document frequency, say).
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], 0 where masked or where no token has a weight.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Huang et al., Classification Done Right for Vision-Language Pre-Training, 2024:
      https://arxiv.org/abs/2411.03313

    Example:
      >>> import jax.numpy as jnp
      >>> loss = bag_cross_entropy(jnp.zeros(4), jnp.array([1, 3, 3, 0]), jnp.ones(4))
      >>> round(float(loss), 4)
      1.3863
    """
    shape = jnp.shape(logits)
    check_shape("tokens", tokens, (*shape[:-1], jnp.shape(tokens)[-1]))
    check_shape("weights", weights, shape[-1:])
    check_shape("where", where, shape[:-1])
    logits = mask_inputs(as_float32(logits), where)
    tokens = mask_inputs(jnp.asarray(tokens), where)
    there = jnp.put_along_axis(jnp.zeros(shape), tokens, 1.0, axis=-1, inplace=False)
    bag = (there * as_float32(weights)).at[..., 0].set(0.0)
    total = bag.sum(-1, keepdims=True)
    bag = jnp.where(total > 0, bag / jnp.where(total > 0, total, 1.0), 0.0)
    return mask_losses(-(bag * jax.nn.log_softmax(logits)).sum(-1), where)
