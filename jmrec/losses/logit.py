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

from jmrec.kernels.catalogue import catalogue_divergence
from jmrec.losses.masks import (
    as_float32,
    check_shape,
    entry_mask,
    flatten_leading,
    log_softmax,
    mask_inputs,
    mask_losses,
    probabilities,
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

    Use: the plain distillation of a distribution, where its logits fit into memory.
    Formula: T**2 sum_v p_v (log p_v - log q_v).

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
    log_p, log_q, squared = _log_softmaxes(
        teacher_logits, student_logits, temperature, valid, where
    )
    return mask_losses(squared * _divergence(log_p, log_q, valid), where)


def reverse_kl(
    teacher_logits: Array,
    student_logits: Array,
    *,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return T**2 KL(softmax(student / T) || softmax(teacher / T)).

    Compatible with jit, vmap and grad (student_logits).

    Use: for a student too small to be like its teacher everywhere: it keeps to what the teacher
      finds likely, where `kl` spreads over all of it.
    Formula: T**2 sum_v q_v (log q_v - log p_v).

    Args:
      teacher_logits: [..., V].
      student_logits: [..., V].
      temperature: T > 0, a number or a traced scalar.
      valid: bool, broadcastable to [..., V], False for entries that are no candidates.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], at least 0, 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Gu, Dong, Wei, Huang, MiniLLM: Knowledge Distillation of Large Language Models, 2023:
      https://arxiv.org/abs/2306.08543

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]])
      >>> round(float(reverse_kl(teacher, student)[0]), 4)
      0.1109
    """
    log_p, log_q, squared = _log_softmaxes(
        teacher_logits, student_logits, temperature, valid, where
    )
    return mask_losses(squared * _divergence(log_q, log_p, valid), where)


def jensen_shannon(
    teacher_logits: Array,
    student_logits: Array,
    *,
    share: Any = 0.5,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return T**2 times the Jensen-Shannon divergence of teacher and student.

    Compatible with jit, vmap and grad (student_logits). At ``share`` 0.5 it is symmetric and,
    before the factor T**2, at most log 2.

    Use: where a teacher is sure of what is wrong: no example can cost more than T**2 log 2. Shares
      near 0 go over to `kl`, near 1 to `reverse_kl`, both scaled by share (1 - share).
    Formula: T**2 (w KL(p || m) + (1 - w) KL(q || m)), m = w p + (1 - w) q.

    Args:
      teacher_logits: [..., V].
      student_logits: [..., V].
      share: w, the teacher's share of the mixture, in (0, 1); a number or a traced scalar.
      temperature: T > 0, a number or a traced scalar.
      valid: bool, broadcastable to [..., V], False for entries that are no candidates.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], at least 0, 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Agarwal et al., On-Policy Distillation of Language Models, 2023 (the generalised form):
      https://arxiv.org/abs/2306.13649

    Example:
      >>> import jax.numpy as jnp
      >>> sure = jnp.array([[50.0, 0.0]])
      >>> round(float(jensen_shannon(sure, -sure)[0]), 4)  # log 2
      0.6931
    """
    log_p, log_q, squared = _log_softmaxes(
        teacher_logits, student_logits, temperature, valid, where
    )
    share = jax.lax.stop_gradient(jnp.asarray(share, jnp.float32))
    log_m = _log_mixture(log_p, log_q, share)
    losses = share * _divergence(log_p, log_m, valid)
    losses += (1.0 - share) * _divergence(log_q, log_m, valid)
    return mask_losses(squared * losses, where)


