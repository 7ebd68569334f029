"""Contrastive losses over the pairs of a batch. They couple the examples: no accumulation."""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.losses.masks import as_float32, check_shape, full_mask, mask_inputs, mask_losses
from jmrec.types import Array


def info_nce(
    anchors: Array,
    positives: Array,
    *,
    temperature: Any,
    where: Array | None = None,
    ids: Array | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Return the cross-entropy of finding each anchor's positive among the batch's positives.

    Compatible with jit, vmap and grad (anchors, positives, temperature).

    Args:
      anchors: [B, D].
      positives: [B, D]; row i belongs to anchor i, the other rows are its negatives.
      temperature: > 0, divides the similarities; a number or a traced scalar.
      where: bool [B], False for masked pairs: no loss, and no negatives of others.
      ids: int [B]; rows with equal ids are not negatives of one another.
      normalize: Whether similarities are cosines (True) or dot products.

    Returns:
      float32 [B], 0 where masked, and 0 for a pair without negatives.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      van den Oord, Li, Vinyals, Representation Learning with Contrastive Predictive Coding, 2018:
      https://arxiv.org/abs/1807.03748

    Example:
      >>> import jax.numpy as jnp
      >>> losses = info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0)
      >>> [round(float(x), 4) for x in losses]
      [0.3133, 0.3133]
    """
    anchors, positives = as_float32(anchors), as_float32(positives)
    if anchors.ndim != 2 or anchors.shape != positives.shape:
        raise ValueError(
            f"anchors and positives must both be [B, D]: {anchors.shape} and {positives.shape}"
        )
    size = anchors.shape[0]
    check_shape("where", where, (size,))
    check_shape("ids", ids, (size,))
    anchors, positives = mask_inputs(anchors, where), mask_inputs(positives, where)
    if normalize:
        anchors, positives = _unit(anchors), _unit(positives)
    logits = anchors @ positives.T / temperature
    negative = jnp.broadcast_to(full_mask(where, size), (size, size))
    if ids is not None:
        ids = jnp.asarray(ids)
        negative &= ids[:, None] != ids[None, :]
    own = jnp.eye(size, dtype=bool)
    logits = jnp.where(negative | own, logits, -jnp.inf)  # the own pair keeps each row finite
    losses = jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)
    return mask_losses(losses, where)


def symmetric_info_nce(
    images: Array,
    texts: Array,
    *,
    temperature: Any,
    where: Array | None = None,
    ids: Array | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Return the mean of both directions of `info_nce`, the image-text loss of CLIP.

    Compatible with jit, vmap and grad (images, texts, temperature).

    Args:
      images: [B, D].
      texts: [B, D]; row i belongs to image i.
      temperature: > 0, divides the similarities; a number or a traced scalar.
      where: bool [B], False for masked pairs: no loss, and no negatives of others.
      ids: int [B]; rows with equal ids are not negatives of one another.
      normalize: Whether similarities are cosines (True) or dot products.

    Returns:
      float32 [B], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021:
      https://arxiv.org/abs/2103.00020

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(symmetric_info_nce(jnp.eye(2), jnp.eye(2), temperature=0.5)[0]), 4)
      0.1269
    """
    there = info_nce(
        images, texts, temperature=temperature, where=where, ids=ids, normalize=normalize
    )
    back = info_nce(
        texts, images, temperature=temperature, where=where, ids=ids, normalize=normalize
    )
    return 0.5 * (there + back)


def _unit(vectors: jax.Array) -> jax.Array:
    """Rows of length 1; a zero row stays zero, with a finite gradient."""
    squares = jnp.square(vectors).sum(axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
