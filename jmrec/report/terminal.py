"""The results on the terminal: one table, and what it says in words."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from jmrec.evaluation.results import DEPTH, Cost, Results
from jmrec.report import pairs_tables, tables
from jmrec.report.decision import decide
from jmrec.report.sentences import sentences
from jmrec.terminal import console as clean_console

WIDE = 118
"""From so many columns on, an interval is shown beside its figure, else under it."""
SMALL = 92
"""Below so many columns, some figures are left to the HTML page."""

PERIODS = 16
"""Figures over time are printed of so many periods at most, the last ones."""


def print_results(
    results: Results, cost: Cost | None = None, console: Console | None = None
) -> None:
    """Print the results table and what it says in words.

    Args:
      results: The contents of results.json; missing keys are left out of the table.
      cost: The contents of cost.json.
      console: Where to print; standard output by default.
    """
    from jmrec.report import pairs  # here: it loads what draws

    console = console or clean_console()
    if "study" in results:
        _print_estimates(results, console)
        return
    if pairs.is_of_pairs(results):
        _print_pairs(results, cost, console)
        return
    table = tables.main_table(results)
    headings = tables.titles(results)
    if caption := results.get("caption"):
        console.print(Text(str(caption)), style="italic")
    wide = console.width >= WIDE
    shown = RichTable(box=box.SIMPLE, pad_edge=False, padding=(0, 1), header_style="")
    shown.add_column("in %", overflow="fold", min_width=14, max_width=None if wide else 26)
    heads = [name for name, count in table.spans for _ in range(count)]
    # On a small terminal NDCG is shown for the primary figure only.
    places = [
        place
        for place, column in enumerate(table.columns)
        if console.width >= SMALL or place < 3 or not column.startswith("NDCG")
    ]
    for place in places:
        group, column = heads[place], table.columns[place]
        # A heading of two lines: the way of averaging once, above its first column.
        first = place == 0 or heads[place - 1] != group
        over = {"prediction": "pred."}.get(group, group.split(" ")[0]) if first else ""
        shown.add_column(
            f"{over}\n{column.removesuffix(f'@{DEPTH}')}", justify="right", no_wrap=True
        )
    _add_lines(shown, table, headings, places, wide)
    if table.lines:
        console.print(shown)
        console.print(
            Text(
                f"All figures at {DEPTH}. session: mean over sessions of the mean over positions "
                "1-20, with 95 % intervals (primary); pred.: mean over predictions at positions "
                "1-50; last: last click of each session."
            ),
            style="dim",
        )
    _print_over_time(results, console, wide)
    _print_decision(results, cost, console)
    for sentence in sentences(results, cost):
        console.print(Text(sentence))


def _print_over_time(results: Results, console: Console, wide: bool) -> None:
    """Print the figures of the last periods, where they were asked for: a column a period."""
    if not results.get("over_time"):
        return
    from jmrec.report.time import time_table  # here: it loads what draws

    table = time_table(results)
    assert table is not None
    lines, at_once = table.lines[-PERIODS:], 8 if wide else 4
    for start in range(0, len(lines), at_once):
        part = lines[start : start + at_once]
        shown = RichTable(box=box.SIMPLE, pad_edge=False, padding=(0, 1), header_style="")
        shown.add_column(table.title, overflow="fold", min_width=14)
        for line in part:
            shown.add_column(line.name, justify="right", no_wrap=True)
        for place, name in enumerate(table.columns):
            cells = [line.cells[place] for line in part]
            shown.add_row(Text(name), *(Text(f"{c.text}\n{c.note}".strip()) for c in cells))
        console.print(shown)
    left = len(table.lines) - len(lines)
    more = f" The report has the {left} before." if left else ""
    console.print(Text(table.note + more), style="dim")


def _print_estimates(results: Results, console: Console) -> None:
    """Print a table for each truth and what it says in words."""
    console.print(Text(results["caption"]), style="italic")
    between = " " if console.width >= WIDE else "\n"
    from jmrec.report import estimates

    for nats in estimates.truths(results):
        table = estimates.estimate_table(results, nats)
        shown = RichTable(box=box.SIMPLE, pad_edge=False, padding=(0, 1), header_style="")
        shown.add_column(f"truth {nats:g}", overflow="fold", min_width=14)
        for column in table.columns[1:]:
            shown.add_column(column, justify="right", no_wrap=True)
        for line in table.lines:
            cells = [Text(cell.text + between + cell.note) for cell in line.cells[1:]]
            shown.add_row(Text(line.name), *cells)
        console.print(shown)
    for sentence in estimates.sentences(results):
        console.print(Text(sentence))


def _print_decision(results: Results, cost: Cost | None, console: Console) -> None:
    """Print what to do, and what does it."""
    if (found := decide(results, cost)) is None:
        return
    console.print(Text(found.headline, style="bold"))
    if found.command:
        console.print(Text(f"{found.does}: {found.command}"))


def _print_pairs(results: Results, cost: Cost | None, console: Console) -> None:
    """Print the figures that need no threshold, and what they say in words."""
    if caption := results.get("caption"):
        console.print(Text(str(caption)), style="italic")
    from jmrec.report import pairs

    table, headings = pairs_tables.main_table(results), tables.titles(results)
    wide = console.width >= WIDE
    # On a small terminal what remains is how well rows are told apart.
    places = range(len(table.columns) if console.width >= SMALL else 4)
    shown = RichTable(box=box.SIMPLE, pad_edge=False, padding=(0, 1), header_style="")
    shown.add_column("in %", overflow="fold", min_width=14)
    for place in places:
        shown.add_column(table.columns[place].replace("@", "\n@"), justify="right", no_wrap=True)
    _add_lines(shown, table, headings, places, wide)
    if table.lines:
        console.print(shown)
    _print_decision(results, cost, console)
    for sentence in pairs.sentences(results):
        console.print(Text(sentence))


def _add_lines(
    shown: RichTable,
    table: tables.Table,
    headings: Mapping[str, str],
    places: Sequence[int],
    wide: bool,
) -> None:
    """Add the lines of a table, those of a kind under its heading; ``wide``: notes stand beside."""
    kind = None
    for line in table.lines:
        if line.kind != kind:
            if kind is not None:
                shown.add_section()
            kind = line.kind
            title = Text(headings.get(kind, kind), style="dim italic")
            shown.add_row(title, *([""] * len(places)))
        cells = []
        for cell in (line.cells[place] for place in places):
            text = Text(cell.text, style="bold" if line.strong else "")
            if cell.note:
                text.append(f"  {cell.note:>9}" if wide else f"\n{cell.note}", style="dim not bold")
            cells.append(text)
        shown.add_row(Text(line.name, style="bold" if line.strong else ""), *cells)
