"""Distillation of logits: the student's catalogue distribution follows the teacher's.

The T**2 convention, the same for every loss of this module: teacher and student logits are both
divided by the temperature T, and the divergence is multiplied by T**2. The gradient with respect
to the student's logits then keeps its size as T grows (Hinton et al., 2015), so a loss weight means
the same at every temperature. `jmrec.kernels.chunked_kl` is the bare divergence, without T**2.

The teacher's side and the temperature get no gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.kernels.divergence import chunked_kl
from jmrec.losses.masks import (
    as_float32,
    check_shape,
    flatten_leading,
    mask_inputs,
    mask_losses,
)
from jmrec.types import Array


def kl(
    teacher_logits: Array,
    student_logits: Array,
    *,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return T**2 KL(softmax(teacher / T) || softmax(student / T)) of logits in memory.

    Compatible with jit, vmap and grad (student_logits).

    Args:
      teacher_logits: [..., V].
      student_logits: [..., V].
      temperature: T > 0, a number or a traced scalar.
      valid: bool, broadcastable to [..., V], False for entries that are no candidates.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015:
      https://arxiv.org/abs/1503.02531

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]])
      >>> round(float(kl(teacher, student)[0]), 4)
      0.1201
    """
    teacher, student = as_float32(teacher_logits), as_float32(student_logits)
    check_shape("student_logits", student, teacher.shape)
    check_shape("where", where, teacher.shape[:-1])
    temperature = jax.lax.stop_gradient(jnp.asarray(temperature, jnp.float32))
    teacher = jax.lax.stop_gradient(mask_inputs(teacher, where))
    log_p = _log_softmax(teacher / temperature, valid)
    log_q = _log_softmax(mask_inputs(student, where) / temperature, valid)
    p = jnp.exp(log_p) if valid is None else jnp.where(valid, jnp.exp(log_p), 0.0)
    return mask_losses(temperature**2 * (p * (log_p - log_q)).sum(axis=-1), where)


def catalogue_kl(
    teacher_states: Array,
    teacher_items: Array,
    student_states: Array,
    student_items: Array,
    *,
    temperature: Any = 1.0,
    teacher_bias: Array | None = None,
    student_bias: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
    chunk: int = 4096,
) -> jax.Array:
    """Return T**2 KL(softmax(teacher / T) || softmax(student / T)) over two item tables.

    Compatible with jit, vmap and grad (student_states, student_items, student_bias). The [..., V]
    logits ``states @ items.T + bias`` are not built when V > chunk.

    Args:
      teacher_states: [..., Dt].
      teacher_items: [V, Dt].
      student_states: [..., Ds].
      student_items: [V, Ds].
      temperature: T > 0, a number or a traced scalar.
      teacher_bias: [V], added to the teacher's logits before the division by T.
      student_bias: [V], added to the student's logits before the division by T.
      valid: bool [V], False for rows that are no candidates.
      where: bool [...], False for masked positions.
      chunk: Items per block, static.

    Returns:
      float32 [...], 0 where masked or where no item is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015:
      https://arxiv.org/abs/1503.02531

    Example:
      >>> import jax.numpy as jnp
      >>> states, items = jnp.ones((2, 3, 4)), jnp.eye(4)
      >>> catalogue_kl(states, items, states, items, temperature=2.0).shape
      (2, 3)
    """
    leading = jnp.shape(student_states)[:-1]
    if jnp.shape(teacher_states)[:-1] != leading:
        raise ValueError(
            f"teacher_states and student_states differ in leading dimensions: "
            f"{jnp.shape(teacher_states)[:-1]} and {leading}"
        )
    check_shape("where", where, leading)
    losses = chunked_kl(
        flatten_leading(teacher_states, leading),
        teacher_items,
        flatten_leading(student_states, leading),
        student_items,
        teacher_bias=teacher_bias,
        student_bias=student_bias,
        temperature=temperature,
        valid=valid,
        where=None if where is None else flatten_leading(where, leading),
        chunk=chunk,
    )
    squared = jax.lax.stop_gradient(jnp.square(jnp.asarray(temperature, jnp.float32)))
    return squared * losses.reshape(leading)


def _log_softmax(logits: jax.Array, valid: Array | None) -> jax.Array:
    """Log-probabilities, with 0 (not -inf) where not valid so that p * log p stays finite."""
    if valid is None:
        return jax.nn.log_softmax(logits, axis=-1)
    logits = jnp.where(valid, logits, -jnp.inf)
    log_p = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return jnp.where(valid, log_p, 0.0)
