"""What a sale of each item brings: the columns that [value] names, read and looked at."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from jmrec.data.columns import currency, numbers, read_numbers
from jmrec.data.description import Description
from jmrec.data.findings import EMPTIED, KEPT, Findings, shown
from jmrec.data.schema import Value
from jmrec.data.tables import Table
from jmrec.errors import UserError

_SIGNS = {
    "USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "Rs": "₹", "Rs.": "₹",
    "PLN": "zł", "CZK": "Kč", "CHF": "Fr", "Fr.": "Fr", "kr.": "kr",
}  # fmt: skip
"""Another way to write a sign of money -> the sign."""


def read_value(
    table: Table, description: Description, known: Mapping[str, np.ndarray], findings: Findings
) -> Value | None:
    """Read what a sale of each item brings.

    Args:
      table: The items.
      description: What the columns mean.
      known: Number columns that are read already, float64 [V] each.
      findings: Gets cells that are no number, prices below 0 (both taken as empty), and gains above
        the price (kept).

    Returns:
      The value of the V items; None where the description has no [value].

    Raises:
      UserError: A column holds no number, or money of several currencies.
    """
    columns = description.value
    if not columns.column:
        return None
    read = {}
    for key, column in (("column", columns.column), ("gain", columns.gain)):
        if column:
            _some_numbers(table, description, key, column)
            found = known.get(column)
            if found is None:
                found = numbers(table, column, findings, description.decimal)[0]
            read[key] = found.copy()
    _one_currency(table, description)
    sold = read["column"]
    below = np.flatnonzero(sold < 0)
    cells = table.columns[columns.column]
    findings.add(
        table,
        below,
        lambda i: (
            f"{columns.column} is {shown(cells[i].as_py())}, which can not be what the item is "
            "sold at, as [value] says; write a price or leave it empty"
        ),
        EMPTIED,
    )
    sold[below] = np.nan
    if not columns.gain:
        return Value(columns.column, sold, columns.share)
    gained = read["gain"]
    findings.add(
        table,
        np.flatnonzero(gained > sold),
        lambda i: (
            f"{columns.gain} is {gained[i]:g}, more than the {columns.column} of {sold[i]:g}; "
            "[value] gain is an amount of money, not a percentage: check the column"
        ),
        KEPT,
    )
    return Value(columns.column, sold, gain=columns.gain, gained=gained)


def _some_numbers(table: Table, description: Description, key: str, column: str) -> None:
    """Refuse a column that holds other things than numbers."""
    cells = [cell for cell in pc.unique(table.columns[column]).to_pylist() if cell]
    decimal = "." if column in table.numeric else description.decimal
    values, unsure = read_numbers(cells, decimal)
    if np.isfinite(values).any() or unsure:
        return
    holds = f"no number (but {shown(cells[0])}, for one)" if cells else "nothing"
    raise UserError(
        f"{description.toml}, [value]: {key} names {column!r}, which holds {holds} in "
        f"{table.file}; name a column of numbers, or take [value] out."
    )


def _one_currency(table: Table, description: Description) -> None:
    """Refuse money of several currencies: sums of it mean nothing."""
    found: dict[str, str] = {}
    for column in sorted(description.value.named):
        for cell in pc.unique(table.columns[column]).to_pylist():
            if sign := currency(cell):
                found.setdefault(_SIGNS.get(sign, sign), cell)
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise UserError(
            f"{table.file}: [value] of {description.toml} reads {shown(one)} and {shown(other)}, "
            "money of several currencies, which can not be added; write all of it in one."
        )


@dataclass(frozen=True)
class ValueReport:
    """What `jmrec data check` says of the value of items.

    Attributes:
      share: The part of the price that is gained.
      ranges: Column -> its lowest number, its median and its highest.
      missing: Column -> items without a number.
      losses: Items of which a sale loses money.
      shares: Whether the column of gains looks like shares of the price, not like money.
    """

    share: float
    ranges: dict[str, tuple[float, float, float]]
    missing: dict[str, int]
    losses: int = 0
    shares: bool = False


def check_value(value: Value) -> ValueReport:
    """Count what matters in the value of items.

    Example:
      >>> check_value(Value("price", np.array([1.0, 5.0, np.nan]), 0.5))
      ValueReport(share=0.5, ranges={'price': (1.0, 3.0, 5.0)}, missing={'price': 1}, losses=0,
                  shares=False)
    """
    columns = {value.column: value.sold} | ({value.gain: value.gained} if value.gain else {})
    known = {name: each[np.isfinite(each)] for name, each in columns.items()}
    gained = value.gained[np.isfinite(value.gained)]
    small = bool(value.gain and len(gained) and ((gained >= 0) & (gained <= 1)).all())
    return ValueReport(
        share=value.share,
        ranges={
            name: (float(each.min()), float(np.median(each)), float(each.max()))
            for name, each in known.items()
            if len(each)
        },
        missing={name: int(np.isnan(each).sum()) for name, each in columns.items()},
        losses=int((gained < 0).sum()),
        # Of what is sold at more than 10, at most 1 is rarely all that is gained of everything.
        shares=small and bool(np.nanmedian(value.sold) > 10),
    )


def value_hint(report: ValueReport) -> str:
    """Say what of the value should make one careful, "" where nothing does."""
    if not report.shares:
        return ""
    *_, gain = report.ranges
    return (
        f"All of {gain!r} lies between 0 and 1. [value] gain is an amount of money: multiply a "
        'share by the price of the item, or write one share for all items as "share = 0.3".'
    )
