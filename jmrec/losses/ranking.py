"""Ranking losses: the order of a list of items, not their probabilities.

A list is [..., L] scores; ``valid`` is False for its padding. Labels and the teacher's order get no
gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.losses.masks import (
    as_float32,
    check_shape,
    entry_mask,
    log_softmax,
    mask_inputs,
    mask_losses,
    probabilities,
)
from jmrec.types import Array

LOWEST = -1e30
"""Stands for -inf where a gradient has to pass."""


def listnet(
    scores: Array, labels: Array, *, valid: Array | None = None, where: Array | None = None
) -> jax.Array:
    """Return the cross-entropy of the scores' top-one probabilities against the labels'.

    Compatible with jit, vmap and grad (scores).

    Use: with graded labels or a teacher's scores, where how much better counts and not only what is
      better. It is `kl` at T = 1 plus the labels' entropy.
    Formula: -sum_i softmax(labels)_i log softmax(scores)_i.

    Args:
      scores: [..., L].
      labels: [..., L], real numbers, higher is better.
      valid: bool, broadcastable to [..., L], False for padding of the list.
      where: bool [...], False for masked lists.

    Returns:
      float32 [...], 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach, 2007:
      https://doi.org/10.1145/1273496.1273513

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(listnet(jnp.zeros((1, 4)), jnp.array([[3.0, 1.0, 0.0, 0.0]]))[0]), 4)  # log 4
      1.3863
    """
    scores, labels = _lists(scores, labels, where)
    log_p = log_softmax(jax.lax.stop_gradient(labels), valid)
    return mask_losses(
        -(probabilities(log_p, valid) * log_softmax(scores, valid)).sum(axis=-1), where
    )


def list_mle(
    scores: Array, labels: Array, *, valid: Array | None = None, where: Array | None = None
) -> jax.Array:
    """Return -log of the Plackett-Luce probability that the scores give to the labels' order.

    Compatible with jit, vmap and grad (scores).

    Use: where the whole order is known and only the order counts; equal labels are taken in the
      order in which they are given. For the head of an order: `plackett_luce`.
    Formula: -sum_i (s_i - log sum_{j not before i} exp s_j), in the labels' order.

    Args:
      scores: [..., L].
      labels: [..., L], higher is better.
      valid: bool, broadcastable to [..., L], False for padding of the list.
      where: bool [...], False for masked lists.

    Returns:
      float32 [...], a sum over the list, 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Xia et al., Listwise Approach to Learning to Rank: Theory and Algorithm, 2008:
      https://doi.org/10.1145/1390156.1390306

    Example:
      >>> import jax.numpy as jnp
      >>> loss = list_mle(jnp.zeros((1, 3)), jnp.array([[1.0, 3.0, 2.0]]))
      >>> round(float(loss[0]), 4)  # one order of 3!
      1.7918
    """
    scores, labels = _lists(scores, labels, where)
    mask = entry_mask("valid", valid, scores.shape)
    labels = jax.lax.stop_gradient(jnp.where(mask, labels, -jnp.inf))
    order = jnp.argsort(-labels, axis=-1, stable=True)
    scores, mask = (jnp.take_along_axis(each, order, axis=-1) for each in (scores, mask))
    return plackett_luce(scores, valid=mask, where=where)


def plackett_luce(
    scores: Array,
    *,
    rest: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return -log of the Plackett-Luce probability of a list as it stands, best item first.

    Compatible with jit, vmap and grad (scores, rest).

    Use: for a teacher's top k in its order: the student's scores of those items, and of all others
      the logsumexp as ``rest`` (`jmrec.kernels.chunked_logsumexp` and `tail_logit` give it).
    Formula: -sum_i (s_i - log(exp(rest) + sum_{j >= i} exp s_j)).

    Args:
      scores: [..., K], in the order to be learned.
      rest: [...], logsumexp of the scores of the items that come after the K; None for none.
      valid: bool, broadcastable to [..., K], False for padding of the list.
      where: bool [...], False for masked lists.

    Returns:
      float32 [...], a sum over the list, 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Plackett, The Analysis of Permutations, 1975: https://doi.org/10.2307/2346567

    Example:
      >>> import jax.numpy as jnp
      >>> rest = jnp.array([jnp.log(2.0)])  # two more items with score 0
      >>> round(float(plackett_luce(jnp.zeros((1, 2)), rest=rest)[0]), 4)  # log(4 * 3)
      2.4849
    """
    scores = as_float32(scores)
    check_shape("where", where, scores.shape[:-1])
    check_shape("rest", rest, scores.shape[:-1])
    mask = entry_mask("valid", valid, scores.shape)
    scores = mask_inputs(scores, where)
    left = jnp.where(mask, scores, LOWEST)
    if rest is not None:
        rest = jnp.maximum(mask_inputs(as_float32(rest), where), LOWEST)
        left = jnp.concatenate([left, rest[..., None]], axis=-1)
    lse = jax.lax.cumlogsumexp(left, axis=left.ndim - 1, reverse=True)[..., : scores.shape[-1]]
    return mask_losses(jnp.where(mask, lse - scores, 0.0).sum(axis=-1), where)


