"""Attention distillation: where the teacher looks, the student should look.

The teacher's side gets no gradient. For attention logits that both models give, with the same
heads, `kl` with ``valid`` is all that it takes; these are for models that differ in width or heads.
"""

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
from jmrec.losses.vectors import unit
from jmrec.types import Array


def attention_transfer(
    teacher: Array, student: Array, *, valid: Array | None = None, where: Array | None = None
) -> jax.Array:
    """Return the squared distance of the two maps of where activations are large.

    Compatible with jit, vmap and grad (student). A map is the mean square over the channels of each
    position, brought to length 1 over the positions.

    Use: for activations with positions (patches, tokens, clicks) of any number of channels.
    Formula: ||m_t / |m_t| - m_s / |m_s|||**2, m(p) = mean_c a(p, c)**2.

    Args:
      teacher: [..., P, Ct].
      student: [..., P, Cs].
      valid: bool, broadcastable to [..., P], False for padded positions.
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], between 0 and 2, 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Zagoruyko, Komodakis, Paying More Attention to Attention, 2016:
      https://arxiv.org/abs/1612.03928

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.array([[[1.0, 1.0], [0.0, 0.0]]])
      >>> float(attention_transfer(teacher, jnp.array([[[-3.0], [0.0]]]))[0])
      0.0
      >>> float(attention_transfer(teacher, jnp.array([[[0.0], [1.0]]]))[0])
      2.0
    """
    teacher, student, mask = _two(teacher, student, valid, where)

    def attention(x: jax.Array) -> jax.Array:
        return unit(jnp.square(x).mean(axis=-1))

    gap = attention(mask_inputs(teacher, mask)) - attention(mask_inputs(student, mask))
    return mask_losses(jnp.square(gap).sum(axis=-1), where)


def minilm_relations(
    teacher: Array,
    student: Array,
    *,
    heads: int,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return the KL of how positions relate, by scaled dot products of their queries (or values).

    Compatible with jit, vmap and grad (student). Both sides are split into the same number of
    relation heads, whatever their own heads and widths are.

    Use: on the values and on the queries (or keys) of one layer of each: what a transformer student
      needs of its teacher's attention.
    Formula: mean over heads h and positions p of KL(softmax(t_h t_h^T / sqrt(Dt / H))_p ||
      softmax(s_h s_h^T / sqrt(Ds / H))_p).

    Args:
      teacher: [..., P, Dt], queries, keys or values of a layer, heads side by side.
      student: [..., P, Ds], likewise.
      heads: H, relation heads; divides Dt and Ds, static.
      valid: bool, broadcastable to [..., P], False for padded positions.
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], 0 where masked or where nothing is valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Wang et al., MiniLM: Deep Self-Attention Distillation, 2020: https://arxiv.org/abs/2002.10957
      Wang et al., MiniLMv2: Multi-Head Self-Attention Relation Distillation, 2020:
      https://arxiv.org/abs/2012.15828

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.arange(12.0).reshape(3, 4) / 6
      >>> float(minilm_relations(teacher, teacher, heads=2))
      0.0
    """
    teacher, student, mask = _two(teacher, student, valid, where)
    for name, side in (("teacher", teacher), ("student", student)):
        if heads < 1 or side.shape[-1] % heads:
            raise ValueError(f"heads {heads} does not divide the {name}'s width {side.shape[-1]}")

    def relations(x: jax.Array) -> jax.Array:
        x = mask_inputs(x, mask).reshape(*x.shape[:-1], heads, -1)
        products = jnp.einsum("...phd,...qhd->...hpq", x, x)
        return log_softmax(products * x.shape[-1] ** -0.5, keys)

    keys = mask[..., None, None, :]
    log_p, log_q = relations(teacher), relations(student)
    each = (probabilities(log_p, keys) * (log_p - log_q)).sum(axis=-1).mean(axis=-2)  # [..., P]
    total = jnp.where(mask, each, 0.0).sum(axis=-1)
    return mask_losses(total / jnp.maximum(mask.sum(axis=-1), 1), where)


def _two(
    teacher: Array, student: Array, valid: Array | None, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    teacher, student = as_float32(teacher), as_float32(student)
    if teacher.ndim < 2 or teacher.shape[:-1] != student.shape[:-1]:
        raise ValueError(
            f"teacher [..., P, Dt] and student [..., P, Ds] do not fit: {teacher.shape} and "
            f"{student.shape}"
        )
    check_shape("where", where, teacher.shape[:-2])
    mask = entry_mask("valid", valid, teacher.shape[:-1])
    teacher = jax.lax.stop_gradient(mask_inputs(teacher, where))
    return teacher, mask_inputs(student, where), mask
