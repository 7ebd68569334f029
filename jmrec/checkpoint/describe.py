"""What can be read of a checkpoint on any machine, without the devices it was saved from."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jmrec.checkpoint.metadata import one_line, own_metadata
from jmrec.errors import UserError
from jmrec.files import manifest_fault


@dataclass(frozen=True)
class Recorded:
    """An array as a checkpoint describes it.

    Attributes:
      shape: Its shape.
      dtype: Its type; a typed PRNG key is recorded as uint32.
      mesh: Mesh axis -> size where it was saved from; {} where no mesh is recorded.
      spec: Per array axis, the mesh axis (or axes) that it was cut over, or None.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mesh: dict[str, int]
    spec: tuple[Any, ...]


def list_checkpoints(directory: str | os.PathLike[str]) -> dict[int, float | None]:
    """Return step -> score (None without) of the whole checkpoints; nothing on disk is changed.

    Raises:
      UserError: They cannot be listed.
    """
    source = Path(directory).absolute()
    try:
        with ocp.training.Checkpointer(source) as checkpointer:
            return {
                found.step: found.metrics["score"] if found.metrics else None
                for found in checkpointer.checkpoints
            }
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise _unreadable(source, error) from error


def describe(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Recorded], dict[str, Any], str]:
    """Describe what ``save_params`` or ``Checkpoints.save`` wrote, once its checksums are right.

    No device of the mesh that it was saved from is needed.

    Args:
      path: The folder of the parameters, or of one step.

    Returns:
      (path in the tree such as "params/embed" -> its record, metadata, when it was written).

    Raises:
      UserError: It cannot be read.

    Example:
      >>> import tempfile
      >>> from jmrec.checkpoint import save_params
      >>> path = Path(tempfile.mkdtemp()) / "params"
      >>> save_params(path, {"w": np.ones((2, 3), np.float32)}, {"stage": "student"})
      >>> arrays, metadata, _ = describe(path)
      >>> arrays["params/w"].shape, arrays["params/w"].spec, metadata
      ((2, 3), (), {'stage': 'student'})
    """
    source = Path(path).absolute()
    try:
        if fault := manifest_fault(source):
            raise ValueError(fault)
        described = ocp.metadata(source)
        leaves = jax.tree_util.tree_flatten_with_path(described.metadata)[0]
        arrays = {_name(place): _recorded(leaf) for place, leaf in leaves}
        written = described.commit_timestamp
        return arrays, own_metadata(described), str(written or "")[:19]
    except UserError:
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise _unreadable(source, error) from error


def read_arrays(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read some arrays of a checkpoint, whatever mesh they were saved from.

    Args:
      path: As for ``describe``.
      names: Paths in the tree, from ``describe``.

    Returns:
      Name -> array.

    Raises:
      UserError: They cannot be read.
    """
    source, wanted = Path(path).absolute(), set(names)

    def target(place: Any, leaf: Any) -> Any:
        return np.empty(leaf.shape, leaf.dtype) if _name(place) in wanted else ocp.PLACEHOLDER

    try:
        tree = jax.tree_util.tree_map_with_path(target, ocp.metadata(source).metadata)
        found = jax.tree_util.tree_flatten_with_path(ocp.load(source, tree))[0]
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise _unreadable(source, error) from error
    return {_name(place): np.asarray(leaf) for place, leaf in found if _name(place) in wanted}


def _name(place: Any) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")


def _recorded(leaf: Any) -> Recorded:
    sharding: Any = getattr(leaf, "sharding_metadata", None)  # numpy arrays have none
    named = hasattr(sharding, "partition_spec")
    mesh = zip(sharding.axis_names, sharding.shape) if named else ()
    return Recorded(
        tuple(leaf.shape),
        np.dtype(leaf.dtype),
        {str(axis): int(size) for axis, size in mesh},
        tuple(sharding.partition_spec) if named else (),
    )


def _unreadable(source: Path, error: Exception) -> UserError:
    return UserError(
        f"{source} cannot be read ({one_line(error)}); it is damaged or no checkpoint of jmrec, "
        "name another."
    )
