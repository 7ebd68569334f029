"""What the numbers of a column of times count: seconds, Excel's days, 20261121, ..."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jmrec.data.written import days_of

MODERN = 788_918_400.0
"""The year 1995 in unix seconds: few data sets begin earlier, and numbers of another unit do."""
DAY = 86_400.0

_EXCEL = 25_569.0  # 1970-01-01 in Excel's count of days
UNITS = {
    "s": "unix seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "min": "minutes since 1970",
    "h": "hours since 1970",
    "days": "days since 1970",
    "excel": "Excel's days",
}
"""What numbers may count -> its words."""
COMPACT = {
    "%Y%m%d": 8, "%Y%m%d%H%M%S": 14, "%Y%m%d%H%M": 12, "%Y%m%d%H": 10, "%Y%m": 6, "%Y": 4,
    "%y%m%d": 6, "%m%d": 4,
}  # fmt: skip
"""Patterns without a sign between their parts -> digits."""
_SURE = ("s", "ms", "us", "ns", "%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H")
"""Forms of numbers that hardly anything else has the range of."""
LIKELY = ("%Y%m", "%y%m%d", "%Y", "%m%d", "excel", "h", "days", "min")
"""Those that a counter may have too: nearly every number has to fit."""
_PART = 2**18


def counted(values: np.ndarray, unit: str) -> np.ndarray:
    """Return numbers as unix seconds.

    Args:
      values: float64 [N].
      unit: One of `UNITS` or of `COMPACT`.

    Returns:
      float64 [N], NaN where a number is no such time.

    Example:
      >>> counted(np.array([60_000.0]), "ms"), counted(np.array([19700102.0, 7.0]), "%Y%m%d")
      (array([60.]), array([86400.,    nan]))
    """
    if unit in COMPACT:
        return _compact(values, unit)
    if unit in ("ms", "us", "ns"):
        return values / {"ms": 1e3, "us": 1e6, "ns": 1e9}[unit]  # exact, unlike a product
    if unit in ("s", "min", "h"):
        return values * {"s": 1.0, "min": 60.0, "h": 3600.0}[unit]
    days = values - _EXCEL if unit == "excel" else values
    return np.round(days * DAY, 3)  # as fractions of a day, seconds are not exact


def _compact(values: np.ndarray, form: str) -> np.ndarray:
    """Return numbers such as 20261121 (float64 [N]) as unix seconds."""
    if form == "%m%d":  # of no year: of 2000, which has every day
        values, form = np.where(values < 10_000, values + 20_000_000, np.nan), "%Y%m%d"
    digits = COMPACT[form]
    # Years of two digits are those from 2010: what has fewer digits may count days.
    short = form.startswith("%y")
    good = (values == np.floor(values)) & (values >= 10 ** (digits - 1)) & (values < 10**digits)
    seconds = np.full(len(values), np.nan)
    rest = values[good].astype(np.int64)
    parts = {"m": np.ones_like(rest), "d": np.ones_like(rest)}
    parts |= {key: np.zeros_like(rest) for key in "HMS"}
    for key in form.replace("%", "")[:0:-1]:
        rest, parts[key] = np.divmod(rest, 100)
    rest = rest + 2000 * short
    fits = (parts["H"] < 24) & (parts["M"] < 60) & (parts["S"] < 60) & (rest >= 1000)
    days = days_of(np.stack([rest, parts["m"], parts["d"]], 1), "ymd")
    clock_ = parts["H"] * 3600 + parts["M"] * 60 + parts["S"]
    seconds[good] = np.where(fits, days * DAY + clock_, np.nan)
    return seconds


@dataclass(frozen=True)
class Numbers:
    """Numbers of a column of times, or how many of them are what under some forms.

    Attributes:
      total: How many there are.
      values: float64 [N]; none where sums are known alone.
      count: int [N], how often each occurs.
      now: Unix seconds.
      sums: Unit or pattern -> how many are a time from 1995 to a year from now, one from 1995 on,
        and a time at all.
    """

    total: int
    values: np.ndarray
    count: np.ndarray
    now: float
    sums: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def under(self, form: str) -> tuple[int, int, int]:
        """Return the sums of a form."""
        if form not in self.sums:
            inside, modern, known = 0, 0, 0
            for begin in range(0, len(self.values), _PART):  # for memory
                part = slice(begin, begin + _PART)
                with np.errstate(over="ignore", invalid="ignore"):
                    found = counted(self.values[part], form)
                count = self.count[part]
                late = found >= MODERN
                modern += int(count[late].sum())
                inside += int(count[late & (found <= self.now + 366 * DAY)].sum())
                known += int(count[~np.isnan(found)].sum())
            self.sums[form] = (inside, modern, known)
        return self.sums[form]

    def summed(self, forms: Sequence[str]) -> "Numbers":
        """Return the sums of some forms without the numbers."""
        none = np.zeros(0)
        return Numbers(self.total, none, none, self.now, {each: self.under(each) for each in forms})

    def merge(self, other: "Numbers") -> "Numbers":
        """Return the sums of both, of which only sums are known."""
        none, sums = np.zeros(0), {}
        for form, (inside, modern, known) in self.sums.items():
            more = other.sums[form]
            sums[form] = (inside + more[0], modern + more[1], known + more[2])
        return Numbers(self.total + other.total, none, none, self.now, sums)


FORMS = tuple(dict.fromkeys((*_SURE, *LIKELY)))
"""The units and patterns that `unit_of` may name."""


def unit_of(numbers: Numbers) -> str:
    """Return what numbers seem to be.

    Args:
      numbers: Some, or their sums under `FORMS`.

    Returns:
      The unit or pattern under which most lie between 1995 and a year from now; "s" if none fits.

    Example:
      >>> unit_of(Numbers(4, np.array([20231114.0, 7.0]), np.array([3, 1]), now=1.8e9))
      '%Y%m%d'
    """

    def share(form: str) -> float:
        return numbers.under(form)[0] / numbers.total

    sure = max(_SURE, key=share)
    if share(sure) >= 0.25:
        return sure
    return next((form for form in LIKELY if share(form) >= 0.95), "s")


def ends(values: np.ndarray, unit: str) -> np.ndarray:
    """Return how many seconds numbers name: 86,400 for a day, 0 for an instant; float64 [N].

    Example:
      >>> ends(np.array([45231.0, 45231.5]), "excel").tolist()
      [86400.0, 0.0]
    """
    if unit in ("days", "excel", "%Y%m%d", "%y%m%d", "%m%d"):
        return np.where(values == np.floor(values), DAY, 0.0)
    if unit not in ("%Y%m", "%Y"):
        return np.zeros(len(values))
    step = np.where(values % 100 == 12, 89, 1) if unit == "%Y%m" else 1
    return counted(values + step, unit) - counted(values, unit)
