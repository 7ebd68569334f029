"""Figures from ranks: the three averages, intervals, slices and bias.

The three averages:

* ``session``: mean over sessions of the mean over positions 1 to 20. The primary figure: otherwise
  a few very long sessions would decide the result.
* ``prediction``: mean over all predictions at positions 1 to 50.
* ``last``: mean over the sessions' last predictions, at any position.

Several seeds are averaged prediction by prediction first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jmrec.data.schema import Items
from jmrec.evaluation.protocol import Predictions, Ranked
from jmrec.evaluation.results import (
    COVERAGE,
    FIGURES,
    HR20,
    MRR20,
    POPULARITY,
    PREDICTION,
    SESSION,
)
from jmrec.metrics.bootstrap import interval
from jmrec.metrics.ranks import NAMES, group_means, metric, session_mean

INTERVALS = (HR20, MRR20)
COUNT_SLICES = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20+": (20, None)}
POSITION_SLICES = {
    "1": (1, 1),
    "2-5": (2, 5),
    "6-10": (6, 10),
    "11-20": (11, 20),
    "21-50": (21, 50),
}
CATEGORIES, COLUMNS = 8, 3
"""Categories of a column that are shown, and columns."""
OTHERS, NONE_GIVEN = "(others)", "(none given)"
LENGTH_SLICES = {"2": (2, 2), "3-5": (3, 5), "6-10": (6, 10), "11-20": (11, 20), "21+": (21, None)}


def per_prediction(ranks: np.ndarray, name: str) -> np.ndarray:
    """Return float64 [P]: a metric averaged over seeds.

    Args:
      ranks: int [P] or [seeds, P].
      name: Such as "MRR@20".
    """
    return metric(name, np.atleast_2d(ranks)).mean(axis=0)


def units(
    values: np.ndarray, predictions: Predictions, figure: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a figure averages: (values float64 [N], clusters int [N]).

    Args:
      values: float [P], one a prediction.
      predictions: The P predictions.
      figure: "session", "prediction" or "last".

    Returns:
      The units (sessions for "session", else predictions), and what is drawn together in the
      bootstrap: the user where the data has one, else the session.
    """
    session, user = predictions.session.astype(np.int64), predictions.user.astype(np.int64)
    cluster = np.where(user >= 0, user, -1 - session)
    if figure == SESSION:
        used = predictions.place <= 20
        found, means = group_means(values[used], session[used])
        first = np.searchsorted(session, found)
        return means, cluster[first]
    used = predictions.place <= 50 if figure == PREDICTION else predictions.is_last
    return values[used], cluster[used]


def figures(ranks: np.ndarray, predictions: Predictions) -> dict[str, dict[str, float | None]]:
    """Return every metric in the three ways of averaging, as fractions.

    Args:
      ranks: int [P] or [seeds, P].
      predictions: The P predictions.

    Returns:
      Figure -> metric -> number; None where there is nothing to average.
    """
    table: dict[str, dict[str, float | None]] = {figure: {} for figure in FIGURES}
    for name in NAMES:
        values = per_prediction(ranks, name)
        for figure in FIGURES:
            one, _ = units(values, predictions, figure)
            table[figure][name] = float(one.mean()) if len(one) else None
    return table


def intervals(ranks: np.ndarray, predictions: Predictions) -> dict[str, dict[str, list[float]]]:
    """Return 95 % bootstrap intervals of HR@20 and MRR@20 in the three ways of averaging.

    Args:
      ranks: int [P] or [seeds, P].
      predictions: The P predictions.
    """
    values = [per_prediction(ranks, name) for name in INTERVALS]
    table = {}
    for figure in FIGURES:
        parts = [units(one, predictions, figure) for one in values]
        ends = interval(np.stack([part[0] for part in parts], axis=1), parts[0][1])
        table[figure] = {name: ends[:, m].tolist() for m, name in enumerate(INTERVALS)}
    return table


