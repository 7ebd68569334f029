"""What every ranker is fitted on: the training sessions and the catalogue, nothing else."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jmrec.data.schema import Dataset, Items, Sessions

EASE_ITEMS = 20_000
"""Of how many items EASE holds weights, the most frequent, where nothing else is set: its matrices
then take 4.8 GB while settings are tried, which a machine of 16 GB has beside all else."""


def popularity(sessions: Sessions, n_items: int) -> np.ndarray:
    """Return float32 [V]: each item's share of the training events."""
    count = np.bincount(sessions.items, minlength=n_items)
    return (count / max(count.sum(), 1)).astype(np.float32)


@dataclass(frozen=True)
class Known:
    """What is known before validation.

    Attributes:
      dataset: Its training sessions and catalogue are looked at, no other split.
      ease_items: Of how many items EASE holds weights at most.
    """

    dataset: Dataset
    ease_items: int = EASE_ITEMS

    @property
    def train(self) -> Sessions:
        """The training sessions."""
        return self.dataset.splits["train"]

    @property
    def items(self) -> Items:
        """The catalogue, V items."""
        return self.dataset.items

    @property
    def n_items(self) -> int:
        """V."""
        return len(self.dataset.items)

    @cached_property
    def seen(self) -> np.ndarray:
        """Bool [V], the items of the training sessions."""
        return np.asarray(self.dataset.train_count > 0)

    @cached_property
    def counted(self) -> np.ndarray:
        """Float32 [V], each item's share of the training events."""
        return popularity(self.train, self.n_items)

    @cached_property
    def prior(self) -> np.ndarray:
        """Float32 [V], ``counted`` with 1 for the most popular item."""
        return (self.counted / max(self.counted.max(initial=0.0), 1e-9)).astype(np.float32)
