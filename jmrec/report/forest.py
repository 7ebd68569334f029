"""A forest plot: paired differences with their intervals, sorted, in the colours of the rows."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from jmrec.evaluation.results import CONTROL, Results
from jmrec.report import plots
from jmrec.report.colours import GREY, colours
from jmrec.report.tables import (
    best_rule,
    by_name,
    interval,
    is_number,
    primary,
    primary_comparisons,
    role,
    shown_student,
    signed,
    verdict_words,
)

MOST = 30
"""Differences in a panel."""


def panels(results: Results) -> list[tuple[str, list[tuple[str, Mapping[str, Any]]]]]:
    """Return what is drawn: (heading, [(the row on the left, comparison)]), the largest first.

    The first panel has every row less the best rule, the second the student that is shown less
    other rows. Controls are left out: they have a table of their own.
    """
    rule, student, rows = best_rule(results), shown_student(results), by_name(results)
    parts: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for each in primary_comparisons(results):
        a, b = str(each.get("a")), str(each.get("b"))
        shown = interval(each.get("interval")) and is_number(each.get("difference"))
        aside = CONTROL in (role(results, rows.get(a) or {}), role(results, rows.get(b) or {}))
        if not shown or aside:
            continue
        if b == rule:
            parts.setdefault(f"less the best rule, {rule}", []).append((a, each))
        elif a == student:
            parts.setdefault(f"{student} less", []).append((b, each))
    return [
        (heading, sorted(found, key=lambda pair: -pair[1]["difference"])[:MOST])
        for heading, found in sorted(parts.items(), key=lambda part: not part[0].startswith("less"))
    ]


@matplotlib.rc_context(plots.STYLE)
def forest_plot(results: Results) -> Markup | None:
    """Draw the paired differences by the primary figure; None where there are none.

    Filled: the interval excludes 0 and seeds are enough. Hollow: no difference is shown, or there
    are too few seeds.
    """
    drawn = panels(results)
    if not drawn:
        return None
    own, judge = colours(results), primary(results)
    sizes = [len(found) for _, found in drawn]
    drawing = Figure(figsize=(4.9, 0.8 + 0.21 * sum(sizes) + 0.45 * len(drawn)))
    every = drawing.subplots(
        len(drawn), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": sizes}
    )[:, 0]
    said = []
    for axes, (heading, found) in zip(every, drawn):
        for place, (name, each) in enumerate(found):
            colour, (low, high) = own.get(name, GREY), (100 * x for x in each["interval"])
            value, sure = 100 * each["difference"], each.get("verdict") in ("above", "below")
            axes.plot([low, high], [place, place], color=colour, lw=2, alpha=1 if sure else 0.6)
            fill = colour if sure else "none"
            axes.plot([value], [place], "o", color=colour, ms=5, mfc=fill)
            ends = f"{signed(each['interval'][0])} to {signed(each['interval'][1])}"
            text = f"{name}: {signed(each['difference'])} ({ends}), {verdict_words(each)}"
            plots.row_tip(axes, place, text)
            said.append(f"{heading}: {text}")
        axes.axvline(0, color=plots.INK, lw=0.8)
        axes.set_yticks(range(len(found)), [plots.short(name) for name, _ in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_title(plots.short(heading, 2 * plots.LONGEST), fontsize=8.5, loc="left")
        axes.grid(axis="x", color="#8888884d")
    every[-1].set_xlabel(f"points of {judge['metric']}")
    return plots.svg(drawing, "forest", f"paired differences in points: {'; '.join(said)}")
