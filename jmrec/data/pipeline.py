"""Batches addressed by step: batch n is a pure function of (data, settings, seed, n).

The source of each pipeline is the number of the batch. Shuffling and gathering then handle a whole
batch at once: Grain's own shuffle and batch go through the indices one by one, which took 7 to 30
times as long (movies, 2 cores: 6 ms a session batch against 0.9; items 2.3 against 0.07). There is
no iterator to save: the step is the position, ``batches[n]`` is asked for directly.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.types import Batch

if TYPE_CHECKING:  # slow to load, and most commands read no batch
    import grain

MOST = 8
"""Each bucket is a shape, which is compiled."""
Buckets = tuple[tuple[int, int], ...]
"""(length, batch size) of session batches, shortest first."""


@dataclass(frozen=True)
class Windows:
    """Stretches of sessions: window w reads ``size[w]`` events from ``start[w]`` on.

    Each of them has a target, the event after it.

    Attributes:
      start: int64 [W], index into ``Sessions.items``.
      size: int64 [W], transitions in the window, at least 1.
    """

    start: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def cut_windows(sessions: Sessions, length: int) -> Windows:
    """Cut sessions into windows so that every transition is in exactly one.

    A session of m events has m - 1 transitions; windows begin at events 0, length, 2 length, ...

    Args:
      sessions: Any sessions; those of one event give no window.
      length: The most transitions in a window.

    Returns:
      The windows, in the order of the sessions.

    Example:
      >>> s = Sessions(["a"], np.zeros(1, int), np.array([0, 6]), np.arange(6), np.arange(6.0),
      ...              np.zeros(6, int), np.zeros(6))
      >>> w = cut_windows(s, 2)
      >>> w.start.tolist(), w.size.tolist()
      ([0, 2, 4], [2, 2, 1])
    """
    transitions = np.maximum(sessions.lengths - 1, 0)
    count = -(-transitions // length)
    session = np.repeat(np.arange(len(sessions)), count)
    place = np.arange(len(session)) - np.repeat(np.cumsum(count) - count, count)
    return Windows(
        start=sessions.offsets[session] + place * length,
        size=np.minimum(length, transitions[session] - place * length),
    )


def choose_buckets(
    sessions: Sessions, length: int, batch_size: int, *, unit: int = 1, share: float = 0.8
) -> Buckets:
    """Return the fewest buckets of which so large a share of the positions is real, at most `MOST`.

    Their lengths are those that leave the least padding. Each batch has about as many positions.

    Args:
      sessions: The sessions to learn from.
      length: The most transitions in a window.
      batch_size: Windows of ``length`` in a batch; of shorter ones there are more.
      unit: Every batch size is a multiple of it; at most ``batch_size``.
      share: Of the positions that are computed, how many shall be real.

    Returns:
      The buckets, see `session_batches`.

    Raises:
      UserError: if no session has two events.

    Example:
      >>> s = Sessions(["a", "b", "c"], np.zeros(3, int), np.array([0, 2, 4, 10]), np.arange(10),
      ...              np.arange(10.0), np.zeros(10, int), np.zeros(10))
      >>> choose_buckets(s, 8, 6)
      ((1, 48), (5, 9))
    """
    windows = windows_to_learn(sessions, length)
    count = np.bincount(windows.size)
    lengths: tuple[int, ...] = ()
    for n in range(1, min(MOST, int(np.count_nonzero(count))) + 1):
        lengths, computed = _least_padding(count, n)
        if windows.size.sum() >= share * computed:
            break
    return tuple((each, batch_size * length // each // unit * unit) for each in lengths)


def _least_padding(count: np.ndarray, n: int) -> tuple[tuple[int, ...], int]:
    """Return the n lengths of buckets that leave the least padding, and the positions computed.

    Args:
      count: int [L + 1], how many windows there are of each size; count[L] > 0.
      n: How many lengths, at most as many as sizes occur.
    """
    sizes = np.flatnonzero(count)
    total = np.concatenate([[0], np.cumsum(count[sizes])])
    # best[j] is the least for the j smallest sizes; last[k][j] where its longest bucket begins.
    best, last = np.where(np.arange(len(sizes) + 1), np.inf, 0.0), []
    for _ in range(n):
        cost = best[:, None] + (total[None, 1:] - total[:, None]) * sizes
        cost = np.where(np.arange(len(sizes) + 1)[:, None] <= np.arange(len(sizes)), cost, np.inf)
        last.append(cost.argmin(axis=0))
        best = np.concatenate([[np.inf], cost.min(axis=0)])
    lengths, end = [], len(sizes)
    for begin in reversed(last):
        lengths.append(int(sizes[end - 1]))
        end = int(begin[end - 1])
    return tuple(reversed(lengths)), int(best[-1])


def session_batches(
    sessions: Sessions,
    *,
    buckets: Sequence[tuple[int, int]],
    seed: int,
    has_time: bool = True,
    known: np.ndarray | None = None,
    read: Callable[[int], np.ndarray] | None = None,
    places: bool = False,
    only_places: bool = False,
) -> "grain.MapDataset[Batch]":
    """Return endless batches of session windows.

    Windows are cut at the longest bucket's length and go to the shortest bucket that holds them.
    Each bucket is shuffled again in every epoch and batched across epochs, so that an epoch of a
    bucket visits every window of it once and none is dropped; buckets take turns in proportion
    to their batches.

    Args:
      sessions: The sessions to learn from.
      buckets: (length L, batch size B), any number of them.
      seed: Seed of the shuffling.
      has_time: Whether ``sessions.times`` are real; gaps are 0 where they are not.
      known: bool [V], items that may be targets; others get ``target_ok`` False. None is all.
      read: Batch size -> which rows of a batch to read, see `jmrec.sharding.process_rows`. None
        is all.
      places: Whether the batch says which events of ``sessions`` it holds.
      only_places: Whether it says no more than that: ``place`` and ``mask``. What is read of the
        events then lies on the device, see `jmrec.tasks.resident`.

    Returns:
      A dataset whose ``[n]`` is the batch of step n, for any n >= 0: a dict of ``item``,
      ``mask``, ``target``, ``target_ok``, ``gap``, ``event`` and, if wanted, ``place``, all
      [B, L] as in `jmrec.types`.

    Raises:
      UserError: if no session has two events.
    """
    import grain

    parts, weights = [], []
    for bucket, windows in enumerate(_fill(sessions, buckets)):
        if not len(windows):
            continue
        length, batch_size = buckets[bucket]
        gather = _SessionGather(sessions, windows, length, has_time, known, places, only_places)
        draw = _Epochs(len(windows), batch_size, (seed, bucket), read)
        parts.append(_numbers().map(draw).map(gather))
        weights.append(len(windows) / batch_size)
    return grain.MapDataset.mix(parts, weights) if len(parts) > 1 else parts[0]


def item_batches(
    arrays: Mapping[str, np.ndarray],
    rows: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    read: Callable[[int], np.ndarray] | None = None,
) -> "grain.MapDataset[Batch]":
    """Return endless batches of items.

    Every epoch visits each row once in a new order; a batch may span two epochs.

    Args:
      arrays: Name -> array [V, ...] over the whole catalogue.
      rows: int [R], the rows to draw from.
      batch_size: Items in a batch.
      seed: Seed of the shuffling.
      read: Batch size -> which rows of a batch to read, see `jmrec.sharding.process_rows`. None
        is all.

    Returns:
      A dataset whose ``[n]`` is the batch of step n: every array at B rows, and ``row`` int32 [B].

    Raises:
      UserError: if there are no rows.

    Example:
      >>> batches = item_batches({"x": np.arange(5) ** 2}, np.array([1, 3]), batch_size=2, seed=0)
      >>> sorted(batches[7]["x"].tolist())
      [1, 9]
    """
    rows = np.asarray(rows, np.int32)
    if not len(rows):
        raise UserError("There is no item to learn from; bring items that occur in training.")
    draw = _Epochs(len(rows), batch_size, (seed,), read)
    return _numbers().map(draw).map(_ItemGather(dict(arrays), rows))


def shuffle_within(sessions: Sessions, seed: int) -> Sessions:
    """Return the sessions with the order of their events shuffled, times left in place.

    A control: what a model still predicts from these does not come from order.

    Args:
      sessions: Any sessions.
      seed: Seed of the shuffling.

    Returns:
      Sessions with the same ids, users, offsets and times.
    """
    session = np.repeat(np.arange(len(sessions)), sessions.lengths)
    order = np.lexsort((np.random.default_rng(seed).random(len(session)), session))
    return replace(
        sessions,
        items=sessions.items[order],
        events=sessions.events[order],
        ratings=sessions.ratings[order],
    )


def _numbers() -> "grain.MapDataset[int]":
    """Return 0, 1, 2, ... for all the steps there can be."""
    import grain

    return grain.MapDataset.range(sys.maxsize)


@lru_cache(maxsize=16)
def shuffled(n: int, seed: tuple[int, ...]) -> np.ndarray:
    """Return int64 [n]: the numbers below n in the order that a seed draws.

    Example:
      >>> sorted(shuffled(3, (0, 7)).tolist())
      [0, 1, 2]
    """
    return np.random.default_rng(seed).permutation(n)


@dataclass(frozen=True)
class _Epochs:
    """Batch number -> indices int64 [B] into n entries, each entry once in every epoch."""

    n: int
    batch_size: int
    seed: tuple[int, ...]
    read: Callable[[int], np.ndarray] | None = None

    def __call__(self, number: int) -> np.ndarray:
        first = int(number) * self.batch_size
        last = first + self.batch_size
        parts = []
        for epoch in range(first // self.n, (last - 1) // self.n + 1):
            start = epoch * self.n
            order = shuffled(self.n, (*self.seed, epoch))
            parts.append(order[max(first - start, 0) : last - start])
        index = np.concatenate(parts)
        return index if self.read is None else index[self.read(self.batch_size)]


def _fill(sessions: Sessions, buckets: Sequence[tuple[int, int]]) -> list[Windows]:
    """Sort the windows into the buckets, in the buckets' order."""
    lengths = np.array([length for length, _ in buckets])
    windows = windows_to_learn(sessions, int(lengths.max()))
    ascending = np.argsort(lengths, kind="stable")
    bucket = ascending[np.searchsorted(lengths[ascending], windows.size)]
    return [
        Windows(windows.start[bucket == b], windows.size[bucket == b]) for b in range(len(buckets))
    ]


