"""The table of rules that need no training, and the choice of their settings on validation.

Every rule is fitted on the training sessions alone, also when it is read on test: validation
sessions choose settings and are never counted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from jmrec.data.schema import Dataset
from jmrec.evaluation.protocol import Predictions, Ranker, rank
from jmrec.evaluation.rankers.blend import fit_blend
from jmrec.evaluation.rankers.content import FeatureNeighbours, TextNeighbours
from jmrec.evaluation.rankers.cooccurrence import (
    ease_grid,
    item_grid,
    markov_grid,
    neighbour_grid,
    sequential_grid,
)
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import (
    newest_grid,
    popularity_grid,
    recent_grid,
    session_grid,
)
from jmrec.evaluation.results import MRR20
from jmrec.metrics.ranks import metric, session_mean

PRIMARY_POSITIONS = 20
"""Choices are made by the primary figure, session-averaged over positions 1 to 20."""

Grid = Callable[[Known], Iterator[Ranker]]

RULES: dict[str, Grid] = {
    "popularity": popularity_grid,
    "recent popularity": recent_grid,
    "session popularity": session_grid,
    "Markov + popularity": markov_grid,
    "sequential rules": sequential_grid,
    "item-kNN": item_grid,
    "V-SKNN": neighbour_grid,
    "EASE": ease_grid,
    "newest first": newest_grid,
    "content-kNN (TF-IDF)": TextNeighbours.grid,
}
"""Row -> what yields its Ranker under every setting, in the table's order; it yields nothing where
the data lacks what the rule reads. A new rule is a line here."""
PER_FEATURE: dict[str, Callable[[str, Known], Iterator[Ranker]]] = {
    "content-kNN": FeatureNeighbours.grid,
}
"""The same for rules of which each feature table has a row of its own."""


def best_on_validation(
    candidates: Iterable[Ranker],
    validation: Predictions,
    *,
    n_items: int,
    exclude_seen: bool,
    allowed: np.ndarray | None = None,
) -> tuple[Ranker, float]:
    """Return the ranker with the best primary figure on validation, and that figure.

    Args:
      candidates: At least one; the first of equals is taken.
      validation: Predictions of the validation split; positions 1 to 20 are used.
      n_items: V.
      exclude_seen: Of the data set.
      allowed: bool [V] availability.

    Raises:
      ValueError: If there is no candidate.
    """
    asked = validation.take(validation.place <= PRIMARY_POSITIONS)
    best: tuple[Ranker, float] | None = None
    for candidate in candidates:
        found = rank(
            candidate, asked, n_items=n_items, exclude_seen=exclude_seen, allowed=allowed, top=0
        )
        figure = session_mean(metric(MRR20, found.ranks[0]), asked.session)
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
      The fitted Rankers in the table's order; each has ``name``, ``kind`` and ``settings``, which
      also hold the validation figure.
    """
    tell = progress or (lambda name, done, total: None)
    known, tables = Known(dataset), features or {}
    common: dict[str, Any] = {"n_items": known.n_items, "exclude_seen": dataset.exclude_seen}
    grids: dict[str, Grid] = dict(RULES)
    for name, grid in PER_FEATURE.items():
        grids |= {f"{name} ({table})": partial(grid, table) for table in tables}
    total = len(grids) + blend
    fitted: list[Ranker] = []
    for done, (name, rule) in enumerate(grids.items()):
        tell(name, done, total)
        fitted += _best(rule(known), tables, validation, allowed=allowed, **common)
    if blend:
        tell("blend", total - 1, total)
        mixed = fit_blend(fitted, validation, allowed=allowed, **common)
        fitted += _best([mixed], tables, validation, **common)
    tell("done", total, total)
    return fitted


def _best(
    candidates: Iterable[Ranker],
    features: Mapping[str, np.ndarray],
    validation: Predictions,
    **common: Any,
) -> list[Ranker]:
    """Return the best candidate alone, its figure among its settings; [] where there is none."""

    def prepared() -> Iterator[Ranker]:
        for each in candidates:
            each.prepare(features)
            yield each

    waiting = prepared()
    first = next(waiting, None)
    if first is None:
        return []
    chosen: Any
    chosen, figure = best_on_validation(chain([first], waiting), validation, **common)
    chosen.settings = {**chosen.settings, f"validation {MRR20}": round(figure, 5)}
    return [chosen]
