"""What lists of recommendations are worth, shown: a table and two sentences."""

from collections.abc import Mapping
from typing import Any

from jmrec.evaluation.results import DEPTH, FIGURES, LAST, SESSION, Results
from jmrec.report.pairs_tables import points
from jmrec.report.tables import (
    Cell,
    Line,
    Table,
    best_model,
    best_rule,
    counted,
    interval,
    is_number,
    line_of,
    ordered_rows,
    section,
)


def value_table(results: Results) -> Table | None:
    """Return what 1,000 lists of each row are worth, None where items have no value."""
    value = section(results, "value")
    rows: Mapping[str, Any] = value.get("rows") or {}
    # Where the whole price is gained, sales and worth are one.
    sales = value.get("gain") or value.get("share") != 1
    lines: list[Line] = []
    strong = {best_rule(results), best_model(results)}
    for row in ordered_rows(results):
        cells = []
        for figure in FIGURES:
            each = (rows.get(str(row.get("name"))) or {}).get(figure) or {}
            apart = each.get("over rule") or {}
            cells += [Cell(points(each.get("sales")))] if sales else []
            cells.append(Cell(points(each.get("value")), _ends(each.get("interval"))))
            cells.append(
                Cell(
                    points(apart.get("difference"), True),
                    _ends(apart.get("interval"), True),
                    apart.get("verdict") == "above",
                )
            )
        lines.append(line_of(row, cells, strong))
    columns = [*(["sales"] if sales else []), "worth", "over the best rule"]
    called = {SESSION: "session (primary)", LAST: "last click"}
    spans = [(called.get(name, name), len(columns)) for name in FIGURES]
    note = (
        f"Per 1,000 recommendation lists of {DEPTH}, with 95 % intervals, averaged and paired as "
        f"the other figures. {_assumes(value)}"
    )
    if value.get("rule"):
        note += f" Underlined: above the best rule, {value['rule']}."
    title = "Worth of 1,000 recommendation lists"
    return Table(title, columns * len(FIGURES), lines, note, spans) if rows and lines else None


def value_sentences(results: Results) -> list[str]:
    """Say what the best model's lists are worth beside the best rule's, and what that assumes."""
    value = section(results, "value")
    rows: Mapping[str, Any] = value.get("rows") or {}
    model, rule = best_model(results), best_rule(results)
    mine, its = ((rows.get(str(name)) or {}).get(SESSION) or {} for name in (model, rule))
    apart = mine.get("over rule") or {}
    pair: Any = apart.get("interval")
    said = []
    if is_number(mine.get("value")) and is_number(its.get("value")) and interval(pair):
        verdict = str(apart.get("verdict"))
        if reason := apart.get("reason"):
            verdict += f", for there are {reason}"
        said.append(
            f"1,000 lists of {DEPTH} by {model} are worth {points(mine['value'])}, by {rule} "
            f"{points(its['value'])}: a paired difference of "
            f"{points(apart.get('difference'), True)} (95 % interval {_ends(pair, True)}; "
            f"{verdict}), session average."
        )
    elif is_number(its.get("value")):
        said.append(f"1,000 lists of {DEPTH} by {rule} are worth {points(its['value'])}.")
    return [*said, _assumes(value)] if said else []


def _assumes(value: Mapping[str, Any]) -> str:
    """Say in one sentence what the worth of a list assumes."""
    items, targets = (value.get(name) or {} for name in ("items", "targets"))
    column = value.get("column")
    what = value.get("gain") or column
    brings = f"a hit brings its {what}"
    if not value.get("gain") and is_number(value.get("share")) and value["share"] != 1:
        brings = f"a hit brings {100 * value['share']:.4g} % of its {what}"
    return (
        f"This assumes that every hit is a sale that the list made ({brings}, also where the "
        "person would have gone there without a list), that nothing else is sold, and that the "
        f"{counted(items.get('without'))} of {counted(items.get('all'))} items without a number "
        f"there ({counted(targets.get('without'))} of {counted(targets.get('all'))} targets) bring "
        f"0; the currency is that of the column {column!r}."
    )


def _ends(pair: Any, sign: bool = False) -> str:
    """Return the two ends of an interval, "" where there is none."""
    return f"{points(pair[0], sign)} to {points(pair[1], sign)}" if interval(pair) else ""
