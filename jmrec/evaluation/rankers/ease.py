"""EASE: the closed form of a linear autoencoder, over a number of items that fits the memory.

It inverts a dense matrix of all items by all items. A larger catalogue than `EASE_ITEMS` gets the
weights of its most frequent items; all others are ordered by popularity.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.linalg import lapack

from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Prefixes, Ranker
from jmrec.evaluation.rankers.bags import Bag, add_product, context_weights, last_bag
from jmrec.evaluation.rankers.cooccurrence import (
    LinearRule,
    linear_grid,
    session_matrix,
    tie_break,
)
from jmrec.evaluation.rankers.known import EASE_ITEMS, Known
from jmrec.evaluation.rankers.servable import servable

SCALE = 0.01
"""About how large its weights are: the trace of popularity is far below."""
MATRICES = 3
"""Of so many matrices of items by items is room wanted while settings are tried."""
BLOCK = 1024
"""Rows of a matrix that are worked on together."""


def ease(sessions: Sessions, n_items: int, l2: float) -> np.ndarray:
    """Return EASE's item-item weights, the closed form of a zero-diagonal linear autoencoder.

    With G = X'X + l2 I over the session-item matrix X and P its inverse, the weights are
    ``B[i, j] = -P[i, j] / P[j, j]`` off the diagonal, and 0 on it.

    Args:
      sessions: The training sessions.
      n_items: V.
      l2: The ridge penalty, positive.

    Returns:
      float32 [V, V].

    Raises:
      UserError: If ``l2`` is too small for the inverse to exist.

    References:
      Steck, *Embarrassingly Shallow Autoencoders for Sparse Data*
      (https://arxiv.org/abs/1905.03375).

    Example:
      >>> two = Sessions(["a", "b"], np.array([-1, -1]), np.array([0, 2, 3]), np.array([0, 1, 0]),
      ...     np.arange(3.0), np.zeros(3), np.zeros(3))
      >>> found = ease(two, 3, 1.0)
      >>> round(float(found[0, 1]), 3), round(float(found[1, 0]), 3)
      (0.333, 0.5)
    """
    return weights_of(gram_matrix(sessions, n_items), l2)


def gram_matrix(sessions: Sessions, n_items: int, items: np.ndarray | None = None) -> np.ndarray:
    """Count how many sessions hold each two items, which every ``l2`` shares.

    Args:
      sessions: The training sessions.
      n_items: V.
      items: int [N] the items that are counted; None is all.

    Returns:
      float32 [N, N]; a session's own count stands on the diagonal.
    """
    held = session_matrix(sessions, n_items)
    held = held if items is None else held[:, items]
    of_item = held.T.tocsr()
    gram = np.empty((held.shape[1], held.shape[1]), np.float32)
    for start in range(0, len(gram), BLOCK):
        rows = slice(start, start + BLOCK)
        gram[rows] = (of_item[rows] @ held).toarray()
    return gram


def weights_of(gram: np.ndarray, l2: float) -> np.ndarray:
    """Return EASE's weights, float32 [N, N]; see `ease`.

    One more matrix of that size is made, in which all is done.

    Args:
      gram: Of `gram_matrix`.
      l2: The ridge penalty, positive.

    Raises:
      UserError: If ``l2`` is too small for the inverse to exist.
    """
    # LAPACK reads columns first: its lower half of a symmetric matrix is our upper half.
    made = gram.copy()
    made[np.diag_indices(len(made))] += l2
    factor, failed = lapack.spotrf(made.T, lower=1, overwrite_a=1)
    if failed:
        raise UserError(f"EASE cannot invert with an l2 penalty of {l2}; give a larger one.")
    inverse = lapack.spotri(factor, lower=1, overwrite_c=1)[0].T
    scale = -np.diag(inverse)
    for start in range(0, len(inverse), BLOCK):
        rows = slice(start, start + BLOCK)
        own = np.triu(inverse[rows, rows])
        inverse[rows, rows] = own + np.triu(own, 1).T
        inverse[rows, :start] = inverse[:start, rows].T
    for start in range(0, len(inverse), BLOCK):
        inverse[start : start + BLOCK] /= scale
    inverse[np.diag_indices(len(inverse))] = 0.0
    return np.ascontiguousarray(inverse)


@servable
@dataclass
class FrequentItems:
    """A linear rule whose weights are those of the most frequent items alone.

    Its scores are those of `jmrec.evaluation.rankers.cooccurrence.LinearRule` with a matrix that is
    0 wherever an item is not among them; only the block that is not is held.

    Attributes:
      name: Of the table's row.
      block: float32 [N, N], the weights.
      among: bool [V], which N items they are of, in the catalogue's order.
      prior: float32 [V] popularity.
      share: float32 [V] how much of the prior an item brings.
      decay: Factor for every step back in the prefix; 0 reads the last item only.
      last: How many of the last items are read; None is the window.
      settings: What was chosen, for the table.

    Raises:
      ValueError: ``block`` is of another number of items than ``among``.
    """

    name: str
    block: np.ndarray
    among: np.ndarray
    prior: np.ndarray
    share: np.ndarray
    decay: float = 0.0
    last: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "rule"

    def __post_init__(self) -> None:
        self._items = np.flatnonzero(self.among)
        if self.block.shape != (len(self._items),) * 2:
            raise ValueError(f"block is {self.block.shape} for {len(self._items)} items")

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        if len(prefixes) == 1:
            bag = last_bag(prefixes, self.decay, self.last)
            scores = (bag.weights @ self.share[bag.rows]) * self.prior
            own = self.among[bag.rows]
            rows = np.searchsorted(self._items, bag.rows[own])
            scores[self._items] += Bag(rows, bag.weights[own]).product(self.block)
            return scores[None, item_slice]
        weights = context_weights(prefixes, len(self.prior), self.decay, self.last)
        low, high = np.searchsorted(self._items, (item_slice.start, item_slice.stop))
        known = np.zeros((len(prefixes), high - low), np.float32)
        add_product(known, weights[:, self._items], self.block, slice(int(low), int(high)))
        scores = (weights @ self.share)[:, None] * self.prior[item_slice]
        scores[:, self._items[low:high] - item_slice.start] += known
        return scores

    def weight(self, i: int, j: int) -> float:
        """Return what item i of the prefix says of item j, without popularity."""
        if not (self.among[i] and self.among[j]):
            return 0.0
        return float(self.block[tuple(np.searchsorted(self._items, (i, j)))])


def frequent(count: np.ndarray, most: int) -> np.ndarray:
    """Return int [N] ascending: the items with the most training clicks, at most ``most``.

    Args:
      count: int [V] training clicks; an item without one is never among them, which changes
        nothing: all its weights are 0.
      most: At most so many.

    Example:
      >>> frequent(np.array([3, 0, 5, 3, 1]), 2).tolist()  # of equals, the earlier row
      [0, 2]
    """
    order = np.argsort(-count, kind="stable")[: min(most, int((count > 0).sum()))]
    return np.sort(order)


def said_of_bound(count: np.ndarray, most: int = EASE_ITEMS) -> str | None:
    """Return what is said before anything is trained, where EASE does not know every item.

    Args:
      count: int [V] training clicks.
      most: Setting ``evaluate.ease_items``.

    Example:
      >>> said_of_bound(np.ones(5), 5) is None
      True
      >>> said_of_bound(np.ones(50_000), 20_000).split(";")[0]
      'EASE knows the 20,000 most frequent of 50,000 items (4.8 GB of memory)'
    """
    seen = int((count > 0).sum())
    if seen <= most:
        return None
    room, whole = (MATRICES * 4 * each**2 / 1e9 for each in (most, seen))
    return (
        f"EASE knows the {most:,} most frequent of {seen:,} items ({room:.1f} GB of memory); it "
        f"orders the others by popularity (evaluate.ease_items={seen} takes all: {whole:.1f} GB)."
    )


def ease_grid(known: Known) -> Iterator[Ranker]:
    """Yield EASE under every setting."""
    # An inversion costs items ** 3; an eigen-decomposition, which all would share, five of them.
    penalties = (10.0, 50.0, 250.0) if known.n_items <= 5000 else (50.0, 250.0)
    decays = (0.6, 0.8, 0.9)
    if known.n_items <= known.ease_items:
        gram = gram_matrix(known.train, known.n_items)
        for l2 in penalties:
            yield from linear_grid(known, "EASE", weights_of(gram, l2), SCALE, decays, {"l2": l2})
        return
    count = np.bincount(known.train.items, minlength=known.n_items)
    items = frequent(count, known.ease_items)
    among = np.zeros(known.n_items, bool)
    among[items] = True
    prior, share = tie_break(known.train, known.n_items, SCALE)
    gram = gram_matrix(known.train, known.n_items, items)
    for l2 in penalties:
        block = weights_of(gram, l2)
        for decay in decays:
            chosen: dict[str, Any] = {"l2": l2, "decay": decay}
            # Where all that training knows are among them, nothing is left out.
            chosen |= {} if len(items) == (count > 0).sum() else {"items": len(items)}
            yield FrequentItems("EASE", block, among, prior, share, decay, settings=chosen)


# ---- where sessions are counted after training ---------------------------------------------------


def solve(known: Known, settings: Mapping[str, Any]) -> Ranker:
    """Return EASE with the penalty and the decay that were chosen, on what is known by now.

    Args:
      known: The sessions and the catalogue, which may have grown since.
      settings: Of the row.
    """
    l2, decay = settings["l2"], settings["decay"]
    prior, share = tie_break(known.train, known.n_items, SCALE)
    if known.n_items <= known.ease_items:
        weights = weights_of(gram_matrix(known.train, known.n_items), l2)
        return LinearRule("EASE", weights, prior, share, decay, settings=dict(settings))
    items = frequent(np.bincount(known.train.items, minlength=known.n_items), known.ease_items)
    among = np.zeros(known.n_items, bool)
    among[items] = True
    block = weights_of(gram_matrix(known.train, known.n_items, items), l2)
    return FrequentItems("EASE", block, among, prior, share, decay, settings=dict(settings))


def with_old_weights(rule: Any, known: Known) -> Ranker:
    """Return EASE with the weights that it has, and the popularity of what is known by now.

    Args:
      rule: Fitted before; the catalogue may have more items by now, or lack its last ones again.
      known: What is known by now.

    Example:
      >>> from jmrec.data.schema import Dataset, Items
      >>> two = Sessions(["a", "b"], np.array([-1, -1]), np.array([0, 2, 3]), np.array([0, 1, 0]),
      ...     np.arange(3.0), np.zeros(3, int), np.zeros(3))
      >>> names = ["a", "b", "c"]
      >>> def shop(n):
      ...     items = Items(names[:n], names[:n], {"title": names[:n]}, [b""] * n)
      ...     return Known(Dataset("shop", items, {"train": two}, False, ""))
      >>> grown = with_old_weights(solve(shop(2), {"l2": 1.0, "decay": 0.5}), shop(3))
      >>> grown.matrix.shape, round(float(grown.matrix[0, 1]), 3), float(grown.matrix[2].max())
      ((3, 3), 0.333, 0.0)
    """
    prior, share = tie_break(known.train, known.n_items, SCALE)
    if isinstance(rule, FrequentItems):
        among = np.zeros(known.n_items, bool)
        own = min(len(rule.among), known.n_items)
        among[:own] = rule.among[:own]
        left = int(among.sum())
        block = np.ascontiguousarray(rule.block[:left, :left])
        return replace(rule, block=block, among=among, prior=prior, share=share)
    own = min(len(rule.prior), known.n_items)
    if own == len(rule.prior) == known.n_items:  # hundreds of megabytes are not copied
        return replace(rule, prior=prior, share=share)
    matrix = np.zeros((known.n_items, known.n_items), np.float32)
    matrix[:own, :own] = rule.matrix[:own, :own]
    return replace(rule, matrix=matrix, prior=prior, share=share)