def skew_kl(
    teacher_logits: Array,
    student_logits: Array,
    *,
    skew: Any = 0.1,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return T**2 KL(p || skew p + (1 - skew) q), the KL from a student mixed with its teacher.

    Compatible with jit, vmap and grad (student_logits).

    Use: where `kl` is dominated by items to which the student gives next to nothing: no example
      costs more than T**2 log(1 / skew), and gradients stay bounded.
    Formula: T**2 sum_v p_v (log p_v - log(a p_v + (1 - a) q_v)).

    Args:
      teacher_logits: [..., V], of p.
      student_logits: [..., V], of q.
      skew: a in [0, 1), a number or a traced scalar; 0 is `kl`.
      temperature: T > 0, a number or a traced scalar.
      valid: bool, broadcastable to [..., V], False for entries that are no candidates.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], at least 0, 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Ko, Kim, Chen, Yun, DistiLLM: Towards Streamlined Distillation for Large Language Models,
      2024: https://arxiv.org/abs/2402.03898

    Example:
      >>> import jax.numpy as jnp
      >>> sure = jnp.array([[50.0, 0.0]])
      >>> round(float(skew_kl(sure, -sure, skew=0.1)[0]), 4)  # log 10, where kl is 100
      2.3026
    """
    log_p, log_q, squared = _log_softmaxes(
        teacher_logits, student_logits, temperature, valid, where
    )
    skew = jax.lax.stop_gradient(jnp.asarray(skew, jnp.float32))
    return mask_losses(squared * _divergence(log_p, _log_mixture(log_p, log_q, skew), valid), where)


def decoupled_kd(
    teacher_logits: Array,
    student_logits: Array,
    targets: Array,
    *,
    target_weight: Any = 1.0,
    others_weight: Any = 8.0,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return decoupled distillation: the target's share, and the ranking of the others, apart.

    Compatible with jit, vmap and grad (student_logits). `kl` is the case in which the weights are 1
    and the teacher's probability of everything but the target.

    Use: where a confident teacher leaves nothing to its ranking of the other items: their weight no
      longer falls with its confidence.
    Formula: T**2 (a KL(target or not) + b KL(others, given that it is none of the target)).

    Args:
      teacher_logits: [..., V].
      student_logits: [..., V].
      targets: int [...], the true item; ignored where masked.
      target_weight: a, a number or a traced scalar.
      others_weight: b, a number or a traced scalar.
      temperature: T > 0, a number or a traced scalar.
      valid: bool, broadcastable to [..., V], False for entries that are no candidates; the target
        is one.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], at least 0, 0 where masked or where nothing but the target is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Zhao, Cui, Song, Qiu, Liang, Decoupled Knowledge Distillation, 2022:
      https://arxiv.org/abs/2203.08679

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.array([[5.0, 1.0, 0.0]]), jnp.array([[5.0, 0.0, 1.0]])
      >>> round(float(decoupled_kd(teacher, student, jnp.array([0]), others_weight=1.0)[0]), 4)
      0.4621
    """
    teacher, student = as_float32(teacher_logits), as_float32(student_logits)
    check_shape("student_logits", student, teacher.shape)
    check_shape("targets", targets, teacher.shape[:-1])
    check_shape("where", where, teacher.shape[:-1])
    targets = mask_inputs(jnp.asarray(targets), where)[..., None]
    others = entry_mask("valid", valid, teacher.shape) & (jnp.arange(teacher.shape[-1]) != targets)
    some = others.any(axis=-1)
    temperature = jnp.asarray(temperature, jnp.float32)

    def two_classes(logits: jax.Array) -> jax.Array:
        """[..., 2] of the target's logit and that of all the others together, times T."""
        logits = mask_inputs(logits, where)
        rest = jnp.where(others, logits / temperature, -jnp.inf)
        rest = temperature * jax.nn.logsumexp(jnp.where(some[..., None], rest, 0.0), axis=-1)
        return jnp.stack([jnp.take_along_axis(logits, targets, axis=-1)[..., 0], rest], axis=-1)

    settings: dict[str, Any] = {"temperature": temperature, "where": where}
    target_part = kl(two_classes(teacher), two_classes(student), **settings)
    other_part = kl(teacher, student, valid=others, **settings)
    return jnp.where(some, target_weight * target_part + others_weight * other_part, 0.0)


def importance_weighted(
    losses: Array, teacher_losses: Array, student_losses: Array, *, where: Array | None = None
) -> jax.Array:
    """Return distillation losses weighted by how much the teacher knows better than the student.

    Compatible with jit, vmap and grad (losses): the weights are numbers between 0 and 1 without a
    gradient. A teacher that is wrong on an example counts less there, and so does one that has
    nothing left to teach.

    Use: with a teacher that is weak in places (a rule, a model of another domain), around any
      distillation loss of this module.
    Formula: loss * (1 - exp(-student loss / teacher loss)).

    Args:
      losses: [...], the distillation loss of each example.
      teacher_losses: [...], the teacher's cross-entropy against the truth, at least 0.
      student_losses: [...], the student's, at least 0.
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Zhou et al., Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff
      Perspective, 2021: https://arxiv.org/abs/2102.00650

    Example:
      >>> import jax.numpy as jnp
      >>> weighted = importance_weighted(jnp.ones(2), jnp.array([0.1, 9.0]), jnp.array([1.0, 1.0]))
      >>> [round(float(x), 2) for x in weighted]  # a teacher that is right, one that is wrong
      [1.0, 0.11]
    """
    losses = mask_inputs(as_float32(losses), where)
    shape = losses.shape
    check_shape("teacher_losses", teacher_losses, shape)
    check_shape("student_losses", student_losses, shape)
    check_shape("where", where, shape)
    theirs = jnp.maximum(mask_inputs(as_float32(teacher_losses), where), 1e-6)
    ours = jnp.maximum(mask_inputs(as_float32(student_losses), where), 0.0)
    weights = jax.lax.stop_gradient(-jnp.expm1(-ours / theirs))
    return mask_losses(weights * losses, where)


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
    chunk: int | None = None,
) -> jax.Array:
    """Return T**2 KL(softmax(teacher / T) || softmax(student / T)) over two item tables.

    Compatible with jit, vmap and grad (student_states, student_items, student_bias). The [..., V]
    logits ``states @ items.T + bias`` are not built when V > chunk.

    Use: a live teacher and a large catalogue. With a cached teacher: `catalogue_topk`.
    Formula: T**2 sum_v p_v (log p_v - log q_v).

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
      chunk: Items per block, static; None is what suits the devices.

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
    losses = catalogue_divergence(
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


def _log_softmaxes(
    teacher: Array, student: Array, temperature: Any, valid: Array | None, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(log p, log q, T**2), the teacher and the temperature without a gradient."""
    teacher, student = as_float32(teacher), as_float32(student)
    check_shape("student_logits", student, teacher.shape)
    check_shape("where", where, teacher.shape[:-1])
    temperature = jax.lax.stop_gradient(jnp.asarray(temperature, jnp.float32))
    teacher = jax.lax.stop_gradient(mask_inputs(teacher, where))
    log_p = log_softmax(teacher / temperature, valid)
    log_q = log_softmax(mask_inputs(student, where) / temperature, valid)
    return log_p, log_q, temperature**2


def _divergence(log_p: jax.Array, log_q: jax.Array, valid: Array | None) -> jax.Array:
    return (probabilities(log_p, valid) * (log_p - log_q)).sum(axis=-1)


def _log_mixture(log_p: jax.Array, log_q: jax.Array, share: jax.Array) -> jax.Array:
    return jnp.logaddexp(log_p + jnp.log(share), log_q + jnp.log1p(-share))
