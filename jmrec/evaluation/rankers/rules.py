"""The table of rules that need no training, and the choice of their settings on validation.

Every rule is fitted on the training sessions alone, also when it is read on test: validation
sessions choose settings and are never counted. Only the live forms of `choose_live` count more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from jmrec.data.schema import Dataset
from jmrec.errors import UserError
from jmrec.evaluation.choice import DIGITS, POSITIONS, on_validation
from jmrec.evaluation.protocol import Predictions, Ranker
from jmrec.evaluation.rankers.blend import (
    BLEND,
    ENOUGH,
    Blend,
    fit_blend,
    fit_mixed,
    some_sessions,
)
from jmrec.evaluation.rankers.content import FeatureNeighbours, TextNeighbours
from jmrec.evaluation.rankers.cooccurrence import (
    item_grid,
    markov_grid,
    neighbour_grid,
    sequential_grid,
)
from jmrec.evaluation.rankers.ease import ease_grid
from jmrec.evaluation.rankers.known import EASE_ITEMS, Known
from jmrec.evaluation.rankers.live import FORMS, LiveBlend, live, live_name
from jmrec.evaluation.rankers.past import Past
from jmrec.evaluation.rankers.popularity import (
    newest_grid,
    popularity_grid,
    recent_grid,
    session_grid,
)
from jmrec.evaluation.results import MIX, MRR20

CHOSEN_BY = f"validation {MRR20}"
"""Beside a rule's settings: the figure by which they were chosen."""

CHOOSING = 1_000_000_000
"""Scores by which each setting of a rule is judged, at most: where all of validation takes more, so
many of its sessions are drawn, once for all settings. The figure of the chosen one is of all."""

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
    best: tuple[Ranker, float] | None = None
    for candidate in candidates:
        figure = on_validation(
            [candidate], validation, n_items=n_items, exclude_seen=exclude_seen, allowed=allowed
        )
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
    ease_items: int = EASE_ITEMS,
    progress: Callable[[str, int, int], None] | None = None,
    measured: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> list[Ranker]:
    """Fit every rule on the training sessions, its settings chosen on validation.

    Args:
      dataset: Training sessions and catalogue; its test sessions are not looked at.
      validation: ``make_predictions`` of the validation split.
      features: Feature name -> float [V, D]; each gives a row of cosine neighbours.
      allowed: bool [V] availability.
      blend: Whether to add the blend of all the others.
      ease_items: Of how many items EASE holds weights at most.
      progress: Called with (rule, how many are done, how many there are).
      measured: Called with a rule's name, returns a context in which that is fitted.

    Returns:
      The fitted Rankers in the table's order; each has ``name``, ``kind`` and ``settings``, which
      also hold the validation figure.
    """
    tell = progress or (lambda name, done, total: None)
    known, tables = Known(dataset, ease_items), features or {}
    common: dict[str, Any] = {"n_items": known.n_items, "exclude_seen": dataset.exclude_seen}
    grids = _grids(tables)
    total = len(grids) + blend
    fitted: list[Ranker] = []
    for done, (name, rule) in enumerate(grids.items()):
        tell(name, done, total)
        with measured(name):
            fitted += _best(rule(known), tables, validation, allowed=allowed, **common)
    if blend:
        tell("blend", total - 1, total)
        with measured(BLEND):
            mixed = fit_blend(fitted, validation, allowed=allowed, **common)
            fitted += _best([mixed], tables, validation, **common)
    tell("done", total, total)
    return fitted


