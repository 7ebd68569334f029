"""Figures over time, or over test windows: a table and a plot of results.json's "over_time"."""

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from jmrec.evaluation.results import TEACHER, Results
from jmrec.report import plots
from jmrec.report.tables import (
    Cell,
    Line,
    Table,
    best_model,
    best_rule,
    interval,
    ordered_rows,
    percent,
    role,
    served_row,
)


def time_table(results: Results) -> Table | None:
    """Return the figures of `shown_names` by period, None where nothing was asked so."""
    found = results.get("over_time") or {}
    if not found:
        return None
    names = shown_names(results)
    lines = []
    for at, (period, sessions) in enumerate(zip(found["periods"], found["sessions"])):
        cells = [Cell(f"{sessions:,}")]
        for name in names:
            row = found["rows"][name]
            cells.append(Cell(percent(row["value"][at]), interval(row["interval"][at])))
        lines.append(Line(str(period), cells))
    return Table(
        f"By {found['by']}",
        ["sessions", *names],
        lines,
        note=f"{found['metric']} by session, in %, with 95 % intervals; results.json has the other "
        f"rows. A session belongs to the {found['by']} in which it begins.",
    )


def shown_names(results: Results) -> list[str]:
    """Return the served row, the best rule, the best model, the teacher and the best live rule."""
    found = results.get("over_time") or {}
    teacher = next((r["name"] for r in ordered_rows(results) if role(results, r) == TEACHER), None)
    wanted = [served_row(results), best_rule(results), best_model(results), teacher]
    wanted.append(results.get("best_live_rule"))
    return [str(name) for name in dict.fromkeys(wanted) if name in found["rows"]]


@matplotlib.rc_context(plots.STYLE)
def time_plot(results: Results) -> Markup | None:
    """Draw the figures of `shown_names`, None where there are fewer than two periods."""
    found = results.get("over_time") or {}
    if len(found.get("periods") or ()) < 2:
        return None
    names = shown_names(results)
    drawing = Figure(figsize=plots.PANEL)
    axes = drawing.subplots()
    places = range(len(found["periods"]))
    for number, (colour, name) in enumerate(zip(plots.COLOURS, names)):
        row = found["rows"][name]
        # A little apart, so that intervals do not hide one another.
        at = [place + 0.06 * (number - (len(names) - 1) / 2) for place in places]
        value = [100 * each for each in row["value"]]
        axes.plot(at, value, "o-", color=colour, ms=4, label=plots.short(name))
        for x, (low, high) in zip(at, row["interval"]):
            axes.plot([x, x], [100 * low, 100 * high], color=colour, lw=1)
    step = -(-len(places) // 6)
    axes.set_xticks(places[::step], found["periods"][::step])
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{found['metric']}, %")
    axes.grid(axis="y", color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    words = f"{found['metric']} by {found['by']} for {', '.join(names)}"
    return plots.svg(drawing, "time", words)
