"""From logical axes to shardings, by a table."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jmrec.errors import UserError

log = logging.getLogger(__name__)

# "item" is the row of a table of items, "event" of a table of what happened.
LOGICAL_AXES = (
    *("batch", "vocab", "item", "embed", "mlp", "heads", "kv_heads", "head_dim"),
    *("layers", "patch", "out", "state", "event"),
)
_EVERYWHERE: dict[str, str | tuple[str, ...] | None] = dict.fromkeys(LOGICAL_AXES)
_EVERYWHERE["batch"] = ("data", "fsdp")

RULES: Mapping[str, Mapping[str, str | tuple[str, ...] | None]] = {
    # Every device holds all parameters.
    "dp": _EVERYWHERE,
    # Parameters are cut along their model width and gathered when they are used.
    # Tables of items are cut along their rows instead, and never gathered.
    "fsdp": {**_EVERYWHERE, "embed": "fsdp", "item": "fsdp", "event": "fsdp"},
    # The tables of items and words are cut along their rows; all else is whole everywhere.
    "tp": {**_EVERYWHERE, "vocab": "tensor", "item": "tensor", "event": "tensor"},
    # The wide axes of each matrix are split as well and never gathered. The rows of tables of items
    # lie on both axes.
    "fsdp_tp": {
        **_EVERYWHERE,
        "embed": "fsdp",
        "vocab": "tensor",
        "item": ("fsdp", "tensor"),
        "event": ("fsdp", "tensor"),
        "mlp": "tensor",
        "heads": "tensor",
        "kv_heads": "tensor",
    },
}
"""Rule set -> logical axis -> mesh axis (None: not cut)."""


def is_axes(node: Any) -> bool:
    """Tell a tuple of axis names (a leaf) from a tuple that is a container."""
    return isinstance(node, tuple) and all(name is None or isinstance(name, str) for name in node)


def row_axes(tables: Any, rows: str = "item") -> Any:
    """Return the logical axes of tables that are cut along their rows alone.

    Args:
      tables: A tree of arrays [V, ...].
      rows: The name of their first axis.

    Example:
      >>> row_axes({"e": jax.ShapeDtypeStruct((4, 2), "float32")})
      {'e': ('item', None)}
    """
    return jax.tree.map(lambda table: (rows, *[None] * (table.ndim - 1)), tables)


def _spec(
    path: str,
    axes: tuple[str | None, ...],
    shape: tuple[int, ...],
    mesh: Mesh,
    table: Mapping[str, str | tuple[str, ...] | None],
) -> PartitionSpec:
    if len(axes) != len(shape):
        raise ValueError(
            f"{path}: axes {axes} do not fit shape {shape}; name each axis of the parameter, as "
            "`named` of jmrec/models/parts/basic.py does."
        )
    taken: dict[str, str] = {}
    entries: list[str | tuple[str, ...] | None] = []
    for name, size in zip(axes, shape, strict=True):
        if name is not None and name not in table:
            raise ValueError(f"{path}: no rule for the logical axis {name!r}")
        target = None if name is None else table[name]
        mesh_axes = (target,) if isinstance(target, str) else target or ()
        for axis in mesh_axes:
            if axis in taken:
                raise ValueError(
                    f"{path}: the logical axes {taken[axis]!r} and {name!r} "
                    f"both lie on the mesh axis {axis!r}"
                )
            taken[axis] = str(name)
        parts = 1
        for axis in mesh_axes:
            parts *= mesh.shape[axis]
        if size % parts:
            log.warning(
                "%s: axis %r of size %d does not divide by %d; replicated", path, name, size, parts
            )
            target = None
        entries.append(target)
    return PartitionSpec(*entries)


def shardings(axes_tree: Any, shapes_tree: Any, mesh: Mesh, rules: str) -> Any:
    """Return one sharding per array.

    Args:
      axes_tree: The structure of ``shapes_tree``; each leaf is a tuple with one logical axis
        name (or None: not cut) per array axis. None in place of the whole tree replicates all.
      shapes_tree: A tree of arrays or ``jax.ShapeDtypeStruct``.
      mesh: From ``make_mesh``.
      rules: A key of ``RULES``.

    Returns:
      A tree of ``NamedSharding`` with the structure of ``shapes_tree``. An axis whose size does
      not divide by its mesh axis is replicated, and that is logged.

    Raises:
      UserError: The rules are not known.
      ValueError: An axis has no rule, two axes of one array lie on one mesh axis, or the two
        trees differ.

    Example:
      >>> from jmrec.sharding import make_mesh
      >>> shapes = {"w": jax.ShapeDtypeStruct((4, 8), "float32")}
      >>> tree = shardings({"w": ("embed", "mlp")}, shapes, make_mesh(), "fsdp_tp")
      >>> tuple(tree["w"].spec)
      ('fsdp', 'tensor')
    """
    if rules not in RULES:
        raise UserError(f"rules={rules!r} is not known; choose one of {', '.join(RULES)}.")
    table = RULES[rules]
    arrays, structure = jax.tree_util.tree_flatten_with_path(shapes_tree)
    if axes_tree is None:
        whole = NamedSharding(mesh, PartitionSpec())
        return jax.tree.unflatten(structure, [whole] * len(arrays))
    axes, axes_structure = jax.tree.flatten(axes_tree, is_leaf=is_axes)
    if str(axes_structure) != str(structure):
        raise ValueError(f"logical axes {axes_structure} do not fit the arrays {structure}")
    out = [
        NamedSharding(mesh, _spec(jax.tree_util.keystr(path), names, array.shape, mesh, table))
        for (path, array), names in zip(arrays, axes, strict=True)
    ]
    used = {name for names in axes for name in names}
    unused = [name for name, to in table.items() if to and name != "batch" and name not in used]
    if unused:
        log.info("rules %r: no array has the axes %s", rules, ", ".join(unused))
    return jax.tree.unflatten(structure, out)
