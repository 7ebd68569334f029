"""A rule that was chosen in a run, counted anew with the sessions that came since."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jmrec.data.live import live_dataset
from jmrec.data.remembered import Remembered
from jmrec.data.schema import Dataset, take_items
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers.ease import solve, with_old_weights
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.rules import fit_again

EASE = "EASE"
"""Its weights are solved and not counted: they stay as they are, unless it is asked to solve."""


@dataclass(frozen=True)
class Chosen:
    """What a run chose.

    Attributes:
      name: The rule's row.
      settings: Row -> settings of the rule, and of all that it blends.
      ease_items: Of how many items EASE holds weights at most.
    """

    name: str
    settings: Mapping[str, Mapping[str, Any]]
    ease_items: int

    @property
    def reads_ease(self) -> bool:
        """Whether the rule is EASE, or a blend that holds it."""
        return self.name == EASE or EASE in self.settings.get(self.name, {})


def count_anew(
    chosen: Chosen,
    dataset: Dataset,
    remembered: Remembered,
    features: Mapping[str, np.ndarray],
    ease: Ranker | None = None,
    student: Ranker | None = None,
) -> Ranker:
    """Fit a rule on all sessions that are known by now; nothing is trained and nothing searched.

    Args:
      chosen: Which rule, and its settings.
      dataset: What was prepared, with a catalogue that holds the new items.
      remembered: At least one batch.
      features: Name -> float [V, D], what the content rules read.
      ease: EASE as it was solved last; needed where the rule reads it.
      student: The one that it blends with rules, where it does; that counts nothing.

    Returns:
      The rule, prepared.
    """
    live = live_dataset(dataset, remembered)
    known = Known(live, chosen.ease_items)
    fitted = {} if ease is None else {EASE: with_old_weights(ease, known)}
    return fit_again(
        live, chosen.name, chosen.settings, features, ease_items=chosen.ease_items,
        student=student, fitted=fitted,
    )  # fmt: skip


def solve_ease(chosen: Chosen, dataset: Dataset, remembered: Remembered | None) -> Ranker:
    """Solve EASE on all sessions that are known by now, or on the training sessions alone.

    Args:
      chosen: Which rule, and its settings.
      dataset: What was prepared, with the catalogue that EASE is to know.
      remembered: The batches that it is to know; None for training alone.
    """
    live = dataset if remembered is None else live_dataset(dataset, remembered)
    return solve(Known(live, chosen.ease_items), chosen.settings[EASE])


def solved_ease(chosen: Chosen, dataset: Dataset, remembered: Remembered) -> Ranker:
    """Return EASE as it was solved last: with the items and the sessions of then.

    Args:
      chosen: Which rule, and its settings.
      dataset: What was prepared, with a catalogue whose last items are those of the batches.
      remembered: The batches.
    """
    then, items = remembered.solved, dataset.items
    since = set(remembered.items.ids) - (set() if then is None else {*then.items.ids})
    count = len(items)
    while count and items.ids[count - 1] in since:
        count -= 1
    return solve_ease(chosen, replace(dataset, items=take_items(items, range(count))), then)


def with_rows(table: np.ndarray, count: int) -> np.ndarray:
    """Return a feature table with zeros for the items that it lacks: no tower has read them.

    Example:
      >>> with_rows(np.ones((1, 2)), 2).tolist()
      [[1.0, 1.0], [0.0, 0.0]]
    """
    return np.concatenate([table, np.zeros((count - len(table), *table.shape[1:]), table.dtype)])
