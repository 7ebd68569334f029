"""Why a ranker says what it says: its logits once more, with one thing removed at a time.

Removing is exact: the ranker is asked again without the texts, the picture, everything that was
known of earlier rows, or the ids. What two things say together is lost with either of them, so that
the parts of a pair do not add up to its logit.
"""

from typing import Any

import numpy as np
from scipy.special import expit

from jmrec.systems.mmrec.parts import Run

MOST = 20_000
"""Rows that are asked again, at most, drawn by chance."""
EXAMPLES = 4
"""Rows of each kind that are shown."""
FOUND, FALSE, MISSED = "found", "false", "missed"
"""Kinds of examples: called positive and rightly, wrongly; not called and positive."""


def explain(system: Run, name: str, rows: np.ndarray, line: dict[str, Any]) -> dict[str, Any]:
    """Return what each thing that a ranker reads does to its logits, over seeds and by example.

    Args:
      system: The system.
      name: The ranker.
      rows: int64 [N], labelled rows of the split that is reported.
      line: Each seed's "scale", "shift" and "threshold", see `jmrec.evaluation.pairs.measure`.

    Returns:
      Plain values: "row", "rows" how many were asked, "parts", a list with for each thing "part",
      "change" (mean size of what its removal does to a logit), "PR-AUC" (without it, less with it;
      seeds averaged) and "decisions" (share of the rows whose call changes); "examples", a list
      with "kind", "item", "p" (the first seed's probability) and "without" (thing -> what the
      calibrated logit loses without it).
    """
    rankers, labels = system.rankers, system.data.ratings.labels
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    scale, shift, threshold = (
        np.asarray(line[key], np.float64)[:, None] for key in ("scale", "shift", "threshold")
    )
    truth = labels[rows] == 1

    def asked(without: str = "") -> np.ndarray:
        return scale * rankers.logits(name, rows, without=without) + shift

    whole = asked()
    called = expit(whole) >= threshold
    lost: dict[str, np.ndarray] = {}
    parts = []
    for part in rankers.removals(name):
        left = asked(part)
        lost[part] = whole[0] - left[0]
        parts.append(
            {
                "part": part,
                "change": float(np.abs(whole - left).mean()),
                "PR-AUC": _precision(truth, left) - _precision(truth, whole),
                "decisions": float((called != (expit(left) >= threshold)).mean()),
            }
        )
    return {
        "row": name,
        "rows": len(rows),
        "parts": parts,
        "examples": [
            {
                "kind": kind,
                "item": system.data.items.titles[system.data.ratings.items[rows[at]]],
                "p": float(expit(whole[0, at])),
                "without": {part: float(each[at]) for part, each in lost.items()},
            }
            for kind, places in _examples(whole[0], called[0], truth).items()
            for at in places
        ],
    }


def _precision(truth: np.ndarray, logits: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score  # here: it takes two seconds to load

    if not truth.any():
        return float("nan")
    return float(np.mean([average_precision_score(truth, each) for each in logits]))


def _examples(logits: np.ndarray, called: np.ndarray, truth: np.ndarray) -> dict[str, list[int]]:
    """Return the surest rows that are called positive, right and wrong, and the worst missed."""
    order = np.argsort(-logits, kind="stable")
    return {
        FOUND: [int(at) for at in order if called[at] and truth[at]][:EXAMPLES],
        FALSE: [int(at) for at in order if called[at] and not truth[at]][:EXAMPLES],
        MISSED: [int(at) for at in order[::-1] if truth[at] and not called[at]][:EXAMPLES],
    }
