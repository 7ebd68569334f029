"""Batches in which several short sessions stand behind one another in a row.

Nearly every position is then real, whatever the lengths of the sessions, and all batches have one
shape, so that a step is compiled once. Batch n is a pure function of (data, settings, seed, n).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from jmrec.data.pipeline import Windows, read_events, shuffled, windows_to_learn
from jmrec.data.schema import Sessions
from jmrec.types import Batch

if TYPE_CHECKING:  # slow to load, and most commands read no batch
    import grain


@dataclass(frozen=True)
class Rows:
    """Which windows share a row, as places for windows of given sizes.

    Attributes:
      place: int32 [R, L], the place that a position belongs to, -1 for padding; places are
        numbered by their sizes, short ones first.
      number: int32 [R, L], which window of its row a position belongs to, from 1; 0 for padding.
      within: int32 [R, L], the position in its window.
    """

    place: np.ndarray
    number: np.ndarray
    within: np.ndarray


def fill_rows(sizes: np.ndarray, length: int) -> Rows:
    """Return rows of ``length`` positions for windows of all sizes, the largest that fit first.

    Args:
      sizes: int [W], from 1 to ``length``.
      length: L.

    Example:
      >>> rows = fill_rows(np.array([1, 3, 2, 1]), 4)
      >>> rows.number.tolist(), rows.place.tolist()
      ([[1, 1, 1, 2], [1, 1, 2, 0]], [[3, 3, 3, 0], [2, 2, 1, -1]])
    """
    left = np.bincount(sizes, minlength=length + 1)
    first = np.cumsum(left) - left  # the first place of each size
    parts = []
    while left.any():
        took = _fill_row(left, length)
        kinds = np.flatnonzero(took)
        turns = int((left[kinds] // took[kinds]).min())
        parts.append(_rows_of(took, turns, first, length))
        first = first + took * turns
        left = left - took * turns
    place, number, within = (np.concatenate(each) for each in zip(*parts))
    return Rows(place, number, within)


def _fill_row(left: np.ndarray, length: int) -> np.ndarray:
    """Return how many windows of each size go into the next row."""
    took = np.zeros_like(left)
    for size in np.flatnonzero(left)[::-1]:
        took[size] = min(left[size], length // size)
        length -= int(took[size] * size)
    return took


def _rows_of(
    took: np.ndarray, turns: int, first: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``turns`` rows with the same sizes: place, number and within, [turns, length] each."""
    sizes = np.repeat(np.arange(len(took)), took)[::-1]
    ends = np.cumsum(sizes)
    window = np.searchsorted(ends, np.arange(length), side="right")
    real = window < len(sizes)
    window = np.where(real, window, 0)
    own = sizes[window]
    among = (np.arange(len(sizes)) - np.searchsorted(-sizes, -sizes))[window]  # of its size
    place = (first + np.arange(turns)[:, None] * took)[:, own] + among
    within = np.arange(length) - (ends - sizes)[window]
    found = np.where(real, place, -1), np.where(real, window + 1, 0), np.where(real, within, 0)
    place, number, within = (np.broadcast_to(x, (turns, length)).astype(np.int32) for x in found)
    return place, number, within


def packed_batches(
    sessions: Sessions,
    *,
    rows: int,
    length: int,
    seed: int,
    has_time: bool = True,
    read: Callable[[int], np.ndarray] | None = None,
    places: bool = False,
    only_places: bool = False,
) -> "grain.MapDataset[Batch]":
    """Return endless batches of session windows, several in a row.

    Every epoch visits each window once. Which sizes share a row stays, which windows do is drawn
    again; so is the order of the rows.

    Args:
      sessions: The sessions to learn from.
      rows: Rows B of a batch.
      length: Positions L of a row, and the most transitions in a window.
      seed: Seed of the shuffling.
      has_time: Whether ``sessions.times`` are real; gaps are 0 where they are not.
      read: Batch size -> which rows of a batch to read, see `jmrec.sharding.process_rows`. None
        is all.
      places: Whether the batch says which events of ``sessions`` it holds.
      only_places: Whether it says no more than that: ``place`` and ``mask``.

    Returns:
      A dataset whose ``[n]`` is the batch of step n, for any n >= 0: a dict as of
      `jmrec.data.pipeline.session_batches`, but ``mask`` is int32: which window of its row a
      position belongs to, 0 for padding.

    Raises:
      UserError: if no session has two events.
    """
    import grain

    windows = windows_to_learn(sessions, length)
    plan = fill_rows(windows.size, length)
    gather = _Gather(sessions, windows, plan, rows, seed, has_time, read, places, only_places)
    return grain.MapDataset.range(sys.maxsize).map(gather)


@dataclass(frozen=True)
class _Gather:
    sessions: Sessions
    windows: Windows
    plan: Rows
    rows: int
    seed: int
    has_time: bool
    read: Callable[[int], np.ndarray] | None
    places: bool
    only_places: bool
    orders: dict[int, np.ndarray] = field(default_factory=dict)
    """The windows in the order of an epoch, of the two that were asked for last."""

    def __call__(self, batch: int) -> Batch:
        wanted = np.arange(self.rows) if self.read is None else self.read(self.rows)
        epoch, turn = np.divmod(int(batch) * self.rows + wanted, len(self.plan.place))
        number, within, start = (np.zeros((len(wanted), self.plan.place.shape[1]), np.int64)
                                 for _ in range(3))  # fmt: skip
        for each in np.unique(epoch):
            mine = epoch == each
            row = shuffled(len(self.plan.place), (self.seed, int(each), 0))[turn[mine]]
            number[mine], within[mine] = self.plan.number[row], self.plan.within[row]
            start[mine] = self.windows.start[self._by_size(int(each))[self.plan.place[row]]]
        event, mask = np.where(number > 0, start + within, 0), number.astype(np.int32)
        if self.only_places:
            return {"place": event.astype(np.int32), "mask": mask}
        return read_events(
            self.sessions, event, mask, within,
            has_time=self.has_time, known=None, places=self.places,
        )  # fmt: skip

    def _by_size(self, epoch: int) -> np.ndarray:
        """Return the windows in the order of their sizes, those of a size in a new order."""
        known = self.orders.get(epoch)
        if known is None:
            drawn = shuffled(len(self.windows), (self.seed, epoch, 1))
            known = drawn[np.argsort(self.windows.size[drawn], kind="stable")]
            if len(self.orders) > 1:
                self.orders.clear()
            self.orders[epoch] = known
        return known
