"""Where arrays live: the mesh, the table of logical axes, and placement.

The successor of ``pjit``: one mesh with the axes data, fsdp and tensor, and a small table that
says which logical axis of a parameter goes to which of them. ``jax.jit`` does the rest.
"""

from jmrec.sharding.dump import dump_shardings, replicated_share
from jmrec.sharding.mesh import DATA_AXES, MESH_AXES, make_mesh
from jmrec.sharding.placement import (
    Batches,
    Rows,
    abstract_arrays,
    batch_sharding,
    host_batch,
    process_local,
    process_rows,
    put_batch,
    put_tree,
    replicated,
)
from jmrec.sharding.rules import RULES, row_axes, shardings

__all__ = [
    "DATA_AXES",
    "MESH_AXES",
    "RULES",
    "Batches",
    "Rows",
    "abstract_arrays",
    "batch_sharding",
    "dump_shardings",
    "host_batch",
    "make_mesh",
    "process_local",
    "process_rows",
    "put_batch",
    "put_tree",
    "replicated",
    "replicated_share",
    "row_axes",
    "shardings",
]
