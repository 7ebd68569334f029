"""Estimates of mutual information shown: a table on the terminal, and one self-contained page."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jmrec.evaluation.results import Cost, ResultRow, Results
from jmrec.report import plots
from jmrec.report.colours import COLOURS
from jmrec.report.html import write_page
from jmrec.report.sections import cost_table
from jmrec.report.tables import Cell, Line, Table, figure

NAMES = {
    "infonce": "InfoNCE",
    "nwj": "NWJ",
    "mine": "MINE",
    "jsd": "JSD, its critic in NWJ",
    "smile": "SMILE, critic by JSD",
    "smile_own": "SMILE, its own gradient",
    "club": "CLUB, true q",
    "vclub": "vCLUB, learned q",
    "l1out": "L1Out, learned q",
}
KINDS = ("lower", "upper", "estimate")
"""The kinds of estimators, each with a colour of its own."""


def write_estimates(results: Results, path: str | Path, cost: Cost) -> Path:
    """Write the results of a study of estimators as one HTML page that needs nothing beside it.

    Args:
      results: The contents of its results.json.
      path: The file to write.
      cost: The contents of its cost.json.

    Returns:
      The path.
    """
    every = truths(results)
    sections: list[tuple[str, Table, list[Markup | None]]] = []
    if len(every) > 1:
        sections.append(("truths", truth_table(results), [truth_plot(results)]))
    for number, nats in enumerate(every):
        drawn = [estimate_plot(results, nats), training_plot(results, nats)]
        sections.append((f"truth-{number}", estimate_table(results, nats), drawn))
    sections.append(("checks", check_table(results), []))
    if (spent := cost_table(results, cost)) is not None:
        sections.append(("cost", spent, []))
    return write_page(
        path,
        "estimates.html",
        title="jmrec: mutual information of correlated Gaussians",
        caption=results["caption"],
        sentences=sentences(results),
        sections=[(a, table, [d for d in drawn if d]) for a, table, drawn in sections],
        commands=cost["commands"],
    )


def sentences(results: Results) -> list[str]:
    """Return what held, and each thing that did not."""
    checks = results.get("checks") or []
    failed = [each for each in checks if not each["holds"]]
    said = [f"{len(checks) - len(failed)} of {len(checks)} checks hold."] if checks else []
    said += [
        f"Not so: {NAMES[each['name']]} at {each['nats']:g} nats, seed {each['seed']}: "
        f"{each['says']} ({_number(each['value'])} against {_number(each['limit'])})."
        for each in failed
    ]
    return said


def estimate_table(results: Results, nats: float) -> Table:
    """Return the estimates at one truth, a column for each seed."""
    seeds, titles = results["study"]["seeds"], {k["name"]: k["title"] for k in results["kinds"]}
    lines = []
    for name, row in _by_name(results, nats).items():
        found = row["estimates"]
        cells = [Cell(_number(each["mean"]), f"± {_number(each['error'])}") for each in found]
        true = [each["true"] for each in found]
        error = math.sqrt(sum(each["error"] ** 2 for each in true)) / len(true)
        mean = sum(each["mean"] for each in true) / len(true)
        cells.append(Cell(_number(mean), f"± {_number(error)}"))
        lines.append(Line(NAMES[name], [Cell(titles[row["kind"]]), *cells]))
    form = results["study"]["closed_form"][f"{nats:g}"]
    return Table(
        f"At {nats:g} nats",
        ["is", *(f"seed {seed}" for seed in seeds), "with the truth"],
        lines,
        note="In the plot dots are seeds with two standard errors, diamonds estimates with the "
        "truth, the line is the truth. ± is one standard error over batches. With the truth: the "
        "pairs of all seeds, asked with the density ratio, or the conditional, that made them; "
        f"CLUB and vCLUB are then {form:.3f} in closed form. NWJ and MINE have heavy tails at many "
        "nats: their errors are then too small.",
    )


def truth_table(results: Results) -> Table:
    """Return the mean over seeds of every estimator at every truth."""
    every = truths(results)
    lines = [
        Line(NAMES[name], [Cell(_number(_mean(results, nats, name))) for nats in every])
        for name in _by_name(results, every[0])
    ]
    return Table("All truths", [f"{nats:g}" for nats in every], lines, "Seeds averaged; nats.")


def check_table(results: Results) -> Table:
    """Return every check with its figures."""
    lines = [
        Line(
            f"{NAMES[each['name']]}, {each['nats']:g} nats, seed {each['seed']}",
            [
                Cell(each["says"]),
                Cell(_number(each["value"])),
                Cell(_number(each["limit"])),
                Cell("yes" if each["holds"] else "NO"),
            ],
        )
        for each in results.get("checks") or ()
    ]
    return Table("What must hold", ["what", "figure", "limit", "holds"], lines, text=True)


@matplotlib.rc_context(plots.STYLE)
def estimate_plot(results: Results, nats: float) -> Markup:
    """Draw every estimator's seeds with two standard errors beside the truth."""
    found = _by_name(results, nats)
    ceiling = math.log(results["study"]["batch_size"])
    right = 1.15 * max(nats, results["study"]["closed_form"][f"{nats:g}"])
    drawing = Figure(figsize=(4.9, 1.1 + 0.34 * len(found)))
    axes = drawing.subplots()
    for place, one in enumerate(found.values()):
        rows = one["estimates"]
        colour = COLOURS[KINDS.index(one["kind"])]
        for number, row in enumerate(rows):
            if not 0 <= row["mean"] <= right:  # far off: the table has the figure
                mark = ">" if row["mean"] > right else "<"
                axes.plot([min(max(row["mean"], 0.0), right)], [place], mark, color=colour)
                continue
            height = place + 0.5 * ((number + 1) / (len(rows) + 1) - 0.5)
            ends = [row["mean"] - 2 * row["error"], row["mean"] + 2 * row["error"]]
            axes.plot(ends, [height, height], color=colour, lw=1.3)
            axes.plot([row["mean"]], [height], "o", color=colour, ms=3.5)
        true = sum(row["true"]["mean"] for row in rows) / len(rows)
        axes.plot([true], [place], "D", color=colour, ms=7, mfc="none", mew=0.8)
    axes.axvline(nats, color=plots.INK, lw=0.8)
    if ceiling < right:
        axes.axvline(ceiling, color=plots.INK, lw=0.8, ls=":")
    axes.set_yticks(range(len(found)), [plots.short(NAMES[name]) for name in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(0, 1.03 * right)
    axes.set_xlabel("nats")
    axes.grid(axis="x", color="#8888884d")
    means = {
        name: [_number(each["mean"]) for each in row["estimates"]] for name, row in found.items()
    }
    words = "; ".join(f"{NAMES[name]} {' and '.join(each)}" for name, each in means.items())
    return plots.svg(drawing, f"estimates{nats:g}", f"estimates at {nats:g} nats: {words}")


@matplotlib.rc_context(plots.STYLE)
def truth_plot(results: Results) -> Markup:
    """Draw the estimates against the truth, seeds averaged."""
    every = truths(results)
    ceiling = math.log(results["study"]["batch_size"])
    drawing = Figure(figsize=(4.9, 3.9))
    axes = drawing.subplots()
    axes.plot(every, every, color=plots.INK, lw=0.8)
    axes.axhline(ceiling, color=plots.INK, lw=0.8, ls=":")
    for name, line in _lines(_by_name(results, every[0])).items():
        means = [_mean(results, nats, name) for nats in every]
        axes.plot(every, means, label=NAMES[name], **line)
    axes.set_ylim(0, 1.5 * every[-1])
    axes.set_xlabel("truth, nats (line), and the log of the batch size (dots)")
    axes.set_ylabel("estimate, nats")
    axes.grid(color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    return plots.svg(drawing, "truths", f"estimates at {', '.join(f'{n:g}' for n in every)} nats")


@matplotlib.rc_context(plots.STYLE)
def training_plot(results: Results, nats: float) -> Markup | None:
    """Draw what each estimator says of training batches while its critic learns; one seed."""
    seed = results["study"]["seeds"][0]
    drawing = Figure(figsize=(4.9, 3.6))
    axes: Axes = drawing.subplots()
    drawn = 0
    for name, line in _lines(_by_name(results, nats)).items():
        curve = _curve(results, _by_name(results, nats)[name], seed)
        if name in curve:
            points = plots.curve_points(curve["step"], curve[name])
            axes.plot(*zip(*points), label=NAMES[name], **{**line, "marker": None})
            drawn += 1
    if not drawn:
        return None
    axes.axhline(nats, color=plots.INK, lw=0.8)
    axes.set_ylim(0, 3 * nats)
    axes.set_xlabel(f"update, seed {seed}")
    axes.set_ylabel("estimate on training batches, nats")
    axes.grid(color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    return plots.svg(drawing, f"training{nats:g}", f"estimates during training at {nats:g} nats")


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.1e}"


def truths(results: Results) -> list[float]:
    """Return every value of I(x; y), in nats."""
    return sorted({row["settings"]["nats"] for row in results["rows"]})


def _by_name(results: Results, nats: float) -> dict[str, ResultRow]:
    """Return estimator -> its row at a truth."""
    return {
        row["settings"]["estimator"]: row
        for row in results["rows"]
        if row["settings"]["nats"] == nats
    }


def _mean(results: Results, nats: float, name: str) -> float:
    return figure(results, _by_name(results, nats)[name])


def _curve(results: Results, row: ResultRow, seed: int) -> Mapping[str, Any]:
    """Return the curve of the critic that an estimator's seed has read, {} where it has none."""
    wanted = row["settings"].get("group")
    for stage, facts in results["stages"].items():
        if facts["group"] == wanted and facts["seed"] == seed:
            return results["curves"].get(stage) or {}
    return {}


def _lines(names: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how the line of each estimator is drawn."""
    count = len(COLOURS)
    return {
        name: {"color": COLOURS[n % count], "ls": "-" if n < count else "--", "lw": 1.1,
               "marker": "o", "ms": 2.5}
        for n, name in enumerate(names)
    }  # fmt: skip
