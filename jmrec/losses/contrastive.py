"""Contrastive losses over the pairs of a batch. They couple the examples: no accumulation."""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.losses.masks import (
    as_float32,
    at_least_one,
    check_shape,
    log_softmax,
    mask_inputs,
    mask_losses,
    pair_mask,
)
from jmrec.losses.vectors import unit
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

    Use: to make two views of a thing alike and different things unlike, in one direction.
    Formula: -log(exp(<a_i, p_i> / T) / sum_j exp(<a_i, p_j> / T)).

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
    logits, negative = _logits(anchors, positives, ("anchors", "positives"), where, ids, normalize)
    own = jnp.eye(logits.shape[0], dtype=bool)
    # The own pair keeps each row finite.
    logits = jnp.where(negative | own, logits / temperature, -jnp.inf)
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

    Use: for two modalities of one thing, each to be found by the other.
    Formula: (info_nce(x, y) + info_nce(y, x)) / 2.

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


def sigmoid_contrast(
    images: Array,
    texts: Array,
    *,
    temperature: Any,
    bias: Any = 0.0,
    where: Array | None = None,
    ids: Array | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Return the sigmoid loss of SigLIP: each pair of the batch is a match or is none.

    Compatible with jit, vmap and grad (images, texts, temperature, bias).

    Use: as `symmetric_info_nce`, for small batches, or where one image may have several texts: the
      pairs do not compete for one softmax. Start with a bias near -log(B).
    Formula: log(1 + exp(-z_ii)) + sum_{j != i} log(1 + exp(z_ij)), z = <x, y> / T + bias.

    Args:
      images: [B, D].
      texts: [B, D]; row i belongs to image i.
      temperature: > 0, divides the similarities; a number or a traced scalar.
      bias: Added to the scaled similarities; a number or a traced scalar.
      where: bool [B], False for masked pairs: no loss, and no negatives of others.
      ids: int [B]; rows with equal ids are not negatives of one another.
      normalize: Whether similarities are cosines (True) or dot products.

    Returns:
      float32 [B], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Zhai, Mustafa, Kolesnikov, Beyer, Sigmoid Loss for Language Image Pre-Training, 2023:
      https://arxiv.org/abs/2303.15343

    Example:
      >>> import jax.numpy as jnp
      >>> losses = sigmoid_contrast(jnp.eye(2), jnp.eye(2), temperature=1.0)
      >>> round(float(losses[0]), 4)  # log(1 + 1/e) + log 2
      1.0064
    """
    logits, negative = _logits(images, texts, ("images", "texts"), where, ids, normalize)
    logits = logits / temperature + bias
    own = jax.nn.softplus(-jnp.diagonal(logits))
    return mask_losses(own + jnp.where(negative, jax.nn.softplus(logits), 0.0).sum(axis=1), where)


def crd(
    teacher: Array,
    student: Array,
    *,
    temperature: Any,
    data_size: Any,
    where: Array | None = None,
    ids: Array | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Return contrastive representation distillation, with the batch's other rows as negatives.

    Compatible with jit, vmap and grad (teacher, student, temperature). Teacher and student are
    projections into one space, both of which may learn; cut the teacher's gradient outside where it
    may not.

    Use: where the student should keep what tells examples apart, not the teacher's coordinates.
    Formula: log(1 + exp(-z_ii)) + sum_{j != i} log(1 + exp(z_ij)), z = <s, t> / T - log(N / M).

    Args:
      teacher: [B, D].
      student: [B, D]; row i belongs to the teacher's row i.
      temperature: > 0, divides the similarities; a number or a traced scalar.
      data_size: M, how many different examples there are to draw from; N is the number of a row's
        negatives.
      where: bool [B], False for masked pairs: no loss, and no negatives of others.
      ids: int [B]; rows with equal ids are not negatives of one another.
      normalize: Whether similarities are cosines (True) or dot products.

    Returns:
      float32 [B], 0 where masked, and 0 for a pair without negatives.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Tian, Krishnan, Isola, Contrastive Representation Distillation, 2019:
      https://arxiv.org/abs/1910.10699

    Example:
      >>> import jax.numpy as jnp
      >>> losses = crd(jnp.eye(2), jnp.eye(2), temperature=1.0, data_size=1)
      >>> round(float(losses[0]), 4)  # one negative, one example: log(1 + 1/e) + log 2
      1.0064
    """
    logits, negative = _logits(student, teacher, ("student", "teacher"), where, ids, normalize)
    count = negative.sum(axis=1)
    prior = jnp.log(at_least_one(count)) - jnp.log(jnp.asarray(data_size, jnp.float32))
    logits = logits / temperature - prior[:, None]
    losses = jax.nn.softplus(-jnp.diagonal(logits))
    losses += jnp.where(negative, jax.nn.softplus(logits), 0.0).sum(axis=1)
    return mask_losses(jnp.where(count > 0, losses, 0.0), where)


def supervised_contrast(
    features: Array,
    labels: Array,
    *,
    temperature: Any,
    where: Array | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Return the contrast of each example with those of its own label against all others.

    Compatible with jit, vmap and grad (features, temperature).

    Use: to bring examples of one class (items of a category, sessions of an intent) together.
    Formula: -mean_{p in P(i)} log(exp(<z_i, z_p> / T) / sum_{a != i} exp(<z_i, z_a> / T)).

    Args:
      features: [B, D].
      labels: int [B].
      temperature: > 0, divides the similarities; a number or a traced scalar.
      where: bool [B], False for masked examples: no loss, and not seen by others.
      normalize: Whether similarities are cosines (True) or dot products.

    Returns:
      float32 [B], 0 where masked, and 0 for an example whose label no other has.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Khosla et al., Supervised Contrastive Learning, 2020 (L_out): https://arxiv.org/abs/2004.11362

    Example:
      >>> import jax.numpy as jnp
      >>> losses = supervised_contrast(jnp.ones((3, 2)), jnp.array([0, 0, 1]), temperature=1.0)
      >>> [round(float(x), 4) for x in losses]  # log 2; the third is alone
      [0.6931, 0.6931, 0.0]
    """
    logits, _ = _logits(features, features, ("features", "features"), where, None, normalize)
    size = logits.shape[0]
    check_shape("labels", labels, (size,))
    labels = jnp.asarray(labels)
    others = pair_mask(where, size)
    positive = others & (labels[:, None] == labels[None, :])
    log_p = log_softmax(logits / temperature, others)
    total = jnp.where(positive, -log_p, 0.0).sum(axis=1)
    return mask_losses(total / at_least_one(positive.sum(axis=1)), where)


def _logits(
    rows: Array,
    columns: Array,
    names: tuple[str, str],
    where: Array | None,
    ids: Array | None,
    normalize: bool,
) -> tuple[jax.Array, jax.Array]:
    """Similarities [B, B] without masked rows, and which of them are those of negatives."""
    rows, columns = as_float32(rows), as_float32(columns)
    if rows.ndim != 2 or rows.shape != columns.shape:
        raise ValueError(
            f"{names[0]} and {names[1]} must both be [B, D]: {rows.shape} and {columns.shape}"
        )
    size = rows.shape[0]
    check_shape("where", where, (size,))
    check_shape("ids", ids, (size,))
    rows, columns = mask_inputs(rows, where), mask_inputs(columns, where)
    if normalize:
        rows, columns = unit(rows), unit(columns)
    negative = pair_mask(where, size)
    if ids is not None:
        ids = jnp.asarray(ids)
        negative &= ids[:, None] != ids[None, :]
    return rows @ columns.T, negative
