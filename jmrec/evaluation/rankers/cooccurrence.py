"""Rules from co-occurrence in the training sessions: Markov, sequential, item-kNN, V-SKNN.

All but V-SKNN are *linear*: the score of item j is a decayed sum over the prefix's items i of one
matrix entry ``M[i, j]``, plus a little popularity where nothing is known.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

from jmrec.data.schema import Sessions
from jmrec.evaluation.protocol import Prefixes, Ranker
from jmrec.evaluation.rankers.bags import Bag, add_product, context_weights, last_bag
from jmrec.evaluation.rankers.known import Known, popularity
from jmrec.evaluation.rankers.servable import servable

DENSE_SHARE = 0.05
"""A matrix with more entries than this share is kept dense: products are then faster."""
TIE_BREAK = 1e-6
"""How much popularity a linear rule adds, to order what it knows nothing of."""


def session_matrix(sessions: Sessions, n_items: int) -> sp.csr_array:
    """Return float32 [S, V] sparse with 1 where the session holds the item.

    Args:
      sessions: S sessions.
      n_items: V.
    """
    row = np.repeat(np.arange(len(sessions)), sessions.lengths)
    ones = np.ones(len(row), np.float32)
    matrix = sp.csr_array((ones, (row, sessions.items)), shape=(len(sessions), n_items))
    matrix.data[:] = 1.0
    return matrix


def transitions(
    sessions: Sessions, n_items: int, steps: int = 1, power: float = 1.0
) -> sp.csr_array:
    """Count what follows what inside sessions.

    Args:
      sessions: The training sessions.
      n_items: V.
      steps: How many items on a pair may reach.
      power: A pair at distance d counts ``d ** -power``.

    Returns:
      float32 [V, V] sparse; entry (i, j) counts j after i.

    References:
      Ludewig and Jannach, *Evaluation of Session-based Recommendation Algorithms*
      (https://arxiv.org/abs/1803.09587), sequential rules.

    Example:
      >>> one = Sessions(["a"], np.array([-1]), np.array([0, 3]), np.array([0, 1, 2]),
      ...     np.arange(3.0), np.zeros(3), np.zeros(3))
      >>> transitions(one, 3, steps=2).toarray()
      array([[0. , 1. , 0.5],
             [0. , 0. , 1. ],
             [0. , 0. , 0. ]], dtype=float32)
    """
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths)
    total = sp.csr_array((n_items, n_items), dtype=np.float32)
    for distance in range(1, steps + 1):
        same = owner[distance:] == owner[:-distance]
        if not same.any():
            break
        pair = sessions.items[:-distance][same], sessions.items[distance:][same]
        weight = np.full(same.sum(), distance**-power, np.float32)
        total = total + sp.csr_array((weight, pair), shape=(n_items, n_items))
    return sp.csr_array(total)


def cosine(sessions: Sessions, n_items: int, shrink: float, length_power: float) -> sp.csr_array:
    """Item-item cosine over sessions, shrunk towards 0 where items are rare.

    Args:
      sessions: The training sessions.
      n_items: V.
      shrink: Added to the squared norms.
      length_power: A session of n items counts ``n ** -length_power``, so that a very long one
        does not tie everything to everything.

    Returns:
      float32 [V, V] sparse, zero on the diagonal.
    """
    together = held_together(sessions, n_items, length_power)
    norm = 1.0 / np.sqrt(together.diagonal() + shrink + 1e-9)
    together = sp.dia_array((norm[None], [0]), shape=together.shape) @ together
    together = sp.csr_array(together @ sp.dia_array((norm[None], [0]), shape=together.shape))
    together.setdiag(0.0)
    together.eliminate_zeros()
    return together.astype(np.float32)


def held_together(sessions: Sessions, n_items: int, length_power: float) -> sp.csr_array:
    """Count the sessions that hold two items; an item's own are on the diagonal.

    Args:
      sessions: Any sessions.
      n_items: V.
      length_power: A session of n items counts ``n ** -length_power``.

    Returns:
      float32 [V, V] sparse.
    """
    held = session_matrix(sessions, n_items)
    size = np.maximum(held.sum(axis=1), 1.0)
    scaled = sp.csr_array(held.multiply((size ** (-length_power / 2))[:, None]))
    return sp.csr_array((scaled.T @ scaled).astype(np.float32))


def compact(matrix: sp.csr_array | np.ndarray) -> sp.csr_array | np.ndarray:
    """Return the matrix dense where it is dense enough, else sparse (float32 [V, V])."""
    if isinstance(matrix, np.ndarray):
        return np.ascontiguousarray(matrix, np.float32)
    rows, columns = matrix.shape
    return matrix.toarray() if matrix.nnz > DENSE_SHARE * rows * columns else matrix


@servable
@dataclass
class LinearRule:
    """Scores ``sum_i decay^age(i) (M[i, j] + share[i] prior[j])`` over the prefix's items i.

    Attributes:
      name: Of the table's row.
      matrix: float32 [V, V], sparse or dense.
      prior: float32 [V] popularity.
      share: float32 [V] how much of the prior an item brings.
      decay: Factor for every step back in the prefix; 0 reads the last item only.
      last: How many of the last items are read; None is the window.
      settings: What was chosen, for the table.
    """

    name: str
    matrix: sp.csr_array | np.ndarray
    prior: np.ndarray
    share: np.ndarray
    decay: float = 0.0
    last: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "rule"

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        if len(prefixes) == 1:
            bag = last_bag(prefixes, self.decay, self.last)
            prior = (bag.weights @ self.share[bag.rows]) * self.prior
            return (prior + bag.product(self.matrix))[None, item_slice]
        weights = context_weights(prefixes, len(self.prior), self.decay, self.last)
        scores = (weights @ self.share)[:, None] * self.prior[item_slice]
        add_product(scores, weights, self.matrix, item_slice)
        return scores

    def weight(self, i: int, j: int) -> float:
        """Return what item i of the prefix says of item j, without popularity."""
        return float(self.matrix[i, j])


def markov(sessions: Sessions, n_items: int, backoff: float) -> LinearRule:
    """First-order Markov chain with popularity back-off.

    P(j | i) = (count(i, j) + backoff popularity(j)) / (count(i, .) + backoff).

    Args:
      sessions: The training sessions.
      n_items: V.
      backoff: How many pseudo-counts of popularity are added to the counts, positive.
    """
    counts = transitions(sessions, n_items)
    scale = (1.0 / (counts.sum(axis=1) + backoff)).astype(np.float32)
    return LinearRule(
        name="Markov + popularity",
        matrix=compact(sp.csr_array(counts.multiply(scale[:, None]))),
        prior=popularity(sessions, n_items),
        share=(backoff * scale).astype(np.float32),
        settings={"backoff": backoff},
    )


def tie_break(sessions: Sessions, n_items: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (prior, share): a trace of popularity, far below ``scale``."""
    prior = popularity(sessions, n_items)
    share = np.full(n_items, TIE_BREAK * scale, np.float32)
    return (prior / max(prior.max(initial=0.0), 1e-9)).astype(np.float32), share


@servable
@dataclass
class SessionNeighbours:
    """V-SKNN: the sessions most like this one, later items counting more, vote for their items.

    A prefix of n items gives its m-th item the weight m / n; a past session's similarity is the
    sum over shared items, divided by ``length ** length_power``. The ``k`` most similar of the
    ``sample`` most recent sessions that share an item each vote with their similarity times
    1 / (1 + age of the last shared item).

    References:
      Ludewig and Jannach, *Evaluation of Session-based Recommendation Algorithms*
      (https://arxiv.org/abs/1803.09587).

    Attributes:
      held: float32 [S, V] sparse, the training sessions.
      prior: float32 [V] popularity, a trace of which orders what has no vote.
      k: Neighbours.
      length_power: See above.
      sample: Most recent sessions looked at.
      settings: What was chosen, for the table.
    """

    held: sp.csr_array
    prior: np.ndarray
    k: int = 100
    length_power: float = 0.5
    sample: int = 2500
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "V-SKNN"
    kind: str = "rule"

    def __post_init__(self) -> None:
        columns = self.held.tocsc()
        self._start, self._who = columns.indptr, columns.indices
        size = np.maximum(self.held.sum(axis=1), 1.0)
        self._norm = size**-self.length_power
        self._cached: tuple[Prefixes, sp.csr_array] | None = None

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        kept = self._cached  # read once: another thread may ask of other prefixes meanwhile
        if kept is None or kept[0] is not prefixes:
            self._cached = kept = prefixes, self.votes(prefixes)
        scores = np.tile(np.float32(TIE_BREAK) * self.prior[item_slice], (len(prefixes), 1))
        if len(prefixes) == 1:
            scores += Bag(kept[1].indices, kept[1].data).product(self.held)[item_slice]
        else:
            add_product(scores, kept[1], self.held, item_slice)
        return scores

    def votes(self, prefixes: Prefixes) -> sp.csr_array:
        """Return float32 [P, S] sparse: what each neighbour's vote weighs, 1 for the best."""
        data, indices, pointer = [], [], [0]
        for window, ends in _by_window(prefixes):
            parts = [self.recent(item) for item in window[: ends.max() + 1]]
            size = np.array([len(part) for part in parts])
            # Their sessions are numbered once for all prefixes of the window.
            sessions, who = np.unique(np.concatenate(parts), return_inverse=True)
            for length in (ends + 1).tolist():
                near, vote = nearest(
                    who[: size[:length].sum()], size[:length], self._norm[sessions],
                    self.k, self.sample,
                )  # fmt: skip
                data.append(vote)
                indices.append(sessions[near])
                pointer.append(pointer[-1] + len(near))
        return sp.csr_array(
            (
                np.concatenate(data).astype(np.float32),
                np.concatenate(indices),
                np.array(pointer),
            ),
            shape=(len(prefixes), self.held.shape[0]),
        )

    def recent(self, item: int) -> np.ndarray:
        """Return the ``sample`` most recent sessions that hold an item, ascending.

        No earlier one is ever looked at: all of these are more recent and share an item too. So the
        work for a prefix does not grow with the number of past sessions.
        """
        stop = self._start[item + 1]
        return self._who[max(self._start[item], stop - self.sample) : stop]


def nearest(
    who: np.ndarray, size: np.ndarray, norm: np.ndarray, k: int, sample: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the neighbours of one prefix, and what their votes weigh; see `SessionNeighbours`.

    Args:
      who: Of each item of the prefix in turn, the oldest first, which sessions hold it: their
        places in ``norm``.
      size: int [n], how many these are for each item.
      norm: float [S], one divided by a power of the length of each session.
      k: Neighbours.
      sample: Most recent sessions looked at.
    """
    count = np.arange(1, len(size) + 1)
    shared = np.bincount(who, np.repeat(count / len(size), size), minlength=len(norm))
    alike = shared * norm
    near = np.flatnonzero(alike)[-sample:]
    if len(near) > k:
        near = near[np.argpartition(-alike[near], k - 1)[:k]]
    # The last shared item's age is written last.
    recent = np.zeros(len(norm))
    recent[who] = np.repeat(1.0 / count[::-1], size)
    vote = alike[near] * recent[near]
    return near, vote / max(vote.max(initial=0.0), 1e-9)


def _by_window(prefixes: Prefixes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each window, int32 [L], and the ends int [n] of its prefixes, which are neighbours."""
    starts = np.flatnonzero(np.diff(prefixes.window, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), len(prefixes)]):
        yield prefixes.windows[prefixes.window[start]], prefixes.end[start:stop]


# ---- settings that are tried ---------------------------------------------------------------------


def markov_grid(known: Known) -> Iterator[Ranker]:
    """Yield the first-order Markov chain under every back-off."""
    for backoff in (10.0, 100.0, 300.0, 1000.0, 3000.0):
        yield markov(known.train, known.n_items, backoff)


def sequential_grid(known: Known) -> Iterator[Ranker]:
    """Yield sequential rules under every setting."""
    for steps, power in ((10, 1.0), (30, 0.5)):
        matrix = transitions(known.train, known.n_items, steps, power)
        settings = {"steps": steps, "power": power}
        yield from linear_grid(
            known, "sequential rules", matrix, 1.0, (0.0, 0.3, 0.5, 0.8), settings
        )


def item_grid(known: Known) -> Iterator[Ranker]:
    """Yield item-kNN under every setting."""
    for shrink, power in ((0.0, 0.0), (10.0, 0.0), (10.0, 0.5)):
        matrix = cosine(known.train, known.n_items, shrink, power)
        settings = {"shrink": shrink, "length power": power}
        yield from linear_grid(known, "item-kNN", matrix, 0.1, (0.3, 0.5, 0.8, 0.95), settings)


def neighbour_grid(known: Known) -> Iterator[Ranker]:
    """Yield V-SKNN under every setting."""
    held = session_matrix(known.train, known.n_items)
    for k in (50, 200):
        for power in (0.0, 0.5, 1.0):
            chosen = {"k": k, "length power": power}
            yield SessionNeighbours(held, known.prior, k, power, settings=chosen)


def linear_grid(
    known: Known,
    name: str,
    matrix: sp.csr_array | np.ndarray,
    scale: float,
    decays: Sequence[float],
    settings: Mapping[str, Any],
) -> Iterator[Ranker]:
    """Yield a linear rule under every decay, with a trace of popularity far below ``scale``."""
    rest, share = tie_break(known.train, known.n_items, scale)
    kept = compact(matrix)
    for decay in decays:
        yield LinearRule(name, kept, rest, share, decay, settings={**settings, "decay": decay})
