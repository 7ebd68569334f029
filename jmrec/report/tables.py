"""What the report shows, as plain tables: no terminal and no HTML in here."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jmrec.evaluation.results import (
    BOUND,
    CONTROL,
    CUTOFFS,
    DEPTH,
    FIGURES,
    FROZEN,
    HR20,
    LAST,
    METRICS,
    MODEL,
    MRR20,
    RANKING,
    RULE,
    TEACHER,
    Primary,
    Results,
)

Row = Mapping[str, Any]
"""A row of results.json; any of its keys may be missing."""
ASIDE = {BOUND: "oracle", CONTROL: "controls"}
"""Roles of rows that are no contenders, and what one calls such rows."""
MISSING = "–"
SLICE_TITLES = {
    "train count": "by how often the target was seen in training",
    "position": "by position in the session",
    "session length": "by length of the session",
    "target": "by whether the target was ever seen in training",
}


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller text under it, and whether it stands out.

    Attributes:
      text: What is shown.
      note: Shown smaller under or beside it, such as an interval.
      best: Whether it is the best of its column.
      bar: How long a bar is drawn under it, from 0 to 1; None draws none.
      word: A verdict in words, shown under it.
    """

    text: str
    note: str = ""
    best: bool = False
    bar: float | None = None
    word: str = ""


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Attributes:
      name: The row's heading.
      cells: One per column.
      kind: The name of the row's kind, or any other heading above it.
      strong: Whether the row is shown in bold.
    """

    name: str
    cells: list[Cell]
    kind: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table, ready to be shown.

    Attributes:
      title: Its heading.
      note: What one must know to read it.
      columns: Column headings, without that of the row names.
      lines: The rows.
      spans: (heading, number of columns) above the column headings; may be empty.
      text: Whether the cells are words, not numbers.
      apart: Whether lines of another kind are not to be sorted among each other.
    """

    title: str
    columns: list[str]
    lines: list[Line]
    note: str = ""
    spans: list[tuple[str, int]] = field(default_factory=list)
    text: bool = False
    apart: bool = False


def percent(value: Any, digits: int = 2) -> str:
    """Return a fraction as a percentage without the sign, "–" where there is none.

    Example:
      >>> percent(0.12345), percent(None), percent(float("nan"))
      ('12.35', '–', '–')
    """
    return MISSING if not is_number(value) else f"{100 * value:.{digits}f}"


def interval(pair: Any) -> str:
    """Return "11.9–12.8" for an interval of fractions, "" where there is none."""
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(is_number, pair)):
        return ""
    return f"{100 * pair[0]:.1f}–{100 * pair[1]:.1f}"


def section(file: Mapping[str, object], name: str) -> Mapping[str, Any]:
    """Return a part of results.json or cost.json, {} where it is missing."""
    found: Any = file.get(name)
    return found or {}


def primary(results: Results) -> Primary:
    """Return what the system is judged by."""
    return results.get("primary") or RANKING


def titles(results: Results) -> dict[str, str]:
    """Return kind -> the heading of its rows, in the table's order."""
    return {kind["name"]: kind["title"] for kind in results.get("kinds") or ()}


def role(results: Results, row: Row) -> str:
    """Return what a row is for, "" where its kind is unknown."""
    roles = {kind["name"]: kind["role"] for kind in results.get("kinds") or ()}
    return roles.get(row.get("kind", ""), "")


def by_name(results: Results) -> dict[str, Row]:
    """Return name -> row."""
    return {str(row.get("name")): row for row in results.get("rows") or ()}


def figure(results: Results, row: Row) -> float:
    """Return a row's primary figure; -inf where it has none, so that it is never the best."""
    judge = primary(results)
    return _figure(row, judge["metric"], judge["figure"])


def _figure(row: Row, metric: str, averaged: str) -> float:
    value: Any = ((row.get("figures") or {}).get(averaged) or {}).get(metric)
    return float(value) if is_number(value) else -math.inf


