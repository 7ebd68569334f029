"""Next-item losses: which of the catalogue's items comes next."""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.kernels.softmax import chunked_softmax_cross_entropy
from jmrec.losses.masks import (
    as_float32,
    check_shape,
    flatten_leading,
    mask_inputs,
    mask_losses,
)
from jmrec.types import Array


def full_softmax(
    states: Array,
    items: Array,
    targets: Array,
    *,
    bias: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
    temperature: Any = 1.0,
    chunk: int = 4096,
) -> jax.Array:
    """Return -log softmax(<state, item> / temperature + bias)[target] over the whole catalogue.

    Compatible with jit, vmap and grad (states, items, bias, temperature). The [..., V] logits are
    not built when V > chunk.

    Args:
      states: [..., D].
      items: [V, D].
      targets: int [...], rows of ``items``; ignored where masked.
      bias: [V], added to the logits after the division by the temperature.
      valid: bool [V], False for rows that are no candidates.
      where: bool [...], False for masked positions.
      temperature: > 0, a number or a traced scalar.
      chunk: Items per block, static.

    Returns:
      float32 [...], 0 where masked; +inf where a target is out of range or not valid.

    Raises:
      ValueError: If the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> losses = full_softmax(jnp.zeros((2, 3, 4)), jnp.ones((8, 4)), jnp.zeros((2, 3), int))
      >>> losses.shape, round(float(losses[0, 0]), 4)
      ((2, 3), 2.0794)
    """
    states = jnp.asarray(states)
    leading = states.shape[:-1]
    check_shape("targets", targets, leading)
    check_shape("where", where, leading)
    states = mask_inputs(states, where)
    scaled = (as_float32(states) / temperature).astype(states.dtype)
    losses = chunked_softmax_cross_entropy(
        flatten_leading(scaled, leading),
        items,
        flatten_leading(targets, leading),
        bias=bias,
        valid=valid,
        where=None if where is None else flatten_leading(where, leading),
        chunk=chunk,
    )
    return losses.reshape(leading)


def bpr(positive_scores: Array, negative_scores: Array, *, where: Array | None = None) -> jax.Array:
    """Return -log sigmoid(positive - negative), Bayesian personalised ranking.

    Compatible with jit, vmap and grad.

    Args:
      positive_scores: [...].
      negative_scores: [...], or [..., M] for M negatives, over which the loss is averaged.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009:
      https://arxiv.org/abs/1205.2618

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(bpr(jnp.array([1.0]), jnp.array([1.0]))[0]), 4)
      0.6931
    """
    positive, negative = as_float32(positive_scores), as_float32(negative_scores)
    check_shape("where", where, positive.shape)
    several = negative.ndim == positive.ndim + 1
    check_shape("negative_scores", negative[..., 0] if several else negative, positive.shape)
    positive, negative = mask_inputs(positive, where), mask_inputs(negative, where)
    if several:
        losses = jax.nn.softplus(negative - positive[..., None]).mean(axis=-1)
    else:
        losses = jax.nn.softplus(negative - positive)
    return mask_losses(losses, where)
