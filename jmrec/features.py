"""Feature tables: one row per catalogue item, with provenance, as safetensors.

A table says which stage made it (its hash), and for which item ids in which order; reading it for
anything else is refused. It holds a checksum of its content, which is compared at every reading.
Tables have no padding on disk; `pad_rows` adds it for the device.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from jmrec.errors import UserError, refusal
from jmrec.kernels.spread import pick

FACTS = "jmrec"
"""Under which name a table's provenance stands in its file."""
ROWS = 1024
"""Tables with an item axis are padded to a multiple of this, whatever the topology."""


@dataclass(frozen=True)
class FeatureTable:
    """A feature table as read.

    Attributes:
      arrays: Name -> array [V, ...].
      provenance: Plain strings: "stage", "hash", "items" (see `hash_ids`), "rows".
    """

    arrays: dict[str, np.ndarray]
    provenance: dict[str, str]

    @property
    def made_by(self) -> dict[str, str]:
        """The provenance without what is said of the rows: for a table of other rows."""
        return {k: v for k, v in self.provenance.items() if k not in ("items", "rows")}


def hash_ids(ids: Sequence[str]) -> str:
    """Return a short hash of item ids in row order.

    Example:
      >>> hash_ids(["a", "b"]) == hash_ids(["b", "a"])
      False
    """
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:16]


def write_features(
    path: Path, arrays: Mapping[str, np.ndarray], ids: Sequence[str], provenance: Mapping[str, str]
) -> None:
    """Write a feature table, to a side name first.

    Args:
      path: The file, ``*.safetensors``.
      arrays: Name -> array [V, ...].
      ids: V item ids in row order.
      provenance: What made it, for people and for `read_features`.

    Raises:
      ValueError: If an array does not have one row per id, or is not finite.
    """
    for name, array in arrays.items():
        if len(array) != len(ids):
            raise ValueError(f"feature {name!r} has {len(array)} rows for {len(ids)} items")
        if not np.isfinite(array).all():
            raise ValueError(f"feature {name!r} holds NaN or infinity")
    facts = {**provenance, "items": hash_ids(ids), "rows": str(len(ids))}
    tables = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    facts["checksum"] = _checksum(tables, facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(path.name + ".tmp")
    # As one text: safetensors writes several in a random order, and equal tables are equal bytes.
    save_file(tables, side, metadata={FACTS: json.dumps(facts, sort_keys=True)})
    side.replace(path)


def _checksum(arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> str:
    """Return the SHA-256 of all that a table says."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}:{array.dtype}:{array.shape}:".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_features(path: Path, ids: Sequence[str] | None = None) -> FeatureTable:
    """Read a feature table and check that it belongs to these items.

    Args:
      path: The file.
      ids: The item ids that it must be for, in row order; None reads without the check.

    Raises:
      UserError: If the file is missing, may not be read, is damaged, made for other items, or
        holds NaN or infinity.
    """
    try:
        path.open("rb").close()  # safetensors calls a file that may not be read missing
        with safe_open(path, "np") as file:
            facts = dict(file.metadata() or {})
            if FACTS in facts:  # an older jmrec wrote each by itself
                facts = {str(k): str(v) for k, v in json.loads(facts[FACTS]).items()}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the stage that makes it (jmrec run).") from None
    except Exception as error:  # damage shows in many ways
        if reason := refusal(error):
            raise UserError(f"{path} can not be read ({reason}); mend that.") from None
        raise UserError(_damaged(path, str(error))) from None
    wrong = [n for n, a in arrays.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
    if wrong:
        raise UserError(_damaged(path, f"{wrong[0]} holds NaN or infinity"))
    # Tables of an older jmrec have no checksum.
    checksum = facts.pop("checksum", None)
    if checksum not in (None, _checksum(arrays, facts)):
        raise UserError(_damaged(path, "its checksum differs"))
    if ids is not None and facts.get("items") != hash_ids(ids):
        raise UserError(
            f"{path} was made for {facts.get('rows', '?')} other items than the {len(ids)} of this "
            "run; embed the catalogue again (jmrec embed)."
        )
    return FeatureTable(arrays, facts)


def _damaged(path: Path, reason: str) -> str:
    stage = path.parent / "stage.json"
    remedy = f"delete {stage} and start jmrec run again: the stage makes it anew."
    if not stage.is_file():
        remedy = f"delete {path.parent} and make it again (jmrec embed)."
    return f"{path} is damaged ({reason}); {remedy}"


def pad_rows(array: Any, multiple: int = ROWS) -> Any:
    """Pad axis 0 with zeros to a multiple; the shape of a table becomes that of the padded one.

    Example:
      >>> pad_rows(np.ones((3, 2)), 4).shape
      (4, 2)
      >>> pad_rows(jax.ShapeDtypeStruct((5, 2), np.float32), 4).shape
      (8, 2)
    """
    missing = -array.shape[0] % multiple
    if isinstance(array, jax.ShapeDtypeStruct):
        return array.update(shape=(array.shape[0] + missing, *array.shape[1:]))
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))


def take_rows(tables: Any, rows: Any) -> Any:
    """Return ``table[rows]`` of one table, or of each in a tree of them.

    Example:
      >>> take_rows({"a": np.array([5, 6, 7])}, np.array([2, 0]))["a"].tolist()
      [7, 5]
    """
    return jax.tree.map(lambda table: pick(table, rows), tables)


@dataclass(frozen=True)
class Standardiser:
    """Centre and scale features with statistics of the training items only.

    Attributes:
      mean: float32 [D].
      scale: float32 [D], 1 / standard deviation (0 where a feature is constant).
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, rows: np.ndarray) -> "Standardiser":
        """Fit on ``features[rows]``.

        Example:
          >>> features = np.array([[0.0, 1.0], [2.0, 1.0], [9.0, 9.0]], np.float32)
          >>> Standardiser.fit(features, np.array([0, 1]))(features).tolist()
          [[-1.0, 0.0], [1.0, 0.0], [8.0, 0.0]]
        """
        known = features[rows].astype(np.float64)
        spread = known.std(0)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
        return cls(known.mean(0).astype(np.float32), scale.astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Standardise [V, D] -> float32 [V, D]."""
        return ((features - self.mean) * self.scale).astype(np.float32)
