"""Calendar periods, and what results.json holds of figures over time."""

from collections.abc import Callable
from typing import NotRequired, TypedDict

import numpy as np

from jmrec.errors import UserError

DAY = 86400.0
FEW = 30
"""Sessions: a figure of less than these says little, and the report marks it."""


def _months(days: np.ndarray) -> np.ndarray:
    return np.asarray(days.astype("datetime64[M]"))


def _weeks(days: np.ndarray) -> np.ndarray:
    # Day 0 of Unix time was a Thursday.
    return np.asarray(days - (days.astype(int) + 3) % 7)


PERIODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "day": lambda days: days,
    "week": _weeks,
    "month": _months,
}
"""Name -> the period of each day, by its first."""


def periods(times: np.ndarray, by: str) -> np.ndarray:
    """Return the calendar period of each time, as text that sorts by time.

    Args:
      times: float [N] unix seconds, read as UTC.
      by: "day" gives "2026-11-29"; "week" gives the Monday on which the week begins; "month" gives
        "2026-11".

    Raises:
      UserError: If ``by`` is none of them.

    Example:
      >>> periods(np.array([0.0, 4 * 86400.0, 40 * 86400.0]), "month").tolist()
      ['1970-01', '1970-01', '1970-02']
      >>> periods(np.array([0.0, 4 * 86400.0]), "week").tolist()
      ['1969-12-29', '1970-01-05']
    """
    if by not in PERIODS:
        raise UserError(f"--by={by} is no period; choose one of {', '.join(PERIODS)}.")
    return PERIODS[by](_days(times)).astype(str)


def week_begins(times: np.ndarray) -> np.ndarray:
    """Return float64 [N], unix seconds: the Monday 00:00 (UTC) with which the week of each begins.

    Args:
      times: float [N] unix seconds.

    Example:
      >>> week_begins(np.array([0.0, 4 * 86400.0, 5 * 86400.0])).tolist()
      [-259200.0, 345600.0, 345600.0]
    """
    return _weeks(_days(times)).astype(int) * DAY


def _days(times: np.ndarray) -> np.ndarray:
    return np.floor(np.asarray(times, np.float64) / DAY).astype("datetime64[D]")


class OverTimeRow(TypedDict):
    """One row's figure in each of T periods: its value, and [low, high] around it."""

    value: list[float]
    interval: list[list[float]]


class OverTime(TypedDict):
    """How a metric of each row changes over T periods; see `jmrec.evaluation.drift.over_time`.

    ``by`` is "day", "week" or "month", or "test window". ``predictions`` is how many count in the
    figure of each period of the calendar, of so many ``sessions``; of less than ``few`` sessions it
    says little.
    """

    by: str
    metric: str
    periods: list[str]
    sessions: list[int]
    predictions: NotRequired[list[int]]
    few: NotRequired[int]
    rows: dict[str, OverTimeRow]
