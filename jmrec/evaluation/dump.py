"""Write what was recommended, so that anyone can check it with their own code."""

from pathlib import Path

import numpy as np

from jmrec.evaluation.protocol import Predictions, Ranked


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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            session=predictions.session,
            position=predictions.position,
            target=predictions.target,
            is_last=predictions.is_last,
            length=predictions.length,
            user=predictions.user,
            ids=ranked.top_ids,
            scores=ranked.top_scores,
        )
    partial.replace(path)
