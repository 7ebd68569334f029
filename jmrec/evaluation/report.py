"""The results shown: a table on the terminal, and one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from jmrec.evaluation import report_plots as plots
from jmrec.evaluation import report_sections as sections
from jmrec.evaluation import report_serving as serving
from jmrec.evaluation import report_tables as tables
from jmrec.evaluation import report_time as over_time
from jmrec.evaluation.report_examples import example_note, example_sessions
from jmrec.evaluation.report_tables import KINDS, Results
from jmrec.evaluation.report_words import bias_sentence, sentences, tiles

FOLDER = Path(__file__).parent
WIDE = 118
"""From so many columns on, an interval stands beside its figure, else under it."""
SMALL = 92
"""Below so many columns, some figures are left to the HTML page."""


def print_results(results: Results, console: Console | None = None) -> None:
    """Print the results table and what it says in words.

    Args:
      results: The contents of results.json; missing keys are left out of the table.
      console: Where to print; standard output by default.
    """
    console = console or Console()
    table = tables.main_table(results)
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
        shown.add_column(f"{over}\n{column.removesuffix('@20')}", justify="right", no_wrap=True)
    kind = None
    for line in table.lines:
        if line.kind != kind:
            if kind is not None:
                shown.add_section()
            kind = line.kind
            title = Text(KINDS.get(kind, kind), style="dim italic")
            shown.add_row(title, *([""] * len(places)))
        cells = []
        for cell in (line.cells[place] for place in places):
            text = Text(cell.text, style="bold" if line.strong else "")
            if cell.note:
                text.append(f"  {cell.note:>9}" if wide else f"\n{cell.note}", style="dim not bold")
            cells.append(text)
        shown.add_row(Text(line.name, style="bold" if line.strong else ""), *cells)
    if table.lines:
        console.print(shown)
        console.print(
            Text(
                "All figures at 20. session: mean over sessions of the mean over positions 1-20, "
                "with 95 % intervals (primary); pred.: mean over predictions at positions "
                "1-50; last: last click of each session."
            ),
            style="dim",
        )
    for sentence in sentences(results):
        console.print(Text(sentence))


def write_report(
    results: Results, path: str | Path, pictures: Mapping[str, bytes] | None = None
) -> Path:
    """Write the results as one HTML page that needs nothing beside it.

    The page holds no script, asks for nothing, follows the reader's light or dark setting, and
    can be read on a phone and on paper. The same results give the same bytes.

    Args:
      results: The contents of results.json; what is missing is left out, and a section that the
        page does not know is shown as a plain table.
      path: The file to write; its folder is made where it is missing.
      pictures: Item id -> small JPEG, for the example sessions; an item without one gets a tile
        with its first letter.

    Returns:
      The path.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> page = write_report({"caption": "Nothing <yet>"}, folder / "report.html").read_text()
      >>> "Nothing &lt;yet&gt;" in page
      True
    """
    dataset = results.get("dataset") or {}
    main = tables.main_table(results)
    examples = example_sessions(results, pictures or {})
    curves = plots.curve_plots(results)
    extras = [serving.serving_table(results), serving.policy_table(results)]
    extras += sections.extra_tables(results)
    return write_page(
        path,
        "report.html",
        title=f"jmrec: {dataset.get('name', 'results')}",
        caption=results.get("caption", ""),
        sentences=sentences(results),
        tiles=tiles(results),
        main=main if main.lines else None,
        ranking=plots.ranking_plot(results),
        comparisons=tables.comparison_table(results),
        examples=examples,
        example_note=example_note(results),
        slices=list(plots.slice_plots(results)),
        slice_tables=tables.slice_tables(results),
        time=over_time.time_table(results),
        time_plot=over_time.time_plot(results),
        cold=sections.cold_table(results),
        cold_plot=plots.cold_plot(results),
        controls=sections.control_table(results),
        bias=sections.bias_table(results),
        bias_sentence=bias_sentence(results),
        curves=curves,
        extras=[(f"more-{n}", table) for n, table in enumerate(filter(None, extras))],
        cost=sections.cost_table(results),
        figures=tables.figure_tables(results),
        settings=sections.settings_table(results),
        data=sections.dataset_table(results),
        commands=dict(results.get("commands") or {}),
        kinds=KINDS,
    )


def write_page(path: str | Path, template: str, **values: Any) -> Path:
    """Fill a template of this folder and write it.

    Args:
      path: The file to write; its folder is made where it is missing.
      template: Its name.
      **values: What it names; all of it must be there.

    Returns:
      The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template(template).render(**values)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)
