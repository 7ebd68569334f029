"""The results as one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path

from jmrec.evaluation.results import Cost, Results, make_cost
from jmrec.report.decision import decide
from jmrec.report.examples import example_note, example_sessions
from jmrec.report.html import write_page
from jmrec.report.sentences import bias_sentence, sentences, tiles
from jmrec.report.tables import Table


def write_report(
    results: Results,
    path: str | Path,
    cost: Cost | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the results as one HTML page that needs nothing beside it.

    The page asks for nothing, and its own policy lets no other script run than the one that sorts
    its tables; without it all is there too. It follows the browser's light or dark setting, and
    can be read on a phone and on paper. The same results give the same bytes.

    Args:
      results: The contents of results.json; what is missing is left out, and a section that the
        page does not know is shown as a plain table.
      path: The file to write; its folder is made where it is missing.
      cost: The contents of cost.json; without it the page says nothing of it.
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
    # Here: what draws is loaded when there is something to draw.
    from jmrec.report import estimates, forest, helped, pairs, plots, sections, serving, tables
    from jmrec.report import time as over_time
    from jmrec.report import value as worth

    cost = cost or make_cost()
    if "study" in results:
        return estimates.write_estimates(results, path, cost)
    if pairs.is_of_pairs(results):
        return pairs.write_pairs(results, path, cost)
    dataset = results.get("dataset") or {}
    main = tables.main_table(results)
    examples = example_sessions(results, pictures or {})
    curves = plots.curve_plots(results)
    extras = [worth.value_table(results), serving.serving_table(cost)]
    extras += [serving.policy_table(results)]
    extras += sections.extra_tables(results)
    return write_page(
        path,
        "report.html",
        title=f"jmrec: {dataset.get('name', 'results')}",
        caption=results.get("caption", ""),
        made=helped.made_sentence(cost),
        decision=decide(results, cost),
        sentences=sentences(results, cost),
        tiles=tiles(results),
        main=main if main.lines else None,
        ranking=plots.ranking_plot(results),
        comparisons=tables.comparison_table(results),
        forest=forest.forest_plot(results),
        helped=helped.helped_sessions(results, pictures or {}),
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
        cost=sections.cost_table(results, cost),
        folded_tables=_folded(results, cost),
        commands=cost["commands"],
        kinds=tables.titles(results),
    )


def _folded(results: Results, cost: Cost) -> list[Table]:
    """Return the tables that are opened by a click: all figures, settings, data, what made them."""
    from jmrec.report import helped, sections, tables

    found = [*tables.figure_tables(results), sections.settings_table(results)]
    found += [sections.dataset_table(results), helped.rows_table(cost), helped.made_table(cost)]
    return [table for table in found if table is not None]
