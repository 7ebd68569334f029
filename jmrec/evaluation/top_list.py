"""The best items of every prediction, kept while slices of the catalogue go by."""

import numpy as np

FLOOR = float(np.finfo(np.float32).min)
"""The lowest score of a candidate; what is no candidate has -inf."""


GROUP = 16
"""Of so many scores only the highest is looked at, to find those that may be among the best."""


class TopList:
    """Keeps the best K items of what it is shown, in one integer a candidate.

    The upper half of a key is the score as an order-preserving integer, the lower half breaks
    ties: the smaller item row first, the target (0) last.
    """

    def __init__(self, target: np.ndarray, n_items: int, top: int) -> None:
        self.target, self.n_items, self.top = target, n_items, top
        self.keys = np.zeros((len(target), top), np.uint64)

    def add(self, block: slice, scores: np.ndarray, start: int) -> None:
        """Take float32 [R, n] scores of some rows, of the items from ``start`` on.

        A score of -inf is no candidate.
        """
        high = scores >= np.maximum(self._bar(scores), FLOOR)[:, None]
        row, column = np.divmod(np.flatnonzero(high), high.shape[1])
        count = np.bincount(row, minlength=len(high))
        # Where very many scores are alike, all of them are candidates: one part after the other.
        many = count > 8 * self.top
        for some in (~many, many):
            chosen = some[row]
            self._add(block, np.flatnonzero(some), row[chosen], column[chosen], scores, start)

    def _bar(self, scores: np.ndarray) -> np.ndarray:
        """Return float32 [P], a score that at least K of each row reach, or the lowest."""
        whole = scores.shape[1] // GROUP * GROUP
        groups = scores[:, :whole].reshape(len(scores), GROUP, -1).max(axis=1)
        highest = np.concatenate([groups, scores[:, whole:]], axis=1)
        if highest.shape[1] <= self.top:
            return np.full(len(scores), -np.inf, np.float32)
        return np.partition(highest, -self.top, axis=1)[:, -self.top]

    def _add(
        self,
        block: slice,
        some: np.ndarray,
        row: np.ndarray,
        column: np.ndarray,
        scores: np.ndarray,
        start: int,
    ) -> None:
        """Take the scores at ``row`` (ascending, all of the rows ``some``) and ``column``."""
        if not len(row):
            return
        bits = scores[row, column].view(np.uint32)
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
        item = start + column
        target = self.target[block][row]
        tie = np.where(item == target, 0, self.n_items - item).astype(np.uint64)
        place = np.arange(len(row)) - np.searchsorted(row, row)
        keys = np.zeros((len(some), place.max() + 1), np.uint64)
        keys[np.searchsorted(some, row), place] = (ordered << np.uint64(32)) | tie
        if keys.shape[1] > self.top:
            keys = np.partition(keys, -self.top, axis=1)[:, -self.top :]
        both = np.concatenate([self.keys[block][some], keys], axis=1)
        self.keys[block.start + some] = np.sort(both, axis=1)[:, : -self.top - 1 : -1]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 [P, K] items and float32 [P, K] scores, best first."""
        tie = (self.keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        ids = np.where(tie > 0, self.n_items - tie, self.target[:, None])
        ordered = (self.keys >> np.uint64(32)).astype(np.uint32)
        bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
        scores = np.where(self.keys == 0, np.float32(-np.inf), bits.view(np.float32))
        return np.where(self.keys == 0, -1, ids).astype(np.int32), scores.astype(np.float32)


def comparable(scores: np.ndarray) -> np.ndarray:
    """Return a copy as float32 of which any two can be compared; NaN is the lowest there is.

    Example:
      >>> comparable(np.array([np.nan, -0.0, np.inf])) == np.array([FLOOR, 0.0, -FLOOR])
      array([ True,  True,  True])
    """
    # Adding 0 makes a copy in which -0.0 is 0.0, which it ties with.
    found = np.empty(np.shape(scores), np.float32)
    np.add(scores, np.float32(0), out=found, dtype=np.float32, casting="same_kind")
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(found.sum())  # no array of its own: a sum is only where all are
    if not finite:
        np.nan_to_num(found, copy=False, nan=FLOOR, posinf=-FLOOR, neginf=FLOOR)
    return found
