"""Live rules of pairs of items: what followed what, and what was held together."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from jmrec.data.sessions import take
from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.rankers.cooccurrence import (
    TIE_BREAK,
    add_product,
    compact,
    context_weights,
    held_together,
    transitions,
)
from jmrec.evaluation.rankers.past import Asked, Past, Totals, add_at, blocks, expand


@dataclass
class _Cells:
    """The items of some prefixes, C in all, in the order of prefix and item.

    Attributes:
      row: int [C] the prefix.
      item: int [C].
      weight: float64 [C].
    """

    row: np.ndarray
    item: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, prefixes: Prefixes, n_items: int, decay: float) -> "_Cells":
        """Return them with the weights of `context_weights`."""
        bags = context_weights(prefixes, n_items, decay)
        bags.sort_indices()
        row = np.repeat(np.arange(len(prefixes)), np.diff(bags.indptr))
        return cls(row, bags.indices.astype(np.int64), bags.data.astype(np.float64))

    def find(self, row: np.ndarray, item: np.ndarray, n_items: int) -> np.ndarray:
        """Return the cell of each (row, item), int; -1 where there is none."""
        key, wanted = self.row * n_items + self.item, row * n_items + item
        at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        return np.where(key[at] == wanted, at, -1)

    def product(
        self, weight: np.ndarray, matrix: sp.csr_array | np.ndarray, rows: int, items: slice
    ) -> np.ndarray:
        """Return float64 [rows, n]: some columns of the cells' ``weight`` times a matrix [V, V]."""
        shape = rows, matrix.shape[0]
        bags = sp.csr_array((weight.astype(np.float32), (self.row, self.item)), shape=shape)
        total = np.zeros((rows, items.stop - items.start), np.float32)
        add_product(total, bags, matrix, items)
        return total.astype(np.float64)


# ---- what followed what --------------------------------------------------------------------------


