"""What the cells of a column of times tell together: the unit of numbers, the order of dates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jmrec.data.units import COMPACT, DAY, FORMS, MODERN, UNITS, Numbers, unit_of
from jmrec.data.written import ORDERS, Written, days_of

UNKNOWN = "?"
"""The order of dates that do not tell it."""


@dataclass(frozen=True)
class Dates:
    """Sums over dates of three numbers that do not tell their order.

    Attributes:
      total: How many there are.
      valid: Order -> how many are a day in it.
      only: Two orders -> how many are a day in the first and none in the second.
      modern: Order -> how many are a time from 1995 on.
      long_year: Whether all have a year of four digits.
      points: Whether all have points between their numbers.
    """

    total: int
    valid: dict[str, int]
    only: dict[tuple[str, str], int]
    modern: dict[str, int]
    long_year: bool
    points: bool

    @classmethod
    def of(cls, dates: Sequence[Written], count: np.ndarray) -> "Dates":
        """Return the sums over dates, each of which stands ``count`` (int [N]) times."""
        parts = np.array([date.parts for date in dates], int).reshape(-1, 3)
        clocks = np.array([date.clock for date in dates])
        days = {order: days_of(parts, order) for order in ORDERS}
        good = {order: ~np.isnan(each) for order, each in days.items()}
        return cls(
            total=int(count.sum()),
            valid={a: int(count[good[a]].sum()) for a in ORDERS},
            only={
                (a, b): int(count[good[a] & ~good[b]].sum())
                for a in ORDERS
                for b in ORDERS
                if a != b
            },
            modern={a: int(count[days[a] * DAY + clocks >= MODERN].sum()) for a in ORDERS},
            long_year=all(date.long_year for date in dates),
            points=all(date.sign == "." for date in dates),
        )

    def merge(self, other: "Dates") -> "Dates":
        """Return the sums over both."""
        return Dates(
            total=self.total + other.total,
            valid={key: n + other.valid[key] for key, n in self.valid.items()},
            only={key: n + other.only[key] for key, n in self.only.items()},
            modern={key: n + other.modern[key] for key, n in self.modern.items()},
            long_year=self.long_year and other.long_year,
            points=self.points and other.points,
        )

    def order(self) -> str:
        """Return the order that the dates have, `UNKNOWN` where they do not tell, "" of none.

        A row tells if it is a date in one order only. A few that tell another order are slips.
        """
        if not self.total:
            return ""
        orders = [order for order in ORDERS if not (self.long_year and order == "ymd")]
        best = max(orders, key=lambda order: self.valid[order])
        others = [order for order in orders if order != best]
        tells = [self.only[best, other] for other in others]
        against = [self.only[other, best] for other in others]
        if all(t > 20 * a for t, a in zip(tells, against)):
            return best
        if not sum(against) and self.valid["dmy"] == self.total and self.points:
            return "dmy"  # nobody writes a month first and points
        return UNKNOWN


@dataclass(frozen=True)
class Form:
    """How a column of times is written.

    Attributes:
      unit: What its numbers are, "" of none.
      order: Of dates of three numbers that do not tell it; `UNKNOWN`, or "" of none.
      slips: Whether numbers that are long past are slips.
    """

    unit: str
    order: str
    slips: bool


@dataclass(frozen=True)
class TimesTold:
    """What cells tell; the evidence of `jmrec.data.findings`.

    Attributes:
      time_format: See `jmrec.data.description`; "" to find out.
      numbers: Those that are numbers.
      dates: Those that are dates of three numbers and do not tell their order.
      modern: How many others are a time from 1995 on.
      known: How many others are a time.
    """

    time_format: str
    numbers: Numbers
    dates: Dates
    modern: int
    known: int

    @property
    def given(self) -> str:
        """What the format says of numbers, "" if nothing."""
        form = self.time_format
        return form if form in UNITS or form in COMPACT else ""

    def summed(self) -> "TimesTold":
        """Return it without the numbers themselves: what stretches hand on."""
        return replace(self, numbers=self.numbers.summed([self.given] if self.given else FORMS))

    def merge(self, other: "TimesTold") -> "TimesTold":
        """Return what both tell, of which only sums are known."""
        return TimesTold(
            self.time_format,
            self.numbers.merge(other.numbers),
            self.dates.merge(other.dates),
            self.modern + other.modern,
            self.known + other.known,
        )

    def form(self, order: str) -> Form:
        """Return how the column is written; ``order`` is that of dates where the format says it."""
        unit = ""
        if self.numbers.total:
            unit = self.given or unit_of(self.numbers)
        order = (order or self.dates.order()) if self.dates.total else ""
        _, modern, known = self.numbers.under(unit) if unit else (0, 0, 0)
        modern += self.modern + self.dates.modern.get(order, 0)
        known += self.known + self.dates.valid.get(order, 0)
        return Form(unit, order, 2 * modern >= known)
