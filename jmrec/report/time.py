"""Figures over time, or over test windows: a table and a plot of results.json's "over_time"."""

from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from jmrec.evaluation.results import LIVE, TEACHER, WEEKLY, Results
from jmrec.report import plots
from jmrec.report.colours import GREY, colours, own_name
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
    shown_student,
)

COUNTED = {WEEKLY: "--", LIVE: ":"}
"""What rows count besides training, and the line with which such a row is drawn."""


def time_table(results: Results) -> Table | None:
    """Return the figures of `shown_names` by period, None where nothing was asked so."""
    found: Any = results.get("over_time") or {}
    if not found:
        return None
    names, few = shown_names(results), found.get("few", 0)
    lines = []
    for at, (period, sessions) in enumerate(zip(found["periods"], found["sessions"])):
        cells = [Cell(f"{sessions:,}", "few" if sessions < few else "")]
        for name in names:
            row = found["rows"][name]
            cells.append(Cell(percent(row["value"][at]), interval(row["interval"][at])))
        lines.append(Line(str(period), cells))
    note = (
        f"{found['metric']} by session, in %, with 95 % intervals; results.json has the other rows."
    )
    if "predictions" in found:  # periods of the calendar
        note += (
            f" A prediction belongs to the {found['by']} (UTC) of what it predicts, whatever a row "
            "knew; a session counts in each that has one of its positions 1-20."
        )
    if any(sessions < few for sessions in found["sessions"]):
        note += f" Few: less than {few} sessions, which say little."
    return Table(f"By {found['by']}", ["sessions", *names], lines, note=note)


def shown_names(results: Results) -> list[str]:
    """Return the rows that are shown: the served one, the best rule, student and teacher.

    Each is followed by its forms that count what came after training; the best live rule is last.
    """
    found: Any = results.get("over_time") or {}
    teacher = next((r["name"] for r in ordered_rows(results) if role(results, r) == TEACHER), None)
    wanted = [served_row(results), best_rule(results), shown_student(results)]
    wanted += [best_model(results), teacher]
    forms = [f"{name}{form}" for name in wanted for form in ("", *(f", {c}" for c in COUNTED))]
    forms.append(str(results.get("best_live_rule")))
    return [name for name in dict.fromkeys(forms) if name in found["rows"]]


@matplotlib.rc_context(plots.STYLE)
def time_plot(results: Results) -> Markup | None:
    """Draw the figures of `shown_names`, None where there are fewer than two periods."""
    found: Any = results.get("over_time") or {}
    if len(found.get("periods") or ()) < 2:
        return None
    names = shown_names(results)
    drawing = Figure(figsize=(plots.PANEL[0], plots.PANEL[1] + 0.16 * len(names)))
    axes = drawing.subplots()
    places, sessions = range(len(found["periods"])), found["sessions"]
    every = colours(results)
    for number, name in enumerate(names):
        row, colour = found["rows"][name], every.get(name, GREY)
        # A little apart, so that intervals do not hide one another.
        at = [place + 0.06 * (number - (len(names) - 1) / 2) for place in places]
        value = [100 * each for each in row["value"]]
        form = name.removeprefix(own_name(name))
        line = COUNTED.get(form.removeprefix(", "), "-")
        axes.plot(at, value, line, color=colour, lw=1.3, label=plots.short(own_name(name)) + form)
        for x, y, (low, high), count in zip(at, value, row["interval"], sessions):
            axes.plot([x, x], [100 * low, 100 * high], color=colour, lw=1)
            hollow = count < found.get("few", 0)
            (dot,) = axes.plot([x], [y], "o", color=colour, mfc="none" if hollow else colour, ms=4)
            period = found["periods"][round(x)]
            plots.tip(dot, f"{name}, {period}: {y:.2f} % ({100 * low:.1f}–{100 * high:.1f})")
    step = -(-len(places) // 6)
    ticks = [f"{p}\n{n:,} sessions" for p, n in zip(found["periods"], sessions)]
    axes.set_xticks(places[::step], ticks[::step], fontsize=7.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{found['metric']}, %")
    axes.grid(axis="y", color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=1)
    words = f"{found['metric']} by {found['by']} for {', '.join(names)}; hollow: few sessions"
    return plots.svg(drawing, "time", words)
