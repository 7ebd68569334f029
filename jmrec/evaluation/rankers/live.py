"""Rules whose counts live: each prediction is scored by all that was known at its moment.

A live rule gives the scores of the frozen rule that would be fitted on the events before the moment
alone (see `jmrec.evaluation.rankers.past`), with its settings; it is never fitted again. EASE,
content neighbours and the newest first have no live form and stay as training left them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jmrec.evaluation.protocol import Prefixes, Ranker
from jmrec.evaluation.rankers.bags import context_weights
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.cooccurrence import TIE_BREAK
from jmrec.evaluation.rankers.live_pairs import Following, Together
from jmrec.evaluation.rankers.live_sessions import Neighbours
from jmrec.evaluation.rankers.past import Asked, Past, add_at, highest

Score = Callable[[Prefixes, Asked, slice], np.ndarray]
"""(prefixes, where they stand among all events, items) -> float [P, slice length]."""


@dataclass
class LiveRule:
    """A rule that counts all that is past at each prediction's moment.

    Attributes:
      name: Of the table's row.
      past: All events.
      score: What it says.
      settings: Those of the frozen rule.
    """

    name: str
    past: Past
    score: Score
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "rule"

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        found = self.score(prefixes, self.past.asked(prefixes), item_slice)
        return np.asarray(found, np.float32)


@dataclass
class LiveBlend(Blend):
    """A blend of which those members count live that can; it is not for serving."""


def live(rule: Ranker, past: Past) -> Ranker:
    """Return the live form of a rule, with its settings; the rule itself where it has none.

    Args:
      rule: Fitted by `jmrec.evaluation.rankers.rules.fit_rules`.
      past: All events of the data set that the rule was fitted on.
    """
    settings = dict(getattr(rule, "settings", {}))
    if isinstance(rule, Blend):
        members = [live(member, past) for member in rule.members]
        return LiveBlend(members, rule.weights, rule.n_items, settings, live_name(rule.name))
    form = FORMS.get(rule.name)
    if form is None:
        return rule
    return LiveRule(live_name(rule.name), past, form(past, settings), settings)


def live_name(name: str) -> str:
    """Return what the row of a rule's live form is called.

    Example:
      >>> live_name("popularity")
      'popularity, live'
    """
    return f"{name}, live"


# ---- what each says ------------------------------------------------------------------------------


def popularity(_: Prefixes, asked: Asked, items: slice) -> np.ndarray:
    """Return each item's share of the past events, float64 [P, slice length]."""
    return asked.share(items)


def session_popularity(prefixes: Prefixes, asked: Asked, items: slice) -> np.ndarray:
    """Return how often the session holds each item, plus its popularity in [0, 1]."""
    held = context_weights(prefixes, asked.past.n_items, decay=1.0)[:, items]
    return np.asarray(held.toarray() + asked.prior(items))


class Recent:
    """Popularity in which an event counts half after every half-life before the moment.

    Args:
      past: All events.
      half_life: In seconds; as a share of the training period it is that of the frozen rule.
    """

    def __init__(self, past: Past, half_life: float) -> None:
        self.half_life, before = half_life, past.whole.before
        self.since = float(before.times.max(initial=-np.inf))
        weight = self._fade(self.since - before.times)
        self.base = np.bincount(before.items, weight, minlength=past.n_items)
        self._peak: tuple[Asked, np.ndarray] | None = None

    def __call__(self, _: Prefixes, asked: Asked, items: slice) -> np.ndarray:
        """Return float64 [P, slice length]."""
        kept = self._peak
        if kept is None or kept[0] is not asked:
            peak = highest(lambda part: self._sums(asked, part), len(asked.rank), len(self.base))
            self._peak = kept = asked, peak
        found = self._sums(asked, items) / np.maximum(kept[1], 1e-9)[:, None]
        return np.asarray(found + TIE_BREAK * asked.share(items))

    def _fade(self, seconds: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp2(-seconds / self.half_life))

    def _sums(self, asked: Asked, items: slice) -> np.ndarray:
        """Return the faded counts, float64 [P, n], as of each prediction's last past event."""
        past, new = asked.past, asked.past.whole.new
        rank, item, times = past.rank[new], past.sessions.items[new], past.sessions.times[new]
        found = np.empty((len(asked.rank), items.stop - items.start))
        running, now, begin = self.base[items].copy(), self.since, 0
        order = np.argsort(asked.rank, kind="stable")
        for row, stop in zip(order, np.searchsorted(rank, asked.rank[order])):
            if stop > begin:
                running *= self._fade(times[stop - 1] - now)
                now = times[stop - 1]
                inside = np.arange(begin, stop)
                inside = inside[(item[inside] >= items.start) & (item[inside] < items.stop)]
                np.add.at(running, item[inside] - items.start, self._fade(now - times[inside]))
                begin = stop
            found[row] = running
            if asked.stop[row] > asked.late[row]:  # the prefix's own last events are of the moment
                found[row] *= self._fade(asked.time[row] - now)
        row, event = asked.tied
        add_at(found, row, past.sessions.items[event], np.ones(len(row)), items)
        return found


FORMS: dict[str, Callable[[Past, Mapping[str, Any]], Score]] = {
    "popularity": lambda past, _: popularity,
    "recent popularity": lambda past, chosen: Recent(
        past, max(past.training_period * chosen["half-life / training period"], 1e-9)
    ),
    "session popularity": lambda past, _: session_popularity,
    "Markov + popularity": lambda past, chosen: Following(
        past, steps=1, power=1.0, decay=0.0, backoff=chosen["backoff"]
    ),
    "sequential rules": lambda past, chosen: Following(
        past, chosen["steps"], chosen["power"], chosen["decay"]
    ),
    "item-kNN": lambda past, chosen: Together(
        past, chosen["shrink"], chosen["length power"], chosen["decay"]
    ),
    "V-SKNN": lambda past, chosen: Neighbours(past, chosen["k"], chosen["length power"]),
}
"""Rule -> its live form, from all events and the settings of the frozen rule."""
