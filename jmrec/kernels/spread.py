"""Rows of tables that are shared out over the devices of the mesh in context.

A step that runs on several devices enters its mesh (``jax.sharding.use_abstract_mesh``). Then the
rows of a table of items lie over all of the axes `ROWS`, and what is read of it is read where it
lies: no device ever holds the whole table. Without such a mesh, or where the rows do not divide,
every function here is plain indexing.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

ROWS = ("fsdp", "tensor")
"""The mesh axes over which the rows of tables lie; see ``jmrec.sharding.RULES``."""
BATCH = "data"
"""The mesh axis over which only examples lie."""


def spread(rows: int) -> tuple[str, ...]:
    """Return the mesh axes over which ``rows`` rows of a table lie; none where they are whole.

    Example:
      >>> spread(1024)
      ()
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return ()
    names = tuple(name for name in ROWS if mesh.shape.get(name, 1) > 1)
    return names if names and rows % _devices(names) == 0 else ()


def shares(mesh: Mesh) -> bool:
    """Return whether a mesh shares out the rows of tables."""
    return any(mesh.shape.get(name, 1) > 1 for name in ROWS)


def over(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Return the context of a step on a mesh: in it the rows of tables lie over `ROWS`."""
    if mesh is None or not shares(mesh):
        return nullcontext()  # one device holds a table: not a bit of what is compiled changes
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def examples(count: int) -> str | None:
    """Return the mesh axis over which ``count`` examples lie apart from the table, if any."""
    size = jax.sharding.get_abstract_mesh().shape.get(BATCH, 1)
    return BATCH if size > 1 and count % size == 0 else None


def keep(table: jax.Array) -> jax.Array:
    """Return a table [V, ...] that was computed, its rows where the rows of tables lie."""
    names = spread(table.shape[0])
    return lax.with_sharding_constraint(table, PartitionSpec(names)) if names else table


def pick(table: Any, rows: Any) -> Any:
    """Return ``table[rows]`` for the rows of a batch: each device gives those that it holds.

    Compatible with jit, vmap and grad (table).

    Args:
      table: [V, ...].
      rows: int [...], in 0..V-1.

    Returns:
      [..., ...], the same on all devices of the axes `ROWS`.

    Example:
      >>> pick(jnp.array([5, 6, 7]), jnp.array([[2, 0]])).tolist()
      [[7, 5]]
    """
    names = spread(table.shape[0])
    if not names:
        return table[rows]

    def local(table: jax.Array, rows: jax.Array) -> jax.Array:
        found = _own(table, rows, lax.axis_index(names))
        if found.dtype == bool:  # which has no sum
            return lax.psum(found.astype(jnp.int8), names) > 0
        return lax.psum(found, names)

    batch = examples(rows.shape[0]) if rows.ndim else None
    return _run(local, (PartitionSpec(names), PartitionSpec(batch)), batch)(table, rows)


def row_logits(states: Any, table: Any, rows: Any) -> jax.Array:
    """Return <state, table[row]> for K rows of each state, accumulated in float32.

    Compatible with jit, vmap and grad (states, table).

    Args:
      states: [..., D].
      table: [V, D].
      rows: int [..., K], in 0..V-1.

    Returns:
      float32 [..., K].

    Example:
      >>> row_logits(jnp.ones((1, 2)), jnp.eye(3, 2), jnp.array([[2, 0]])).tolist()
      [[0.0, 1.0]]
    """
    multiply = partial(jnp.einsum, "...d,...kd->...k", preferred_element_type=jnp.float32)
    names = spread(table.shape[0])
    if not names:
        return multiply(states, table[rows])

    def local(states: jax.Array, table: jax.Array, rows: jax.Array) -> jax.Array:
        me = lax.axis_index(names)

        @jax.checkpoint  # or the vectors [..., K, D] would be kept
        def one(row: jax.Array) -> jax.Array:
            return multiply(states, _own(table, row, me)[..., None, :])[..., 0]

        return lax.psum(jnp.moveaxis(lax.map(one, jnp.moveaxis(rows, -1, 0)), 0, -1), names)

    batch = examples(rows.shape[0])
    given = (PartitionSpec(batch), PartitionSpec(names), PartitionSpec(batch))
    found: jax.Array = _run(local, given, batch)(states, table, rows)
    return found


def align(table: Any, rows: Any) -> Any:
    """Return ``table[rows]`` for as many rows as a catalogue has, which lie as those of tables do.

    The shares of the table go round: each device picks what it wants of one after the other and
    holds two at a time. Compatible with jit, vmap and grad (table).

    Args:
      table: [R, ...].
      rows: int [V], in 0..R-1.

    Returns:
      [V, ...].

    Example:
      >>> align(jnp.array([5, 6, 7]), jnp.array([2, 0])).tolist()
      [7, 5]
    """
    names = spread(table.shape[0])
    if not names or not spread(rows.shape[0]):
        return table[rows]
    turns = _devices(names)
    next_to = [(device, (device - 1) % turns) for device in range(turns)]

    def local(table: jax.Array, rows: jax.Array) -> jax.Array:
        me = lax.axis_index(names)

        def turn(carry: Any, k: jax.Array) -> tuple[Any, None]:
            share, found = carry
            found = found + _own(share, rows, (me + k) % turns)
            return (lax.ppermute(share, names, next_to), found), None

        none = jnp.zeros((*rows.shape, *table.shape[1:]), table.dtype)
        return lax.scan(turn, (table, none), jnp.arange(turns))[0][1]

    return _run(local, (PartitionSpec(names), PartitionSpec(names)), names)(table, rows)


def _own(share: jax.Array, rows: jax.Array, owner: jax.Array) -> jax.Array:
    """Return those of the rows that a share of a table has, and 0 for the others."""
    here = rows - owner * share.shape[0]
    ok = (here >= 0) & (here < share.shape[0])
    found = share[jnp.where(ok, here, 0)]
    ok = ok.reshape(*ok.shape, *[1] * (found.ndim - ok.ndim))
    return jnp.where(ok, found, jnp.zeros((), found.dtype))


def _devices(names: tuple[str, ...]) -> int:
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[name] for name in names)


def _run(local: Any, given: tuple[Any, ...], out: Any) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    return jax.shard_map(
        local, mesh=mesh, in_specs=given, out_specs=PartitionSpec(out), check_vma=False
    )
