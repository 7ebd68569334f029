"""The rows of an MMREC run: their splits, what was known before each, and the texts of cuts."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data.known import Cuts, Known
from jmrec.data.pairs import PairSplits, split_pairs
from jmrec.data.schema import Items, Ratings
from jmrec.errors import UserError
from jmrec.sharding import make_mesh, process_rows
from jmrec.systems.data import RunData
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work

GROUPS = ("item", "user")


class RatingData:
    """The data of one run.

    Args:
      work: The run.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.run_data = RunData(work, sessions=False)

    def stage(self, finish: Callable[[Path], None] | None = None, **more: Any) -> Stage:
        """Return the stage "data"; see `jmrec.systems.data.RunData.stage`."""
        return self.run_data.stage(finish, **more)

    @property
    def fingerprint(self) -> str:
        """Of the data set."""
        return self.run_data.dataset.fingerprint

    @property
    def items(self) -> Items:
        """The catalogue."""
        return self.run_data.dataset.items

    @cached_property
    def ratings(self) -> Ratings:
        """All rows.

        Raises:
          UserError: The data declares no label.
        """
        found = self.run_data.dataset.ratings
        if found is None:
            raise UserError(
                f"{self.run_data.dataset.name} declares no label; name one in dataset.toml: "
                '[interactions] label = "COLUMN" or a rule such as "rating <= 4".'
            )
        return found

    @cached_property
    def known(self) -> Known:
        """The splits, and what each row may know.

        Raises:
          UserError: The rows can not be split so, or a split lacks a class.
        """
        c = self.work.config.protocol
        splits = split_pairs(
            self.ratings, c.split, fractions=tuple(c.fractions), folds=c.folds, fold=c.fold,
            seed=self.work.config.seed,
        )  # fmt: skip
        # Without times a row's place in the file is its time, and every row its own day.
        found = Known(self.ratings, splits, float(c.day) if self.run_data.dataset.has_time else 1.0)
        for name, rows in vars(splits.labelled(self.ratings.labels)).items():
            labels = self.ratings.labels[rows]
            if not (labels == 0).any() or not (labels == 1).any():
                raise UserError(
                    f"the rows of {name} are all of one class ({self.ratings.label}: "
                    f"{int((labels == 1).sum()):,} of {len(labels):,}); bring more rows, or choose "
                    "another label or protocol.split."
                )
        return found

    @cached_property
    def rows(self) -> PairSplits:
        """The rows of each split that have a label."""
        return self.known.splits.labelled(self.ratings.labels)

    @cached_property
    def cuts(self) -> dict[str, Cuts]:
        """The cuts of "item" and of "user"."""
        sizes = tuple(int(size) for size in self.work.config.describe.sizes)
        if not sizes or min(sizes) < 1 or sorted(set(sizes)) != list(sizes):
            raise UserError(f"describe.sizes={sizes} must be whole numbers from 1 on, ascending.")
        return {by: self.known.cuts(by, sizes) for by in GROUPS}

    @cached_property
    def train_items(self) -> np.ndarray:
        """Rows of the items that occur in training, int64, ascending."""
        return np.unique(self.ratings.items[self.known.splits.train]).astype(np.int64)

    def process_rows(self) -> Callable[[int], np.ndarray] | None:
        """Return which rows of a batch this process reads."""
        return process_rows(make_mesh(self.work.config.rules))


def item_words(items: Items) -> list[str]:
    """Return all texts of each item as one.

    Example:
      >>> item_words(Items(["a"], ["Mug"], {"title": ["Mug"], "description": ["Blue"]}, [b""]))
      ['Mug. Blue']
    """
    columns = list(items.text.values())
    return [". ".join(filter(None, words)) for words in zip(*columns)]
