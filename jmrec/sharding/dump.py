"""Shardings as text, to be read and to be compared in tests."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jmrec.sharding.rules import is_axes, shardings


def dump_shardings(axes_tree: Any, shapes_tree: Any, mesh: Mesh, rules: str) -> str:
    """Return a line per array: path, type, logical axes, mesh axes, shape and bytes on a device.

    Args:
      axes_tree: See `shardings`.
      shapes_tree: A tree of arrays or ``jax.ShapeDtypeStruct``; nothing is computed.
      mesh: From ``make_mesh``.
      rules: A key of ``RULES``.

    Returns:
      The lines in the tree's order, each ended by a newline.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> shapes = {"w": jax.ShapeDtypeStruct((4, 8), "float32")}
      >>> print(dump_shardings({"w": ("embed", None)}, shapes, make_mesh(), "fsdp"), end="")
      w float32[4,8] logical (embed, -) physical (fsdp, -) device [4,8] 128 B
    """
    placed = jax.tree.leaves(shardings(axes_tree, shapes_tree, mesh, rules))
    axes = jax.tree.leaves(axes_tree, is_leaf=is_axes)
    arrays = jax.tree_util.tree_flatten_with_path(shapes_tree)[0]
    lines = []
    for (path, array), names, sharding in zip(arrays, axes, placed, strict=True):
        here = sharding.shard_shape(array.shape)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        lines.append(
            f"{name} {np.dtype(array.dtype).name}{_numbers(array.shape)} "
            f"logical {_names(names)} physical {_names(sharding.spec)} "
            f"device {_numbers(here)} {math.prod(here) * np.dtype(array.dtype).itemsize} B\n"
        )
    return "".join(lines)


def replicated_share(shapes_tree: Any, placement: Any) -> float:
    """Return the share of all bytes that every device holds whole.

    Args:
      shapes_tree: A tree of arrays or ``jax.ShapeDtypeStruct``.
      placement: A tree of ``NamedSharding`` of the same structure.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> shapes = {"w": jax.ShapeDtypeStruct((4, 8), "float32")}
      >>> placement = shardings({"w": (None, None)}, shapes, make_mesh(), "fsdp")
      >>> replicated_share(shapes, placement)
      1.0
    """
    whole = total = 0
    for array, sharding in zip(jax.tree.leaves(shapes_tree), jax.tree.leaves(placement)):
        size = math.prod(array.shape) * array.dtype.itemsize
        total += size
        whole += size if sharding.is_fully_replicated else 0
    return whole / max(total, 1)


def _numbers(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _names(names: Any) -> str:
    return f"({', '.join('-' if name is None else str(name) for name in names)})"
