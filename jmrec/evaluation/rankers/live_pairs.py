"""Live rules of pairs of items: what followed what, and what was held together."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.rankers.bags import add_product, context_weights
from jmrec.evaluation.rankers.cooccurrence import (
    TIE_BREAK,
    compact,
    held_together,
    transitions,
)
from jmrec.evaluation.rankers.past import (
    Asked,
    Past,
    Stretch,
    Totals,
    add_at,
    blocks,
    expand,
)


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

    def product(self, matrix: sp.csr_array | np.ndarray, rows: int, items: slice) -> np.ndarray:
        """Return float64 [rows, n]: some columns of the cells times a matrix [V, V]."""
        shape = rows, matrix.shape[0]
        bags = sp.csr_array((self.weight.astype(np.float32), (self.row, self.item)), shape=shape)
        total = np.zeros((rows, items.stop - items.start), np.float32)
        add_product(total, bags, matrix, items)
        return total.astype(np.float64)


# ---- what followed what --------------------------------------------------------------------------


class Pairs:
    """Pairs of items in a session, each past from the moment of its later event.

    Args:
      stretch: For predictions of this stretch of time.
      steps: How many items on a pair may reach.
      power: A pair at distance d counts ``d ** -power``.

    Attributes:
      base: [V, V] the pairs before it, as of `transitions`; the later ones follow.
      key: int64 [M] ascending, by first item and moment.
      target: int32 [M] the second item.
      weight: float64 [M].
    """

    def __init__(self, stretch: Stretch, steps: int, power: float) -> None:
        past, later = stretch.past, stretch.new
        counted = transitions(stretch.before, past.n_items, steps, power)
        self.of_source = np.asarray(counted.sum(axis=1), np.float64)
        self.base, self.span = compact(counted), past.span
        items = past.sessions.items
        begin = past.sessions.offsets[past.owner[later]]
        parts = []
        for distance in range(1, steps + 1):
            event = later[later - begin >= distance]
            key = items[event - distance].astype(np.int64) * past.span + past.rank[event]
            parts.append((key, items[event], np.full(len(event), distance**-power)))
        key, target, weight = (np.concatenate(part) for part in zip(*parts))
        order = np.argsort(key, kind="stable")
        self.key, self.target, self.weight = key[order], target[order], weight[order]

    @classmethod
    def all(cls, past: Past, steps: int, power: float) -> "list[tuple[Stretch, Pairs]]":
        """Return those of every stretch."""
        entries = min(past.n_items**2, len(past.whole.before.items) * steps)
        return [(each, cls(each, steps, power)) for each in past.stretches(entries)]

    def between(self, source: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (start, count), int [C]: the pairs of each first item below a rank."""
        start = np.searchsorted(self.key, source * self.span)
        return start, np.searchsorted(self.key, source * self.span + rank) - start


