"""The kernels on an item table whose rows are shared out over the devices of one mesh axis or more.

Every device walks its own rows block by block, and a few numbers per state travel: a table that no
device could hold is never gathered. V has to be a multiple of the axes' size; pad the table with
rows that are not ``valid``.

References:
  Shoeybi et al., Megatron-LM: Training Multi-Billion Parameter Language Models Using Model
  Parallelism, 2019 (which shares out the vocabulary): https://arxiv.org/abs/1909.08053
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from jmrec.kernels.blocks import LOWEST, Side, check_side, finite_or_zero, make_side, optional
from jmrec.kernels.divergence import check_sides, kl_and_logsumexps
from jmrec.kernels.softmax import check_targets, chunked_logsumexp, target_logits
from jmrec.kernels.topk import chunked_topk
from jmrec.types import Array

Axes = str | tuple[str, ...]
"""A mesh axis, or several, of which the first is cut most coarsely."""


def parallel_softmax_cross_entropy(
    states: Array,
    items: Array,
    targets: Array,
    *,
    mesh: Mesh | AbstractMesh,
    axis: Axes = "tensor",
    batch: str | None = None,
    bias: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
    chunk: int = 4096,
) -> jax.Array:
    """Return -log softmax(states @ items.T + bias)[target] of each state.

    Compatible with jit and grad (states, items, bias).

    Args:
      states: [N, D].
      items: [V, D], rows shared out over ``axis``.
      targets: int32 [N], rows of the whole table; ignored where masked.
      mesh: The mesh.
      axis: Its axis, or axes, for the rows of ``items``, ``bias`` and ``valid``.
      batch: Its axis for the rows of ``states``, ``targets`` and ``where``; None replicates them.
      bias: [V], added to the logits.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      where: bool [N], False for masked examples (their states may hold anything).
      chunk: Items per block of a device, static.

    Returns:
      float32 [N], shared out over ``batch``: what `chunked_softmax_cross_entropy` returns.

    Raises:
      ValueError: If the shapes do not fit, each other or the mesh.

    Example:
      >>> import jax.numpy as jnp
      >>> mesh = jax.make_mesh((1,), ("tensor",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> states, items = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> loss = parallel_softmax_cross_entropy(states, items, jnp.array([0]), mesh=mesh)
      >>> round(float(loss[0]), 4)
      0.3133
    """
    side, valid, where = make_side(states, items, bias), optional(valid), optional(where)
    targets = jnp.asarray(targets)
    check_targets(side, targets, valid=valid, where=where)

    def local(side: Side, targets: jax.Array, valid: Any, where: Any) -> jax.Array:
        if where is not None:
            side = side._replace(states=jnp.where(where[:, None], side.states, 0))
        rows = side.items.shape[0]
        lse = chunked_logsumexp(
            side.states, side.items, bias=side.bias, valid=valid, chunk=min(chunk, rows)
        )
        logits = target_logits(side, targets - lax.axis_index(axis) * rows, valid)
        here = logits > LOWEST  # on one device at most
        logit = lax.psum(jnp.where(here, logits, 0.0), axis)
        logit = jnp.where(lax.psum(here, axis) > 0, logit, LOWEST)
        loss = _join(lse, axis) - logit
        return loss if where is None else jnp.where(where, loss, 0.0)

    run = _shard(local, mesh, axis, batch, side.items, (_side(axis, batch), batch, axis, batch))
    return run(side, targets, valid, where)


def parallel_logsumexp(
    states: Array,
    items: Array,
    *,
    mesh: Mesh | AbstractMesh,
    axis: Axes = "tensor",
    batch: str | None = None,
    bias: Array | None = None,
    valid: Array | None = None,
    chunk: int = 4096,
) -> jax.Array:
    """Return log(sum over items of exp(<state, item> + bias)) of each state.

    Compatible with jit and grad (states, items, bias).

    Args:
      states: [N, D].
      items: [V, D], rows shared out over ``axis``.
      mesh: The mesh.
      axis: Its axis, or axes, for the rows of ``items``, ``bias`` and ``valid``.
      batch: Its axis for the rows of ``states``; None replicates them.
      bias: [V], added to the logits.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      chunk: Items per block of a device, static.

    Returns:
      float32 [N], shared out over ``batch``: what `chunked_logsumexp` returns.

    Raises:
      ValueError: If the shapes do not fit, each other or the mesh.

    Example:
      >>> import jax.numpy as jnp
      >>> mesh = jax.make_mesh((1,), ("tensor",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> round(float(parallel_logsumexp(jnp.zeros((1, 3)), jnp.ones((8, 3)), mesh=mesh)[0]), 4)
      2.0794
    """
    side, valid = make_side(states, items, bias), optional(valid)
    check_side(side, valid=valid)

    def local(side: Side, valid: Any) -> jax.Array:
        lse = chunked_logsumexp(side.states, side.items, bias=side.bias, valid=valid, chunk=chunk)
        return _join(lse, axis)

    return _shard(local, mesh, axis, batch, side.items, (_side(axis, batch), axis))(side, valid)


def parallel_kl(
    teacher_states: Array,
    teacher_items: Array,
    student_states: Array,
    student_items: Array,
    *,
    mesh: Mesh | AbstractMesh,
    axis: Axes = "tensor",
    batch: str | None = None,
    teacher_bias: Array | None = None,
    student_bias: Array | None = None,
    temperature: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
    chunk: int = 4096,
) -> jax.Array:
    """Return KL(softmax(teacher / T) || softmax(student / T)) over the catalogue, per state.

    By the chain rule: the divergence of the devices' shares of the mass, plus the divergence
    within each device's rows by the teacher's share. Compatible with jit; the gradient goes to the
    student's states, items and bias only.

    Args:
      teacher_states: [N, Dt].
      teacher_items: [V, Dt], rows shared out over ``axis``.
      student_states: [N, Ds].
      student_items: [V, Ds], rows shared out over ``axis``.
      mesh: The mesh.
      axis: Its axis, or axes, for the rows of tables, biases and ``valid``.
      batch: Its axis for the rows of states and ``where``; None replicates them.
      teacher_bias: [V], added to the teacher's logits before the division by T.
      student_bias: [V], added to the student's logits before the division by T.
      temperature: T > 0, a number or a traced scalar.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      where: bool [N], False for masked examples (their states may hold anything).
      chunk: Items per block of a device, static.

    Returns:
      float32 [N], shared out over ``batch``: what `chunked_kl` returns.

    Raises:
      ValueError: If the shapes do not fit, each other or the mesh.

    Example:
      >>> import jax.numpy as jnp
      >>> mesh = jax.make_mesh((1,), ("tensor",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> same = jnp.eye(3)
      >>> [float(x) for x in parallel_kl(same, same, same, same, mesh=mesh)]
      [0.0, 0.0, 0.0]
    """
    teacher = make_side(teacher_states, teacher_items, teacher_bias)
    student = make_side(student_states, student_items, student_bias)
    valid, where = optional(valid), optional(where)
    check_sides(teacher, student, valid=valid, where=where)

    def local(teacher: Side, student: Side, scale: Any, valid: Any, where: Any) -> jax.Array:
        if where is not None:
            teacher, student = (
                side._replace(states=jnp.where(where[:, None], side.states, 0))
                for side in (teacher, student)
            )
        within, t_lse, s_lse = kl_and_logsumexps(teacher, student, valid, scale, None, chunk)
        log_p, log_q = (
            finite_or_zero(lse) - finite_or_zero(_join(lse, axis)) for lse in (t_lse, s_lse)
        )
        share = jnp.where(t_lse == LOWEST, 0.0, jnp.exp(log_p))
        divergence = lax.psum(share * (within + log_p - log_q), axis)
        return divergence if where is None else jnp.where(where, divergence, 0.0)

    scale = lax.stop_gradient(1.0 / jnp.asarray(temperature, jnp.float32))
    sides = (_side(axis, batch), _side(axis, batch))
    run = _shard(local, mesh, axis, batch, student.items, (*sides, None, axis, batch))
    return run(lax.stop_gradient(teacher), student, scale, valid, where)


def parallel_topk(
    states: Array,
    items: Array,
    k: int,
    *,
    mesh: Mesh | AbstractMesh,
    axis: Axes = "tensor",
    batch: str | None = None,
    bias: Array | None = None,
    valid: Array | None = None,
    chunk: int = 4096,
) -> tuple[jax.Array, jax.Array]:
    """Return the k items with the highest ``<state, item> + bias`` of each state.

    Compatible with jit.

    Args:
      states: [N, D].
      items: [V, D], rows shared out over ``axis``.
      k: How many, static, at most V.
      mesh: The mesh.
      axis: Its axis, or axes, for the rows of ``items``, ``bias`` and ``valid``.
      batch: Its axis for the rows of ``states``; None replicates them.
      bias: [V], added to the scores.
      valid: bool [V], False for rows that are no candidates (their vectors may hold anything).
      chunk: Items per block of a device, static.

    Returns:
      Scores float32 [N, k] and rows int32 [N, k] of the whole table: what `chunked_topk` returns.

    Raises:
      ValueError: If the shapes do not fit, each other or the mesh, or k is not in 1..V.

    Example:
      >>> import jax.numpy as jnp
      >>> mesh = jax.make_mesh((1,), ("tensor",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> items = jnp.array([[1.0], [3.0], [2.0], [3.0]])
      >>> parallel_topk(jnp.ones((1, 1)), items, 3, mesh=mesh)[1].tolist()
      [[1, 3, 2]]
    """
    side, valid = make_side(states, items, bias), optional(valid)
    check_side(side, valid=valid)
    if not 1 <= k <= side.items.shape[0]:
        raise ValueError(f"k must be between 1 and the {side.items.shape[0]} items, not {k}")

    def local(side: Side, valid: Any) -> tuple[jax.Array, jax.Array]:
        rows = side.items.shape[0]
        scores, found = chunked_topk(
            side.states, side.items, min(k, rows), bias=side.bias, valid=valid, chunk=chunk
        )
        found = jnp.where(found < 0, -1, found + lax.axis_index(axis) * rows)
        # In the order of the rows: top_k takes the earlier of equal scores, the lower row.
        scores, found = (lax.all_gather(each, axis, axis=1, tiled=True) for each in (scores, found))
        scores, columns = lax.top_k(scores, k)
        return scores, jnp.take_along_axis(found, columns, axis=1)

    return _shard(local, mesh, axis, batch, side.items, (_side(axis, batch), axis))(side, valid)


def _side(axis: Axes, batch: str | None) -> Side:
    """Return the mesh axes of a `Side`'s rows."""
    rows = PartitionSpec(axis)
    return Side(PartitionSpec(batch), rows, rows)  # type: ignore[arg-type]


def _shard(
    local: Callable[..., Any],
    mesh: Mesh | AbstractMesh,
    axis: Axes,
    batch: str | None,
    items: jax.Array,
    rows: tuple[Any, ...],
) -> Callable[..., Any]:
    """Return ``local`` on every device's rows; ``rows`` names each argument's mesh axis."""
    names = (axis,) if isinstance(axis, str) else axis
    for name in {*names, *([] if batch is None else [batch])}:
        if name not in mesh.shape:
            raise ValueError(f"the mesh has no axis {name!r}, only {', '.join(mesh.axis_names)}")
    if batch in names:
        raise ValueError(f"states and items can not both lie on the mesh axis {batch!r}")
    devices = math.prod(mesh.shape[name] for name in names)
    if items.shape[0] % devices:
        raise ValueError(
            f"{items.shape[0]} items do not divide by the {devices} devices of {axis!r}; "
            "pad the table with rows that are not valid"
        )
    specs = tuple(each if isinstance(each, Side) else _spec(each) for each in rows)
    run = partial(jax.shard_map, mesh=mesh, out_specs=PartitionSpec(batch), check_vma=False)
    return run(local, in_specs=specs)


def _spec(axis: Axes | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(axis)


def _join(lse: jax.Array, axis: Axes) -> jax.Array:
    """Return the logsumexp [N] of the whole table from every device's own [N]."""
    return jax.nn.logsumexp(lax.all_gather(lse, axis), axis=0)
