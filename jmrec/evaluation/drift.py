"""How results change over time: the figures by calendar period of what is predicted."""

from collections.abc import Sequence

import numpy as np

from jmrec.evaluation.figures import per_prediction, units
from jmrec.evaluation.periods import FEW, OverTime, OverTimeRow, periods
from jmrec.evaluation.protocol import Predictions, at_target
from jmrec.evaluation.results import MRR20, SESSION
from jmrec.evaluation.summary import Row
from jmrec.metrics.bootstrap import interval


def over_time(
    rows: Sequence[Row], predictions: Predictions, by: str, name: str = MRR20
) -> OverTime:
    """Return the session figure of every row in every period, with its interval.

    A prediction belongs to the period in which what it predicts happened, whatever a row knew: a
    session counts in each period that has one of its positions 1 to 20, with their mean.

    Args:
      rows: Of the table, at least one.
      predictions: What every row was asked.
      by: One of `jmrec.evaluation.periods.PERIODS`.
      name: The metric.

    Returns:
      Periods without such a prediction are left out.

    Raises:
      UserError: If ``by`` is no period.
    """
    early = predictions.place <= 20
    label = np.where(early, periods(at_target(predictions).prefixes.time, by), "")
    names = np.unique(label[early])
    asked = [(label == one, predictions.take(label == one)) for one in names]
    values = [per_prediction(row.ranks(), name) for row in rows]
    table: dict[str, OverTimeRow] = {row.name: {"value": [], "interval": []} for row in rows}
    for mask, part in asked:  # of all rows together: they share the resamples
        found = [units(each[mask], part, SESSION) for each in values]
        means = np.stack([each for each, _ in found], axis=1)
        ends = interval(means, found[0][1])
        for row, value, pair in zip(rows, means.mean(axis=0), ends.T):
            table[row.name]["value"].append(float(value))
            table[row.name]["interval"].append(pair.tolist())
    return {
        "by": by,
        "metric": name,
        "periods": names.tolist(),
        "sessions": [len(np.unique(part.session)) for _, part in asked],
        "predictions": [len(part) for _, part in asked],
        "few": FEW,
        "rows": table,
    }
