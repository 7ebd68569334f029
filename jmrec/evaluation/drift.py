"""How results change over time: the figures by calendar period of the evaluated split."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jmrec.errors import UserError
from jmrec.evaluation.figures import per_prediction, units
from jmrec.evaluation.protocol import Predictions
from jmrec.evaluation.results import MRR20, SESSION
from jmrec.evaluation.summary import Row
from jmrec.metrics.bootstrap import interval

PERIODS = ("week", "month")


def periods(times: np.ndarray, by: str) -> np.ndarray:
    """Return the calendar period of each time, as text that sorts by time.

    Args:
      times: float [N] unix seconds, read as UTC.
      by: "month" gives "2026-11"; "week" gives the Monday on which the week begins.

    Raises:
      UserError: If ``by`` is neither.

    Example:
      >>> periods(np.array([0.0, 4 * 86400.0, 40 * 86400.0]), "month").tolist()
      ['1970-01', '1970-01', '1970-02']
      >>> periods(np.array([0.0, 4 * 86400.0]), "week").tolist()
      ['1969-12-29', '1970-01-05']
    """
    if by not in PERIODS:
        raise UserError(f"--by={by} is no period; choose one of {', '.join(PERIODS)}.")
    days = np.floor(np.asarray(times, np.float64) / 86400).astype("datetime64[D]")
    if by == "month":
        return days.astype("datetime64[M]").astype(str)
    # Day 0 of Unix time was a Thursday.
    return (days - (days.astype(int) + 3) % 7).astype(str)


def over_time(
    rows: Sequence[Row],
    predictions: Predictions,
    start: np.ndarray,
    by: str,
    name: str = MRR20,
) -> dict[str, Any]:
    """Return the session figure of every row in every period, with its interval.

    A session belongs to the period in which it begins; each of its positions 1 to 20 counts.

    Args:
      rows: Of the table.
      predictions: What every row was asked.
      start: float64 [S] unix seconds of each session of the split.
      by: One of `PERIODS`.
      name: The metric.

    Returns:
      {"by", "metric", "periods": [T], "sessions": [T], "rows": name -> {"value": [T],
      "interval": [[low, high] ...]}}; periods without a session are left out.
    """
    label = periods(np.asarray(start)[predictions.session], by)
    parts = [predictions.take(np.flatnonzero(label == one)) for one in np.unique(label)]
    asked = [(label == one, part) for one, part in zip(np.unique(label), parts)]
    table: dict[str, Any] = {}
    for row in rows:
        values = per_prediction(row.ranks(), name)
        found = [units(values[mask], part, SESSION) for mask, part in asked]
        table[row.name] = {
            "value": [float(means.mean()) for means, _ in found],
            "interval": [interval(means, clusters).tolist() for means, clusters in found],
        }
    return {
        "by": by,
        "metric": name,
        "periods": np.unique(label).tolist(),
        "sessions": [len(np.unique(part.session)) for part in parts],
        "rows": table,
    }
