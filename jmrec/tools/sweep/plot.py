"""The plot of a sweep."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from jmrec.evaluation.results import RANKING
from jmrec.tools.sweep.table import best, cell, short_names
from jmrec.tools.sweep.trials import called

PANELS = 8
COLOURS = {"done": "#3578c9", "pruned": "#d9822b"}


@matplotlib.rc_context({"text.parse_math": False, "font.size": 9})
def plot(
    table: Sequence[dict[str, Any]], names: Sequence[str], figure: str = called(RANKING)
) -> Figure:
    """Draw the score of every trial over each setting that varies.

    Args:
      table: From `jmrec.tools.sweep.table.rows`.
      names: The settings.
      figure: What a score is.

    Returns:
      A figure with a panel for each; over the trials' numbers where nothing varies.
    """
    values = {name: [cell(row["overrides"], name) for row in table] for name in names}
    varied = [name for name in names if len(set(values[name])) > 1][:PANELS]
    panels = varied or ["trial"]
    short = dict(zip(names, short_names(names)))
    drawing = Figure(figsize=(1 + 3.2 * len(panels), 3.4), layout="constrained")
    winner = best(table)
    for axis, name in zip(drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels):
        raw = [row["overrides"].get(name, row["trial"]) for row in table]
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in raw)
        labels = list(dict.fromkeys(map(str, raw)))
        x = raw if numbers else [labels.index(str(each)) for each in raw]
        for state, colour in COLOURS.items():
            at = [i for i, r in enumerate(table) if r["state"] == state and r["score"] is not None]
            if not at:
                continue
            heights = [100 * table[i]["score"] for i in at]
            axis.plot([x[i] for i in at], heights, "o", color=colour, alpha=0.7, label=state)
        if winner is not None:
            place = x[next(i for i, row in enumerate(table) if row is winner)]
            axis.plot([place], [100 * winner["score"]], "*", color="#c9483b", ms=14, label="best")
        if numbers and min(x) > 0 and max(x) >= 10 * min(x):
            axis.set_xscale("log")
        elif not numbers:
            axis.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        axis.set_xlabel(short.get(name, name))
        axis.grid(alpha=0.3)
    first = drawing.axes[0]
    first.set_ylabel(f"{figure}, %", fontsize=8)
    first.legend(fontsize=8)
    return drawing
