"""What was known before a row: earlier rows of its item and of its user, never its own.

A row may read rows of earlier days only, and only those that its split may know: a row of train or
validation knows rows of train, a row of test knows those of train and validation. Of a day nothing
is known on that day, since many sources date a row by its day alone.

Shapes: N rows of the ratings, Q questions, C cuts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jmrec.data.pairs import PairSplits
from jmrec.data.schema import Ratings

DAY = 86_400.0
"""Seconds of the unit in which times are compared."""
SIZES = (4, 16, 64, 256, 1024)
"""After how many earlier reviews a summary is written anew."""


@dataclass(frozen=True)
class Spans:
    """The known rows of each question, oldest first: ``order[start[q] : stop[q]]``.

    Attributes:
      order: int64 row numbers.
      start: int64 [Q].
      stop: int64 [Q].
    """

    order: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def __getitem__(self, question: int) -> np.ndarray:
        return self.order[self.start[question] : self.stop[question]]

    @property
    def count(self) -> np.ndarray:
        """int64 [Q]: how many rows are known."""
        return self.stop - self.start

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over each question's known rows.

        Args:
          values: float [N], one a row of the ratings.

        Returns:
          float64 [Q].
        """
        total = np.concatenate([[0.0], np.cumsum(values[self.order], dtype=np.float64)])
        return total[self.stop] - total[self.start]

    def newest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the newest known rows of each question.

        Args:
          count: L, at most so many.

        Returns:
          int64 [Q, L] row numbers, oldest first and 0 where masked, and bool [Q, L].
        """
        place = self.stop[:, None] - count + np.arange(count)
        mask = place >= self.start[:, None]
        rows = self.order[np.where(mask, place, 0)] if len(self.order) else place * 0
        return np.where(mask, rows, 0), mask


def days(times: np.ndarray, unit: float = DAY) -> np.ndarray:
    """Return the number of the day of each time, int64.

    Example:
      >>> days(np.array([86_399.0, 86_400.0])).tolist()
      [0, 1]
    """
    return np.floor(np.asarray(times, np.float64) / unit).astype(np.int64)


def earlier(
    groups: np.ndarray,
    day: np.ndarray,
    asked: np.ndarray,
    asked_day: np.ndarray,
    known: np.ndarray,
) -> Spans:
    """Return which known rows of its group come before each question's day.

    Args:
      groups: int [N], each row's item or user; -1 is none.
      day: int64 [N].
      asked: int [Q], each question's group; -1 knows nothing.
      asked_day: int64 [Q].
      known: int64 [K], row numbers that may be known, ascending.

    Returns:
      The spans.

    Example:
      >>> groups, day = np.array([5, 5, 5, 7]), np.array([1, 2, 2, 2])
      >>> spans = earlier(groups, day, groups, day, np.arange(4))
      >>> [spans[row].tolist() for row in range(4)]
      [[], [0], [0], []]
    """
    known = known[groups[known] >= 0]
    order = known[np.lexsort((known, day[known], groups[known]))]
    every = np.unique(np.concatenate([day[known], asked_day]))
    width = len(every) + 1
    key = groups[order].astype(np.int64) * width + np.searchsorted(every, day[order])
    own = asked.astype(np.int64) * width
    start = np.searchsorted(key, own)
    stop = np.searchsorted(key, own + np.searchsorted(every, asked_day))
    none = asked < 0
    return Spans(order, np.where(none, 0, start), np.where(none, 0, stop))


@dataclass(frozen=True)
class Known:
    """What is known before each row of the ratings.

    Attributes:
      ratings: N rows.
      splits: Their splits.
      unit: Seconds of a day, see `days`.
    """

    ratings: Ratings
    splits: PairSplits
    unit: float = DAY

    @property
    def day(self) -> np.ndarray:
        """int64 [N], the day of each row."""
        return days(self.ratings.times, self.unit)

    @property
    def learned(self) -> np.ndarray:
        """Rows that a row of train or validation may know."""
        return self.splits.train

    @property
    def settled(self) -> np.ndarray:
        """Rows that a row of test may know."""
        return np.sort(np.concatenate([self.splits.train, self.splits.validation]))

    def groups(self, by: str) -> np.ndarray:
        """Return each row's "item" or "user"."""
        return {"item": self.ratings.items, "user": self.ratings.users}[by]

    def spans(self, by: str, where: np.ndarray | None = None) -> Spans:
        """Return the known rows of every row's item or user.

        Args:
          by: "item" or "user".
          where: bool [N], which rows count, such as those with a label; None is all.

        Returns:
          Spans with N questions.
        """
        groups, day = self.groups(by), self.day
        parts, begin = [], 0
        start, stop = np.zeros(len(groups), np.int64), np.zeros(len(groups), np.int64)
        asking = np.ones(len(groups), bool)
        asking[self.splits.test] = False
        for who, known in ((asking, self.learned), (~asking, self.settled)):
            kept = known if where is None else known[where[known]]
            found = earlier(groups, day, groups[who], day[who], kept)
            start[who], stop[who] = begin + found.start, begin + found.stop
            parts.append(found.order)
            begin += len(found.order)
        return Spans(np.concatenate(parts), start, stop)

    def cuts(self, by: str, sizes: Sequence[int] = SIZES) -> "Cuts":
        """Return the cuts of all items or users, see `Cuts`."""
        said = np.array([bool(text) for text in self.ratings.reviews], bool)
        return make_cuts(self, by, said, sizes)


