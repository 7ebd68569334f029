"""Host arrays to device arrays."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jmrec.errors import UserError
from jmrec.sharding.mesh import DATA_AXES
from jmrec.types import Batch

Rows = Callable[[int], np.ndarray]
"""The size of a batch -> the rows of it that a process reads."""


class Batches(Protocol):
    """Batches addressed by step: batch n is the one of update n.

    It is the same whatever the number of processes; each reads its own rows (`process_rows`).
    """

    def __getitem__(self, n: int, /) -> Batch:
        """Return host batch n."""


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> tuple(replicated(make_mesh()).spec)
      ()
    """
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, lead: int = 0) -> NamedSharding:
    """Return the sharding of a batch: its axis of examples over all data-like mesh axes.

    Args:
      mesh: From ``make_mesh``.
      lead: How many axes stand before that: of members, of the updates of one call.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> tuple(batch_sharding(make_mesh()).spec), tuple(batch_sharding(make_mesh(), 1).spec)
      ((('data', 'fsdp'),), (None, ('data', 'fsdp')))
    """
    return NamedSharding(mesh, PartitionSpec(*[None] * lead, DATA_AXES))


def process_rows(mesh: Mesh) -> Rows | None:
    """Return which rows of a batch this process reads: those that its devices hold.

    Args:
      mesh: From ``make_mesh``.

    Returns:
      A function of the batch size -> int64 [R] rows, ascending; None where there is one process,
      which reads all.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> process_rows(make_mesh()) is None
      True
    """
    return None if jax.process_count() == 1 else partial(_held_rows, mesh)


@lru_cache(maxsize=64)
def _held_rows(mesh: Mesh, size: int) -> np.ndarray:
    parts = math.prod(mesh.shape[axis] for axis in DATA_AXES)
    if size % parts:
        raise _does_not_divide(size, parts)
    held = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[index] for index in held if index]))


def _does_not_divide(size: int, parts: int) -> UserError:
    return UserError(
        f"a batch of {size} does not divide over {parts} devices; choose a train.batch_size that "
        f"gives multiples of {parts}."
    )


def put_batch(batch: Batch, mesh: Mesh, *, lead: int = 0) -> Batch:
    """Place a host batch on the mesh.

    Args:
      batch: Arrays [B, ...]; with several processes, this process's rows (`process_rows`) of the
        batch.
      mesh: From ``make_mesh``.
      lead: How many axes the arrays have before the batch's: [K, B, ...] are K batches for one
        call.

    Returns:
      The same names; arrays of the whole batch, over all data-like mesh axes.

    Raises:
      UserError: The batch does not divide over the data-like axes, or an array has no batch axis.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> mesh = make_mesh(devices=jax.devices()[:1])
      >>> put_batch({"mask": np.ones((2, 3), bool)}, mesh)["mask"].shape
      (2, 3)
    """
    parts = math.prod(mesh.shape[axis] for axis in DATA_AXES)
    sharding = batch_sharding(mesh, lead)
    here = len(_held_rows(mesh, parts))
    placed = {}
    for name, array in batch.items():
        if np.ndim(array) <= lead:
            raise UserError(f"batch array {name!r} has no batch axis; give it one row per example.")
        size, odd = divmod(np.shape(array)[lead] * parts, here)
        if odd or size % parts:
            raise _does_not_divide(np.shape(array)[lead], here)
        shape = (*np.shape(array)[:lead], size, *np.shape(array)[lead + 1 :])
        placed[name] = jax.make_array_from_process_local_data(sharding, np.asarray(array), shape)
    return placed


def _identity(tree: Any) -> Any:
    return tree


def process_local(tree: Any, mesh: Mesh) -> Any:
    """Return a tree of global arrays as whole arrays that this process can read by itself.

    With several processes all must call it at once.

    Args:
      tree: Arrays of the mesh.
      mesh: From ``make_mesh``.

    Returns:
      The tree as it is where there is one process, else a copy on one of this process's devices.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> process_local({"a": np.ones(2)}, make_mesh())["a"].shape
      (2,)
    """
    if jax.process_count() == 1:
        return tree
    whole = jax.jit(_identity, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda array: array.addressable_data(0), whole)


def put_tree(tree: Any, placement: Any) -> Any:
    """Place a tree of arrays that every process holds whole.

    Args:
      tree: Arrays of any shape.
      placement: A tree of ``NamedSharding`` of the same structure (see ``shardings``).

    Returns:
      The tree as global device arrays.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> put_tree({"a": np.ones(2)}, {"a": replicated(make_mesh())})["a"].shape
      (2,)
    """

    def put(array: Any, sharding: NamedSharding) -> jax.Array:
        if jax.process_count() == 1 or isinstance(array, jax.Array):
            return jax.device_put(array, sharding)
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, placement)


def host_batch(batches: Batches, n: int, k: int = 1, accumulate: int = 1) -> Batch:
    """Return the host batch of the call that does the updates n to n + k - 1.

    Args:
      batches: Anything with ``[n] -> host batch`` of arrays [B, ...].
      n: The first update.
      k: Updates in one call.
      accumulate: Microbatches that each batch will be cut into.

    Returns:
      Arrays [B, ...], or [k, B, ...] where k is not 1.

    Raises:
      UserError: The k batches differ in shape, or ``accumulate`` does not divide B.

    Example:
      >>> host_batch([{"x": np.zeros((2, 3))}, {"x": np.ones((2, 3))}], 0, k=2)["x"].shape
      (2, 2, 3)
    """
    group = [batches[n + i] for i in range(k)]
    rows = {np.shape(x)[0] for batch in group for x in batch.values() if np.ndim(x)}
    if any(size % accumulate for size in rows):
        raise UserError(
            f"batch {n} has {sorted(rows)} rows, which train.accumulate={accumulate} does not "
            "divide; choose a divisor."
        )
    if k == 1:
        return group[0]
    if len({tuple((name, np.shape(batch[name])) for name in sorted(batch)) for batch in group}) > 1:
        raise UserError(
            f"batches {n} to {n + k - 1} have several shapes; with several lengths set "
            "train.updates_per_call=1."
        )
    return {name: np.stack([np.asarray(batch[name]) for batch in group]) for name in group[0]}


def abstract_arrays(shapes: Any, placement: Any) -> Any:
    """Return the shapes with shardings, as a restore wants them.

    Args:
      shapes: A tree of arrays or ``jax.ShapeDtypeStruct``.
      placement: A tree of ``NamedSharding`` of the same structure.

    Returns:
      A tree of ``jax.ShapeDtypeStruct`` with shardings.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> abstract_arrays({"a": np.ones(2)}, {"a": replicated(make_mesh())})["a"].shape
      (2,)
    """
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        placement,
    )
