"""Checkpoints: the only importer of orbax.

A checkpoint is a state (any tree of arrays, typed PRNG keys included) and a json-able metadata
dict. Orbax writes into a temporary folder and renames it, so that there are whole checkpoints
and none others. It does not notice a flipped bit in an array, so a manifest of checksums is added
and compared before anything is read.

``steps`` holds the checkpoints of a run, ``params`` the parameters of a finished stage,
``describe`` what can be read of either without its devices.
"""

from jmrec.checkpoint.describe import Recorded, describe, list_checkpoints, read_arrays
from jmrec.checkpoint.metadata import check_metadata
from jmrec.checkpoint.params import load_params, save_params
from jmrec.checkpoint.steps import Checkpoints

__all__ = [
    "Checkpoints",
    "Recorded",
    "check_metadata",
    "describe",
    "list_checkpoints",
    "load_params",
    "read_arrays",
    "save_params",
]
