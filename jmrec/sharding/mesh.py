"""The one mesh of a run."""

from collections.abc import Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from jmrec.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")
"""The axes of every mesh: copies, sharded copies, split matrices."""
DATA_AXES = ("data", "fsdp")
"""The mesh axes over which the examples of a batch are spread."""


def mesh_shape(rules: str, n_devices: int) -> tuple[int, int, int]:
    """Return the default sizes of (data, fsdp, tensor).

    Args:
      rules: "dp", "fsdp", "tp" or "fsdp_tp".
      n_devices: The number of devices, 1 or more.

    Returns:
      Three sizes whose product is ``n_devices``. "tp" and "fsdp_tp" give the tensor axis
      2 devices where the number is even.

    Raises:
      UserError: The rules are not known.

    Example:
      >>> mesh_shape("dp", 8), mesh_shape("fsdp", 8), mesh_shape("tp", 8), mesh_shape("fsdp_tp", 8)
      ((8, 1, 1), (1, 8, 1), (4, 1, 2), (1, 4, 2))
    """
    if rules == "dp":
        return n_devices, 1, 1
    if rules == "fsdp":
        return 1, n_devices, 1
    tensor = 2 if n_devices % 2 == 0 else 1
    if rules == "tp":
        return n_devices // tensor, 1, tensor
    if rules == "fsdp_tp":
        return 1, n_devices // tensor, tensor
    raise UserError(f"rules={rules!r} is not known; choose one of dp, fsdp, tp, fsdp_tp.")


def make_mesh(
    rules: str = "dp",
    devices: Sequence[jax.Device] | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Mesh:
    """Make the mesh of a run.

    Args:
      rules: "dp", "fsdp", "tp" or "fsdp_tp"; decides the shape where ``shape`` is not given.
      devices: The devices; by default all of every process.
      shape: The sizes of (data, fsdp, tensor).

    Returns:
      A mesh with the axes data, fsdp, tensor. Its axes are ``Auto``: the compiler places what
      no sharding names (``jax.make_mesh`` would say ``Explicit``).

    Raises:
      UserError: The rules are not known, or the shape does not use the devices.

    Example:
      >>> make_mesh("fsdp").axis_names
      ('data', 'fsdp', 'tensor')
    """
    devices = jax.devices() if devices is None else devices
    default = mesh_shape(rules, len(devices))
    sizes = default if shape is None else shape
    if sizes[0] * sizes[1] * sizes[2] != len(devices):
        raise UserError(
            f"a mesh of shape {tuple(sizes)} does not fit {len(devices)} devices; "
            f"choose sizes whose product is {len(devices)}."
        )
    # Not jax.make_mesh, which splits a physical axis on v5e only: "fsdp_tp" gives the tensor axis 2
    # devices, and no axis of a v5p:4x4x4 or v6e:8x8 is that short.
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