def primary_interval(results: Results, row: Row) -> Any:
    """Return the interval of a row's primary figure, None where it has none."""
    judge = primary(results)
    return ((row.get("interval") or {}).get(judge["figure"]) or {}).get(judge["metric"])


def primary_comparisons(results: Results) -> list[Mapping[str, Any]]:
    """Return the comparisons by the primary figure."""
    judge = primary(results)
    return [
        each
        for each in results.get("comparisons") or ()
        if (each.get("figure"), each.get("metric")) == (judge["figure"], judge["metric"])
    ]


def ordered_rows(results: Results) -> list[Row]:
    """Return the rows by kind; the rules among themselves by the primary figure, best first."""
    kinds = list(titles(results))
    rows: list[Row] = list(results.get("rows") or [])

    def key(row: Row) -> tuple[int, float]:
        kind = row.get("kind", "")
        place = kinds.index(kind) if kind in kinds else len(kinds)
        return place, -figure(results, row) if role(results, row) == RULE else 0.0

    return sorted(rows, key=key)


def best_rule(results: Results) -> str | None:
    """Return the name of the best row that needs no training."""
    return results.get("best_rule") or _best(results, RULE)


def best_model(results: Results) -> str | None:
    """Return the name of the best model, or of the best teacher where there is no model.

    One with live counts is none of them: it can not be served.
    """
    return _best(results, MODEL) or _best(results, TEACHER)


def served_row(results: Results) -> str | None:
    """Return the name of the row that is served, of the best model where none is named."""
    named = section(results, "served").get("row")
    return str(named) if named in by_name(results) else best_model(results)


def shown_student(results: Results) -> str | None:
    """Return the model that controls and teacher are of: the served row, or beside a rule one."""
    named = section(results, "served").get("student")
    return str(named) if named in by_name(results) else served_row(results)


def group_of(results: Results, stage: str) -> str:
    """Return what a stage is shown under: the group of its seeds, or its own name."""
    facts = section(results, "stages").get(stage) or {}
    return str(facts.get("group") or stage)


def main_table(results: Results) -> Table:
    """Return the table of all rows: three ways of averaging, intervals at the primary one."""
    metrics = [f"{metric}@{DEPTH}" for metric in METRICS]
    judge = primary(results)["figure"]
    rows = ordered_rows(results)
    strong = {best_rule(results), best_model(results)}
    lines = []
    for row in rows:
        cells = []
        for averaged in FIGURES:
            intervals = (row.get("interval") or {}).get(averaged) or {}
            for metric in metrics:
                note = interval(intervals.get(metric)) if averaged == judge else ""
                cells.append(Cell(figure_text(row, metric, averaged), note))
        lines.append(line_of(row, cells, strong))
    return Table(
        "Results",
        metrics * len(FIGURES),
        lines,
        note="In %. With each primary figure its 95 % bootstrap interval. Bold: the best rule "
        "and the best model. A target that ties with others counts as the last of them.",
        spans=[
            (f"{_called(name)} (primary)" if name == judge else _called(name), len(metrics))
            for name in FIGURES
        ],
    )


def figure_tables(results: Results) -> list[Table]:
    """Return one table per way of averaging, with every cut-off and the intervals there are."""
    tables = []
    names = [f"{metric}@{cutoff}" for metric in METRICS for cutoff in CUTOFFS]
    strong = {best_rule(results), best_model(results)}
    for averaged, meaning in FIGURES.items():
        rows = [row for row in ordered_rows(results) if (row.get("figures") or {}).get(averaged)]
        lines = []
        for row in rows:
            found = (row.get("interval") or {}).get(averaged) or {}
            cells = [
                Cell(figure_text(row, name, averaged), interval(found.get(name))) for name in names
            ]
            lines.append(line_of(row, cells, strong))
        if lines:
            spans = [(metric, len(CUTOFFS)) for metric in METRICS]
            columns = [f"@{cutoff}" for _ in METRICS for cutoff in CUTOFFS]
            title = f"All cut-offs, {'' if averaged == LAST else 'by '}{_called(averaged)}"
            said = f"{meaning} (primary)" if averaged == primary(results)["figure"] else meaning
            tables.append(Table(title, columns, lines, f"In %. The {said}.", spans))
    return tables


