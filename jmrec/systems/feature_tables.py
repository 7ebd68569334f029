"""The feature tables of a stage, and the statistics by which they were standardised."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jmrec.cluster.member import is_first
from jmrec.features import Standardiser, read_features, write_features
from jmrec.files import read_json, write_json

TABLES, STATISTICS = "features.safetensors", "standardise.json"


def write_tables(
    folder: Path,
    ids: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write a stage's tables with their provenance; the first process writes, all may call.

    Args:
      folder: The stage's folder, which has its ``stage.json``.
      ids: V item ids.
      arrays: Name -> table [V, D], or a statistic [1, D] of a `Standardiser`.
      facts: More of their provenance.
    """
    if not is_first():
        return
    statistics = {name: array for name, array in arrays.items() if len(array) != len(ids)}
    tables = {name: array for name, array in arrays.items() if name not in statistics}
    provenance = {"stage": folder.name, "hash": read_json(folder / "stage.json")["hash"]}
    provenance |= facts or {}
    write_features(folder / TABLES, tables, ids, provenance)
    kept = {name: array[0].tolist() for name, array in statistics.items()}
    write_json(folder / STATISTICS, kept)


def read_tables(folder: Path, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Read a stage's tables.

    Raises:
      UserError: If they are missing, damaged, or made for other items.
    """
    return read_features(folder / TABLES, ids).arrays


def read_standardiser(folder: Path, prefix: str = "") -> Standardiser:
    """Read the statistics that a stage kept under names such as ``k/mean``."""
    kept = read_json(folder / STATISTICS)
    mean, scale = (np.array(kept[f"{prefix}{name}"], np.float32) for name in ("mean", "scale"))
    return Standardiser(mean, scale)
