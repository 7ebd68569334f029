"""What is past at the moment of each prediction: all events of a data set, found by their time.

An event is past where it is strictly before the moment (``Prefixes.time``), and where it is one of
the prediction's own prefix, which is known whatever its time. Counts at a moment are those of all
that is before a stretch of time, which are made once, and those of the few events since it began.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np

from jmrec.data.schema import SPLITS, Dataset, Sessions
from jmrec.data.sessions import no_sessions, take, until
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Prefixes

AT_ONCE = 1 << 22
"""Entries that are looked at together."""
CATALOGUE_SLICE = 8192
"""Items that are looked at together where all are wanted."""
STRETCHES = 64
"""A stretch of time has at least this part of the events before all stretches."""
ENTRIES = 1 << 28
"""Of so many entries the counts would be, if there were so many stretches."""
SHORTEST = 1024
"""A stretch has at least so many events."""
Made = TypeVar("Made")


def expand(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which stretch each entry is of, and its place, of stretches laid end to end.

    Args:
      start: int [R] where each begins.
      count: int [R] how long each is.

    Example:
      >>> expand(np.array([5, 0]), np.array([2, 1]))
      (array([0, 0, 1]), array([5, 6, 0]))
    """
    of = np.repeat(np.arange(len(count)), count)
    return of, np.arange(len(of)) - (np.cumsum(count) - count - start)[of]