def slice_tables(results: Results) -> list[Table]:
    """Return one table per slice: the two metrics that have intervals, in every bucket."""
    rows = [row for row in ordered_rows(results) if row.get("slices")]
    strong = {best_rule(results), best_model(results)}
    tables = []
    for name in keys_of(row["slices"] for row in rows):
        buckets = buckets_of(name, rows)
        lines: list[Line] = []
        counts: dict[str, Any] = {}
        for row in rows:
            found = row["slices"].get(name) or {}
            cells = []
            for bucket in buckets:
                entry = found.get(bucket) or {}
                counts.setdefault(bucket, entry.get("n"))
                cells += [Cell(percent(entry.get(metric))) for metric in (HR20, MRR20)]
            lines.append(line_of(row, cells, strong))
        spans = [(f"{bucket} (n={counted(counts.get(bucket))})", 2) for bucket in buckets]
        title = slice_title(name)
        note = (
            "In %: the mean over the sessions that have such a prediction of the mean over "
            f"those; n counts predictions. Underlined: the best of a column{_aside(results)}."
        )
        tables.append(Table(title, [HR20, MRR20] * len(buckets), lines, note, spans))
    return [_mark_best(results, table) for table in tables]


def slice_title(name: str) -> str:
    """Return the heading of a slice's table."""
    return f"Slices {SLICE_TITLES.get(name, 'by ' + name)}"


def comparison_table(results: Results) -> Table | None:
    """Return the paired comparisons, a line for each pair; None where there are none."""
    pairs: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for entry in results.get("comparisons") or []:
        pair = str(entry.get("a", MISSING)), str(entry.get("b", MISSING))
        measure = f"{entry.get('metric', MISSING)} by {entry.get('figure', MISSING)}"
        pairs.setdefault(pair, {})[measure] = entry
    measures = keys_of(pairs.values())
    lines = []
    for (a, b), found in pairs.items():
        cells = []
        for measure in measures:
            each: Mapping[str, Any] = found.get(measure) or {}
            ends = each.get("interval")
            note = f"{signed(ends[0])} to {signed(ends[1])}" if ends and interval(ends) else ""
            above = each.get("verdict") == "above"
            word = verdict_words(each) if each else ""
            cells.append(Cell(signed(each.get("difference")), note, above, word=word))
        # Many against one or one against many: whichever says more under one heading.
        many = sum(one == a for one, _ in pairs) > 1
        kind, name = (f"{a} against", b) if many else (f"Against {b}", a)
        lines.append(Line(name, cells, kind))
    kinds = list(dict.fromkeys(line.kind for line in lines))
    lines.sort(key=lambda line: kinds.index(line.kind))
    note = (
        "Differences in percentage points with 95 % intervals, paired by session, seeds averaged. "
        '"Better" (underlined) and "worse" mean that the interval excludes 0 and that all that was '
        "trained has three seeds; with fewer than 3 seeds nothing is claimed."
    )
    return Table("Paired comparisons", measures, lines, note, apart=True) if lines else None


def verdict_words(comparison: Mapping[str, Any]) -> str:
    """Return in words what a comparison says of its first row.

    Example:
      >>> verdict_words({"verdict": "above"}), verdict_words({"verdict": "not told apart"})
      ('better', 'no difference shown')
      >>> verdict_words({"verdict": "not told apart", "reason": "fewer than 3 seeds: gru"})
      'too few seeds'
    """
    if comparison.get("reason"):
        return "too few seeds"
    words = {"above": "better", "below": "worse", "not told apart": "no difference shown"}
    return words.get(str(comparison.get("verdict")), MISSING)


