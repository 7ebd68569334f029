"""An approximate index: items in cells, of which an answer looks at the nearest ones only.

The cells are those of scikit-learn's k-means on the item vectors. An answer scores the items of the
cells whose centres score highest, exactly and under the whole policy, so that the list may lack an
item but no score in it is wrong. How many cells are looked at is chosen so that a wanted share of
the exact best 20 is found on sessions of training; the share that is stated was measured on others.

References:
  Jegou, Douze, Schmid, Product Quantization for Nearest Neighbor Search, 2011 (the inverted file):
  https://doi.org/10.1109/TPAMI.2010.57
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jmrec.errors import UserError

TOP = 20
"""Of so many best items recall is counted."""
SAMPLE = 100
"""Item vectors a cell, at most, from which the centres are fitted."""
BLOCK = 1 << 16
"""Items whose cell, or score, is computed at once."""


@dataclass(frozen=True)
class Index:
    """Which items are looked at.

    Attributes:
      centres: float32 [C, D].
      cell: int32 [V], each item's.
      look: How many cells an answer looks at.
      recall: The share of the exact best `TOP` that is found so, on ``sessions`` sessions.
      sessions: By which it was measured.
    """

    centres: np.ndarray
    cell: np.ndarray
    look: int
    recall: float
    sessions: int

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows by their cell, and where each cell's rows begin."""
        order = np.argsort(self.cell, kind="stable").astype(np.int32)
        count = np.bincount(self.cell, minlength=len(self.centres))
        return order, np.concatenate([[0], np.cumsum(count)])

    def rows(self, state: np.ndarray) -> np.ndarray:
        """Return the rows to look at for a state float32 [D], ascending.

        Example:
          >>> centres = np.eye(2, dtype=np.float32)
          >>> index = Index(centres, np.array([1, 0, 1], np.int32), 1, 1.0, 0)
          >>> index.rows(np.array([0.0, 1.0], np.float32)).tolist()
          [0, 2]
        """
        order, start = self._order
        nearest = best_cells(self.centres, state[None], self.look)[0]
        return np.sort(np.concatenate([order[start[c] : start[c + 1]] for c in nearest]))

    @property
    def facts(self) -> dict[str, Any]:
        """What ``serve.json`` says of it."""
        return {"look": self.look, "recall": self.recall, "sessions": self.sessions, "top": TOP}


def best_cells(centres: np.ndarray, states: np.ndarray, look: int) -> np.ndarray:
    """Return int [P, look], the cells whose centres score highest, best first."""
    return np.argsort(-(states @ centres.T), axis=1, kind="stable")[:, :look]


def make_index(vectors: np.ndarray, states: np.ndarray, recall: float, seed: int = 0) -> Index:
    """Fit an index that finds a wanted share of the exact best `TOP`.

    Args:
      vectors: float32 [V, D].
      states: float32 [S, D], of sessions: half of them choose, the others measure.
      recall: The wanted share, in (0, 1].
      seed: Of the centres.

    Raises:
      UserError: The share is none, or there are too few sessions.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> made = make_index(rng.normal(size=(500, 4)).astype(np.float32),
      ...                   rng.normal(size=(40, 4)).astype(np.float32), 1.0)
      >>> made.sessions, made.recall > 0.9
      (20, True)
    """
    from sklearn.cluster import MiniBatchKMeans

    if not 0 < recall <= 1:
        raise UserError(f"an index is to find a share above 0 and at most 1, not {recall:g}.")
    if len(states) < 2:
        raise UserError("an index needs two sessions of training or more; export without one.")
    cells = max(1, min(round(math.sqrt(len(vectors))), len(vectors)))
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(vectors))[: cells * SAMPLE]
    fitted = MiniBatchKMeans(
        cells, batch_size=max(4096, 4 * cells), n_init=1, random_state=seed, max_iter=20
    ).fit(vectors[np.sort(sample)])
    centres = fitted.cluster_centers_.astype(np.float32)
    cell = np.concatenate(
        [fitted.predict(vectors[at : at + BLOCK]) for at in range(0, len(vectors), BLOCK)]
    ).astype(np.int32)
    chosen = places(vectors, centres, cell, states[::2])
    look = int(np.sort(chosen)[max(math.ceil(recall * len(chosen)), 1) - 1]) + 1
    found = places(vectors, centres, cell, states[1::2]) < look
    return Index(centres, cell, look, round(float(found.mean()), 4), len(states[1::2]))


def places(
    vectors: np.ndarray, centres: np.ndarray, cell: np.ndarray, states: np.ndarray
) -> np.ndarray:
    """Return int [S * TOP]: how many cells come before that of each of the exact best items."""
    wanted = cell[exact_best(vectors, states, min(TOP, len(vectors)))]
    order = np.argsort(best_cells(centres, states, len(centres)), axis=1)  # cell -> its place
    return np.take_along_axis(order, wanted, axis=1).reshape(-1)


def exact_best(vectors: np.ndarray, states: np.ndarray, top: int) -> np.ndarray:
    """Return int [S, top], the rows with the highest scores, in no order."""
    scores: np.ndarray = np.zeros((len(states), 0), np.float32)
    rows: np.ndarray = np.zeros((len(states), 0), np.int64)
    for start in range(0, len(vectors), BLOCK):
        own = states @ vectors[start : start + BLOCK].T
        some = np.argpartition(-own, min(top, own.shape[1]) - 1, axis=1)[:, :top]
        scores = np.concatenate([scores, np.take_along_axis(own, some, axis=1)], axis=1)
        rows = np.concatenate([rows, some + start], axis=1)
        kept = np.argpartition(-scores, min(top, scores.shape[1]) - 1, axis=1)[:, :top]
        scores, rows = (np.take_along_axis(each, kept, axis=1) for each in (scores, rows))
    return rows
