"""Rules that need no training, and the choice of their few settings on validation.

Every rule is fitted on the training sessions alone, also when it is read on test: validation
sessions choose settings and are never counted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from jmrec.data.schema import Dataset, Items, Sessions
from jmrec.evaluation.blend import fit_blend
from jmrec.evaluation.content import FeatureNeighbours, TextNeighbours
from jmrec.evaluation.cooccurrence import (
    LinearRule,
    SessionNeighbours,
    compact,
    context_weights,
    cosine,
    ease,
    markov,
    popularity,
    session_matrix,
    tie_break,
    transitions,
)
from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker, rank
from jmrec.metrics.ranks import metric, session_mean

PRIMARY = "MRR@20"
PRIMARY_POSITIONS = 20
"""Choices are made by MRR@20, session-averaged over positions 1 to 20."""
RELEASE_COLUMNS = ("year", "date", "release", "release_year", "release_date", "published")


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
      sessions: The training sessions; where they have no times, the file's order stands in.
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


def families(dataset: Dataset) -> dict[str, Callable[[], Iterator[Ranker]]]:
    """Return, by name, what yields each rule under every setting of its grid.

    Args:
      dataset: Its training sessions and catalogue are used, nothing else.
    """
    train, items = dataset.splits["train"], dataset.items
    n_items = len(items)
    counted = popularity(train, n_items)
    prior = (counted / max(counted.max(initial=0.0), 1e-9)).astype(np.float32)

    def recent() -> Iterator[Ranker]:
        for share in (0.5, 0.1, 0.03, 0.01, 0.003, 0.001):
            yield recent_popularity(train, n_items, share)

    def first_order() -> Iterator[Ranker]:
        for backoff in (10.0, 100.0, 300.0, 1000.0, 3000.0):
            yield markov(train, n_items, backoff)

    def linear(
        name: str, matrix: Any, scale: float, decays: Sequence[float], settings: dict[str, Any]
    ) -> Iterator[Ranker]:
        rest, share = tie_break(train, n_items, scale)
        kept = compact(matrix)
        for decay in decays:
            chosen = {**settings, "decay": decay}
            yield LinearRule(name, kept, rest, share, decay, settings=chosen)

    def sequential() -> Iterator[Ranker]:
        for steps, power in ((10, 1.0), (30, 0.5)):
            matrix = transitions(train, n_items, steps, power)
            settings = {"steps": steps, "power": power}
            yield from linear("sequential rules", matrix, 1.0, (0.0, 0.3, 0.5, 0.8), settings)

    def neighbours() -> Iterator[Ranker]:
        for shrink, power in ((0.0, 0.0), (10.0, 0.0), (10.0, 0.5)):
            matrix = cosine(train, n_items, shrink, power)
            settings = {"shrink": shrink, "length power": power}
            yield from linear("item-kNN", matrix, 0.1, (0.3, 0.5, 0.8, 0.95), settings)

    def session_neighbours() -> Iterator[Ranker]:
        held = session_matrix(train, n_items)
        for k in (50, 200):
            for power in (0.0, 0.5, 1.0):
                chosen = {"k": k, "length power": power}
                yield SessionNeighbours(held, prior, k, power, settings=chosen)

    def autoencoder() -> Iterator[Ranker]:
        # An inversion costs n_items ** 3.
        for l2 in (10.0, 50.0, 250.0) if n_items <= 5000 else (50.0, 250.0):
            matrix = ease(train, n_items, l2)
            yield from linear("EASE", matrix, 0.01, (0.6, 0.8, 0.9), {"l2": l2})

    def newest() -> Iterator[Ranker]:
        orders = "first seen", "first seen, early rows"
        for by in (*orders, *(name for name in RELEASE_COLUMNS if name in items.number)):
            yield newest_first(train, items, by)

    return {
        "popularity": lambda: iter([StaticRule("popularity", counted)]),
        "recent popularity": recent,
        "session popularity": lambda: iter([SessionPopularity(prior)]),
        "Markov + popularity": first_order,
        "sequential rules": sequential,
        "item-kNN": neighbours,
        "V-SKNN": session_neighbours,
        "EASE": autoencoder,
        "newest first": newest,
    }


def choose(
    candidates: Iterable[Ranker],
    validation: Predictions,
    *,
    n_items: int,
    exclude_seen: bool,
    allowed: np.ndarray | None = None,
) -> tuple[Ranker, float]:
    """Return the ranker with the best session-averaged MRR@20 on validation, and that figure.

    Args:
      candidates: At least one; the first of equals is taken.
      validation: Predictions of the validation split; positions 1 to 20 are used.
      n_items: V.
      exclude_seen: Of the data set.
      allowed: bool [V] availability.

    Raises:
      ValueError: If there is no candidate.
    """
    asked = validation.take(validation.position <= PRIMARY_POSITIONS)
    best: tuple[Ranker, float] | None = None
    for candidate in candidates:
        found = rank(
            candidate, asked, n_items=n_items, exclude_seen=exclude_seen, allowed=allowed, top=0
        )
        figure = session_mean(metric(PRIMARY, found.ranks[0]), asked.session)
        if best is None or figure > best[1]:
            best = candidate, figure
    if best is None:
        raise ValueError("no candidate to choose from")
    return best


def fit_rules(
    dataset: Dataset,
    validation: Predictions,
    *,
    features: Mapping[str, np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
    blend: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Ranker]:
    """Fit every rule on the training sessions, its settings chosen on validation.

    Args:
      dataset: Training sessions and catalogue; its test sessions are not looked at.
      validation: ``make_predictions`` of the validation split.
      features: Feature name -> float [V, D]; each gives a row of cosine neighbours.
      allowed: bool [V] availability.
      blend: Whether to add the blend of all the others.
      progress: Called with (rule, how many are done, how many there are).

    Returns:
      The fitted Rankers in the table's order; each has ``name``, ``kind`` ("rule", "content" or
      "blend") and ``settings``, which also hold the validation figure.
    """
    n_items = len(dataset.items)
    grids: dict[str, Callable[[], Iterable[Ranker]]] = dict(families(dataset))
    seen = dataset.train_count > 0
    if any(any(values) for values in dataset.items.text.values()):
        grids["text"] = lambda: TextNeighbours.grid(dataset.items, seen)
    for name in features or {}:
        grids[f"features {name}"] = partial(FeatureNeighbours.grid, name, seen)
    total = len(grids) + blend
    fitted: list[Ranker] = []

    def prepared(grid: Callable[[], Iterable[Ranker]]) -> Iterator[Ranker]:
        for ranker in grid():
            ranker.prepare(features or {})
            yield ranker

    for done, (name, grid) in enumerate(grids.items()):
        if progress is not None:
            progress(name, done, total)
        ranker, figure = choose(
            prepared(grid),
            validation,
            n_items=n_items,
            exclude_seen=dataset.exclude_seen,
            allowed=allowed,
        )
        _note(ranker, figure)
        fitted.append(ranker)
    if blend:
        if progress is not None:
            progress("blend", total - 1, total)
        mixed = fit_blend(
            fitted,
            validation,
            n_items=n_items,
            exclude_seen=dataset.exclude_seen,
            allowed=allowed,
        )
        _note(*choose([mixed], validation, n_items=n_items, exclude_seen=dataset.exclude_seen))
        fitted.append(mixed)
    if progress is not None:
        progress("done", total, total)
    return fitted


def _note(ranker: Any, figure: float) -> None:
    """Write the figure that a ranker was chosen by into its settings."""
    ranker.settings = {**ranker.settings, "validation MRR@20": round(figure, 5)}
