"""The parameters of a finished stage."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jmrec.checkpoint.metadata import FORMAT, one_line, own_metadata
from jmrec.errors import UserError, refusal
from jmrec.files import manifest_fault, replace_folder, write_manifest

LEAST_SHARE = 2**20
"""Bytes. Devices that hold the same array share the writing of it where each then has so much. Of
less each share costs more, a program to compile, than it saves."""


def saving() -> ocp.Context:
    """Return how arrays are written."""
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = LEAST_SHARE
    return context


def save_params(path: str | os.PathLike[str], params: Any, metadata: Mapping[str, Any]) -> None:
    """Write the parameters of a finished stage, whole or not at all; older ones are replaced.

    With several processes all must call it at once, with the same values.

    Args:
      path: The folder to write.
      params: A tree of arrays.
      metadata: A json-able dict.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "params"
      >>> save_params(path, {"w": np.ones(2, np.float32)}, {"stage": "student"})
      >>> params, metadata = load_params(path)
      >>> params["w"].tolist(), metadata
      ([1.0, 1.0], {'stage': 'student'})
    """
    target = Path(path).absolute()
    side = target.with_name(f"{target.name}.tmp")
    # The name "params" lets the tree be any pytree, even a single array.
    with saving():
        ocp.save(
            side,
            {"params": params},
            overwrite=True,
            custom_metadata={"metadata": dict(metadata), "format": FORMAT},
        )
    if jax.process_index() == 0:
        write_manifest(side)
        replace_folder(side, target)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("jmrec parameters written")


def load_params(path: str | os.PathLike[str], abstract: Any = None) -> tuple[Any, dict[str, Any]]:
    """Read what ``save_params`` wrote.

    With several processes all must call it at once: orbax counts its operations.

    Args:
      path: The folder.
      abstract: A tree of ``jax.ShapeDtypeStruct`` with shardings; None for numpy arrays in
        nested dicts and lists.

    Returns:
      (params, metadata).

    Raises:
      UserError: There are none, they cannot be read, or they do not fit ``abstract``.
    """
    source = Path(path).absolute()
    if not source.is_dir():
        raise UserError(f"{source}: there are no parameters here; run the stage that makes them.")
    try:
        if fault := manifest_fault(source):
            raise ValueError(fault)
        described = ocp.metadata(source)
        metadata = own_metadata(described)
        target = {"params": abstract}
        if abstract is None:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), described.metadata)
        params = ocp.load(source, target)["params"]
    except UserError:
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        if reason := refusal(error):
            raise UserError(f"{source} can not be read ({reason}); mend that.") from error
        raise UserError(
            f"{source}: the parameters cannot be read ({one_line(error)}); delete "
            f"{source.parent / 'stage.json'} and start jmrec run again: the stage makes them anew."
        ) from error
    return params, metadata
