"""Splits of rows that a user and an item share: by time, by time within each item, by items."""

import math
from dataclasses import dataclass

import numpy as np

from jmrec.config import choose
from jmrec.data.schema import Ratings
from jmrec.errors import UserError

TIME, WITHIN, UNSEEN = "time", "time_within_item", "unseen_items"
SPLITTERS = (TIME, WITHIN, UNSEEN)
"""How rows may be split."""
KNOWN_SHARE, LAST = 0.8, 8
"""Of `WITHIN`: the share of an item's rows that is known, whose last eighth is validation."""


@dataclass(frozen=True)
class PairSplits:
    """Row numbers of three splits, each int64 and ascending, so in the order of time."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def labelled(self, labels: np.ndarray) -> "PairSplits":
        """Return the splits without rows whose label is not known."""
        return PairSplits(
            *(rows[labels[rows] >= 0] for rows in (self.train, self.validation, self.test))
        )


def split_pairs(
    ratings: Ratings,
    how: str,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
) -> PairSplits:
    """Split rows.

    Args:
      ratings: N rows in the order of time.
      how: "time" cuts all rows by time; "time_within_item" takes as known the first 80 % of each
        item's rows (rounded up) and as validation the last eighth of those; "unseen_items" deals
        the items into folds, of which one is test and the next one validation.
      fractions: Shares of train, validation and test, of "time".
      folds: How many, of "unseen_items"; at least 3.
      fold: Which of them is test.
      seed: Of the dealing.

    Returns:
      The rows of each split; every row is in one of them.

    Raises:
      UserError: ``how`` is unknown, the folds make no sense, or a split is empty.

    Example:
      >>> n = 10
      >>> rows = Ratings(np.zeros(n, int), np.zeros(n, int), ["u"], np.arange(n), np.zeros(n, int),
      ...                np.zeros(n), [""] * n, "low", "avoid")
      >>> [each.tolist() for each in vars(split_pairs(rows, "time_within_item")).values()]
      [[0, 1, 2, 3, 4, 5, 6], [7], [8, 9]]
    """
    choose("protocol.split", how, SPLITTERS)
    part = {
        TIME: lambda: _by_time(len(ratings), fractions),
        WITHIN: lambda: _within_items(ratings.items),
        UNSEEN: lambda: _by_items(ratings.items, folds, fold, seed),
    }[how]()
    splits = PairSplits(*(np.flatnonzero(part == number) for number in range(3)))
    for name, rows in vars(splits).items():
        if not len(rows):
            raise UserError(
                f"protocol.split={how} leaves no row for {name} ({len(ratings):,} rows in all); "
                "bring more rows, or split them another way."
            )
    return splits


def _by_time(count: int, fractions: tuple[float, float, float]) -> np.ndarray:
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"fractions={fractions} must be above 0 and add up to 1.")
    first = math.floor(fractions[0] * count + 1e-9)
    last = math.floor((fractions[0] + fractions[1]) * count + 1e-9)
    return np.searchsorted([first, last], np.arange(count), side="right")


def _within_items(items: np.ndarray) -> np.ndarray:
    order = np.argsort(items, kind="stable")  # rows are in the order of time
    _, start, count = np.unique(items[order], return_index=True, return_counts=True)
    place = np.arange(len(items)) - np.repeat(start, count)
    # In whole numbers: 0.8 times 5 is a little more than 4.
    known = -(-count * round(10 * KNOWN_SHARE) // 10)
    learned = known - known // LAST
    part = np.empty(len(items), np.int64)
    part[order] = (place >= np.repeat(learned, count)).astype(int) + (
        place >= np.repeat(known, count)
    )
    return part


def _by_items(items: np.ndarray, folds: int, fold: int, seed: int) -> np.ndarray:
    if folds < 3 or not 0 <= fold < folds:
        raise UserError(
            f"protocol.folds={folds} and protocol.fold={fold}: give 3 folds or more, and one of "
            "them from 0 on."
        )
    found, which = np.unique(items, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(found)) % folds
    own = dealt[which]
    return np.where(own == fold, 2, np.where(own == (fold + 1) % folds, 1, 0))
