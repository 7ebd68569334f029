"""Rules that look at no transition: popularity in three forms, and the newest items first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jmrec.data.schema import Items, Sessions
from jmrec.evaluation.protocol import Prefixes, Ranker
from jmrec.evaluation.rankers.bags import context_weights
from jmrec.evaluation.rankers.known import Known, popularity
from jmrec.evaluation.rankers.servable import servable

RELEASE_COLUMNS = ("year", "date", "release", "release_year", "release_date", "published")


@servable
@dataclass
class StaticRule:
    """The same scores after every prefix.

    Attributes:
      name: Of the table's row.
      values: float32 [V] scores.
      settings: What was chosen, for the table.
    """

    name: str
    values: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "rule"

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length], a read-only view."""
        values = self.values[item_slice]
        return np.broadcast_to(values, (len(prefixes), len(values)))


@servable
@dataclass
class SessionPopularity:
    """How often the session so far holds an item, then its popularity (both in [0, 1]).

    Where seen items are no candidates, this is popularity.
    """

    prior: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "session popularity"
    kind: str = "rule"

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        counts = context_weights(prefixes, len(self.prior), decay=1.0)[:, item_slice]
        return counts.toarray() + self.prior[item_slice]


def recent_popularity(sessions: Sessions, n_items: int, share: float) -> StaticRule:
    """Popularity in which an event counts half after every ``share`` of the training period.

    The order of such scores does not depend on the moment of prediction. A millionth of the
    plain popularity orders what has faded away.

    Args:
      sessions: The training sessions; where they have no times, the file's order is used.
      n_items: V.
      share: The half-life as a share of the training period.
    """
    times = np.asarray(sessions.times, np.float64)
    span = np.ptp(times) if len(times) else 0.0
    age = (times.max(initial=-np.inf) - times) / max(span * share, 1e-9)
    recent = np.bincount(sessions.items, np.exp2(-age), minlength=n_items)
    values = recent / max(recent.max(initial=0.0), 1e-9) + 1e-6 * popularity(sessions, n_items)
    return StaticRule(
        "recent popularity", values.astype(np.float32), {"half-life / training period": share}
    )


def newest_first(sessions: Sessions, items: Items, by: str = "first seen") -> StaticRule:
    """The newest items first, whatever the session holds.

    By "first seen", items that training never saw come first, the later row first, because the
    item index is append-only; the others follow by their first training event, the latest
    first. "first seen, early rows" takes the smaller row first. By a declared number column (a
    release year), its largest value comes first, then as by "first seen"; items without a value
    come last. Nothing of validation or test is looked at.

    Args:
      sessions: The training sessions.
      items: The catalogue.
      by: "first seen", "first seen, early rows" or the name of a number column.
    """
    n_items = len(items)
    first = np.full(n_items, np.inf)
    np.minimum.at(first, sessions.items, sessions.times)
    rows = np.arange(n_items)
    keys = [-rows if by == "first seen, early rows" else rows, first]
    if by in items.number:
        keys.append(np.nan_to_num(items.number[by].astype(np.float64), nan=-np.inf))
    values = np.empty(n_items, np.float32)
    values[np.lexsort(keys)] = np.arange(n_items, dtype=np.float32)
    return StaticRule("newest first", values / max(n_items, 1), {"by": by})


# ---- settings that are tried ---------------------------------------------------------------------


def popularity_grid(known: Known) -> Iterator[Ranker]:
    """Yield popularity, which has no settings."""
    yield StaticRule("popularity", known.counted)


def recent_grid(known: Known) -> Iterator[Ranker]:
    """Yield recent popularity under every half-life."""
    for share in (0.5, 0.1, 0.03, 0.01, 0.003, 0.001):
        yield recent_popularity(known.train, known.n_items, share)


def session_grid(known: Known) -> Iterator[Ranker]:
    """Yield session popularity, which has no settings."""
    yield SessionPopularity(known.prior)


def newest_grid(known: Known) -> Iterator[Ranker]:
    """Yield the newest first, by every column that says what is new."""
    columns = (name for name in RELEASE_COLUMNS if name in known.items.number)
    for by in ("first seen", "first seen, early rows", *columns):
        yield newest_first(known.train, known.items, by)
