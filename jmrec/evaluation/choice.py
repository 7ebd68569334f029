"""Which row is served: one that is named, or the best on validation; test has no say in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jmrec.config import choose
from jmrec.errors import SettingError
from jmrec.evaluation.protocol import Predictions, Ranker, rank
from jmrec.evaluation.results import (
    BEST,
    FROZEN,
    MODEL,
    MRR20,
    RULE,
    Choice,
    Primary,
    Results,
    role_of,
)
from jmrec.metrics.ranks import metric, session_mean

POSITIONS = 20
"""Choices are made by the primary figure, session-averaged over positions 1 to 20."""
DIGITS = 5
"""Of a figure by which is chosen: what differs by less is equal."""


def can_be_served(kind: str) -> bool:
    """Return whether rows of a kind can be served: rules and models can.

    Example:
      >>> [can_be_served(kind) for kind in ("blend", "student", "teacher", "control", "oracle")]
      [True, True, False, False, False]
    """
    return role_of(kind) in (RULE, MODEL)


def figure_of(ranks: np.ndarray, predictions: Predictions) -> float:
    """Return the primary figure by which is chosen, the mean of seeds.

    Args:
      ranks: int [P] or [seeds, P].
      predictions: The P predictions; positions 1 to 20 are used.
    """
    early = predictions.place <= POSITIONS
    sessions = predictions.session[early]
    found = [session_mean(metric(MRR20, each[early]), sessions) for each in np.atleast_2d(ranks)]
    return float(np.mean(found))


def on_validation(rankers: Sequence[Ranker], validation: Predictions, **common: Any) -> float:
    """Return `figure_of` a row on validation.

    Args:
      rankers: One a seed, prepared.
      validation: Predictions of the validation split.
      **common: Of :func:`jmrec.evaluation.protocol.rank`.
    """
    asked = validation.take(validation.place <= POSITIONS)
    ranks = [rank(each, asked, top=0, **common).ranks[0] for each in rankers]
    return figure_of(np.stack(ranks), asked)


def best_of(values: Mapping[str, float]) -> str:
    """Return the name of the highest value, the first of equals; what is no number is the lowest.

    Args:
      values: At least one.

    Example:
      >>> best_of({"a": 0.2, "b": 0.3, "c": 0.3, "d": float("nan")})
      'b'
    """
    return max(values, key=lambda name: -np.inf if np.isnan(values[name]) else values[name])


def choose_row(wanted: str, values: Mapping[str, float], primary: Primary) -> tuple[str, Choice]:
    """Return the row that is served, and how it was chosen.

    Args:
      wanted: A row's name, or `BEST`.
      values: The primary figure on validation of every row that can be served.
      primary: What that is.

    Raises:
      UserError: There is no such row.
    """
    shown = {name: round(each, DIGITS) for name, each in values.items()}
    if wanted != BEST:
        choose("evaluate.serve", wanted, {name: name for name in values})
    chosen = best_of(shown) if wanted == BEST else wanted
    known = {name: None if np.isnan(each) else each for name, each in shown.items()}
    return chosen, {"wanted": wanted, **primary, "validation": known}


def named_rows(results: Results) -> dict[str, str]:
    """Return the rows of a table that can be served: name -> kind; live rules can not."""
    rows = [row for row in results["rows"] if row.get("counts", FROZEN) == FROZEN]
    return {row["name"]: row["kind"] for row in rows if can_be_served(row["kind"])}


def check_wanted(wanted: str, models: Sequence[str], rules: Sequence[str]) -> None:
    """Refuse a row that can not be served, before anything runs.

    Args:
      wanted: ``evaluate.serve``.
      models: The names of those that are trained.
      rules: The names of rules.

    Raises:
      UserError: It is none of them, or a model has a name that is taken.
    """
    taken = next((name for name in models if name in (BEST, *rules)), None)
    if taken is not None:
        raise SettingError(
            f"{taken!r} is no name for a model: it stands for a rule or for the best."
        )
    choose("evaluate.serve", wanted, (BEST, *models, *rules))
