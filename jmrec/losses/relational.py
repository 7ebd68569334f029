"""Relational distillation: the distances and angles between examples, not their places.

Teacher and student may have different widths. All couple the examples of a batch: no accumulation.
The teacher's side gets no gradient. Each returns per-example values whose mean over the unmasked
examples is the loss.
"""

import jax
import jax.numpy as jnp
import optax

from jmrec.losses.masks import (
    as_float32,
    at_least_one,
    check_shape,
    full_mask,
    mask_inputs,
    mask_losses,
    pair_mask,
)
from jmrec.losses.vectors import centre, squared_distances, unit
from jmrec.types import Array


def distance_relations(teacher: Array, student: Array, *, where: Array | None = None) -> jax.Array:
    """Return how the distances among examples differ between teacher and student.

    Compatible with jit, vmap and grad (student). Distances are divided by their mean over the
    batch, so scale does not matter; differences cost by Huber's rule. Needs [B, B] arrays.

    Use: to keep neighbourhoods where the student's space has another width.
    Formula: mean_{j != i} huber(d_t(i, j) / mean d_t, d_s(i, j) / mean d_s).

    Args:
      teacher: [B, Dt].
      student: [B, Ds].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked, and 0 for an example without others.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Park, Kim, Lu, Cho, Relational Knowledge Distillation, 2019: https://arxiv.org/abs/1904.05068

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.array([[0.0], [1.0], [3.0]])
      >>> float(distance_relations(teacher, 5.0 - 2.0 * teacher).mean())
      0.0
    """
    teacher, student = _two(teacher, student, where)
    pairs = pair_mask(where, teacher.shape[0])

    def distances(x: jax.Array) -> jax.Array:
        squares = squared_distances(x, where)
        apart = pairs & (squares > 1e-12)  # the root has no gradient at 0
        lengths = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
        mean = lengths.sum() / at_least_one(pairs.sum())
        return lengths / jnp.where(mean > 0, mean, 1.0)

    costs = jnp.where(pairs, optax.losses.huber_loss(distances(student), distances(teacher)), 0.0)
    return mask_losses(costs.sum(axis=1) / at_least_one(pairs.sum(axis=1)), where)


def angle_relations(teacher: Array, student: Array, *, where: Array | None = None) -> jax.Array:
    """Return how the angles of triples of examples differ between teacher and student.

    Compatible with jit, vmap and grad (student). Example j costs the mean over pairs of others of
    Huber's rule on the cosine of the angle at j. Needs [B, B, B] and [B, B, D] arrays: small
    batches.

    Use: beside `distance_relations`, where directions matter more than distances.
    Formula: mean_{i, k} huber(cos_t(i, j, k), cos_s(i, j, k)).

    Args:
      teacher: [B, Dt].
      student: [B, Ds].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked, and 0 for an example with fewer than two others.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Park, Kim, Lu, Cho, Relational Knowledge Distillation, 2019: https://arxiv.org/abs/1904.05068

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
      >>> turned = teacher @ jnp.array([[0.0, 1.0], [-1.0, 0.0]])
      >>> round(float(angle_relations(teacher, turned).mean()), 4)
      0.0
    """
    teacher, student = _two(teacher, student, where)
    pairs = pair_mask(where, teacher.shape[0])
    # [j, i, k]: three different examples
    triples = pairs[:, :, None] & pairs[:, None, :] & pairs[None, :, :]

    def cosines(x: jax.Array) -> jax.Array:
        arms = unit(x[None, :, :] - x[:, None, :])  # [j, i, D]
        return arms @ arms.transpose(0, 2, 1)

    costs = jnp.where(triples, optax.losses.huber_loss(cosines(student), cosines(teacher)), 0.0)
    return mask_losses(costs.sum(axis=(1, 2)) / at_least_one(triples.sum(axis=(1, 2))), where)


def similarity_preserving(
    teacher: Array, student: Array, *, where: Array | None = None
) -> jax.Array:
    """Return how the similarities of each example to the batch differ from the teacher's.

    Compatible with jit, vmap and grad (student). Similarities are dot products, and those of one
    example (to itself too) are brought to length 1. Needs [B, B] arrays.

    Use: as `distance_relations`, for features that are compared by dot products.
    Formula: ||g_t(i) / |g_t(i)| - g_s(i) / |g_s(i)|||**2 / n, g(i) = X x_i.

    Args:
      teacher: [B, Dt].
      student: [B, Ds].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Tung, Mori, Similarity-Preserving Knowledge Distillation, 2019:
      https://arxiv.org/abs/1907.09682

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> float(similarity_preserving(teacher, 3.0 * teacher[:, ::-1]).mean())
      0.0
      >>> round(float(similarity_preserving(teacher, jnp.ones((2, 1))).mean()), 4)  # 1 - 1/sqrt(2)
      0.2929
    """
    teacher, student = _two(teacher, student, where)
    count = at_least_one(full_mask(where, teacher.shape[0]).sum())
    gap = unit(teacher @ teacher.T) - unit(student @ student.T)
    return mask_losses(jnp.square(gap).sum(axis=1) / count, where)


def cka(teacher: Array, student: Array, *, where: Array | None = None) -> jax.Array:
    """Return contributions to 1 less the linear centred kernel alignment of teacher and student.

    Compatible with jit, vmap and grad (student). CKA is 1 where one is a turned, shifted and
    evenly scaled copy of the other. Works with [Dt, Ds] products, no [B, B] array.

    Use: to make two spaces alike up to a rotation; or, its gradient left alone, to measure how much
      alike two layers are.
    Formula: 1 - ||T^T S||_F**2 / (||T^T T||_F ||S^T S||_F), with centred columns.

    Args:
      teacher: [B, Dt].
      student: [B, Ds].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked; single contributions may be negative, their mean is in [0, 1],
      and 1 where one of the two does not vary.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Kornblith, Norouzi, Lee, Hinton, Similarity of Neural Network Representations Revisited, 2019:
      https://arxiv.org/abs/1905.00414

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
      >>> abs(round(float(cka(teacher, 4.0 - 3.0 * teacher[:, ::-1]).mean()), 4))
      0.0
    """
    teacher, student = _two(teacher, student, where)
    count = full_mask(where, teacher.shape[0]).sum()
    teacher, student = centre(teacher, where), centre(student, where)

    def squares(product: jax.Array) -> jax.Array:
        return jnp.square(product).sum()

    cross = teacher.T @ student
    scale = squares(teacher.T @ teacher) * squares(student.T @ student)
    varies = scale > 1e-20
    norm = jnp.sqrt(jnp.where(varies, scale, 1.0))
    alike = ((teacher @ cross) * student).sum(axis=1) * at_least_one(count) / norm
    return mask_losses(1.0 - jnp.where(varies, alike, 0.0), where)


def _two(teacher: Array, student: Array, where: Array | None) -> tuple[jax.Array, jax.Array]:
    teacher, student = as_float32(teacher), as_float32(student)
    if teacher.ndim != 2 or student.ndim != 2 or teacher.shape[0] != student.shape[0]:
        raise ValueError(
            f"teacher [B, Dt] and student [B, Ds] do not fit: {teacher.shape} and {student.shape}"
        )
    check_shape("where", where, teacher.shape[:1])
    return jax.lax.stop_gradient(mask_inputs(teacher, where)), mask_inputs(student, where)
