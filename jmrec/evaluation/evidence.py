"""Why a rule recommends an item: what its score is made of, in words that count past clicks.

A rule's score is a sum, so its parts add up to it (but for the rounding of float32): what each
click brings, what each member of a blend brings, or one number that is the same for everybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from jmrec.evaluation.protocol import Prefixes, Ranker
from jmrec.evaluation.rankers.bags import counted_back
from jmrec.evaluation.rankers.blend import Blend, catalogue_moments
from jmrec.evaluation.rankers.content import FeatureNeighbours, TextNeighbours
from jmrec.evaluation.rankers.cooccurrence import (
    TIE_BREAK,
    LinearRule,
    SessionNeighbours,
    session_matrix,
    transitions,
)
from jmrec.evaluation.rankers.ease import FrequentItems
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.neural import NeuralRanker
from jmrec.evaluation.rankers.popularity import SessionPopularity, StaticRule

POPULAR = "its popularity, which orders what is equal"


@dataclass(frozen=True)
class Part:
    """A part of the score of an item.

    Attributes:
      value: How much it adds.
      click: Which click of the session brings it, the first being 0; None where none does alone.
      words: What was counted.
    """

    value: float
    click: int | None
    words: str


class Evidence:
    """What the training sessions say of the scores of rules.

    Args:
      known: What the rules were fitted on.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self._within: dict[int, sp.csr_array] = {}

    def parts(
        self,
        rule: Ranker,
        prefix: np.ndarray,
        item: int,
        gaps: np.ndarray | None = None,
        events: np.ndarray | None = None,
    ) -> list[Part]:
        """Return the parts of an item's score after a session, those that are not 0.

        Args:
          rule: Fitted and prepared.
          prefix: int [n] the session's item rows, oldest first, at most a window of them.
          item: Its row.
          gaps: float [n] log(1 + seconds since the click before), for a student in a blend; None is
            none.
          events: int [n] event types, the same.

        Returns:
          They add up to the score; of a rule that this module does not know there is one.
        """
        asked = _one(prefix, gaps, events)
        if isinstance(rule, Blend):
            return [each for each in self._blend(rule, asked, item) if each.value]
        if isinstance(rule, NeuralRanker):
            score = float(rule.scores(asked, slice(item, item + 1))[0, 0])
            return [Part(score, None, "what it has learned of such sessions")]
        made = next((each for cls, each in self._makers.items() if isinstance(rule, cls)), None)
        if made is None:
            score = float(rule.scores(asked, slice(item, item + 1))[0, 0])
            return [Part(score, None, "its score")]
        return [each for each in made(rule, prefix, item) if each.value]

    @property
    def _makers(self) -> dict[type, Callable[[Any, np.ndarray, int], list[Part]]]:
        return {
            StaticRule: self._static,
            SessionPopularity: self._session,
            LinearRule: self._linear,
            FrequentItems: self._linear,
            SessionNeighbours: self._neighbours,
            TextNeighbours: self._texts,
            FeatureNeighbours: self._features,
        }

    # ---- what was counted -----------------------------------------------------------------------

    @cached_property
    def _held(self) -> sp.csc_array:
        return sp.csc_array(session_matrix(self.known.train, self.known.n_items))

    def _after(self, i: int, j: int, steps: int) -> tuple[int, int]:
        """Return how often j came up to so many clicks after i, and how often anything did."""
        if steps not in self._within:
            self._within[steps] = transitions(self.known.train, self.known.n_items, steps, 0.0)
        row = self._within[steps][[i]]
        return round(row[0, j]), round(row.sum())

    def _beside(self, i: int, j: int) -> tuple[int, int]:
        """Return how many sessions hold i and j, and how many hold i."""
        mine = self._sessions(i)
        return len(np.intersect1d(mine, self._sessions(j))), len(mine)

    def _sessions(self, item: int) -> np.ndarray:
        held = self._held
        return held.indices[held.indptr[item] : held.indptr[item + 1]]

    # ---- rules ----------------------------------------------------------------------------------

    def _static(self, rule: StaticRule, _: np.ndarray, item: int) -> list[Part]:
        clicks = int(self.known.dataset.train_count[item])
        words = f"clicked {_times(clicks)} in the training sessions"
        if rule.name == "recent popularity":
            words += ", late clicks counting more"
        elif rule.name == "newest first":
            words = "never clicked in the training sessions, so it is new"
            if clicks:
                words = f"first clicked {self._first(item)}"
        return [Part(float(rule.values[item]), None, words)]

    def _first(self, item: int) -> str:
        train = self.known.train
        time = float(train.times[train.items == item].min())
        if not self.known.dataset.has_time:
            return f"at event {time:,.0f} of the data"
        return f"on {datetime.fromtimestamp(time, UTC):%Y-%m-%d}"

    def _session(self, rule: SessionPopularity, prefix: np.ndarray, item: int) -> list[Part]:
        here = int((prefix == item).sum())
        clicks = int(self.known.dataset.train_count[item])
        return [
            Part(float(here), None, f"clicked {_times(here)} in this session"),
            Part(float(rule.prior[item]), None, f"clicked {_times(clicks)} in training"),
        ]

    def _linear(
        self, rule: LinearRule | FrequentItems, prefix: np.ndarray, item: int
    ) -> list[Part]:
        found = []
        for click, weight in _weights(prefix, rule.decay, rule.last):
            i = int(prefix[click])
            value = rule.weight(i, item) + float(rule.share[i]) * float(rule.prior[item])
            found.append(Part(weight * value, click, self._linked(rule, i, item)))
        return found

    def _linked(self, rule: LinearRule | FrequentItems, i: int, j: int) -> str:
        """Say what the training sessions know of two items, as a rule counts it."""
        if rule.name == "Markov + popularity":
            there, every = self._after(i, j, 1)
            return f"after it, {there:,} of {every:,} clicks went here"
        if rule.name == "sequential rules":
            steps = int(rule.settings.get("steps", 1))
            there, _ = self._after(i, j, steps)
            return f"this came up to {steps} clicks after it {_times(there)}"
        both, every = self._beside(i, j)
        return f"beside it in {both:,} of its {every:,} sessions"

    def _neighbours(self, rule: SessionNeighbours, prefix: np.ndarray, item: int) -> list[Part]:
        votes = rule.votes(_one(prefix))
        near, vote = votes.indices, votes.data
        last, sessions = np.full(len(near), -1), rule.held
        for place, session in enumerate(near.tolist()):
            items = sessions.indices[sessions.indptr[session] : sessions.indptr[session + 1]]
            last[place] = np.flatnonzero(np.isin(prefix, items)).max()
            vote[place] *= item in items
        found = []
        for click in range(len(prefix)):
            ours = (last == click) & (vote > 0)
            words = (
                f"{ours.sum():,} of the {len(near):,} past sessions most like this one hold it and "
                "share this click last"
            )
            found.append(Part(float(vote[ours].sum()), click, words))
        return [*found, Part(TIE_BREAK * float(rule.prior[item]), None, POPULAR)]

    def _texts(self, rule: TextNeighbours, prefix: np.ndarray, item: int) -> list[Part]:
        def alike(i: int) -> float:
            return float((rule.vectors[[i]] @ rule.vectors[[item]].T).toarray()[0, 0])

        return _content(prefix, rule.decay, alike, "texts")

    def _features(self, rule: FeatureNeighbours, prefix: np.ndarray, item: int) -> list[Part]:
        unit = rule.unit
        return _content(prefix, rule.decay, lambda i: float(unit[i] @ unit[item]), rule.feature)

    def _blend(self, rule: Blend, asked: Prefixes, item: int) -> list[Part]:
        found, prefix = [], asked.windows[0]
        for member, weight in zip(rule.members, rule.weights):
            mean, scale = catalogue_moments(member, asked, rule.n_items)
            score = float(member.scores(asked, slice(item, item + 1))[0, 0])
            value = weight * (score - float(mean[0])) * float(scale[0])
            own = self.parts(member, prefix, item, asked.gaps[0], asked.events[0])
            most = max(own, key=lambda part: abs(part.value), default=None)
            words = f"{member.name}: {most.words if most else 'it knows nothing of this item'}"
            found.append(Part(value, most.click if most else None, words))
        return found


def _content(
    prefix: np.ndarray, decay: float, alike: Callable[[int], float], what: str
) -> list[Part]:
    found = []
    for click, weight in _weights(prefix, decay, None):
        cosine = alike(int(prefix[click]))
        found.append(Part(weight * cosine, click, f"{what} alike, cosine {cosine:.2f}"))
    return found


def _weights(prefix: np.ndarray, decay: float, last: int | None) -> list[tuple[int, float]]:
    """Return (click, weight) of the clicks that count, as in `context_weights`."""
    near, weight = counted_back(np.arange(len(prefix))[::-1], decay, last)
    return [(click, float(weight[click])) for click in np.flatnonzero(near).tolist()]


def _one(
    prefix: np.ndarray, gaps: np.ndarray | None = None, events: np.ndarray | None = None
) -> Prefixes:
    none = np.zeros(len(prefix))
    return Prefixes(
        windows=prefix[None].astype(np.int32),
        gaps=np.asarray(none if gaps is None else gaps, np.float32)[None],
        events=np.asarray(none if events is None else events, np.int32)[None],
        window=np.zeros(1, np.int32),
        end=np.full(1, len(prefix) - 1, np.int32),
        time=np.zeros(1),
    )


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count:,} times")