class Pairs:
    """Pairs of items in a session, each past from the moment of its later event.

    Args:
      past: All events.
      steps: How many items on a pair may reach.
      power: A pair at distance d counts ``d ** -power``.

    Attributes:
      base: [V, V] the pairs before ``past.since``, as of `transitions`; the later ones follow.
      key: int64 [M] ascending, by first item and moment.
      target: int32 [M] the second item.
      weight: float64 [M].
    """

    def __init__(self, past: Past, steps: int, power: float) -> None:
        counted = transitions(past.before, past.n_items, steps, power)
        self.of_source = np.asarray(counted.sum(axis=1), np.float64)
        self.base, self.span = compact(counted), past.span
        items, later = past.sessions.items, past.new
        begin = past.sessions.offsets[past.owner[later]]
        parts = []
        for distance in range(1, steps + 1):
            event = later[later - begin >= distance]
            key = items[event - distance].astype(np.int64) * past.span + past.rank[event]
            parts.append((key, items[event], np.full(len(event), distance**-power)))
        key, target, weight = (np.concatenate(part) for part in zip(*parts))
        order = np.argsort(key, kind="stable")
        self.key, self.target, self.weight = key[order], target[order], weight[order]

    def between(self, source: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (start, count), int [C]: the pairs of each first item below a rank."""
        start = np.searchsorted(self.key, source * self.span)
        return start, np.searchsorted(self.key, source * self.span + rank) - start


@dataclass
class _Followed:
    """What `Following` needs of some prefixes, whichever items are asked for."""

    prefixes: Prefixes
    cells: _Cells
    weight: np.ndarray
    start: np.ndarray
    count: np.ndarray
    own: tuple[np.ndarray, np.ndarray, np.ndarray]
    share: np.ndarray


class Following:
    """The live Markov chain (with a back-off) and the live sequential rules (without).

    Args:
      past: All events.
      steps: As of `Pairs`.
      power: As of `Pairs`.
      decay: Factor for every step back in the prefix; 0 reads the last item only.
      backoff: Pseudo-counts of popularity; 0 counts as it is, with a trace of popularity.
    """

    def __init__(
        self, past: Past, steps: int, power: float, decay: float, backoff: float = 0.0
    ) -> None:
        self.steps, self.power, self.decay, self.backoff = steps, power, decay, backoff
        self.pairs = past.kept(Pairs, steps, power)
        self._cached: _Followed | None = None

    def __call__(self, prefixes: Prefixes, asked: Asked, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]."""
        kept = self._cached
        if kept is None or kept.prefixes is not prefixes:
            self._cached = kept = self._followed(prefixes, asked)
        pairs, row = self.pairs, kept.cells.row
        total = kept.cells.product(kept.weight, pairs.base, len(prefixes), items)
        for part in blocks(kept.count):
            of, at = expand(kept.start[part], kept.count[part])
            weight = kept.weight[part][of] * pairs.weight[at]
            add_at(total, row[part][of], pairs.target[at], weight, items)
        add_at(total, *kept.own, items)
        prior = asked.share(items) if self.backoff else asked.prior(items)
        return np.asarray(total + kept.share[:, None] * prior)

    def _followed(self, prefixes: Prefixes, asked: Asked) -> _Followed:
        past = asked.past
        cells = _Cells.of(prefixes, past.n_items, self.decay)
        start, count = self.pairs.between(cells.item, asked.rank[cells.row])
        row, item, cell, own = self._own(asked, cells)
        weight = cells.weight
        if self.backoff:
            known = self.pairs.of_source[cells.item] + count
            known += np.bincount(cell, own, minlength=len(known))
            weight = weight / (known + self.backoff)
            share = np.bincount(cells.row, weight * self.backoff, minlength=len(prefixes))
        else:
            share = np.bincount(cells.row, weight * TIE_BREAK, minlength=len(prefixes))
        return _Followed(
            prefixes, cells, weight, start, count, (row, item, weight[cell] * own), share
        )

    def _own(self, asked: Asked, cells: _Cells) -> tuple[np.ndarray, ...]:
        """Return (row, item, cell, weight) of pairs that a prefix's own last events close."""
        row, event = asked.tied
        items, parts = asked.past.sessions.items, []
        for distance in range(1, self.steps + 1):
            some = event - distance >= asked.begin[row]
            of, at = row[some], event[some]
            cell = cells.find(of, items[at - distance].astype(np.int64), asked.past.n_items)
            inside = cell >= 0
            weight = np.full(int(inside.sum()), distance**-self.power)
            parts.append((of[inside], items[at[inside]], cell[inside], weight))
        return tuple(np.concatenate(part) for part in zip(*parts))


# ---- what was held together ----------------------------------------------------------------------


class Held:
    """Which sessions hold which items, and since when.

    Args:
      past: All events.
      power: A session of n items counts ``n ** -power``.

    Attributes:
      base: [V, V] of `held_together`, without its diagonal, over the sessions that have ended
        before ``past.since``; of the others, which are open, the events are looked at.
      alone: float64 [V] that diagonal.
      weight: The same for all sessions at any moment.
    """

    def __init__(self, past: Past, power: float) -> None:
        self.past, self.power, sessions = past, power, past.sessions
        is_open = np.zeros(len(sessions), bool)
        is_open[past.owner[past.new]] = True
        together = held_together(take(sessions, np.flatnonzero(~is_open)), past.n_items, power)
        self.alone = together.diagonal().astype(np.float64)
        together.setdiag(0.0)
        together.eliminate_zeros()
        self.base = compact(together)
        first = past.firsts
        entry = np.flatnonzero(is_open[first.owner])
        key = first.item[entry] * past.span + first.rank[entry]
        order = np.argsort(key, kind="stable")
        self.key, self.open = key[order], first.owner[entry[order]]
        self.weight = self._weights(entry)

    def _weights(self, entry: np.ndarray) -> Totals:
        """Return what each item's sessions count together; ``entry``: first events of the open."""
        past, power, first = self.past, self.power, self.past.firsts
        old = entry[first.rank[entry] < past.first]
        count = np.bincount(first.owner[old], minlength=len(past.sessions))
        base = self.alone + np.bincount(
            first.item[old],
            np.maximum(count, 1.0)[first.owner[old]] ** -power,
            minlength=past.n_items,
        )
        # With each new item of a session its others count a little less.
        new = entry[first.rank[entry] >= past.first]
        new = new[np.argsort(first.rank[new], kind="stable")]
        there = new - first.start[first.owner[new]]
        added = (there + 1.0) ** -power
        change = added - np.maximum(there, 1.0) ** -power
        of, at = expand(first.start[first.owner[new]], there if power else np.zeros_like(there))
        item = np.concatenate([first.item[new], first.item[at]])
        weight = np.concatenate([added, change[of]])
        rank = np.concatenate([first.rank[new], first.rank[new][of]])
        order = np.argsort(rank, kind="stable")
        return Totals(base, item[order], weight[order], rank[order], past.span)


@dataclass
class _Sharing:
    """What `Together` needs of some prefixes, whichever items are asked for.

    Attributes:
      cells: Their items; ``weight`` is divided by the items' norms.
      own: (row, item, weight) by which an item's weight is another for the prefix's own session.
      itself: What an item says of itself, of each cell, to be taken off.
      row: int [M] prefix of each pair of a prefix and an open session that share an item.
      start: int [M] the session's first item in ``past.firsts``.
      count: int [M] how many items it holds at the moment.
      vote: float64 [M].
      context: float64 [P] the sum of the prefix's weights.
    """

    prefixes: Prefixes
    cells: _Cells
    own: tuple[np.ndarray, np.ndarray, np.ndarray]
    itself: np.ndarray
    row: np.ndarray
    start: np.ndarray
    count: np.ndarray
    vote: np.ndarray
    context: np.ndarray


class Together:
    """The live item-kNN: cosine over sessions as they are at each moment.

    Args:
      past: All events.
      shrink: Added to the squared norms.
      power: A session of n items counts ``n ** -power``.
      decay: Factor for every step back in the prefix.
    """

    def __init__(self, past: Past, shrink: float, power: float, decay: float) -> None:
        self.shrink, self.power, self.decay = shrink, power, decay
        self.held = past.kept(Held, power)
        self._cached: _Sharing | None = None

    def __call__(self, prefixes: Prefixes, asked: Asked, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]."""
        kept = self._cached
        if kept is None or kept.prefixes is not prefixes:
            self._cached = kept = self._sharing(prefixes, asked)
        cells, first = kept.cells, asked.past.firsts
        total = cells.product(cells.weight, self.held.base, len(prefixes), items)
        for part in blocks(kept.count):
            of, at = expand(kept.start[part], kept.count[part])
            add_at(total, kept.row[part][of], first.item[at], kept.vote[part][of], items)
        add_at(total, cells.row, cells.item, -kept.itself, items)
        squared = self.held.weight.rows(asked.rank, items)
        add_at(squared, *kept.own, items)
        total *= self._norm(squared)
        return np.asarray(total + TIE_BREAK * 0.1 * kept.context[:, None] * asked.prior(items))

    def _norm(self, squared: np.ndarray) -> np.ndarray:
        return np.asarray(1.0 / np.sqrt(np.maximum(squared, 0.0) + self.shrink + 1e-9))

    def _sharing(self, prefixes: Prefixes, asked: Asked) -> _Sharing:
        past, first = asked.past, asked.past.firsts
        cells = _Cells.of(prefixes, past.n_items, self.decay)
        context = np.bincount(cells.row, cells.weight, minlength=len(prefixes))
        own = self._own(asked)
        squared = self.held.weight.cells(asked.rank[cells.row], cells.item)
        cell = cells.find(own[0], own[1], past.n_items)
        np.add.at(squared, cell[cell >= 0], own[2][cell >= 0])
        cells.weight = cells.weight * self._norm(squared)
        itself = cells.weight * (squared - self.held.alone[cells.item])
        low = np.searchsorted(self.held.key, cells.item * past.span)
        high = np.searchsorted(self.held.key, cells.item * past.span + asked.rank[cells.row])
        found = []
        # A prefix's cells stay together: its sessions are those of all of them.
        ends = np.searchsorted(cells.row, np.arange(len(prefixes) + 1))
        size = np.concatenate([[0], np.cumsum(high - low)])[ends]
        for rows in blocks(np.diff(size)):
            part = slice(ends[rows.start], ends[rows.stop])
            of, at = expand(low[part], (high - low)[part])
            key = cells.row[part][of] * len(past.sessions) + self.held.open[at]
            pair, place = np.unique(key, return_inverse=True)
            vote = np.bincount(place, cells.weight[part][of], minlength=len(pair))
            row, session = np.divmod(pair, len(past.sessions))
            other = session != asked.own[row]
            found.append((row[other], session[other], vote[other]))
        row, session, vote = (np.concatenate(part) for part in zip(*found))
        count = first.size(session, asked.rank[row])
        # The prefix's own session holds what the prefix holds.
        every = np.arange(len(prefixes))
        row, session = np.concatenate([row, every]), np.concatenate([session, asked.own])
        mine = np.bincount(cells.row, cells.weight, minlength=len(prefixes))
        count = np.concatenate([count, first.size_at(asked.own, asked.stop)])
        vote = np.concatenate([vote, mine]) * count**-self.power
        return _Sharing(
            prefixes, cells, own, itself, row, first.start[session], count, vote, context
        )

    def _own(self, asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (row, item, weight): what the prefix's own last events change of the norms."""
        first, some = asked.past.firsts, np.flatnonzero(asked.stop > asked.late)
        own = asked.own[some]
        now = first.size_at(own, asked.stop[some])
        was = first.size_at(own, asked.late[some])
        of, at = expand(first.start[own], now)
        old = at - first.start[own][of] < was[of]
        weight = now[of] ** -self.power - np.where(
            old, np.maximum(was, 1.0)[of] ** -self.power, 0.0
        )
        return some[of], first.item[at], weight