def choose_live(
    fitted: Sequence[Ranker],
    dataset: Dataset,
    validation: Predictions,
    past: Past,
    *,
    features: Mapping[str, np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Ranker]:
    """Return the live form of every rule that has one, its settings chosen again on validation.

    The settings tried are those of the frozen rules. The blend's weights are chosen again too; what
    has no live form is in it as it was fitted.

    Args:
      fitted: Of `fit_rules`.
      dataset: Of the same.
      validation: Of the same, with moments that ``past`` reaches back to.
      past: All events.
      features: Of `fit_rules`.
      allowed: Of `fit_rules`.
      progress: Of `fit_rules`.

    Returns:
      The live Rankers in the table's order.
    """
    tell = progress or (lambda name, done, total: None)
    known, tables = Known(dataset), features or {}
    common: dict[str, Any] = {
        "n_items": known.n_items, "exclude_seen": dataset.exclude_seen, "allowed": allowed,
    }  # fmt: skip
    chosen: dict[str, Ranker] = {}
    for done, name in enumerate(FORMS):
        tell(live_name(name), done, len(FORMS) + 1)
        candidates = (live(rule, past) for rule in RULES[name](known))
        chosen[name] = _best(candidates, tables, validation, **common)[0]
    tell(live_name(BLEND), len(FORMS), len(FORMS) + 1)
    members = [chosen.get(rule.name, rule) for rule in fitted if rule.name != BLEND]
    mixed = fit_blend(members, validation, **common)
    blend = LiveBlend(
        mixed.members, mixed.weights, mixed.n_items, mixed.settings, live_name(BLEND)
    )  # fmt: skip
    return [*chosen.values(), *_best([blend], tables, validation, **common)]


def choose_live_mixed(
    fitted: Sequence[Ranker],
    counted: Sequence[Ranker],
    student: Ranker,
    validation: Predictions,
    **common: Any,
) -> LiveBlend:
    """Blend a student with the rules in their live form; the student stays as it was trained.

    Its weights are chosen on validation with live counts, as those of the live blend of rules are.

    Args:
      fitted: Of `fit_rules`.
      counted: Of `choose_live`, from the same.
      student: Trained and prepared.
      validation: Of `choose_live`.
      **common: ``n_items``, ``exclude_seen`` and ``allowed`` of `fit_blend`.

    Returns:
      The blend, in which the student comes last; one that adds nothing is left out.
    """
    own = {rule.name: rule for rule in counted}
    members = [own.get(live_name(rule.name), rule) for rule in fitted]
    mixed = fit_mixed(members, student, validation, **common)
    return LiveBlend(
        mixed.members, mixed.weights, mixed.n_items, mixed.settings, live_name(mixed.name), MIX
    )


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
    first = list(islice(waiting, 2))
    if not first:
        return []
    asked = few = validation.take(validation.place <= POSITIONS)
    if len(first) > 1:  # else there is nothing to choose
        few = some_sessions(asked, max(CHOOSING // common["n_items"], ENOUGH), 0)
    chosen: Any
    chosen, figure = best_on_validation(chain(first, waiting), few, **common)
    if len(few) < len(asked):
        figure = on_validation([chosen], asked, **common)
    chosen.settings = {**chosen.settings, CHOSEN_BY: round(figure, DIGITS)}
    return [chosen]


def _grids(tables: Iterable[str]) -> dict[str, Grid]:
    """Return every rule but the blend, in the table's order."""
    grids: dict[str, Grid] = dict(RULES)
    tables = tuple(tables)
    for name, grid in PER_FEATURE.items():
        grids |= {f"{name} ({table})": partial(grid, table) for table in tables}
    return grids


def rule_names(tables: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all rules, of which data may lack some.

    Args:
      tables: Names of the feature tables that the content rules read.

    Example:
      >>> rule_names(["item features"])[-2:]
      ('content-kNN (item features)', 'blend of rules')
    """
    return (*_grids(tables), BLEND)


def fit_again(
    dataset: Dataset,
    name: str,
    settings: Mapping[str, Mapping[str, Any]],
    features: Mapping[str, np.ndarray] | None = None,
    ease_items: int = EASE_ITEMS,
    student: Ranker | None = None,
    fitted: Mapping[str, Ranker] | None = None,
) -> Ranker:
    """Fit one rule with the settings that were chosen before; on the same data it is the same.

    Args:
      dataset: Training sessions and catalogue.
      name: The rule's row.
      settings: Row -> what `fit_rules` chose; of the blend, and of all that it blends.
      features: As in `fit_rules`.
      ease_items: As in `fit_rules`.
      student: The one that the row blends with rules, prepared, where it does.
      fitted: Row -> a rule that is taken as it is.

    Returns:
      The rule, prepared.

    Raises:
      UserError: These are no settings that are tried.
    """
    tables, known = features or {}, Known(dataset, ease_items)
    grids = _grids(tables)

    def one(rule: str) -> Ranker:
        if fitted and rule in fitted:
            fitted[rule].prepare(tables)
            return fitted[rule]
        wanted = {key: value for key, value in settings[rule].items() if key != CHOSEN_BY}
        for candidate in grids[rule](known) if rule in grids else ():
            chosen: Any = candidate
            if chosen.settings == wanted:
                chosen.settings = dict(settings[rule])
                candidate.prepare(tables)
                return candidate
        raise UserError(
            f"the settings of {rule} are none that this jmrec tries; run jmrec run again."
        )

    if name != BLEND and student is None:
        return one(name)
    own = settings[name]
    weights = {member: own[member] for member in grids if member in own}
    members = [one(member) for member in weights]
    if student is None:
        return Blend(members, [*weights.values()], known.n_items, dict(own))
    if student.name in own:
        members, weights = [*members, student], {**weights, student.name: own[student.name]}
    return Blend(members, [*weights.values()], known.n_items, dict(own), name, MIX)
