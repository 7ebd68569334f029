"""Predictions that several processes rank: each its own part, and all know the result."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from jax.experimental import multihost_utils

from jmrec.cluster.member import place

_counted: ContextVar[list[int] | None] = ContextVar("counted", default=None)


@contextmanager
def ranked_by_each() -> Iterator[list[int]]:
    """Count how many predictions each process ranks, within the block, of those that they share.

    All processes come here.

    Yields:
      A list that holds one number a process when the block ends; none where there is one process.

    Example:
      >>> with ranked_by_each() as ranked:
      ...     pass
      >>> ranked
      []
    """
    found: list[int] = []
    mine: list[int] = []
    token = _counted.set(mine)
    try:
        yield found
    finally:
        _counted.reset(token)
    if place()[1] > 1:
        found += multihost_utils.process_allgather(np.int32(sum(mine))).tolist()


def part_size(count: int, most: int) -> int:
    """Return how many of ``count`` predictions are a part, of which each process has one at least.

    Example:
      >>> part_size(1000, 512), part_size(100, 512)
      (512, 512)
    """
    processes = place()[1]
    return most if processes == 1 else max(1, min(most, -(-count // processes)))


def own_parts(parts: Sequence[slice]) -> Sequence[slice]:
    """Return those parts that this process ranks: all, where it is the only one.

    Each process has neighbouring ones; where there is one part, every process ranks it.

    Args:
      parts: Of all predictions, in order.

    Example:
      >>> own_parts([slice(0, 2), slice(2, 5)])
      [slice(0, 2, None), slice(2, 5, None)]
    """
    process, processes = place()
    if len(parts) < 2:
        return parts
    return parts[_cut(parts, process, processes) : _cut(parts, process + 1, processes)]


def share_out(parts: Sequence[slice], arrays: Sequence[np.ndarray]) -> None:
    """Fill in the rows of the parts that other processes ranked.

    All processes call it with the same parts. Values are sent as 32 bits.

    Args:
      parts: Those that `own_parts` was given.
      arrays: [P, ...] of int32, int64 or float32, each with the rows of this process's parts.
    """
    process, processes = place()
    if processes == 1 or len(parts) < 2:
        return
    rows = [
        slice(parts[a].start, parts[b - 1].stop) if b > a else slice(0, 0)
        for a, b in (
            (_cut(parts, p, processes), _cut(parts, p + 1, processes)) for p in range(processes)
        )
    ]
    if (counted := _counted.get()) is not None:
        counted.append(rows[process].stop - rows[process].start)
    longest = max(each.stop - each.start for each in rows)
    for array in arrays:
        kind = np.float32 if array.dtype == np.float32 else np.int32
        mine = np.zeros((longest, *array.shape[1:]), kind)
        mine[: rows[process].stop - rows[process].start] = array[rows[process]]
        sent = multihost_utils.process_allgather(mine)
        for other, each in enumerate(rows):
            array[each] = sent[other, : each.stop - each.start]


def _cut(parts: Sequence[slice], process: int, processes: int) -> int:
    """Return the first part of a process."""
    return process * len(parts) // processes
