"""The report's plots: inline SVG that takes the page's text colour, the same bytes every time."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jmrec.evaluation.results import (
    BOUND,
    METRICS,
    MODEL,
    OFFSET,
    PLAIN,
    RULE,
    TEACHER,
    Results,
)
from jmrec.report.colours import COLOURS, GREY, colours
from jmrec.report.tables import (
    Row,
    best_model,
    best_rule,
    buckets_of,
    figure,
    group_of,
    interval,
    keys_of,
    ordered_rows,
    primary,
    primary_interval,
    role,
)

INK = "#000000"
"""Replaced by the page's text colour."""
MAX_POINTS = 300
PANEL = (4.6, 3.1)
"""Inches of a plot: narrow enough that its letters can still be read on a phone."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched and takes the page's font
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 9,
    "font.family": "sans-serif",
    "figure.constrained_layout.use": False,  # whatever a notebook has set
}
LONGEST = 30
"""Characters of a name that are shown in a plot; its description has them all."""
BUCKET = 16
"""Characters of a bucket's name below it."""
TIP = "tip: "
"""Before what is shown where the pointer rests; never seen."""
SCORES = (*METRICS, "accuracy", "recall")
"""Parts of names of figures that are better the higher they are."""


@matplotlib.rc_context(STYLE)
def ranking_plot(results: Results, strong: set[str | None] | None = None) -> Markup | None:
    """Draw the primary figure of every row with its interval, None where there are no rows.

    Args:
      results: The contents of results.json.
      strong: Names of rows with a large dot; by default the best rule and the best model.
    """
    rows = [row for row in ordered_rows(results) if figure(results, row) > -math.inf]
    judge = primary(results)
    if not rows:
        return None
    drawing = Figure(figsize=(4.9, 0.9 + 0.21 * len(rows)))
    axes = drawing.subplots()
    best = strong or {best_rule(results), best_model(results)}
    own = colours(results)
    for place, row in enumerate(rows):
        name = str(row.get("name", ""))
        value, colour = 100 * figure(results, row), own.get(name, GREY)
        pair = primary_interval(results, row)
        if pair:
            axes.plot([100 * pair[0], 100 * pair[1]], [place, place], color=colour, lw=2)
        axes.plot([value], [place], "o", color=colour, markersize=7 if name in best else 4.5)
        ends = f" ({interval(pair)})" if interval(pair) else ""
        row_tip(axes, place, f"{name}: {judge['metric']} {value:.2f} %{ends}")
    axes.set_yticks(range(len(rows)), [short(str(row.get("name", ""))) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{judge['metric']}, %")
    axes.grid(axis="x", color="#8888884d")
    named = ", ".join(f"{row.get('name')} {100 * figure(results, row):.2f}" for row in rows)
    return svg(drawing, "ranking", f"{judge['metric']} by {judge['figure']} in percent: {named}")


@matplotlib.rc_context(STYLE)
def slice_plots(results: Results) -> list[tuple[str, Markup]]:
    """Draw the metric of the primary figure over the buckets of each slice, for the best rows.

    Returns:
      (slice name, SVG) pairs.
    """
    rows, metric = _shown_rows(results), primary(results)["metric"]
    own = colours(results)
    names = list(dict.fromkeys(name for row in rows for name in row["slices"]))
    drawn = []
    for number, name in enumerate(names):
        buckets = buckets_of(name, rows, empty=False)
        if len(buckets) < 2:
            continue
        drawing = Figure(figsize=PANEL)
        axes = drawing.subplots()
        width = 0.8 / len(rows)
        for number_of_row, row in enumerate(rows):
            found, colour = row["slices"].get(name) or {}, own.get(row["name"], GREY)
            # Buckets are no points in time: side by side, and nothing joins them.
            left = width * (number_of_row - (len(rows) - 1) / 2)
            values = [_percent((found.get(bucket) or {}).get(metric)) for bucket in buckets]
            for place, (bucket, value) in enumerate(zip(buckets, values)):
                label = None if place else short(row["name"])
                axes.bar(place + left, value, 0.9 * width, color=colour, label=label)
                tip(axes.patches[-1], f"{row['name']}, {bucket}: {metric} {value:.2f} %")
        turned: dict[str, Any] = {}
        if max(map(len, buckets)) > 6:  # words lean, so that they do not run into each other
            turned = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
        names_below = [short(bucket, BUCKET) for bucket in buckets]
        axes.set_xticks(range(len(buckets)), names_below, fontsize=8, **turned)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{metric}, %")
        axes.set_xlabel(name)
        axes.grid(axis="y", color="#8888884d")
        axes.set_axisbelow(True)
        legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
        words = f"{metric} by {name} for {', '.join(row['name'] for row in rows)}"
        drawn.append((name, svg(drawing, f"slice{number}", words)))
    return drawn


@matplotlib.rc_context(STYLE)
def cold_plot(results: Results) -> Markup | None:
    """Draw warm against cold targets, and where the score offset of cold items moves a row."""
    rows, metric = _shown_rows(results), primary(results)["metric"]
    drawn = []
    for row in rows:
        cold = row.get("cold") or {}
        warm = ((row["slices"].get("target") or {}).get("warm") or {}).get(metric)
        ends = (
            [warm, cold.get(metric)],
            [cold.get(f"warm {metric}{OFFSET}"), cold.get(metric + OFFSET)],
        )
        points = [[_percent(each) for each in end] for end in ends]
        if all(map(math.isfinite, [*points[0], *points[1]])):
            drawn.append((row["name"], *points))
    if not drawn:
        return None
    drawing = Figure(figsize=PANEL)
    axes = drawing.subplots()
    own = colours(results)
    for name, before, after in drawn:
        colour = own.get(name, GREY)
        axes.plot(*zip(before, after), color=colour, lw=1.3)
        axes.plot(*before, "o", color=colour, ms=4, mfc="none")
        (dot,) = axes.plot(*after, "o", color=colour, ms=6, label=short(name))
        tip(dot, f"{name}: {after[0]:.2f} % of warm targets, {after[1]:.2f} % of cold ones")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{metric} of warm targets, %")
    axes.set_ylabel(f"{metric} of cold targets, %")
    axes.grid(color="#8888884d")
    legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    words = "; ".join(
        f"{name} from {b[0]:.2f} warm and {b[1]:.2f} cold to {a[0]:.2f} and {a[1]:.2f}"
        for name, b, a in drawn
    )
    return svg(drawing, "cold", f"{metric} without and with the offset in percent: {words}")


@matplotlib.rc_context(STYLE)
def curve_plots(results: Results) -> list[tuple[str, Markup]]:
    """Draw every stage's losses, and its validation figures below them where it has some.

    The seeds of a group are drawn together, in one colour a figure.

    Returns:
      (stage name, SVG) pairs; stages without a curve are left out.
    """
    groups: dict[str, list[dict[str, list[tuple[float, float]]]]] = {}
    for stage, curve in (results.get("curves") or {}).items():
        steps = curve.get("step") or []
        series = {
            _in_words(results, name): curve_points(steps, values)
            for name, values in curve.items()
            if name != "step" and isinstance(values, Sequence) and not isinstance(values, str)
        }
        groups.setdefault(group_of(results, stage), []).append(
            {n: points for n, points in series.items() if points}
        )
    drawn = []
    for number, (stage, seeds) in enumerate(groups.items()):
        names = keys_of(seeds)
        scores = [name for name in names if _is_score(name)]
        losses = [name for name in names if name not in scores and "loss" in name.lower()]
        if not losses and not scores:  # names of which we know nothing are better than none
            losses = names[:4]
        panels = [(part, label) for part, label in ((losses, "loss"), (scores, "score")) if part]
        if not panels:
            continue
        drawing = Figure(figsize=(4.6, 2.1 * len(panels) + 0.2))
        every = drawing.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, (part, label) in zip(every, panels):
            for colour, name in zip(COLOURS, part):
                for place, series in enumerate(one for one in seeds if name in one):
                    points = series[name]
                    marker = "o-" if len(points) < 25 else "-"
                    shown = {"color": colour, "label": None if place else short(name)}
                    axes.plot(*zip(*points), marker, ms=2.5, lw=1.1, **shown)
            axes.set_xlabel("update")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_ylabel(label)
            axes.grid(color="#8888884d")
            legend(axes)
        last = ", ".join(
            f"{name} ends at {' and '.join(f'{s[name][-1][1]:.4g}' for s in seeds if name in s)}"
            for name in [*losses, *scores]
        )
        title = f"{stage} ({len(seeds)} seeds)" if len(seeds) > 1 else stage
        drawn.append((title, svg(drawing, f"curve{number}", f"curves of {stage}: {last}")))
    return drawn


def _shown_rows(results: Results) -> list[Mapping[str, Any]]:
    """Return at most six rows with slices: the best rule, the best of each kind, the models."""
    rows = [row for row in ordered_rows(results) if row.get("slices") and row.get("name")]
    first = [row for row in rows if row["name"] in (best_rule(results), best_model(results))]

    def judged(row: Row) -> float:
        return figure(results, row)

    by_kind = []
    for kind in results.get("kinds") or ():
        of_kind = [row for row in rows if row.get("kind") == kind["name"]]
        # Of the plain rules none is shown but the best rule of all, which comes first.
        if of_kind and kind["role"] in (BOUND, RULE, TEACHER) and kind["name"] != PLAIN:
            by_kind.append(max(of_kind, key=judged))
    models = sorted((row for row in rows if role(results, row) == MODEL), key=judged)[::-1]
    unique = {row["name"]: row for row in [*first, *by_kind, *models]}
    return list(unique.values())[:6]


def _in_words(results: Results, name: str) -> str:
    """Return a curve's name; metrics.jsonl calls what a stage is judged by eval/score."""
    found = re.sub("^eval/", "validation ", name)
    return found.replace("validation score", f"validation {primary(results)['metric']}")


def _is_score(name: str) -> bool:
    return any(word.lower() in name.lower() for word in SCORES) and "loss" not in name.lower()


def _percent(value: Any) -> float:
    return 100 * value if isinstance(value, int | float) else math.nan


def curve_points(steps: Sequence[Any], values: Sequence[Any]) -> list[tuple[float, float]]:
    """Return the finite points, thinned out evenly, the last one kept."""
    points = [
        (float(step), float(value))
        for step, value in zip(steps, values)
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    stride = math.ceil(len(points) / MAX_POINTS) or 1
    return points[::-1][::stride][::-1]


def short(name: str, longest: int = LONGEST) -> str:
    """Return a name that leaves room for a plot beside it.

    Example:
      >>> short("distilled, order shuffled"), short("x" * 99) == "x" * 29 + "…"
      ('distilled, order shuffled', True)
    """
    return name if len(name) <= longest else name[: longest - 1] + "…"


def tip(artist: Artist, text: str) -> None:
    """Let a browser show a text where the pointer rests on something drawn."""
    artist.set_gid(f"{TIP}{text}")


def row_tip(axes: Axes, place: float, text: str) -> None:
    """Let a browser show a text anywhere in a row of a plot, on which one can rest more easily."""
    # Above all that is drawn there, so that nothing hides it from the pointer.
    tip(axes.axhspan(place - 0.5, place + 0.5, alpha=0, lw=0, zorder=9), text)


def legend(axes: Axes, **place: Any) -> None:
    """Add a legend that takes the page's text colour."""
    legend = axes.legend(fontsize=7.5, frameon=False, **place)
    for text in legend.get_texts():
        text.set_color(INK)


def svg(drawing: Figure, name: str, words: str) -> Markup:
    """Return the drawing as inline SVG with ids of its own and words for who cannot see it."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # else ids are random
        for axes in drawing.axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.patch.set_visible(False)
        drawing.patch.set_visible(False)
        drawing.tight_layout()
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # matplotlib has escaped the text as an attribute, which is good for an element too.
    text = re.sub(f'<g id="{TIP}([^"]*)">', r'<g class="tip"><title>\1</title>', text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # HTML needs none; no address is left
    text = text.replace("xlink:href", "href").replace(INK, "currentColor")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    # Unset fills are black: let the text follow the page.
    label = f'<svg role="img" aria-label="{escape(words)}" fill="currentColor" '
    return Markup(text.replace("<svg ", label, 1).strip())
