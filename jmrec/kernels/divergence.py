"""KL divergence between two catalogue distributions, one block of items at a time.

Teacher and student each have their own states and item table. No [N, V] array is built when
V > chunk, forward or backward: the forward pass keeps running sums and the backward pass recomputes
each block's two sets of logits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.kernels.blocks import (
    LOWEST,
    Side,
    add_logsumexp,
    block_logits,
    check_side,
    finite_or_zero,
    fold_blocks,
    fold_gradients,
    make_side,
    optional,
    slice_block,
)
from jmrec.kernels.positions import fold_live, items_at_once, walk
from jmrec.types import Array


def chunked_kl(
    teacher_states: Array,
    teacher_items: Array,
    student_states: Array,
    student_items: Array,
    *,
    teacher_bias: Array | None = None,
    student_bias: Array | None = None,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """Return KL(softmax(teacher / T) || softmax(student / T)) over the catalogue, per state.

    Logits are ``states @ items.T + bias``. Compatible with jit, vmap and rows sharded over devices.
    The gradient goes to the student's states, items and bias only; the teacher and the temperature
    get none.

    Args:
      teacher_states: [N, Dt].
      teacher_items: [V, Dt].
      student_states: [N, Ds].
      student_items: [V, Ds].
      teacher_bias: [V], added to the teacher's logits before the division by T.
      student_bias: [V], added to the student's logits before the division by T.
      temperature: T > 0, a number or a traced scalar.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      where: bool [N], False for masked examples (their states may hold anything).
      chunk: Items per block, static; V <= chunk is one plain block. None is what suits the devices.

    Returns:
      float32 [N] in nats, 0 where masked or where no item is valid. Not multiplied by T**2.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015:
      https://arxiv.org/abs/1503.02531

    Example:
      >>> import jax.numpy as jnp
      >>> same = jnp.eye(3)
      >>> [float(x) for x in chunked_kl(same, same, same, same, temperature=2.0, chunk=2).round(4)]
      [0.0, 0.0, 0.0]
    """
    teacher = make_side(teacher_states, teacher_items, teacher_bias)
    student = make_side(student_states, student_items, student_bias)
    valid, where = optional(valid), optional(where)
    check_sides(teacher, student, valid=valid, where=where)
    at = walk(len(student.states), where)
    sides = [teacher, student]
    if at is not None:
        sides, where = [side._replace(states=side.states[at.rows]) for side in sides], at.real
    if where is not None:
        sides = [side._replace(states=jnp.where(where[:, None], side.states, 0)) for side in sides]
    teacher, student = jax.lax.stop_gradient(sides[0]), sides[1]
    scale = jax.lax.stop_gradient(1.0 / jnp.asarray(temperature, jnp.float32))
    live, chunk = None if at is None else at.live, items_at_once(chunk)
    divergence = kl_and_logsumexps(teacher, student, valid, scale, live, chunk)[0]
    divergence = divergence if where is None else jnp.where(where, divergence, 0.0)
    return divergence if at is None else divergence[at.place]


def check_sides(
    teacher: Side, student: Side, *, valid: jax.Array | None, where: jax.Array | None
) -> None:
    """Raise ValueError unless teacher and student fit the masks and have the same rows."""
    for side in (teacher, student):
        check_side(side, valid=valid, where=where)
    for name in ("states", "items"):
        rows = [getattr(side, name).shape[0] for side in (teacher, student)]
        if rows[0] != rows[1]:
            raise ValueError(f"teacher and student {name} differ in rows: {rows[0]} and {rows[1]}")


def kl_and_logsumexps(
    teacher: Side,
    student: Side,
    valid: jax.Array | None,
    scale: jax.Array,
    live: jax.Array | None,
    chunk: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return KL and both sides' logsumexp of the scaled logits, float32 [N] each.

    The gradient goes to the student. Without a valid item KL is 0 and a logsumexp -inf. Positions
    of blocks that are not ``live`` get anything.
    """
    if live is None and student.items.shape[0] <= chunk:
        return _plain(teacher, student, valid, scale)
    return _scanned(teacher, student, valid, scale, live, chunk)