def blocks(count: np.ndarray, most: int = AT_ONCE) -> Iterator[slice]:
    """Yield slices of stretches that hold about ``most`` entries together, one at least.

    Example:
      >>> list(blocks(np.array([3, 1, 1, 9]), most=4))
      [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    total, begin = np.cumsum(count), 0
    while begin < len(count):
        done = total[begin - 1] if begin else 0
        end = max(int(np.searchsorted(total, done + most, "right")), begin + 1)
        yield slice(begin, end)
        begin = end


def merge(dataset: Dataset) -> tuple[Sessions, list[np.ndarray]]:
    """Return the sessions of all splits, each once, by their start; and where each split's are.

    A session that a later split continues is held whole by that split: it is taken from there.
    What preparing the data left out or cut off is not in it.

    Args:
      dataset: Any data set with times.

    Returns:
      The sessions, and int [S] for each of `SPLITS`: the row of each of its sessions.
    """
    parts = [dataset.splits.get(name, no_sessions()) for name in SPLITS]
    latest: dict[str, tuple[int, int]] = {}
    for split, part in enumerate(parts):
        latest |= {name: (split, row) for row, name in enumerate(part.ids)}
    kept = [
        take(
            part,
            np.flatnonzero([latest[name] == (split, row) for row, name in enumerate(part.ids)]),
        )
        for split, part in enumerate(parts)
    ]
    offsets = np.concatenate([[0], *(part.lengths for part in kept)]).cumsum().astype(np.int64)
    whole = Sessions(
        ids=[name for part in kept for name in part.ids],
        users=np.concatenate([part.users for part in kept]),
        offsets=offsets,
        items=np.concatenate([part.items for part in kept]),
        times=np.concatenate([np.asarray(part.times, np.float64) for part in kept]),
        events=np.concatenate([part.events for part in kept]),
        ratings=np.concatenate([part.ratings for part in kept]),
    )
    whole = take(whole, np.argsort(whole.times[whole.offsets[:-1]], kind="stable"))
    row_of = {name: row for row, name in enumerate(whole.ids)}
    return whole, [np.array([row_of[name] for name in part.ids], np.int64) for part in parts]


class Past:
    """All events of a data set, and which of them are past at a moment.

    Args:
      dataset: Any data set with times.
      since: Counts of what is before this are made once; no prediction is asked for before it.

    Attributes:
      sessions: Every session once, by its start.
      n_items: V.
      owner: int [N] the session of each event.
      moments: float64 [T] the times there are, ascending.
      rank: int [N] the place of each event's time there.
      whole: All the time from ``since`` on.
      training_period: Seconds from the first to the last training event.

    Raises:
      UserError: The data has no times.
    """

    def __init__(self, dataset: Dataset, since: float) -> None:
        if not dataset.has_time:
            raise UserError(
                f"{dataset.name} has no times, so nothing says what came before a prediction; "
                "leave out --counts."
            )
        self.sessions, self._rows = merge(dataset)
        self._parts = [dataset.splits.get(name) for name in SPLITS]
        self.n_items, self.since = len(dataset.items), since
        self.owner = np.repeat(np.arange(len(self.sessions)), self.sessions.lengths)
        self.moments, self.rank = np.unique(self.sessions.times, return_inverse=True)
        self.span = len(self.moments) + 1
        self.whole = Stretch(self, int(np.searchsorted(self.moments, since)), self.span)
        self._key = self.owner * self.span + self.rank
        train = dataset.splits["train"].times
        self.training_period = float(np.ptp(train)) if len(train) else 0.0
        self._asked: tuple[Prefixes, Asked] | None = None
        self._made: dict[Any, Any] = {}

    @cached_property
    def events(self) -> "Totals":
        """How often each item occurred."""
        base = np.bincount(self.whole.before.items, minlength=self.n_items)
        new = self.whole.new
        ones = np.ones(len(new))
        return Totals(base, self.sessions.items[new], ones, self.rank[new], self.span)

    def stretches(self, entries: int) -> "list[Stretch]":
        """Return the time from ``since`` on in parts of as many events each.

        Where one ends depends on nothing that comes later.

        Args:
          entries: Of how many entries the counts before ``since`` are, about; there are fewer
            parts where these are many.
        """
        rank, known = self.rank[self.whole.new], len(self.whole.before.items)
        count = int(np.clip(ENTRIES // max(entries, 1), 1, STRETCHES))
        begin = np.unique([self.whole.first, *rank[:: max(known // count, SHORTEST)]])
        return [Stretch(self, *ends) for ends in pairwise([*begin.tolist(), self.span])]

    @cached_property
    def firsts(self) -> "Firsts":
        """What each session holds, and since when."""
        return Firsts(self)

    def kept(self, make: "Callable[..., Made]", *settings: Any) -> "Made":
        """Return ``make(self, *settings)``, which is made once."""
        if (make, settings) not in self._made:
            self._made[make, settings] = make(self, *settings)
        return cast("Made", self._made[make, settings])

    def asked(self, prefixes: Prefixes) -> "Asked":
        """Return what each prediction is, among all events.

        Raises:
          ValueError: They are prefixes of no split of the data set, or of before ``since``; or a
            moment is neither that of the prefix's last event nor that of the next one.
        """
        kept = self._asked  # read once: another thread may ask of other prefixes meanwhile
        if kept is not None and kept[0] is prefixes:
            return kept[1]
        split = next(
            (n for n, part in enumerate(self._parts) if part is prefixes.of and part is not None),
            None,
        )
        if split is None:
            raise ValueError("live counts need prefixes of a split of the same data set")
        if len(prefixes) and prefixes.time.min() < self.since:
            raise ValueError("a prediction is before what live counts were prepared for")
        part = self._parts[split]
        assert part is not None
        session = np.searchsorted(part.offsets, prefixes.last_event, "right") - 1
        own = self._rows[split][session]
        begin = self.sessions.offsets[own]
        stop = begin + prefixes.last_event - part.offsets[session] + 1
        rank = np.searchsorted(self.moments, prefixes.time)
        late = np.searchsorted(self._key, own * self.span + rank)
        found = self._key[np.minimum(late, len(self._key) - 1)]
        if (found != own * self.span + rank).any() or (late > stop).any():
            raise ValueError("the moment is neither of the prefix's last event nor of the next")
        asked = Asked(self, prefixes.time, rank, own, begin, late, stop)
        self._asked = prefixes, asked
        return asked


@dataclass(frozen=True)
class Stretch:
    """A stretch of time.

    Attributes:
      past: All events.
      first: The rank with which it begins.
      end: The rank before which it ends.
    """

    past: Past
    first: int
    end: int

    @cached_property
    def before(self) -> Sessions:
        """The sessions as far as they are before it."""
        moments = self.past.moments[self.first : self.first + 1]
        return until(self.past.sessions, np.nextafter(moments.min(initial=np.inf), -np.inf))

    @cached_property
    def new(self) -> np.ndarray:
        """Int [M]: its events, by their time."""
        rank = self.past.rank
        found = np.flatnonzero((rank >= self.first) & (rank < self.end))
        return found[np.argsort(rank[found], kind="stable")]

    def rows(self, asked: "Asked") -> np.ndarray:
        """Return int [P']: the predictions whose moment is in it."""
        return np.flatnonzero((asked.rank >= self.first) & (asked.rank < self.end))


@dataclass(frozen=True)
class Asked:
    """P predictions, each by its place among all events.

    Attributes:
      past: All events.
      time: float64 [P] the moment.
      rank: int [P] events of a lower rank are strictly before the moment.
      own: int [P] the session.
      begin: int [P] its first event.
      late: int [P] its first event that is not strictly before the moment, at most ``stop``.
      stop: int [P] the event after the prefix's last.
    """

    past: Past
    time: np.ndarray
    rank: np.ndarray
    own: np.ndarray
    begin: np.ndarray
    late: np.ndarray
    stop: np.ndarray

    @cached_property
    def tied(self) -> tuple[np.ndarray, np.ndarray]:
        """(prediction, event) int [M]: events of the prefix that are not strictly before."""
        return expand(self.late, self.stop - self.late)

    def take(self, rows: np.ndarray) -> "Asked":
        """Return the predictions at ``rows``."""
        each = (self.time, self.rank, self.own, self.begin, self.late, self.stop)
        return Asked(self.past, *(part[rows] for part in each))

    def share(self, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]: each item's share of the past events."""
        past, (row, event) = self.past, self.tied
        found = past.events.rows(self.rank, items)
        add_at(found, row, past.sessions.items[event], np.ones(len(row)), items)
        total = past.events.base.sum() + np.searchsorted(past.events.rank, self.rank)
        return found / np.maximum(total + self.stop - self.late, 1)[:, None]

    @cached_property
    def peak(self) -> np.ndarray:
        """Float64 [P]: the highest share of an item."""
        return highest(self.share, len(self.rank), self.past.n_items)

    def prior(self, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]: popularity, 1 for the most popular item."""
        return self.share(items) / np.maximum(self.peak, 1e-9)[:, None]


def highest(ask: Callable[[slice], np.ndarray], rows: int, n_items: int) -> np.ndarray:
    """Return float64 [rows]: the highest value over the catalogue, asked for in slices."""
    found = np.zeros(rows)
    for start in range(0, n_items, CATALOGUE_SLICE):
        part = ask(slice(start, min(start + CATALOGUE_SLICE, n_items)))
        np.maximum(found, part.max(axis=1, initial=0.0), out=found)
    return found


def add_at(
    total: np.ndarray, row: np.ndarray, item: np.ndarray, weight: np.ndarray, items: slice
) -> None:
    """Add weights at (row, item) to some columns; those of other columns are left out.

    Args:
      total: float64 [P, n], contiguous, changed in place.
      row: int [M].
      item: int [M].
      weight: float64 [M].
      items: Which n columns.
    """
    width = items.stop - items.start
    column = item - items.start
    if items.start > 0 or column.max(initial=0) >= width:
        inside = (column >= 0) & (column < width)
        row, column, weight = row[inside], column[inside], weight[inside]
    np.add.at(total.reshape(-1), row.astype(np.int64) * width + column, weight)


class Firsts:
    """The first event of each item in each session, F in all, by session and then in its order.

    Args:
      past: All events.

    Attributes:
      owner: int [F] the session.
      item: int64 [F].
      rank: int [F] the moment.
      start: int [S + 1] where each session's begin.
    """

    def __init__(self, past: Past) -> None:
        key = past.owner * past.n_items + past.sessions.items
        self.event = np.sort(np.unique(key, return_index=True)[1])
        self.owner, self.rank = past.owner[self.event], past.rank[self.event]
        self.item = past.sessions.items[self.event].astype(np.int64)
        self.start = np.searchsorted(self.owner, np.arange(len(past.sessions) + 1))
        self._key, self._span = self.owner * past.span + self.rank, past.span

    def size(self, session: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Return int [M]: how many items a session holds below a rank (int [M] both)."""
        found = np.searchsorted(self._key, session * self._span + rank)
        return np.asarray(found - self.start[session])

    def size_at(self, session: np.ndarray, event: np.ndarray) -> np.ndarray:
        """Return int [M]: how many items a session holds before one of its events."""
        return np.asarray(np.searchsorted(self.event, event) - self.start[session])


class Totals:
    """Weights that items get over time, and their sums at any moment.

    Args:
      base: float [V] what is there from the beginning.
      item: int [M] which item gets a weight.
      weight: float [M] how much.
      rank: int [M] when, ascending.
      span: Above every rank.
    """

    def __init__(
        self, base: np.ndarray, item: np.ndarray, weight: np.ndarray, rank: np.ndarray, span: int
    ) -> None:
        self.base, self.rank = base.astype(np.float64), rank
        self._item, self._weight, self._span = item.astype(np.int64), weight, span

    def rows(self, ranks: np.ndarray, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]: the sums of what is below each rank (int [P])."""
        found = np.empty((len(ranks), items.stop - items.start))
        running, begin = self.base[items].copy(), 0
        inside = (self._item >= items.start) & (self._item < items.stop)
        item, weight = self._item[inside] - items.start, self._weight[inside]
        order = np.argsort(ranks, kind="stable")
        for row, stop in zip(order, np.searchsorted(self.rank[inside], ranks[order])):
            if stop > begin:
                np.add.at(running, item[begin:stop], weight[begin:stop])
                begin = stop
            found[row] = running
        return found

    def cells(self, ranks: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return float64 [C]: the sum of each item (int [C]) below its rank (int [C])."""
        key, weight = self._by_item
        first, last = (
            np.searchsorted(key, items.astype(np.int64) * self._span + r) for r in (0, ranks)
        )
        found = self.base[items]
        for part in blocks(last - first):
            of, at = expand(first[part], (last - first)[part])
            found[part] += np.bincount(of, weight[at], minlength=len(found[part]))
        return np.asarray(found)

    @cached_property
    def _by_item(self) -> tuple[np.ndarray, np.ndarray]:
        key = self._item * self._span + self.rank
        order = np.argsort(key, kind="stable")
        return key[order], self._weight[order]
