"""The plots of ranking pairs: reliability, precision and false positives over recall, and more."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from jmrec.evaluation.results import ROC_AUC, Results
from jmrec.report import plots
from jmrec.report.colours import COLOURS, GREY, colours
from jmrec.report.pairs_tables import PARTS, found, spoken_of
from jmrec.report.tables import best_rule, interval, is_number, section

MOST = 5
"""Lines in a plot."""
WORDS = {"precision": "precision", "fpr": "false-positive rate"}


def _few(results: Results, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines that are drawn: the model and the best rule first."""
    first = [spoken_of(results), best_rule(results)]
    named = [each for each in entries if each.get("row")]
    return sorted(named, key=lambda each: each["row"] not in first)[:MOST]


@matplotlib.rc_context(plots.STYLE)
def curve_plot(results: Results, what: str) -> Markup | None:
    """Draw precision, or the false-positive rate, over recall; None where there is none.

    Args:
      results: The contents of results.json.
      what: "precision" or "fpr".
    """
    entries, own = _few(results, found(results, "curve", list)), colours(results)
    drawing = Figure(figsize=plots.PANEL)
    axes = drawing.subplots()
    said = []
    for each in entries:
        colour = own.get(str(each["row"]), GREY)
        points = plots.curve_points(
            *(
                [100 * x if is_number(x) else math.nan for x in each.get(name) or ()]
                for name in ("recall", what)
            )
        )
        points = [point for point in points if math.isfinite(point[0])]
        if points:
            axes.plot(*zip(*points), color=colour, lw=1.3, label=plots.short(each["row"]))
            middle = min(points, key=lambda point: abs(point[0] - 50))
            said.append(f"{each['row']} {middle[1]:.1f}")
    if not said:
        return None
    share: Any = section(results, "pairs").get("share")
    if what == "precision" and is_number(share):
        axes.axhline(100 * share, color=plots.INK, lw=0.8, ls=":")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("recall, %" + (" (dots: share of positives)" if what == "precision" else ""))
    axes.set_ylabel(f"{WORDS[what]}, %")
    axes.grid(color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    words = f"{WORDS[what]} over recall; at half of the positives in percent: {', '.join(said)}"
    return plots.svg(drawing, f"curve-{what}", words)


@matplotlib.rc_context(plots.STYLE)
def reliability_plot(results: Results) -> Markup | None:
    """Draw the share of positives over the probability said, before and after calibration."""
    entries, own = _few(results, found(results, "reliability", list))[:3], colours(results)
    drawing = Figure(figsize=(4.6, 3.6))
    axes = drawing.subplots()
    highest = 0.0
    for each in entries:
        colour = own.get(str(each["row"]), GREY)
        after, before = (
            [b for b in each.get(name) or () if is_number(b.get("p")) and is_number(b.get("share"))]
            for name in ("bins", "before")
        )
        for each_bin in after:
            if interval(each_bin.get("interval")):
                ends = [100 * x for x in each_bin["interval"]]
                axes.plot([100 * each_bin["p"]] * 2, ends, color=colour, lw=1, alpha=0.6)
                highest = max(highest, ends[1])
        for bins, style in ((after, "o-"), (before, ":")):
            x, y = ([100 * b[key] for b in bins] for key in ("p", "share"))
            label = plots.short(each["row"]) if bins is after else None
            axes.plot(x, y, style, color=colour, lw=1.1, ms=3.5, label=label)
            highest = max([highest, *x, *y])
    if not highest:
        return None
    limit = min(100.0, 1.05 * highest)
    axes.plot([0, limit], [0, limit], color=plots.INK, lw=0.8)
    axes.set_xlim(0, limit)
    axes.set_ylim(0, limit)
    axes.set_xlabel("probability said, % (dots: before calibration)")
    axes.set_ylabel("share of positives, %")
    axes.grid(color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    names = ", ".join(each["row"] for each in entries)
    return plots.svg(drawing, "reliability", f"share of positives over probability for {names}")


@matplotlib.rc_context(plots.STYLE)
def help_plot(results: Results, part: str) -> Markup | None:
    """Draw what a part adds in every segment, with intervals; None where that is not known.

    Args:
      results: The contents of results.json.
      part: "picture" or "text".
    """
    lines = []
    for each in found(results, "help", list):
        entry = each.get(ROC_AUC) or {}
        if each.get("part") == part and interval(entry.get("interval")):
            by = str(each.get("by"))
            name = "all" if by == "all" else f"{by}: {each.get('segment')}"
            value = 100 * entry["difference"]
            lines.append((name, value, [100 * x for x in entry["interval"]]))
    if not lines:
        return None
    drawing = Figure(figsize=(4.9, 0.9 + 0.21 * len(lines)))
    axes = drawing.subplots()
    for place, (_, value, ends) in enumerate(lines):
        sure = ends[0] > 0 or ends[1] < 0
        colour = COLOURS[0] if ends[0] > 0 else COLOURS[1] if sure else GREY
        axes.plot(ends, [place, place], color=colour, lw=2)
        axes.plot([value], [place], "o", color=colour, ms=4.5)
        shown = f"{value:+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f})"
        plots.row_tip(axes, place, f"{lines[place][0]}: {shown}")
    axes.axvline(0, color=plots.INK, lw=0.8)
    axes.set_yticks(range(len(lines)), [plots.short(name) for name, _, _ in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel(f"what {PARTS[part]} add, points of {ROC_AUC}")
    axes.grid(axis="x", color="#8888884d")
    words = ", ".join(f"{name} {value:+.1f}" for name, value, _ in lines)
    return plots.svg(drawing, f"help-{part}", f"what {PARTS[part]} add to {ROC_AUC}: {words}")


@matplotlib.rc_context(plots.STYLE)
def drift_plot(results: Results) -> Markup | None:
    """Draw ROC-AUC over time, with intervals; None where there is one period or none."""
    parts = found(results, "drift", list)
    if len(parts) < 2:
        return None
    names = list(dict.fromkeys(name for part in parts for name in part.get("rows") or {}))
    drawing = Figure(figsize=plots.PANEL)
    axes, own = drawing.subplots(), colours(results)
    drawn = 0
    for name in names:
        colour = own.get(name, GREY)
        points = []
        for place, part in enumerate(parts):
            known = (part.get("rows") or {}).get(name) or {}
            if not is_number(known.get(ROC_AUC)):
                continue
            points.append((place, 100 * known[ROC_AUC]))
            ends: Any = (known.get("interval") or {}).get(ROC_AUC)
            if interval(ends):
                axes.plot([place] * 2, [100 * x for x in ends], color=colour, lw=1, alpha=0.5)
        if points:
            axes.plot(*zip(*points), "o-", color=colour, lw=1.1, ms=3, label=plots.short(name))
            drawn += 1
    if not drawn:
        return None
    stride = -(-len(parts) // 8)
    ticks = range(0, len(parts), stride)
    axes.set_xticks(ticks, [str(parts[place].get("segment")) for place in ticks], rotation=30)
    axes.set_ylabel(f"{ROC_AUC}, %")
    axes.grid(color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    return plots.svg(drawing, "drift", f"{ROC_AUC} by {parts[0].get('by')} for {', '.join(names)}")