@dataclass
class _Followed:
    """What `Following` needs of some prefixes of one stretch, whichever items are asked for.

    Attributes:
      rows: int [P] their places among those that were asked for.
      pairs: Of the stretch.
      cells: Their items; ``weight`` is divided where there is a back-off.
      start: int [C] the first of the later pairs of each cell.
      count: int [C] how many of these are past.
      own: (row, item, weight) of the pairs that the prefix's own last events close.
      share: float64 [P] how much of the popularity is added.
    """

    rows: np.ndarray
    pairs: Pairs
    cells: _Cells
    start: np.ndarray
    count: np.ndarray
    own: tuple[np.ndarray, np.ndarray, np.ndarray]
    share: np.ndarray

    def scores(self, items: slice) -> np.ndarray:
        """Return float64 [P, n] without the share of popularity."""
        cells, pairs = self.cells, self.pairs
        total = cells.product(pairs.base, len(self.rows), items)
        for part in blocks(self.count):
            of, at = expand(self.start[part], self.count[part])
            weight = cells.weight[part][of] * pairs.weight[at]
            add_at(total, cells.row[part][of], pairs.target[at], weight, items)
        add_at(total, *self.own, items)
        return total


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
        self.pairs = past.kept(Pairs.all, steps, power)
        self._cached: tuple[Prefixes, list[_Followed]] | None = None

    def __call__(self, prefixes: Prefixes, asked: Asked, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]."""
        kept = self._cached  # read once: another thread may ask of other prefixes meanwhile
        if kept is None or kept[0] is not prefixes:
            parts = [(pairs, stretch.rows(asked)) for stretch, pairs in self.pairs]
            found = [self._part(prefixes, asked, *part) for part in parts if len(part[1])]
            self._cached = kept = prefixes, found
        total = asked.share(items) if self.backoff else asked.prior(items)
        for each in kept[1]:
            total[each.rows] *= each.share[:, None]
            total[each.rows] += each.scores(items)
        return total

    def _part(self, prefixes: Prefixes, asked: Asked, pairs: Pairs, rows: np.ndarray) -> _Followed:
        asked, n_items = asked.take(rows), asked.past.n_items
        cells = _Cells.of(prefixes.take(rows), n_items, self.decay)
        start, count = pairs.between(cells.item, asked.rank[cells.row])
        row, item, cell, weight = self._own(asked, cells)
        share = cells.weight * TIE_BREAK
        if self.backoff:
            known = pairs.of_source[cells.item] + count
            known += np.bincount(cell, weight, minlength=len(known))
            cells.weight = cells.weight / (known + self.backoff)
            share = cells.weight * self.backoff
        own = row, item, cells.weight[cell] * weight
        total = np.bincount(cells.row, share, minlength=len(rows))
        return _Followed(rows, pairs, cells, start, count, own, total)

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
      stretch: For predictions of this stretch of time.
      power: A session of n items counts ``n ** -power``.

    Attributes:
      base: [V, V] of `held_together` before the stretch, without the diagonal.
      alone: float64 [V] that diagonal.
      begun: The rank with which the stretch begins.
      key: int64 [F] ascending, by item and moment: the items of sessions that change in it.
      changes: int [F] these sessions.
      weight: That diagonal at any moment.
    """

    def __init__(self, stretch: Stretch, power: float) -> None:
        past, first = stretch.past, stretch.past.firsts
        together = held_together(stretch.before, past.n_items, power)
        self.alone = together.diagonal().astype(np.float64)
        together.setdiag(0.0)
        together.eliminate_zeros()
        self.base = compact(together)
        new = np.flatnonzero((first.rank >= stretch.first) & (first.rank < stretch.end))
        changes = np.zeros(len(past.sessions), bool)
        changes[first.owner[new]] = True
        entry = np.flatnonzero(changes[first.owner] & (first.rank < stretch.end))
        key = first.item[entry] * past.span + first.rank[entry]
        order = np.argsort(key, kind="stable")
        self.key, self.changes = key[order], first.owner[entry[order]]
        self.begun, self.weight = stretch.first, self._weights(past, new, power)

    @classmethod
    def all(cls, past: Past, power: float) -> "list[tuple[Stretch, Held]]":
        """Return those of every stretch."""
        lengths = past.whole.before.lengths.astype(np.float64)
        entries = int(min(past.n_items**2, (lengths**2).sum()))
        return [(each, cls(each, power)) for each in past.stretches(entries)]

    def _weights(self, past: Past, new: np.ndarray, power: float) -> Totals:
        """Return what each item's sessions count together; ``new``: what comes in ``firsts``."""
        first = past.firsts
        # With each new item of a session its others count a little less.
        there = new - first.start[first.owner[new]]
        added = (there + 1.0) ** -power
        change = added - np.maximum(there, 1.0) ** -power
        of, at = expand(first.start[first.owner[new]], there if power else np.zeros_like(there))
        item = np.concatenate([first.item[new], first.item[at]])
        weight = np.concatenate([added, change[of]])
        rank = np.concatenate([first.rank[new], first.rank[new][of]])
        order = np.argsort(rank, kind="stable")
        return Totals(self.alone, item[order], weight[order], rank[order], past.span)


