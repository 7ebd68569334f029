"""Rules that are counted anew every Monday, as by a shop that runs `jmrec remember` once a week.

Within a week they stay as they are. What `jmrec remember` leaves as it was stays here too:
settings, weights of a blend, weights of EASE, a student. Until the first Monday after the last
training event a rule is what training left.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import take, until
from jmrec.evaluation.periods import week_begins
from jmrec.evaluation.protocol import Prefixes, Ranker
from jmrec.evaluation.rankers.anew import EASE
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.ease import with_old_weights
from jmrec.evaluation.rankers.known import EASE_ITEMS, Known
from jmrec.evaluation.rankers.past import Past
from jmrec.evaluation.rankers.rules import fit_again
from jmrec.evaluation.results import WEEKLY


class Mondays:
    """The rules of a run as they are in each week; every one is fitted once a week.

    Args:
      dataset: That the rules were fitted on.
      past: All of its events; no filter of training (such as k_core) is applied to later ones.
      fitted: The rules, prepared, as `jmrec.evaluation.rankers.rules.fit_rules` chose them.
      features: Feature name -> float [V, D], of the content rules.
      ease_items: Of how many items EASE holds weights at most.
    """

    def __init__(
        self,
        dataset: Dataset,
        past: Past,
        fitted: Sequence[Ranker],
        features: Mapping[str, np.ndarray] | None = None,
        ease_items: int = EASE_ITEMS,
    ) -> None:
        self.dataset, self.past, self.ease_items = dataset, past, ease_items
        self.features = features or {}
        self.fitted = {rule.name: rule for rule in fitted}
        self.trained = float(dataset.splits["train"].times.max(initial=-np.inf))
        self._known: dict[float, Dataset] = {}
        self._rules: dict[tuple[float, str], Ranker] = {}

    def rule(self, rule: Ranker, week: float) -> Ranker:
        """Return a rule, or a blend of rules and whatever counts nothing, as it is in a week.

        Args:
          rule: As training left it.
          week: Its Monday, as of `jmrec.evaluation.periods.week_begins`.
        """
        if week <= self.trained:
            return rule
        if isinstance(rule, Blend):
            return replace(rule, members=[self.rule(each, week) for each in rule.members])
        if rule.name not in self.fitted:
            return rule
        key = week, rule.name
        if key not in self._rules:
            self._rules[key] = self._fit(rule, self._dataset(week))
        return self._rules[key]

    def _fit(self, rule: Any, known: Dataset) -> Ranker:
        if rule.name == EASE:
            anew = with_old_weights(rule, Known(known, self.ease_items))
            anew.prepare(self.features)
            return anew
        settings = {rule.name: rule.settings}
        return fit_again(known, rule.name, settings, self.features, ease_items=self.ease_items)

    def _dataset(self, week: float) -> Dataset:
        if week not in self._known:
            splits = {**self.dataset.splits, "train": before(self.past.sessions, week)}
            self._known[week] = replace(self.dataset, splits=splits)
        return self._known[week]


def before(sessions: Sessions, time: float) -> Sessions:
    """Return sessions as far as they are strictly before a time, those of two events or more.

    Example:
      >>> two = Sessions(["a", "b"], np.array([-1, -1]), np.array([0, 3, 5]),
      ...     np.array([7, 8, 9, 7, 8]), np.array([1.0, 2.0, 4.0, 3.0, 5.0]), np.zeros(5),
      ...     np.zeros(5))
      >>> [each.tolist() for each in before(two, 4.0)]
      [[7, 8]]
    """
    found = until(sessions, np.nextafter(time, -np.inf))
    return take(found, np.flatnonzero(found.lengths >= 2))


@dataclass
class WeeklyRule:
    """A rule that answers as it is in the week of each prediction's moment.

    Attributes:
      rule: As training left it: one of the run's, or a blend of them and a student.
      mondays: What it is in each week.
      name: Of the table's row.
      kind: That of the rule.
      settings: Those of the rule.
    """

    rule: Ranker
    mondays: Mondays
    name: str = ""
    kind: str = "rule"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._parts: tuple[Prefixes, list[tuple[np.ndarray, Prefixes, Ranker]]] | None = None

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features: the rules have them."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        kept = self._parts  # read once: another thread may ask of other prefixes meanwhile
        if kept is None or kept[0] is not prefixes:
            self._parts = kept = prefixes, list(self._by_week(prefixes))
        found = np.empty((len(prefixes), item_slice.stop - item_slice.start), np.float32)
        for rows, part, rule in kept[1]:
            found[rows] = rule.scores(part, item_slice)
        return found

    def _by_week(self, prefixes: Prefixes) -> Iterator[tuple[np.ndarray, Prefixes, Ranker]]:
        week = week_begins(prefixes.time)
        for one in np.unique(week):
            rows = np.flatnonzero(week == one)
            yield rows, prefixes.take(rows), self.mondays.rule(self.rule, float(one))


def weekly(rule: Any, mondays: Mondays) -> WeeklyRule:
    """Return the row of a rule that is counted anew every Monday.

    Args:
      rule: As training left it.
      mondays: What the run's rules are in each week.
    """
    settings = dict(getattr(rule, "settings", {}))
    name, kind = weekly_name(rule.name), getattr(rule, "kind", "rule")
    return WeeklyRule(rule, mondays, name, kind, settings)


def weekly_name(name: str) -> str:
    """Return what the row of a rule's weekly form is called.

    Example:
      >>> weekly_name("popularity")
      'popularity, weekly'
    """
    return f"{name}, {WEEKLY}"