def windows_to_learn(sessions: Sessions, length: int) -> Windows:
    """Return the windows of `cut_windows` that have a target.

    Raises:
      UserError: if none has.
    """
    windows = cut_windows(sessions, length)
    total = np.concatenate([[0], np.cumsum(sessions.predicted)])
    some = total[windows.start + windows.size + 1] > total[windows.start + 1]
    if not some.any():
        raise UserError(
            "No session has two events of which the later one is a target, so there is nothing to "
            "learn; bring more data."
        )
    return Windows(windows.start[some], windows.size[some])


@dataclass(frozen=True)
class _SessionGather:
    sessions: Sessions
    windows: Windows
    length: int
    has_time: bool
    known: np.ndarray | None
    places: bool
    only_places: bool

    def __call__(self, index: np.ndarray) -> Batch:
        place = np.arange(self.length)
        mask = place < self.windows.size[index, None]
        event = np.where(mask, self.windows.start[index, None] + place, 0)
        if self.only_places:
            return {"place": event.astype(np.int32), "mask": mask}
        return read_events(
            self.sessions, event, mask, np.broadcast_to(place, mask.shape),
            has_time=self.has_time, known=self.known, places=self.places,
        )  # fmt: skip


def read_events(
    sessions: Sessions,
    event: np.ndarray,
    mask: np.ndarray,
    within: np.ndarray,
    *,
    has_time: bool,
    known: np.ndarray | None,
    places: bool,
) -> Batch:
    """Return what a batch says of its events; see `session_batches`.

    Args:
      sessions: The sessions to learn from.
      event: int [B, L], places in ``sessions.items``; 0 where masked.
      mask: bool or int32 [B, L], not 0 where there is an event.
      within: int [B, L], how many events of its window stand before an event.
      has_time: As there.
      known: As there.
      places: As there.
    """
    real = mask > 0
    following = np.where(real, event + 1, 0)
    target = np.where(real, sessions.items[following], 0)
    ok = real & sessions.targets[following]
    gap = np.zeros(mask.shape, np.float32)
    if has_time:
        later = real & (within > 0)
        pause = sessions.times[event] - sessions.times[np.where(later, event - 1, event)]
        gap[later] = np.log1p(np.maximum(pause[later], 0))
    batch = {
        "item": np.where(real, sessions.items[event], 0).astype(np.int32),
        "mask": mask,
        "target": target.astype(np.int32),
        "target_ok": ok if known is None else ok & known[target],
        "gap": gap,
        "event": np.where(real, sessions.events[event], 0).astype(np.int32),
    }
    return batch | ({"place": event.astype(np.int32)} if places else {})


