"""The live rule of sessions: V-SKNN over all other sessions, as they are at each moment."""

from dataclasses import dataclass

import numpy as np

from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.rankers.cooccurrence import TIE_BREAK, nearest
from jmrec.evaluation.rankers.past import Asked, Past, add_at, blocks, expand

SAMPLE = 2500


@dataclass
class _Votes:
    """Pairs of a prefix and a neighbour, M in all.

    Attributes:
      prefixes: Of these prefixes.
      row: int [M] the prefix.
      session: int [M].
      count: int [M] how many items it holds at the moment.
      vote: float64 [M].
    """

    prefixes: Prefixes
    row: np.ndarray
    session: np.ndarray
    count: np.ndarray
    vote: np.ndarray


class Neighbours:
    """The live V-SKNN, see `jmrec.evaluation.rankers.cooccurrence.SessionNeighbours`.

    A neighbour is another session: the prefix's own is none, as it is none for the frozen rule.

    Args:
      past: All events.
      k: Neighbours.
      power: A session's similarity is divided by its length to this power.
      sample: Most recent sessions looked at.
    """

    def __init__(self, past: Past, k: int, power: float, sample: int = SAMPLE) -> None:
        self.k, self.power, self.sample = k, power, sample
        first = past.firsts
        order = np.argsort(first.item, kind="stable")  # of each item by session
        self._start = np.searchsorted(first.item[order], np.arange(past.n_items + 1))
        self._who, self._rank = first.owner[order], first.rank[order]
        self._cached: _Votes | None = None

    def __call__(self, prefixes: Prefixes, asked: Asked, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]."""
        kept = self._cached
        if kept is None or kept.prefixes is not prefixes:
            self._cached = kept = self._votes(prefixes, asked)
        first = asked.past.firsts
        total = TIE_BREAK * asked.prior(items)
        start = first.start[kept.session]
        for part in blocks(kept.count):
            of, at = expand(start[part], kept.count[part])
            add_at(total, kept.row[part][of], first.item[at], kept.vote[part][of], items)
        return total

    def _votes(self, prefixes: Prefixes, asked: Asked) -> _Votes:
        first = asked.past.firsts
        sessions, votes = [], []
        for prefix, rank, own in zip(prefixes.expand(), asked.rank.tolist(), asked.own.tolist()):
            parts = [self._recent(item, rank, own) for item in prefix.tolist()]
            size = np.array([len(part) for part in parts])
            some, who = np.unique(np.concatenate(parts), return_inverse=True)
            held = first.size(some, np.full(len(some), rank)).astype(np.float32)
            near, vote = nearest(who, size, held**-self.power, self.k, self.sample)
            sessions.append(some[near])
            votes.append(vote)
        row = np.repeat(np.arange(len(prefixes)), [len(each) for each in votes])
        session = np.concatenate(sessions)
        return _Votes(
            prefixes, row, session, first.size(session, asked.rank[row]), np.concatenate(votes)
        )

    def _recent(self, item: int, rank: int, own: int) -> np.ndarray:
        """Return the ``sample`` most recent other sessions that hold an item, ascending."""
        part = slice(self._start[item], self._start[item + 1])
        who = self._who[part]
        found: np.ndarray = who[(self._rank[part] < rank) & (who != own)]
        return found[-self.sample :]
