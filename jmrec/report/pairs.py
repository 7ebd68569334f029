"""Ranking of pairs shown: what it says in words, and one self-contained page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jmrec.evaluation.results import BOUND, PAIR, RULE, Cost, Results
from jmrec.report import forest, pairs_plots, plots, sections, tables
from jmrec.report import pairs_tables as ours
from jmrec.report.decision import decide
from jmrec.report.helped import made_sentence, made_table
from jmrec.report.html import write_page
from jmrec.report.pairs_tables import found
from jmrec.report.sentences import verdict
from jmrec.report.serving import serving_table, why_served
from jmrec.report.tables import (
    Table,
    by_name,
    figure,
    interval,
    is_number,
    percent,
    primary,
    role,
    signed,
)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      anchor: Of the link to it.
      title: Its heading.
      tables: Shown in full.
      plots: Above them.
      folded: Tables that are opened by a click.
    """

    anchor: str
    title: str
    tables: Sequence[Table | None] = ()
    plots: Sequence[Markup | None] = ()
    folded: Sequence[Table | None] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return any(each is not None for each in (*self.tables, *self.plots, *self.folded))


def is_of_pairs(results: Results) -> bool:
    """Return whether these are results of ranking pairs."""
    return (results.get("primary") or {}).get("figure") == PAIR


def write_pairs(results: Results, path: str | Path, cost: Cost) -> Path:
    """Write the results of ranking pairs as one HTML page that needs nothing beside it.

    Args:
      results: The contents of results.json; what is missing is left out.
      path: The file to write.
      cost: The contents of its cost.json.

    Returns:
      The path.
    """
    dataset = results.get("dataset") or {}
    return write_page(
        path,
        "pairs.html",
        title=f"jmrec: {dataset.get('name', 'results')}",
        caption=results.get("caption", ""),
        made=made_sentence(cost),
        decision=decide(results, cost),
        sentences=sentences(results),
        sections=[each for each in _sections(results, cost) if each],
        samples=[each for each in found(results, "samples", list) if isinstance(each, Mapping)],
        commands=cost["commands"],
        kinds=tables.titles(results),
    )


def _sections(results: Results, cost: Cost) -> Iterator[Section]:
    """Yield all parts of the page in their order; some may be empty."""
    main = ours.main_table(results)
    shown = [main, ours.threshold_table(results)] if main.lines else []
    yield Section("results", "Results", shown, [plots.ranking_plot(results, ours.strong(results))])
    drawn = [forest.forest_plot(results)]
    yield Section("comparisons", "Paired comparisons", [ours.comparison_table(results)], drawn)
    drawn = [pairs_plots.curve_plot(results, "precision"), pairs_plots.curve_plot(results, "fpr")]
    fewer = ours.false_positive_table(results)
    yield Section("positives", "Hits and false positives", [fewer], drawn)
    drawn = [pairs_plots.reliability_plot(results)]
    yield Section("calibration", "Calibration", [ours.calibration_table(results)], drawn)
    drawn = [pairs_plots.help_plot(results, part) for part in ("picture", "text")]
    helps = ours.help_table(results)
    yield Section("help", "When pictures help, and when texts", [helps], drawn)
    yield Section("why", "Why", ours.why_tables(results))
    yield Section("segments", "Segments", folded=ours.segment_tables(results))
    yield Section("worth", "What it is worth", [ours.worth_table(results)])
    drawn = [pairs_plots.drift_plot(results)]
    yield Section("drift", "Over time", [ours.drift_table(results)], drawn)
    for number, table in enumerate(ours.extra_tables(results)):
        yield Section(f"more-{number}", table.title, [table])
    curves = [drawing for _, drawing in plots.curve_plots(results)]
    yield Section("curves", "Learning curves", plots=curves)
    if (served := serving_table(cost)) is not None:
        yield Section("serving", "Serving", [served])
    if (spent := sections.cost_table(results, cost)) is not None:
        yield Section("cost", "Cost", [spent])
    known = [sections.settings_table(results), sections.dataset_table(results)]
    known += [made_table(cost)]
    yield Section("details", "Settings and data", folded=known)