def rank_distil(
    scores: Array,
    others: Array,
    *,
    push: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return a loss that keeps a teacher's top k in order and the items it ranks low below them.

    Compatible with jit, vmap and grad (scores, others). In the style of RankDistil; the terms are
    jmrec's: a Plackett-Luce term for the order and a logistic one for every pair across.

    Use: to distil the head of a ranking into a student too small for the whole of it, with a sample
      of the teacher's other items.
    Formula: plackett_luce(scores) / K + push * mean_{i, m} log(1 + exp(other_m - s_i)).

    Args:
      scores: [..., K], the student's scores of the teacher's top k, best first.
      others: [..., M], its scores of items that the teacher ranks below.
      push: Weight of the second term, a number or a traced scalar.
      valid: bool, broadcastable to [..., K], False for padding of the top k.
      where: bool [...], False for masked lists.

    Returns:
      float32 [...], 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Reddi et al., RankDistil: Knowledge Distillation for Ranking, 2021:
      https://proceedings.mlr.press/v130/reddi21a.html

    Example:
      >>> import jax.numpy as jnp
      >>> good = rank_distil(jnp.array([[9.0, 5.0]]), jnp.array([[0.0, -1.0]]))
      >>> bad = rank_distil(jnp.array([[5.0, 9.0]]), jnp.array([[0.0, 8.0]]))
      >>> round(float(good[0]), 2), round(float(bad[0]), 2)
      (0.01, 2.85)
    """
    scores, others = as_float32(scores), as_float32(others)
    check_shape("others", others[..., 0], scores.shape[:-1])
    check_shape("where", where, scores.shape[:-1])
    mask = entry_mask("valid", valid, scores.shape)
    scores, others = jnp.where(mask, mask_inputs(scores, where), 0.0), mask_inputs(others, where)
    count = jnp.maximum(mask.sum(axis=-1), 1)
    across = jax.nn.softplus(others[..., None, :] - scores[..., :, None]).mean(axis=-1)
    order = plackett_luce(scores, valid=mask)
    pushed = jnp.where(mask, across, 0.0).sum(axis=-1)
    return mask_losses((order + push * pushed) / count, where)


def pairwise_margin(
    scores: Array,
    labels: Array,
    *,
    margin: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return the mean hinge over all pairs of a list of which one has the higher label.

    Compatible with jit, vmap and grad (scores). Needs a [..., L, L] array.

    Use: where it is enough that the better item ranks above the worse one, by a margin.
    Formula: mean over labels_i > labels_j of max(0, margin - (s_i - s_j)).

    Args:
      scores: [..., L].
      labels: [..., L], higher is better.
      margin: A number or a traced scalar.
      valid: bool, broadcastable to [..., L], False for padding of the list.
      where: bool [...], False for masked lists.

    Returns:
      float32 [...], 0 where masked or where no two labels differ.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Joachims, Optimizing Search Engines using Clickthrough Data, 2002:
      https://doi.org/10.1145/775047.775067

    Example:
      >>> import jax.numpy as jnp
      >>> float(pairwise_margin(jnp.array([[0.5, 0.0]]), jnp.array([[1.0, 0.0]]))[0])
      0.5
    """
    scores, labels = _lists(scores, labels, where)
    mask = entry_mask("valid", valid, scores.shape)
    scores = jnp.where(mask, scores, 0.0)
    pairs = (labels[..., :, None] > labels[..., None, :]) & mask[..., :, None] & mask[..., None, :]
    hinge = jnp.maximum(margin - (scores[..., :, None] - scores[..., None, :]), 0.0)
    total = jnp.where(pairs, hinge, 0.0).sum(axis=(-2, -1))
    return mask_losses(total / jnp.maximum(pairs.sum(axis=(-2, -1)), 1), where)


def _lists(scores: Array, labels: Array, where: Array | None) -> tuple[jax.Array, jax.Array]:
    scores, labels = as_float32(scores), as_float32(labels)
    check_shape("labels", labels, scores.shape)
    check_shape("where", where, scores.shape[:-1])
    return mask_inputs(scores, where), mask_inputs(labels, where)