def flat_events(
    sessions: Sessions, *, has_time: bool = True, known: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return what `read_events` says of each event, for all events of the sessions one by one.

    Args:
      sessions: The sessions to learn from, of N events.
      has_time: As in `session_batches`.
      known: As there.

    Returns:
      ``item``, ``target`` and ``event`` int32 [N], ``target_ok`` bool [N], ``gap`` float32 [N], as
      in `jmrec.types`; ``gap`` also where a session begins, and what follows its last event is of
      another session: no window reads either.

    Example:
      >>> s = Sessions(["a"], np.zeros(1, int), np.array([0, 3]), np.array([7, 8, 9]),
      ...              np.array([0.0, 0.0, 9.0]), np.zeros(3, int), np.zeros(3))
      >>> flat = flat_events(s)
      >>> flat["item"].tolist(), flat["target"].tolist(), flat["gap"].round(2).tolist()
      ([7, 8, 9], [8, 9, 7], [0.0, 0.0, 2.299999952316284])
    """
    target, ok = np.roll(sessions.items, -1), np.roll(sessions.targets, -1)
    gap = np.zeros(len(target), np.float32)
    if has_time:
        gap[1:] = np.log1p(np.maximum(np.diff(sessions.times), 0))
    return {
        "item": sessions.items.astype(np.int32),
        "target": target.astype(np.int32),
        "target_ok": ok if known is None else ok & known[target],
        "gap": gap,
        "event": sessions.events.astype(np.int32),
    }


@dataclass(frozen=True)
class _ItemGather:
    arrays: dict[str, np.ndarray]
    rows: np.ndarray

    def __call__(self, index: np.ndarray) -> Batch:
        row = self.rows[index]
        return {name: array[row] for name, array in self.arrays.items()} | {"row": row}
