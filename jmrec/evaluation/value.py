"""What lists of recommendations are worth: the value of the hits, where items have one.

A hit sells the item that the person went on to, and nothing else is counted: a list of `DEPTH` that
holds the target is worth what is gained of the target, any other list nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jmrec.data.schema import Value
from jmrec.evaluation.figures import per_prediction, units
from jmrec.evaluation.protocol import Predictions
from jmrec.evaluation.results import FIGURES, HR20
from jmrec.evaluation.summary import Row, judged, named, plain
from jmrec.metrics.bootstrap import interval, paired

LISTS = 1000
"""Sums are of so many lists, as mmrec's are of so many decisions."""


def worth_of_lists(
    rows: Sequence[Row], predictions: Predictions, value: Value, rule: str | None
) -> dict[str, Any]:
    """Return what 1,000 lists of each row are worth, and how much more than those of the best rule.

    Args:
      rows: Of the table, R of them, names distinct.
      predictions: What every row was asked; the list after each of P is one list.
      value: Of the V items; one without a number counts 0.
      rule: The best rule, None where there is none.

    Returns:
      "column", "share" and "gain" of the value; "items" and "targets" (V and P), and how many of
      them are "without" a number of what is gained; "rule"; "rows" -> name -> figure (as in
      `FIGURES`) -> "sales" (what the hits are sold at), "value" (what is gained of them) and its
      95 % "interval"; where there is a rule, "over rule": "difference", "interval", "verdict",
      and perhaps "reason".
    """
    missing = np.isnan(value.gained)
    worth, price = (LISTS * np.nan_to_num(each)[predictions.target]
                   for each in (value.gained, value.sold))  # fmt: skip
    hits = {row.name: per_prediction(row.ranks(), HR20) for row in rows}
    best = next((row for row in rows if row.name == rule), None)
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        table[row.name] = {}
        for figure in FIGURES:
            own, clusters = units(hits[row.name] * worth, predictions, figure)
            sales, _ = units(hits[row.name] * price, predictions, figure)
            line: dict[str, Any] = {
                "sales": sales.mean() if len(sales) else None,
                "value": own.mean() if len(own) else None,
                "interval": interval(own, clusters),
            }
            if best is not None and row is not best:
                its, _ = units(hits[best.name] * worth, predictions, figure)
                apart = paired(own, its, clusters)
                said = judged(named(row), named(best), figure, "value", apart)
                kept = ("difference", "interval", "verdict", "reason")
                line["over rule"] = {name: each for name, each in said.items() if name in kept}
            table[row.name][figure] = line
    found = {
        "column": value.column,
        "share": value.share,
        "gain": value.gain,
        "items": {"all": len(missing), "without": int(missing.sum())},
        "targets": {"all": len(predictions), "without": int(missing[predictions.target].sum())},
        "rule": rule,
        "rows": table,
    }
    return plain(found)
