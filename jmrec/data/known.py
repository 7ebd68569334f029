"""What was known before a row: earlier rows of its item and of its user, never its own.

A row may read rows of earlier days only, and only those that its split may know: a row of train or
validation knows rows of train, a row of test knows those of train and validation. Of a day nothing
is known on that day, since many sources date a row by its day alone.

Shapes: N rows of the ratings, Q questions, C cuts.
"""

from collections.abc import Mapping, Sequence
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


LEARNED, SETTLED, EVERY = 0, 1, 2
"""What a question may know: rows of train; those and validation; all."""


@dataclass(frozen=True)
class Questions:
    """Q questions, each for what is known of an item and of a user before a day.

    Attributes:
      items: int [Q], item rows.
      users: int [Q], user codes, -1 for one of whom nothing is known.
      day: int64 [Q], see `days`.
      may: int [Q], `LEARNED`, `SETTLED` or `EVERY`.
    """

    items: np.ndarray
    users: np.ndarray
    day: np.ndarray
    may: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def groups(self, by: str) -> np.ndarray:
        """Return each question's "item" or "user"."""
        return {"item": self.items, "user": self.users}[by]


@dataclass(frozen=True)
class Known:
    """What is known before each row of the ratings, or when anything else is asked.

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
    def levels(self) -> tuple[np.ndarray, ...]:
        """The rows that may be known, ascending, by `LEARNED`, `SETTLED` and `EVERY`.

        A row of train or validation may know the first, a row of test the second.
        """
        learned = self.splits.train
        settled = np.sort(np.concatenate([learned, self.splits.validation]))
        return learned, settled, np.arange(len(self.ratings))

    @property
    def rows(self) -> Questions:
        """The rows themselves as questions."""
        may = np.full(len(self.ratings), LEARNED)
        may[self.splits.test] = SETTLED
        return Questions(self.ratings.items, self.ratings.users, self.day, may)

    @property
    def end(self) -> int:
        """The first day after all rows."""
        return int(self.day.max(initial=-1)) + 1

    def spans(
        self, by: str, where: np.ndarray | None = None, asked: Questions | None = None
    ) -> Spans:
        """Return the known rows of each question's item or user.

        Args:
          by: "item" or "user".
          where: bool [N], which rows count, such as those with a label; None is all.
          asked: The Q questions; None asks for each row.

        Returns:
          Spans with Q questions.
        """
        asked = self.rows if asked is None else asked
        groups, day, own = self.rows.groups(by), self.day, asked.groups(by)
        parts, begin = [], 0
        start, stop = np.zeros(len(asked), np.int64), np.zeros(len(asked), np.int64)
        # All levels in this order, asked for or not: sums then round alike whatever is asked.
        for level, known in enumerate(self.levels):
            kept, who = known if where is None else known[where[known]], asked.may == level
            found = earlier(groups, day, own[who], asked.day[who], kept)
            start[who], stop[who] = begin + found.start, begin + found.stop
            parts.append(found.order)
            begin += len(found.order)
        return Spans(np.concatenate(parts), start, stop)

    def cuts(self, by: str, sizes: Sequence[int] = SIZES) -> "Cuts":
        """Return the cuts of all items or users, see `Cuts`."""
        said = np.array([bool(text) for text in self.ratings.reviews], bool)
        return make_cuts(self, by, said, sizes)


Ends = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Group -> the last day of each of its cuts, and their numbers; groups with reviews."""


@dataclass(frozen=True)
class Cuts:
    """Stretches of a group's earliest reviews, each of which is summarised once.

    A group is an item or a user. Its first cut has no review; the others end with the day on which
    it has 4, 16, 64, ... reviews. A row reads the newest cut that lies wholly before its day.

    Attributes:
      by: "item" or "user".
      group: int32 [C].
      rows: C arrays of row numbers, oldest first.
      of_row: int64 [N], the cut that each row reads, see `newest`.
      groups: How many groups there are; whatever is beyond has no row.
      ends: Where the cuts end of those who may know `LEARNED`, `SETTLED` and `EVERY`.
    """

    by: str
    group: np.ndarray
    rows: list[np.ndarray]
    of_row: np.ndarray
    groups: int
    ends: tuple[Ends, ...]

    def __len__(self) -> int:
        return len(self.group)

    def newest(self, asked: Questions) -> np.ndarray:
        """Return the newest cut wholly before each question's day, int64 [Q].

        It is that without reviews of group 0 where a question's group is none, or has no row.
        """
        return _newest(self.ends, self.groups, asked, self.by)


def make_cuts(known: Known, by: str, said: np.ndarray, sizes: Sequence[int]) -> Cuts:
    """Cut the reviews of each group.

    Args:
      known: The rows, and who may know what.
      by: "item" or "user".
      said: bool [N], rows with a review.
      sizes: After how many reviews a cut ends, ascending.
    """
    rows = known.rows
    groups = rows.groups(by)
    count = int(groups.max(initial=-1)) + 1
    count = max(count, len(known.ratings.user_ids) if by == "user" else 0)
    made = _Made(count)
    ends = tuple(made.add(groups, known.day, may[said[may]], sizes) for may in known.levels)
    of_row = _newest(ends, count, rows, by)
    return Cuts(by, np.array(made.group, np.int32), made.rows, of_row, count, ends)


def _newest(ends: Sequence[Ends], count: int, asked: Questions, by: str) -> np.ndarray:
    groups, found = asked.groups(by), np.zeros(len(asked), np.int64)
    groups = np.where(groups < count, groups, -1)
    for level, of_group in enumerate(ends):
        for group, rows in _by_group(groups, np.flatnonzero(asked.may == level)):
            last, number = of_group.get(group, _NOTHING)
            newest = np.searchsorted(last, asked.day[rows])  # cuts that end before the day
            found[rows] = np.where(newest > 0, number[newest - 1], group)
    return found


_NOTHING = (np.zeros(0, np.int64), np.zeros(1, np.int64))


class _Made:
    """The cuts so far; the first ones are those without reviews, one a group."""

    def __init__(self, count: int) -> None:
        self.group = list(range(count))
        self.rows = [np.zeros(0, np.int64) for _ in range(count)]
        self._known: dict[tuple[int, bytes], int] = {}

    def add(
        self, groups: np.ndarray, day: np.ndarray, rows: np.ndarray, sizes: Sequence[int]
    ) -> Ends:
        """Cut some rows; return where the cuts end."""
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
