"""Estimates of mutual information shown: a table on the terminal, and one self-contained page."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from jmrec.evaluation import report_plots as plots
from jmrec.evaluation.report import WIDE, write_page
from jmrec.evaluation.report_sections import cost_table
from jmrec.evaluation.report_tables import Cell, Line, Results, Table

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
KINDS = {"lower": "lower bound", "upper": "upper bound", "estimate": "neither"}


def write_estimates(results: Results, path: str | Path) -> Path:
    """Write the results of the system "gaussians" as one HTML page that needs nothing beside it.

    Args:
      results: The contents of its results.json.
      path: The file to write.

    Returns:
      The path.
    """
    truths = _truths(results)
    sections: list[tuple[str, Table, list[Markup | None]]] = []
    if len(truths) > 1:
        sections.append(("truths", truth_table(results), [truth_plot(results)]))
    for number, nats in enumerate(truths):
        drawn = [estimate_plot(results, nats), training_plot(results, nats)]
        sections.append((f"truth-{number}", estimate_table(results, nats), drawn))
    sections.append(("checks", check_table(results), []))
    if (cost := cost_table(results)) is not None:
        sections.append(("cost", cost, []))
    return write_page(
        path,
        "report_estimates.html",
        title="jmrec: mutual information of correlated Gaussians",
        caption=caption(results),
        sentences=sentences(results),
        sections=[(a, table, [d for d in drawn if d]) for a, table, drawn in sections],
        commands=dict(results.get("commands") or {}),
    )


def print_estimates(results: Results, console: Console) -> None:
    """Print a table for each truth and what it says in words."""
    console.print(Text(caption(results)), style="italic")
    between = " " if console.width >= WIDE else "\n"
    for nats in _truths(results):
        table = estimate_table(results, nats)
        shown = RichTable(box=box.SIMPLE, pad_edge=False, padding=(0, 1), header_style="")
        shown.add_column(f"truth {nats:g}", overflow="fold", min_width=14)
        for column in table.columns[1:]:
            shown.add_column(column, justify="right", no_wrap=True)
        for line in table.lines:
            cells = [Text(cell.text + between + cell.note) for cell in line.cells[1:]]
            shown.add_row(Text(line.name), *cells)
        console.print(shown)
    for sentence in sentences(results):
        console.print(Text(sentence))


def caption(results: Results) -> str:
    """Return what was estimated, and how."""
    found = results["settings"]
    kind, updates = found["critic"]["kind"], found["train"]["steps"]
    return (
        f"Gaussians of {found['dimensions']} dimensions, {found['samples']:,} fresh pairs in "
        f"{found['batches']} batches of {found['batch_size']}: the mean of the batches' estimates "
        f"in nats, with its standard error. A {kind} critic, {updates:,} updates on pairs that "
        "never come twice."
    )


def sentences(results: Results) -> list[str]:
    """Return what held, and each thing that did not."""
    checks = results["checks"]
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
    seeds = results["settings"]["seeds"]
    lines = []
    for name, rows in _by_name(results, nats).items():
        cells = [Cell(_number(row["mean"]), f"± {_number(row['error'])}") for row in rows]
        true = [row["true"] for row in rows]
        error = math.sqrt(sum(each["error"] ** 2 for each in true)) / len(true)
        mean = sum(each["mean"] for each in true) / len(true)
        cells.append(Cell(_number(mean), f"± {_number(error)}"))
        lines.append(Line(NAMES[name], [Cell(KINDS[rows[0]["kind"]]), *cells]))
    form = results["closed_form"][f"{nats:g}"]
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
    truths = _truths(results)
    lines = [
        Line(NAMES[name], [Cell(_number(_mean(results, nats, name))) for nats in truths])
        for name in _by_name(results, truths[0])
    ]
    return Table("All truths", [f"{nats:g}" for nats in truths], lines, "Seeds averaged; nats.")


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
        for each in results["checks"]
    ]
    return Table("What must hold", ["what", "figure", "limit", "holds"], lines, text=True)


@matplotlib.rc_context(plots.STYLE)
def estimate_plot(results: Results, nats: float) -> Markup:
    """Draw every estimator's seeds with two standard errors beside the truth."""
    found = _by_name(results, nats)
    ceiling = math.log(results["settings"]["batch_size"])
    right = 1.15 * max(nats, results["closed_form"][f"{nats:g}"])
    drawing = Figure(figsize=(4.9, 1.1 + 0.34 * len(found)))
    axes = drawing.subplots()
    for place, rows in enumerate(found.values()):
        colour = plots.COLOURS[list(KINDS).index(rows[0]["kind"])]
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
    means = {name: [_number(row["mean"]) for row in rows] for name, rows in found.items()}
    words = "; ".join(f"{NAMES[name]} {' and '.join(each)}" for name, each in means.items())
    return plots.svg(drawing, f"estimates{nats:g}", f"estimates at {nats:g} nats: {words}")


@matplotlib.rc_context(plots.STYLE)
def truth_plot(results: Results) -> Markup:
    """Draw the estimates against the truth, seeds averaged."""
    truths = _truths(results)
    ceiling = math.log(results["settings"]["batch_size"])
    drawing = Figure(figsize=(4.9, 3.9))
    axes = drawing.subplots()
    axes.plot(truths, truths, color=plots.INK, lw=0.8)
    axes.axhline(ceiling, color=plots.INK, lw=0.8, ls=":")
    for name, line in _lines(_by_name(results, truths[0])).items():
        means = [_mean(results, nats, name) for nats in truths]
        axes.plot(truths, means, label=NAMES[name], **line)
    axes.set_ylim(0, 1.5 * truths[-1])
    axes.set_xlabel("truth, nats (line), and the log of the batch size (dots)")
    axes.set_ylabel("estimate, nats")
    axes.grid(color="#8888884d")
    plots.legend(axes, loc="lower left", bbox_to_anchor=(-0.08, 1.0), ncols=2)
    return plots.svg(drawing, "truths", f"estimates at {', '.join(f'{n:g}' for n in truths)} nats")


@matplotlib.rc_context(plots.STYLE)
def training_plot(results: Results, nats: float) -> Markup | None:
    """Draw what each estimator says of training batches while its critic learns; one seed."""
    seed = results["settings"]["seeds"][0]
    drawing = Figure(figsize=(4.9, 3.6))
    axes: Axes = drawing.subplots()
    drawn = 0
    for name, line in _lines(_by_name(results, nats)).items():
        rows = _by_name(results, nats)[name]
        curve = results["curves"].get(f"critics/{rows[0]['objective']}-{nats:g}-{seed}") or {}
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


def _truths(results: Results) -> list[float]:
    return sorted({row["nats"] for row in results["estimates"]})


def _by_name(results: Results, nats: float) -> dict[str, list[Mapping[str, Any]]]:
    """Return estimator -> its rows at a truth, one a seed."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in results["estimates"]:
        if row["nats"] == nats:
            found.setdefault(row["name"], []).append(row)
    return found


def _mean(results: Results, nats: float, name: str) -> float:
    rows = _by_name(results, nats)[name]
    return float(sum(row["mean"] for row in rows) / len(rows))


def _lines(names: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how the line of each estimator is drawn."""
    count = len(plots.COLOURS)
    return {
        name: {"color": plots.COLOURS[n % count], "ls": "-" if n < count else "--", "lw": 1.1,
               "marker": "o", "ms": 2.5}
        for n, name in enumerate(names)
    }  # fmt: skip
