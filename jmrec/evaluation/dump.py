"""Write what was recommended, so that anyone can check it with their own code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from jmrec.evaluation.protocol import Predictions, Ranked

DUMPED = (
    "session", "position", "target", "is_last", "length", "user", "ids", "scores",
)  # fmt: skip
"""The arrays of a dump."""


def dump_topk(path: Path, predictions: Predictions, ranked: Ranked) -> None:
    """Write predictions and top lists as a compressed ``.npz`` without objects.

    Arrays: session, position (p; the target is item p + 1), target, is_last, length, user, all
    [P]; ids int32 [P, K], best first, -1 where there were fewer candidates; scores float32
    [P, K]. No rank is stored: it is the place of the target in ``ids``. A target that ties with
    other items comes after them.

    Args:
      path: The file to write, as a whole or not at all.
      predictions: What was asked.
      ranked: What was answered.
    """
    of = {name: getattr(predictions, name) for name in DUMPED[:-2]}
    _write(path, {**of, "ids": ranked.top_ids, "scores": ranked.top_scores})


def is_dump(path: Path) -> bool:
    """Whether a file is what `dump_topk` wrote."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return set(file.files) == set(DUMPED)
    except (OSError, ValueError, EOFError, BadZipFile):
        return False


def split_of(path: Path, asked: Mapping[str, Predictions]) -> str:
    """Return the split of a dump: that whose sessions and targets it has; "" for none."""
    with np.load(path, allow_pickle=False) as file:
        for split, each in asked.items():
            if all(np.array_equal(file[n], getattr(each, n)) for n in ("session", "target")):
                return split
    return ""


def keep_dump(path: Path, out: Path, keep: np.ndarray) -> None:
    """Write a dump anew without some sessions.

    Args:
      path: What `dump_topk` wrote.
      out: The file to write.
      keep: bool [S], sessions of its split that stay.
    """
    with np.load(path, allow_pickle=False) as file:
        rows = keep[file["session"]]
        kept = {name: file[name][rows] for name in DUMPED}
    kept["session"] = renumbered(keep)[kept["session"]]
    _write(out, kept)


def renumbered(keep: np.ndarray) -> np.ndarray:
    """Return the new number of each session that stays, int32 [S]; -1 of others.

    Example:
      >>> renumbered(np.array([True, False, True])).tolist()
      [0, -1, 1]
    """
    return np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)