def sentences(results: Results) -> list[str]:
    """Return the result in words, the verdict first.

    Args:
      results: The contents of results.json; every key may be missing.
    """
    rows = by_name(results)
    model, rule = ours.spoken_of(results), tables.best_rule(results)
    judge = primary(results)["metric"]
    said = []
    if model in rows and rule in rows:
        said += verdict(results, rows[model], rows[rule])
    elif model in rows or rule in rows:
        name = str(model if model in rows else rule)
        what, lacks = ("model", "rule") if model in rows else ("rule", "model")
        value = percent(figure(results, rows[name]))
        said.append(f"The best {what} is {name} with {judge} {value} %; no {lacks} is beside it.")
    said += _fewer(results, model)
    bounds = [row for row in rows.values() if role(results, row) == BOUND]
    most = figure(results, bounds[0]) if bounds else 0.0
    if model in rows and most > 0 and figure(results, rows[model]) > -math.inf:
        share = 100 * figure(results, rows[model]) / most
        said.append(
            f"The {bounds[0]['name']}, which knows how the data was made, reaches {judge} "
            f"{percent(most)} %; {model} reaches {share:.0f} % of that."
        )
    said += _helps(results)
    said += _calibrated(results)
    said += _worth(results, model)
    said += filter(None, [why_served(results)])
    reads = results.get("test_reads")
    if (results.get("dataset") or {}).get("split") == "validation":
        said.append("These are figures of the validation split, on which settings were chosen.")
    elif reads is not None:
        times = "once" if reads == 1 else f"{reads} times"
        said.append(f"The test split was read {times} in this workdir.")
    return said


def _fewer(results: Results, model: str | None) -> list[str]:
    """Say how many false positives the model has where it finds as much as the best rule."""
    said = []
    for each in found(results, "false_positives", list):
        pair: Any = each.get("interval")
        if each.get("a") != model or not is_number(each.get("share")) or not interval(pair):
            continue
        end = "fewer" if pair[1] < 1 else "more" if pair[0] > 1 else "a difference not told apart"
        said.append(
            f"Where {percent(each.get('recall'), 0)} % of the positives are found, {model} has "
            f"{each['share']:.2f} times the false positives of {each.get('b')} (95 % interval "
            f"{pair[0]:.2f} to {pair[1]:.2f}): {end}."
        )
    return said


def _helps(results: Results) -> list[str]:
    """Say what pictures and texts add over all rows."""
    said = []
    for each in found(results, "help", list):
        if each.get("by") != "all":
            continue
        metric = primary(results)["metric"]
        entry = each.get(metric) or {}
        ends: Any = entry.get("interval")
        if interval(ends):
            word = {"above": "help", "below": "harm"}.get(
                str(entry.get("verdict")), "make no difference that can be told"
            )
            said.append(
                f"{str(each.get('part')).capitalize()}s {word}: {each.get('a')} less "
                f"{each.get('b')} is {signed(entry.get('difference'))} points of {metric} "
                f"({signed(ends[0])} to {signed(ends[1])})."
            )
    return said


def _calibrated(results: Results) -> list[str]:
    """Say how far the probabilities of models are off at most."""
    rows = by_name(results)
    errors: dict[str, float] = {}
    for name, each in found(results, "calibration", dict).items():
        error: Any = (each.get("after") or {}).get("ECE")
        aside = role(results, rows.get(name) or {}) in (BOUND, RULE)
        if is_number(error) and name in rows and not aside:
            errors[name] = error
    if not errors:
        return []
    worst = max(errors, key=lambda name: errors[name])
    return [
        f"After calibration on validation, the calibration error of what is learned is at most "
        f"{percent(errors[worst])} % ({worst})."
    ]


def _worth(results: Results, model: str | None) -> list[str]:
    """Say what acting on the model brings at the chosen threshold."""
    costs = found(results, "costs", dict)
    for each in costs.get("rows") or ():
        if (each.get("row"), each.get("at")) != (model, "chosen"):
            continue
        if not is_number(each.get("value")):
            continue
        said = (
            f"At the chosen threshold {model} finds {ours.points(each.get('hits'))} and calls "
            f"{ours.points(each.get('false'))} wrongly of 1,000; where a hit brings "
            f"{tables.as_text(costs.get('gain'))} and a false positive costs "
            f"{tables.as_text(costs.get('cost'))}, that is worth {ours.points(each['value'])}"
        )
        apart = each.get("over rule") or {}
        if is_number(apart.get("difference")):
            said += f", against the best rule {ours.points(apart['difference'], True)}"
        return [said + "."]
    return []
