"""Distillation from a teacher's top-k: k items by name and one tail bucket for all the others.

A cached teacher keeps its k best logits and the *tail*, the logit of everything else together:
T logsumexp(z / T) over the other items, at the temperature T it is used with (`tail_logit` gets it
from the logsumexp over all items). So the k probabilities are exact, where a softmax over the k
alone would blow them up, and a student that gives mass to the rest pays for it.

Merging items into a bucket can only lower a divergence: these are at most those of `logit`, and
equal to them when k is the whole catalogue. The T**2 convention is that of `logit`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.kernels.catalogue import catalogue_logsumexp
from jmrec.kernels.spread import pick, row_logits
from jmrec.losses.logit import kl
from jmrec.losses.masks import (
    as_float32,
    check_shape,
    entry_mask,
    flatten_leading,
    mask_inputs,
    mask_losses,
)
from jmrec.types import Array

NO_TAIL = -1e30
"""A tail without items, as a finite number: 0 * -inf has no gradient."""
SMALLEST = 1e-7
"""What float32 can tell of a mass that is a difference of two logsumexps."""


def tail_logit(
    logits: Array, logsumexp: Array, *, temperature: Any = 1.0, valid: Array | None = None
) -> jax.Array:
    """Return the logit of all items but k, from those k and the logsumexp over all.

    Compatible with jit, vmap and grad (logits, logsumexp). A difference of two float32 numbers: the
    tail's mass is right to about 1e-7 of the whole, and never taken for less than that.

    Args:
      logits: [..., K].
      logsumexp: [...], of logits / T over all items, the K among them.
      temperature: T > 0, a number or a traced scalar.
      valid: bool, broadcastable to [..., K], False for entries that are no item.

    Returns:
      float32 [...]: T logsumexp(z / T) over the other items.

    Raises:
      ValueError: If the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([3.0, 1.0, 0.0, 0.0])
      >>> tail = tail_logit(z[:2], jnp.log(jnp.exp(z).sum()))
      >>> round(float(tail), 4)  # log 2
      0.6931
    """
    logits, logsumexp = as_float32(logits), as_float32(logsumexp)
    check_shape("logsumexp", logsumexp, logits.shape[:-1])
    valid = entry_mask("valid", valid, logits.shape)
    scaled = jnp.where(valid, logits / temperature, NO_TAIL)
    gap = jnp.minimum(jax.nn.logsumexp(scaled, axis=-1) - logsumexp, 0.0)
    return temperature * (logsumexp + jnp.log(jnp.maximum(-jnp.expm1(gap), SMALLEST)))


def topk_kl(
    teacher_logits: Array,
    teacher_tail: Array,
    student_logits: Array,
    student_tail: Array,
    *,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
    divergence: Callable[..., jax.Array] = kl,
) -> jax.Array:
    """Return T**2 KL(teacher || student) over k items and the bucket of all the others.

    Compatible with jit, vmap and grad (student_logits, student_tail).

    Use: for a teacher of which only the top k is kept, with logits of both at hand.
    Formula: T**2 (sum_k p_k log(p_k / q_k) + p_tail log(p_tail / q_tail)).

    Args:
      teacher_logits: [..., K].
      teacher_tail: [...], the logit of its other items together, see `tail_logit`; -inf where there
        are none.
      student_logits: [..., K], of the same items.
      student_tail: [...], likewise.
      temperature: T > 0, a number or a traced scalar; the one of the tails.
      valid: bool, broadcastable to [..., K], False for entries that are no item.
      where: bool [...], False for masked positions.
      divergence: `kl`, or another of `logit` with the same arguments (`reverse_kl`,
        `jensen_shannon`, `skew_kl`), static.

    Returns:
      float32 [...], at least 0, 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Anshumann et al., Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs, 2025
      (why a top k without the rest misleads): https://arxiv.org/abs/2503.16870

    Example:
      >>> import jax.numpy as jnp
      >>> top, tail = jnp.array([[2.0, 1.0]]), jnp.array([0.0])
      >>> float(topk_kl(top, tail, top, tail)[0])
      0.0
      >>> float(topk_kl(top, tail, top, tail + 1.0)[0]) > 0  # more mass on the rest
      True
    """
    shape = jnp.shape(teacher_logits)
    check_shape("student_logits", student_logits, shape)
    check_shape("teacher_tail", teacher_tail, shape[:-1])
    check_shape("student_tail", student_tail, shape[:-1])
    teacher = _buckets(teacher_logits, teacher_tail)
    student = _buckets(student_logits, student_tail)
    if valid is not None:
        valid = entry_mask("valid", valid, shape)
        valid = jnp.concatenate([valid, jnp.ones((*shape[:-1], 1), bool)], axis=-1)
    return divergence(teacher, student, temperature=temperature, valid=valid, where=where)


def catalogue_topk(
    teacher_logits: Array,
    teacher_tail: Array,
    rows: Array,
    student_states: Array,
    student_items: Array,
    *,
    temperature: Any = 1.0,
    student_bias: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
    divergence: Callable[..., jax.Array] = kl,
    chunk: int | None = None,
) -> jax.Array:
    """Return `topk_kl` of a cached teacher and a student that scores a whole item table.

    Compatible with jit, vmap and grad (student_states, student_items, student_bias). The student's
    [..., V] logits are not built when V > chunk.

    Use: for any ranker as the teacher, its top k written down once.
    Formula: T**2 D(p || q) over k items and the tail, D = divergence.

    Args:
      teacher_logits: [..., K].
      teacher_tail: [...], the logit of its other items together, see `tail_logit`.
      rows: int [..., K], rows of ``student_items``; negative (or not a valid row) for entries that
        are no item.
      student_states: [..., D].
      student_items: [V, D].
      temperature: T > 0, a number or a traced scalar; the one of ``teacher_tail``.
      student_bias: [V], added to the student's logits before the division by T.
      valid: bool [V], False for rows that are no candidates of either.
      where: bool [...], False for masked positions.
      divergence: `kl`, or another of `logit` with the same arguments, static.
      chunk: Items per block, static; None is what suits the devices.

    Returns:
      float32 [...], at least 0, 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Tang, Wang, Ranking Distillation: Learning Compact Ranking Models With High Performance for
      Recommender System, 2018 (a student of a teacher's top k): https://arxiv.org/abs/1809.07428

    Example:
      >>> import jax.numpy as jnp
      >>> states, items = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = catalogue_topk(jnp.array([[2.0]]), jnp.array([1.3133]), jnp.array([[0]]), states,
      ...                       items)
      >>> round(float(loss[0]), 4)  # its own top 1 teaches it nothing
      0.0
    """
    states, items, rows = jnp.asarray(student_states), jnp.asarray(student_items), jnp.asarray(rows)
    leading = states.shape[:-1]
    check_shape("rows", rows, (*leading, *rows.shape[-1:]))
    check_shape("teacher_logits", teacher_logits, rows.shape)
    check_shape("where", where, leading)
    states, rows = mask_inputs(states, where), mask_inputs(rows, where)
    known = (rows >= 0) & (rows < items.shape[0])
    rows = jnp.where(known, rows, 0)
    if valid is not None:
        known &= pick(jnp.asarray(valid), rows)
        items = mask_inputs(items, valid)
    temperature = jax.lax.stop_gradient(jnp.asarray(temperature, jnp.float32))
    logits, tail = _logits_and_tail(
        states, items, rows, known, student_bias, temperature, valid, chunk
    )
    losses = topk_kl(
        jnp.where(known, teacher_logits, 0.0),
        teacher_tail,
        logits,
        tail,
        temperature=temperature,
        valid=known,
        where=where,
        divergence=divergence,
    )
    return mask_losses(losses, where)


def _logits_and_tail(
    states: jax.Array,
    items: jax.Array,
    rows: jax.Array,
    known: jax.Array,
    bias: Array | None,
    temperature: jax.Array,
    valid: Array | None,
    chunk: int | None,
) -> tuple[jax.Array, jax.Array]:
    """Return a student's logits of the ``known`` of some rows [..., K], and its tail [...]."""
    # The same rounding in both, or a tail of small mass would be noise.
    scaled = (as_float32(states) / temperature).astype(states.dtype)
    logits = temperature * row_logits(scaled, items, rows)
    if bias is not None:
        bias = as_float32(bias)
        logits = logits + jnp.where(known, pick(bias, rows), 0.0)
    lse = catalogue_logsumexp(
        flatten_leading(scaled, states.shape[:-1]),
        items,
        bias=None if bias is None else bias / temperature,
        valid=valid,
        chunk=chunk,
    ).reshape(states.shape[:-1])
    # Without a candidate: a finite number, whose loss is not used.
    lse = jnp.where(jnp.isfinite(lse), lse, 0.0)
    return logits, tail_logit(logits, lse, temperature=temperature, valid=known)


def _buckets(logits: Array, tail: Array) -> jax.Array:
    """float32 [..., K + 1], the tail last and finite."""
    tail = jnp.maximum(as_float32(tail), NO_TAIL)
    return jnp.concatenate([as_float32(logits), tail[..., None]], axis=-1)