def _ranges(numbers: np.ndarray, bounds: Mapping[str, tuple[int, int | None]]) -> dict:
    return {
        name: (numbers >= low) & (numbers <= (np.inf if high is None else high))
        for name, (low, high) in bounds.items()
    }


def categories(items: Items, predictions: Predictions) -> dict[str, dict[str, np.ndarray]]:
    """Return which predictions' targets are of which category, of columns that the data declared.

    Args:
      items: The catalogue.
      predictions: P predictions.

    Returns:
      "COLUMN of the target" -> category -> bool [P], the categories with the most targets first;
      those after the first `CATEGORIES` are one, and so are targets of which none is given. A
      column in which all targets are alike is left out, and so are those after `COLUMNS`.
    """
    table: dict[str, dict[str, np.ndarray]] = {}
    for column, codes in items.category.items():
        own = codes[predictions.target]
        found, count = np.unique(own[own > 0], return_counts=True)
        first = found[np.argsort(-count, kind="stable")]
        masks: dict[str, np.ndarray] = {}
        parts = [(str(items.category_names[column][c]), own == c) for c in first[:CATEGORIES]]
        parts += [(OTHERS, np.isin(own, first[CATEGORIES:])), (NONE_GIVEN, own == 0)]
        for name, mask in parts:
            if mask.any():
                masks[name] = masks.get(name, False) | mask
        if len(masks) > 1 and len(table) < COLUMNS:
            table[f"{column} of the target"] = masks
    return table


def slices(
    ranks: np.ndarray,
    predictions: Predictions,
    train_count: np.ndarray,
    more: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return HR@20 and MRR@20 by training count, position, session length and warm or cold.

    Every entry is session-averaged: the mean over the sessions that have such a prediction of
    the mean over those. Positions 1 to 20 are used, and 1 to 50 in the slices by position.

    Args:
      ranks: int [P] or [seeds, P].
      predictions: The P predictions.
      train_count: int [V].
      more: Slicing -> slice -> bool [P], such as `categories`.

    Returns:
      Slicing -> slice -> {"n": predictions, "HR@20": .., "MRR@20": ..}, None where n is 0.
    """
    count = np.asarray(train_count)[predictions.target]
    early = predictions.place <= 20
    masks: dict[str, Mapping[str, np.ndarray]] = {
        "train count": _ranges(count, COUNT_SLICES),
        "position": _ranges(predictions.position, POSITION_SLICES),
        "session length": _ranges(predictions.length, LENGTH_SLICES),
        "target": {"warm": count > 0, "cold": count == 0},
        **(more or {}),
    }
    values = {name: per_prediction(ranks, name) for name in INTERVALS}
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for slicing, parts in masks.items():
        table[slicing] = {}
        for part, mask in parts.items():
            used = mask if slicing == "position" else mask & early
            entry: dict[str, Any] = {"n": int(used.sum())}
            for name in INTERVALS:
                mean = session_mean(values[name][used], predictions.session[used])
                entry[name] = mean if used.any() else None
            table[slicing][part] = entry
    return table


def bias(ranked: Sequence[Ranked], train_count: np.ndarray) -> dict[str, float | None]:
    """Return how narrow and how popular the top lists are, averaged over seeds.

    Args:
      ranked: One a seed.
      train_count: int [V].

    Returns:
      `COVERAGE`, the share of the catalogue that is recommended at least once, and `POPULARITY`,
      the mean training count of what is recommended.
    """
    train_count = np.asarray(train_count)
    shown = [one.top_ids[one.top_ids >= 0] for one in ranked]
    if not all(len(ids) for ids in shown):
        return {COVERAGE: None, POPULARITY: None}
    return {
        COVERAGE: float(np.mean([len(np.unique(ids)) / len(train_count) for ids in shown])),
        POPULARITY: float(np.mean([train_count[ids].mean() for ids in shown])),
    }