@dataclass(frozen=True)
class Cuts:
    """Stretches of a group's earliest reviews, each of which is summarised once.

    A group is an item or a user. Its first cut has no review; the others end with the day on which
    it has 4, 16, 64, ... reviews. A row reads the newest cut that lies wholly before its day.

    Attributes:
      group: int32 [C].
      rows: C arrays of row numbers, oldest first.
      of_row: int64 [N], the cut that each row reads; that without reviews of group 0 where a row
        has no group.
      latest: int64 [G], the newest cut of each group, of all rows: what is served.
    """

    group: np.ndarray
    rows: list[np.ndarray]
    of_row: np.ndarray
    latest: np.ndarray

    def __len__(self) -> int:
        return len(self.group)


def make_cuts(known: Known, by: str, said: np.ndarray, sizes: Sequence[int]) -> Cuts:
    """Cut the reviews of each group.

    Args:
      known: The rows, and who may know what.
      by: "item" or "user".
      said: bool [N], rows with a review.
      sizes: After how many reviews a cut ends, ascending.
    """
    groups, day = known.groups(by), known.day
    count = int(groups.max(initial=-1)) + 1
    count = max(count, len(known.ratings.user_ids) if by == "user" else 0)
    asking = np.ones(len(groups), bool)
    asking[known.splits.test] = False
    made = _Made(count)
    of_row = np.zeros(len(groups), np.int64)
    for who, may in ((asking, known.learned), (~asking, known.settled)):
        ends = made.add(groups, day, may[said[may]], sizes)
        for group, rows in _by_group(groups, np.flatnonzero(who)):
            last, number = ends.get(group, _NOTHING)
            newest = np.searchsorted(last, day[rows])  # cuts that end before the row's day
            of_row[rows] = np.where(newest > 0, number[newest - 1], group)
    latest = np.arange(count, dtype=np.int64)
    ends = made.add(groups, day, np.flatnonzero(said), sizes)
    for group, (_, number) in ends.items():
        latest[group] = number[-1]
    return Cuts(np.array(made.group, np.int32), made.rows, of_row, latest)


_NOTHING = (np.zeros(0, np.int64), np.zeros(1, np.int64))


class _Made:
    """The cuts so far; the first ones are those without reviews, one a group."""

    def __init__(self, count: int) -> None:
        self.group = list(range(count))
        self.rows = [np.zeros(0, np.int64) for _ in range(count)]
        self._known: dict[tuple[int, bytes], int] = {}

    def add(
        self, groups: np.ndarray, day: np.ndarray, rows: np.ndarray, sizes: Sequence[int]
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Cut some rows; return group -> (last day of each cut, its number), those with rows."""
        found = {}
        for group, own in _by_group(groups, rows):
            own = own[np.argsort(day[own], kind="stable")]
            ends = []
            for size in sizes:
                if size <= len(own):
                    # The whole day of the review that makes it so many.
                    ends.append(int(np.searchsorted(day[own], day[own[size - 1]], side="right")))
            cuts = [own[:end] for end in dict.fromkeys(ends)]
            if cuts:
                last = np.array([day[cut[-1]] for cut in cuts], np.int64)
                found[group] = last, np.array([self._number(group, cut) for cut in cuts])
        return found

    def _number(self, group: int, rows: np.ndarray) -> int:
        key = group, rows.tobytes()
        if key not in self._known:
            self._known[key] = len(self.group)
            self.group.append(group)
            self.rows.append(rows)
        return self._known[key]


def _by_group(groups: np.ndarray, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return each group and its rows, ascending, of those that have a group."""
    rows = rows[groups[rows] >= 0]
    order = rows[np.argsort(groups[rows], kind="stable")]
    found, start = np.unique(groups[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, start[1:]), strict=True)) if len(rows) else []
