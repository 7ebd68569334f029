"""What a correction by people does to the figures of the row that is served."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jmrec.evaluation.figures import figures
from jmrec.evaluation.policy import PINNED, PINNED_STEP, Policy
from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker, rank
from jmrec.evaluation.results import MEASURES, SESSION
from jmrec.evaluation.summary import Row, compare


class Pinned:
    """A Ranker that scores some items above all others, the first of them highest.

    Args:
      ranker: Scores the rest; prepared.
      rows: int32 [N] pinned catalogue rows.
    """

    def __init__(self, ranker: Ranker, rows: np.ndarray) -> None:
        self.ranker, self.rows = ranker, rows

    @property
    def name(self) -> str:
        """The name of the ranker that scores the rest."""
        return self.ranker.name

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Prepare that ranker."""
        self.ranker.prepare(features)

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice]."""
        scores = np.array(self.ranker.scores(prefixes, item_slice), np.float32)
        place = np.arange(len(self.rows))
        here = (self.rows >= item_slice.start) & (self.rows < item_slice.stop)
        scores[:, self.rows[here] - item_slice.start] = PINNED - place[here] * PINNED_STEP
        return scores


def correction_effect(
    plain: Row, rankers: Sequence[Ranker], predictions: Predictions, policy: Policy
) -> dict[str, Any]:
    """Rank once more under a policy's correction, and compare.

    The rows of the results table are never corrected: so they can be compared between runs.

    Args:
      plain: The served row, ranked without the correction.
      rankers: Of the same row, one a seed, prepared.
      predictions: What the row was asked.
      policy: Of the V items that were evaluated.

    Returns:
      Counts of the correction, in "figures" the primary figures "without" and "with" it, in
      "comparisons" their paired difference, and two shares: "targets lost" of predictions whose
      target may not be recommended any more, and "top 20 changed" of places.
    """
    corrected = Row(f"{plain.name}, corrected", plain.kind, [])
    corrected.ranked = [
        rank(
            Pinned(ranker, policy.pinned),
            predictions,
            n_items=len(policy.allowed),
            exclude_seen=policy.exclude_seen,
            allowed=policy.allowed,
        )
        for ranker in rankers
    ]
    changed = [
        float((before.top_ids != after.top_ids).mean())
        for before, after in zip(plain.ranked, corrected.ranked, strict=True)
        if len(predictions)
    ]
    lists = policy.correction
    return {
        "row": plain.name,
        "items": len(policy.allowed),
        "allowed": None if lists.allow is None else len(set(lists.allow)),
        "blocked": len(set(lists.block)),
        "pinned": len(set(lists.pin)),
        "candidates": int(policy.allowed.sum()),
        "targets lost": float((~policy.allowed[predictions.target]).mean()) if changed else None,
        "top 20 changed": float(np.mean(changed)) if changed else None,
        "figures": {
            name: figures(row.ranks(), predictions)[SESSION]
            for name, row in (("without", plain), ("with", corrected))
        },
        "comparisons": [
            compare(corrected, plain, predictions, figure, name) for figure, name in MEASURES
        ],
    }