@dataclass
class _Sharing:
    """What `Together` needs of some prefixes of one stretch, whichever items are asked for.

    Attributes:
      rows: int [P] their places among those that were asked for.
      asked: These prefixes.
      held: Of the stretch.
      cells: Their items; ``weight`` is divided by the items' norms.
      own: (row, item, weight) by which the prefix's own last events change the squared norms.
      itself: float64 [C] what an item says of itself, to be taken off.
      row: int [M] prefix of each pair of a prefix and a session that share an item, where the
        session has changed since the stretch began.
      start: int [M] the session's first item in ``past.firsts``.
      count: int [M] how many items it holds at the moment.
      was: int [M] how many it held as the stretch began.
      vote: float64 [2, M] what it says now of all its items, and what it said of those it had.
      context: float64 [P] the sum of the prefix's weights.
    """

    rows: np.ndarray
    asked: Asked
    held: Held
    cells: _Cells
    own: tuple[np.ndarray, np.ndarray, np.ndarray]
    itself: np.ndarray
    row: np.ndarray
    start: np.ndarray
    count: np.ndarray
    was: np.ndarray
    vote: np.ndarray
    context: np.ndarray

    def products(self, items: slice) -> np.ndarray:
        """Return float64 [P, n]: the scores but for the norms of the items they are of."""
        cells, first = self.cells, self.asked.past.firsts
        total = cells.product(self.held.base, len(self.rows), items)
        for part in blocks(self.count):
            of, at = expand(self.start[part], self.count[part])
            now, then = self.vote[:, part][:, of]
            old = at - self.start[part][of] < self.was[part][of]
            vote = now - np.where(old, then, 0.0)
            add_at(total, self.row[part][of], first.item[at], vote, items)
        add_at(total, cells.row, cells.item, -self.itself, items)
        return total

    def squared(self, items: slice) -> np.ndarray:
        """Return float64 [P, n]: the squared norms."""
        found = self.held.weight.rows(self.asked.rank, items)
        add_at(found, *self.own, items)
        return found


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
        self.held = past.kept(Held.all, power)
        self._cached: tuple[Prefixes, list[_Sharing]] | None = None

    def __call__(self, prefixes: Prefixes, asked: Asked, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]."""
        kept = self._cached  # read once: another thread may ask of other prefixes meanwhile
        if kept is None or kept[0] is not prefixes:
            parts = [(held, stretch.rows(asked)) for stretch, held in self.held]
            found = [self._part(prefixes, asked, *part) for part in parts if len(part[1])]
            self._cached = kept = prefixes, found
        total = 0.1 * TIE_BREAK * asked.prior(items)
        for each in kept[1]:
            total[each.rows] *= each.context[:, None]
            total[each.rows] += each.products(items) * self._norm(each.squared(items))
        return total

    def _norm(self, squared: np.ndarray) -> np.ndarray:
        return np.asarray(1.0 / np.sqrt(np.maximum(squared, 0.0) + self.shrink + 1e-9))

    def _part(self, prefixes: Prefixes, asked: Asked, held: Held, rows: np.ndarray) -> _Sharing:
        asked, past = asked.take(rows), asked.past
        cells = _Cells.of(prefixes.take(rows), past.n_items, self.decay)
        context = np.bincount(cells.row, cells.weight, minlength=len(rows))
        own = self._own(asked)
        squared = held.weight.cells(asked.rank[cells.row], cells.item)
        cell = cells.find(own[0], own[1], past.n_items)
        np.add.at(squared, cell[cell >= 0], own[2][cell >= 0])
        cells.weight = cells.weight * self._norm(squared)
        itself = cells.weight * (squared - held.alone[cells.item])
        row, session, count, vote = self._others(asked, held, cells)
        # The prefix's own session holds what the prefix holds.
        row = np.concatenate([row, np.arange(len(rows))])
        session = np.concatenate([session, asked.own])
        count = np.concatenate([count, past.firsts.size_at(asked.own, asked.stop)])
        was = past.firsts.size(session, np.full(len(session), held.begun))
        vote = np.concatenate([vote, self._mine(asked, cells, was[-len(rows) :])], axis=1)
        vote *= np.maximum([count, was], 1.0) ** -self.power
        start = past.firsts.start[session]
        return _Sharing(
            rows, asked, held, cells, own, itself, row, start, count, was, vote, context
        )  # fmt: skip

    def _others(self, asked: Asked, held: Held, cells: _Cells) -> tuple[np.ndarray, ...]:
        """Return (row, session, how many items it holds, [2, M] the weight of the shared ones).

        Of sessions that have changed since the stretch began; the weight is that of the items they
        share now, and of those they shared then.
        """
        first, span, sessions = asked.past.firsts, asked.past.span, len(asked.past.sessions)
        low = np.searchsorted(held.key, cells.item * span)
        size = np.searchsorted(held.key, cells.item * span + asked.rank[cells.row]) - low
        # A prefix's cells stay together: a session may share several of its items.
        ends = np.searchsorted(cells.row, np.arange(len(asked.rank) + 1))
        found = []
        for rows in blocks(np.diff(np.concatenate([[0], np.cumsum(size)])[ends])):
            part = slice(ends[rows.start], ends[rows.stop])
            of, at = expand(low[part], size[part])
            key = cells.row[part][of] * sessions + held.changes[at]
            pair, place = np.unique(key, return_inverse=True)
            row, session = np.divmod(pair, sessions)
            count = first.size(session, asked.rank[row])
            begun = np.full(len(session), held.begun)
            some = (session != asked.own[row]) & (count > first.size(session, begun))
            weight = cells.weight[part][of]
            then = np.where(held.key[at] % span < held.begun, weight, 0.0)
            votes = [np.bincount(place, each, minlength=len(pair)) for each in (weight, then)]
            found.append((row[some], session[some], count[some], np.stack(votes)[:, some]))
        return tuple(np.concatenate(part, axis=-1) for part in zip(*found))

    def _mine(self, asked: Asked, cells: _Cells, was: np.ndarray) -> np.ndarray:
        """Return float64 [2, P]: the weight that prefixes share with their own sessions.

        Now that is all of it; ``was`` items were there as the stretch began.
        """
        row, at = expand(asked.past.firsts.start[asked.own], was)
        cell = cells.find(row, asked.past.firsts.item[at], asked.past.n_items)
        row, cell = row[cell >= 0], cell[cell >= 0]
        then = np.bincount(row, cells.weight[cell], minlength=len(was))
        return np.stack([np.bincount(cells.row, cells.weight, minlength=len(was)), then])

    def _own(self, asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (row, item, weight): what the prefix's own last events change of the norms."""
        first, some = asked.past.firsts, np.flatnonzero(asked.stop > asked.late)
        own = asked.own[some]
        now = first.size_at(own, asked.stop[some])
        was = first.size_at(own, asked.late[some])
        of, at = expand(first.start[own], now)
        old = at - first.start[own][of] < was[of]
        before = np.where(old, np.maximum(was, 1.0)[of] ** -self.power, 0.0)
        return some[of], first.item[at], now[of] ** -self.power - before
