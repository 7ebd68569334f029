"""Guess which column of the events holds reviews, and propose a label. For `jmrec data init`."""

from collections.abc import Iterable

import numpy as np

from jmrec.data.columns import YES_NO, read_numbers
from jmrec.data.guess_columns import Column, is_number, share

LONG = 20
"""Characters of a review, on average."""
RARE = 0.2
"""The share of rows up to which a label is called rare."""


def is_review(column: Column, decimal: str) -> bool:
    """Whether cells are texts that people wrote: long, of several words, mostly different.

    Example:
      >>> texts = [f"number {i} is a very good film" for i in range(9)]
      >>> is_review(Column.of("c", texts), "."), is_review(Column.of("c", ["view"] * 9), ".")
      (True, False)
    """
    return (
        column.mean_length >= LONG
        and not is_number(column, decimal)
        and share(column.filled, [" " in cell for cell in column.filled]) > 0.5
        and column.distinct > 0.5 * len(column.filled)
    )


def propose_label(
    columns: Iterable[Column], rating: Column | None, decimal: str
) -> tuple[str, str] | None:
    """Propose what could be ranked.

    Args:
      columns: Those that have no other role.
      rating: That of ratings, if there is one.
      decimal: "." or ",".

    Returns:
      (the label, why); None if nothing looks like one.

    Example:
      >>> propose_label([Column.of("rotten", ["1", "0", "0", ""])], None, ".")
      ('rotten', 'its cells are yes or no, 33.3% of them yes')
      >>> propose_label([], Column.of("stars", ["5"] * 9 + ["1"]), ".")
      ('stars <= 1', '10.0% of the cells')
    """
    for column in [*columns, *([rating] if rating else [])]:
        values, _ = read_numbers(column.filled, decimal)
        said = [YES_NO.get(cell.lower(), value) for cell, value in zip(column.filled, values)]
        if set(said) == {0.0, 1.0}:
            return column.name, f"its cells are yes or no, {np.mean(said):.1%} of them yes"
    if rating is not None:
        values, _ = read_numbers(rating.filled, decimal)
        values = values[np.isfinite(values)]
        for bound in sorted(set(values.tolist()), reverse=True):
            held = float((values <= bound).mean())
            if held <= RARE:
                return f"{rating.name} <= {bound:g}", f"{held:.1%} of the cells"
    return None