def buckets_of(slicing: str, rows: Sequence[Row], empty: bool = True) -> list[str]:
    """Return the buckets of a slicing: those of numbers in their order, categories by size.

    Args:
      slicing: Its name.
      rows: Those with slices.
      empty: Whether those are among them of which nothing was predicted.
    """
    found: dict[str, Any] = {}
    for row in rows:
        for bucket, entry in (row["slices"].get(slicing) or {}).items():
            found.setdefault(bucket, (entry or {}).get("n") or 0)
    found = {bucket: n for bucket, n in found.items() if n or empty}
    if slicing in SLICE_TITLES:
        return in_order(found)
    return sorted(found, key=lambda bucket: (bucket.startswith("("), -found[bucket]))


def in_order(buckets: Iterable[str]) -> list[str]:
    """Return the buckets of a slice in the order of their numbers, warm before cold.

    Example:
      >>> in_order(["1", "11-20", "2-5", "21+"]), in_order(["cold", "warm"])
      (['1', '2-5', '11-20', '21+'], ['warm', 'cold'])
    """

    def key(bucket: str) -> tuple[int, bool]:
        number = re.match(r"\d+", bucket)
        return int(number.group()) if number else -1, bucket == "cold"

    return sorted(buckets, key=key)


def _best(results: Results, wanted: str) -> str | None:
    rows = [row for row in results.get("rows") or [] if role(results, row) == wanted]
    rows = [row for row in rows if row.get("counts", FROZEN) == FROZEN]
    rows = [row for row in rows if figure(results, row) > -math.inf]
    return str(max(rows, key=lambda row: figure(results, row))["name"]) if rows else None


def _aside(results: Results) -> str:
    roles = {kind["role"] for kind in results.get("kinds") or ()}
    named = [name for role, name in ASIDE.items() if role in roles]
    return f", {' and '.join(named)} aside" if named else ""


def _called(averaged: str) -> str:
    return "last click" if averaged == LAST else averaged


def line_of(row: Row, cells: list[Cell], strong: set[str | None]) -> Line:
    """Return a row of results.json as a line, bold where its name is among ``strong``."""
    name = str(row.get("name", MISSING))
    return Line(name, cells, str(row.get("kind", "")), name in strong)


def _mark_best(results: Results, table: Table) -> Table:
    """Mark the largest number of each column, bounds and controls aside."""
    aside = {kind["name"] for kind in results.get("kinds") or () if kind["role"] in ASIDE}
    lines = [line for line in table.lines if line.kind not in aside]
    for column in range(len(table.columns)):
        cells = [line.cells[column] for line in lines]
        values = [float(cell.text) for cell in cells if cell.text != MISSING]
        if not values or max(values) <= 0:
            continue
        for line in lines:
            cell = line.cells[column]
            if cell.text != MISSING and float(cell.text) == max(values):
                line.cells[column] = Cell(cell.text, cell.note, best=True)
    return table


def figure_text(row: Row, metric: str, averaged: str) -> str:
    """Return a row's figure in percent, "–" where it has none."""
    return percent(_figure(row, metric, averaged))


def keys_of(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return all keys in the order of their first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def signed(value: Any) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−") if is_number(value) else MISSING


def figure_of_points(value: Any) -> str:
    """Return the size of a difference of fractions in percentage points, without its sign."""
    return signed(value).lstrip("+−")


def counted(value: Any) -> str:
    """Return a number with thousands apart, "–" where there is none."""
    return f"{value:,}" if is_number(value) else MISSING


def as_text(value: Any) -> str:
    """Return any value in a few characters: floats with four digits, None as "–"."""
    if value is None:
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, which None and True are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def figures_of(row: Row) -> dict[str, float | None]:
    """Return every figure of a row, "FIGURE METRIC" -> value.

    Example:
      >>> figures_of({"figures": {"session": {"MRR@20": 0.5}, "last": {"MRR@20": None}}})
      {'session MRR@20': 0.5, 'last MRR@20': None}
    """
    return {
        f"{figure} {metric}": value
        for figure, metrics in row["figures"].items()
        for metric, value in metrics.items()
    }
