"""Feature distillation: the student's vectors follow the teacher's, one by one.

The teacher's side gets no gradient. Widths that differ need a projection (`fitnets`); several
layers need a map (`uniform_layers`, `layer_map`).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jmrec.losses.masks import as_float32, check_shape, mask_inputs, mask_losses
from jmrec.losses.vectors import unit
from jmrec.types import Array


def feature_mse(
    teacher: Array, student: Array, *, normalize: bool = False, where: Array | None = None
) -> jax.Array:
    """Return the mean squared difference of the teacher's and the student's features.

    Compatible with jit, vmap and grad (student).

    Use: where coordinates and scale should agree; with ``normalize`` the direction only, as patient
      distillation does.
    Formula: ||t - s||**2 / D.

    Args:
      teacher: [..., D].
      student: [..., D].
      normalize: Whether both are brought to length 1 first, static.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Sun, Cheng, Gan, Liu, Patient Knowledge Distillation for BERT Model Compression, 2019:
      https://arxiv.org/abs/1908.09355

    Example:
      >>> import jax.numpy as jnp
      >>> float(feature_mse(jnp.array([1.0, 0.0]), jnp.array([0.0, 0.0])))
      0.5
    """
    teacher, student = _two(teacher, student, where)
    if normalize:
        teacher, student = unit(teacher), unit(student)
    return mask_losses(jnp.square(teacher - student).mean(axis=-1), where)


def feature_cosine(teacher: Array, student: Array, *, where: Array | None = None) -> jax.Array:
    """Return 1 less the cosine of the teacher's and the student's features.

    Compatible with jit, vmap and grad (student).

    Use: where only the direction counts, as it does for features compared by cosine later on.
    Formula: 1 - <t, s> / (||t|| ||s||).

    Args:
      teacher: [..., D].
      student: [..., D].
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], between 0 and 2, 0 where masked; 1 where one of the two is all 0.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Sanh, Debut, Chaumond, Wolf, DistilBERT, a Distilled Version of BERT, 2019:
      https://arxiv.org/abs/1910.01108

    Example:
      >>> import jax.numpy as jnp
      >>> float(feature_cosine(jnp.array([2.0, 0.0]), jnp.array([0.0, 3.0])))
      1.0
    """
    teacher, student = _two(teacher, student, where)
    return mask_losses(1.0 - (unit(teacher) * unit(student)).sum(axis=-1), where)


def fitnets(
    teacher: Array,
    student: Array,
    projection: Array,
    *,
    bias: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return `feature_mse` after the student's features are projected to the teacher's width.

    Compatible with jit, vmap and grad (student, projection, bias). The projection is learned with
    the student and thrown away afterwards.

    Use: where the student is narrower than its teacher.
    Formula: ||t - (s W + b)||**2 / Dt.

    Args:
      teacher: [..., Dt].
      student: [..., Ds].
      projection: [Ds, Dt], W.
      bias: [Dt], b, or None.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Romero et al., FitNets: Hints for Thin Deep Nets, 2014: https://arxiv.org/abs/1412.6550

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.array([1.0, 2.0]), jnp.array([1.0])
      >>> float(fitnets(teacher, student, jnp.array([[1.0, 2.0]])))
      0.0
    """
    teacher, student = as_float32(teacher), as_float32(student)
    check_shape("projection", projection, (student.shape[-1], teacher.shape[-1]))
    check_shape("bias", bias, teacher.shape[-1:])
    check_shape("where", where, student.shape[:-1])
    projected = mask_inputs(student, where) @ as_float32(projection)
    return feature_mse(
        teacher, projected if bias is None else projected + as_float32(bias), where=where
    )


def layer_map(
    teachers: Sequence[Array],
    students: Sequence[Array],
    pairs: Sequence[tuple[int, int]],
    *,
    feature_loss: Callable[..., jax.Array] = feature_mse,
    where: Array | None = None,
) -> jax.Array:
    """Return the mean of a feature loss over pairs of a teacher's and a student's layers.

    Compatible with jit, vmap and grad (students).

    Use: to guide a student's layers as well as its output; `uniform_layers` makes the usual pairs.
    Formula: mean over (t, s) in pairs of feature_loss(teachers[t], students[s]).

    Args:
      teachers: One array per layer of the teacher.
      students: One array per layer of the student.
      pairs: (teacher's layer, student's layer), static; negative numbers count from the end.
      feature_loss: ``(teacher, student, where=...) -> [...]``, static.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If there is no pair, or one names a layer that is not there.

    References:
      Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, 2019:
      https://arxiv.org/abs/1909.10351

    Example:
      >>> import jax.numpy as jnp
      >>> teachers = [jnp.zeros(2), jnp.ones(2), jnp.full(2, 2.0), jnp.full(2, 3.0)]
      >>> students = [jnp.ones(2), jnp.ones(2)]
      >>> float(layer_map(teachers, students, uniform_layers(4, 2)))  # layers 1 and 3: 0 and 4
      2.0
    """
    if not pairs:
        raise ValueError("pairs must name at least one pair of layers")
    for pair in pairs:
        for name, layers, n in zip(("teachers", "students"), (teachers, students), pair):
            if not -len(layers) <= n < len(layers):
                raise ValueError(f"pairs name layer {n} of {name}, which have {len(layers)}")
    losses = [feature_loss(teachers[t], students[s], where=where) for t, s in pairs]
    return jnp.stack(losses).mean(axis=0)


def uniform_layers(teacher_layers: int, student_layers: int) -> list[tuple[int, int]]:
    """Return pairs that spread the student's layers evenly over the teacher's, last to last.

    Args:
      teacher_layers: How many layers the teacher has.
      student_layers: How many the student has, at most as many.

    Returns:
      (teacher's layer, student's layer) for every layer of the student, counted from 0.

    Raises:
      ValueError: If the student has more layers than its teacher, or none.

    Example:
      >>> uniform_layers(12, 4)
      [(2, 0), (5, 1), (8, 2), (11, 3)]
    """
    if not 1 <= student_layers <= teacher_layers:
        raise ValueError(f"{student_layers} layers can not follow {teacher_layers}")
    return [((n + 1) * teacher_layers // student_layers - 1, n) for n in range(student_layers)]


def _two(teacher: Array, student: Array, where: Array | None) -> tuple[jax.Array, jax.Array]:
    teacher, student = as_float32(teacher), as_float32(student)
    check_shape("student", student, teacher.shape)
    check_shape("where", where, teacher.shape[:-1])
    return jax.lax.stop_gradient(mask_inputs(teacher, where)), mask_inputs(student, where)