def _plain(
    teacher: Side, student: Side, valid: jax.Array | None, scale: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """From whole [N, V] logits; autodiff keeps them and saves recomputing."""
    logs, lses = [], []
    for side in (teacher, student):
        logits = block_logits(side, valid, 0, side.items.shape[0], scale)
        lses.append(jax.nn.logsumexp(logits, axis=1))
        log_p = logits - lses[-1][:, None]
        # 0 (not -inf) where not valid, so that p * log p stays finite.
        logs.append(log_p if valid is None else jnp.where(valid, log_p, 0.0))
    p = jnp.exp(logs[0]) if valid is None else jnp.where(valid, jnp.exp(logs[0]), 0.0)
    return (p * (logs[0] - logs[1])).sum(axis=1), lses[0], lses[1]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _scanned(
    teacher: Side,
    student: Side,
    valid: jax.Array | None,
    scale: jax.Array,
    live: jax.Array | None,
    chunk: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _scanned_forward(teacher, student, valid, scale, live, chunk)[0]


def _scanned_forward(
    teacher: Side,
    student: Side,
    valid: jax.Array | None,
    scale: jax.Array,
    live: jax.Array | None,
    chunk: int,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Any]:
    """One pass: KL = E_p[teacher logit - student logit] - teacher lse + student lse."""

    def of_positions(carry: None, states: Any) -> tuple[None, Any]:
        sides = teacher._replace(states=states[0]), student._replace(states=states[1])
        return carry, _one_pass(*sides, valid, scale, chunk)

    _, (divergence, t_lse, s_lse, any_valid) = fold_live(
        of_positions, None, live, (teacher.states, student.states)
    )
    residuals = (teacher, student, valid, scale, live, t_lse, s_lse)
    t_out, s_out = jnp.where(any_valid, t_lse, LOWEST), jnp.where(any_valid, s_lse, LOWEST)
    return (divergence, t_out, s_out), residuals


def _one_pass(
    teacher: Side, student: Side, valid: jax.Array | None, scale: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return KL, both logsumexps (finite) and whether any item is valid, [N] each."""

    def step(carry: Any, start: Any, size: int) -> Any:
        t_peak, t_total, weighted, s_peak, s_total = carry
        t = block_logits(teacher, valid, start, size, scale)
        s = block_logits(student, valid, start, size, scale)
        t_peak, t_total, shrink, weights = add_logsumexp(t_peak, t_total, t)
        s_peak, s_total, _, _ = add_logsumexp(s_peak, s_total, s)
        gap = t - s
        if valid is not None:  # -inf minus -inf
            gap = jnp.where(slice_block(valid, start, size), gap, 0.0)
        weighted = weighted * shrink + (weights * gap).sum(axis=1)
        return t_peak, t_total, weighted, s_peak, s_total

    zero = jnp.zeros(student.states.shape[:1], jnp.float32)
    init = (zero + LOWEST, zero, zero, zero + LOWEST, zero)
    t_peak, t_total, weighted, s_peak, s_total = fold_blocks(
        step, init, student.items.shape[0], chunk
    )
    any_valid = t_total > 0
    t_lse = finite_or_zero(t_peak) + jnp.log(jnp.where(any_valid, t_total, 1.0))
    s_lse = finite_or_zero(s_peak) + jnp.log(jnp.where(any_valid, s_total, 1.0))
    mean_gap = weighted / jnp.where(any_valid, t_total, 1.0)
    return mean_gap - t_lse + s_lse, t_lse, s_lse, any_valid


def _scanned_backward(chunk: int, residuals: Any, cotangents: Any) -> Any:
    teacher, student, valid, scale, live, t_lse, s_lse = residuals
    of_kl, _, of_lse = cotangents

    def gradients(part: Side, given: Any) -> Callable[[Any, int], jax.Array]:
        states, t_lse, s_lse, of_kl, of_lse = given
        other = teacher._replace(states=states)

        def of_block(start: Any, size: int) -> jax.Array:
            t = block_logits(other, valid, start, size, scale)
            s = block_logits(part, valid, start, size, scale)
            q, p = jnp.exp(s - s_lse[:, None]), jnp.exp(t - t_lse[:, None])
            return scale * ((of_kl + of_lse)[:, None] * q - of_kl[:, None] * p)

        return of_block

    given = (teacher.states, t_lse, s_lse, of_kl, of_lse)
    d_student = fold_gradients(student, valid, live, chunk, gradients, given)
    return None, d_student, None, None, None


_scanned.defvjp(_scanned_forward, _scanned_backward)
