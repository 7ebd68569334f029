"""The tables of ranking pairs, from results.json alone; whatever is missing is left out."""

from collections.abc import Mapping
from typing import Any

from jmrec.evaluation.results import (
    CHOSEN,
    ECE,
    LOG_LOSS,
    PAIR,
    PR_AUC,
    RATES,
    RECALLS,
    ROC_AUC,
    RULE,
    Results,
    lower_is_better,
)
from jmrec.report import sections, tables
from jmrec.report.tables import (
    MISSING,
    Cell,
    Line,
    Row,
    Table,
    by_name,
    counted,
    interval,
    is_number,
    keys_of,
    line_of,
    ordered_rows,
    percent,
    section,
    signed,
    verdict_words,
)

MAIN = (PR_AUC, ROC_AUC, *RECALLS, ECE, LOG_LOSS)
AREAS = (PR_AUC, ROC_AUC)
KNOWN = (
    *("chosen", "share", "calibration", "false_positives", "segments", "help", "reliability"),
    *("curve", "costs", "drift", "samples", "why"),
)
"""Parts of "pairs" that have a place of their own on the page."""
PARTS = {"picture": "pictures", "text": "texts"}


def found(results: Results, name: str, kind: type) -> Any:
    """Return a part of "pairs", an empty ``kind`` where it is missing."""
    part = section(results, "pairs").get(name)
    return part if isinstance(part, kind) else kind()


def spoken_of(results: Results) -> str | None:
    """Return the model that the page speaks of: the served one, else the best on validation."""
    rows = by_name(results)
    chosen = found(results, "chosen", dict)
    for name in (section(results, "served").get("row"), chosen.get("model")):
        if name in rows and tables.role(results, rows[name]) != RULE:
            return str(name)
    return tables.best_model(results)


def strong(results: Results) -> set[str | None]:
    """Return the names of the rows in bold: the model that is spoken of, and the best rule."""
    return {spoken_of(results), tables.best_rule(results)}


def _shown(metric: str, value: Any) -> str:
    """Return a figure: all but the log loss are shares, in percent."""
    if metric != LOG_LOSS:
        return percent(value)
    return f"{value:.4f}" if is_number(value) else MISSING


def _ends(metric: str, pair: Any) -> str:
    if metric != LOG_LOSS or not interval(pair):
        return interval(pair)
    return f"{pair[0]:.3f}–{pair[1]:.3f}"


def _cell(row: Row, metric: str) -> Cell:
    figures, intervals = ((row.get(name) or {}).get(PAIR) or {} for name in ("figures", "interval"))
    return Cell(_shown(metric, figures.get(metric)), _ends(metric, intervals.get(metric)))


def main_table(results: Results) -> Table:
    """Return every row with the figures that need no threshold."""
    bold = strong(results)
    lines = [
        line_of(row, [_cell(row, metric) for metric in MAIN], bold) for row in ordered_rows(results)
    ]
    return Table(
        "Every row",
        list(MAIN),
        lines,
        "In %, the log loss in nats; below each its 95 % interval. FPR@recall: the share of the "
        "negatives that is called positive where so many of the positives are found. FPR, ECE "
        "(calibration error) and log loss are better the lower they are. Bold: the model that is "
        "spoken of, chosen on validation, and the best rule.",
    )


def threshold_table(results: Results) -> Table:
    """Return every row at the threshold 0.5, and at the one that validation chose."""
    bold = strong(results)
    names = [f"{rate}{end}" for end in ("", CHOSEN) for rate in RATES]
    lines = [
        line_of(row, [_cell(row, name) for name in names], bold) for row in ordered_rows(results)
    ]
    spans = [("at 0.5", len(RATES)), ("at the chosen threshold", len(RATES))]
    note = (
        "In %, of calibrated probabilities. Where nothing is called positive there is no precision."
    )
    return Table("At a threshold", list(RATES) * 2, lines, note, spans)


def _difference(metric: str, entry: Mapping[str, Any]) -> Cell:
    """Return a paired difference and what it says."""
    pair: Any = entry.get("interval")
    ends = f"{signed(pair[0])} to {signed(pair[1])}" if pair and interval(pair) else ""
    verdict = entry.get("verdict")
    if lower_is_better(metric):
        verdict = {"above": "below", "below": "above"}.get(str(verdict), verdict)
    word = verdict_words({**entry, "verdict": verdict}) if entry else ""
    return Cell(signed(entry.get("difference")), ends, word == "better", word=word)


def comparison_table(results: Results) -> Table | None:
    """Return the paired comparisons, a line for each pair; None where there are none."""
    pairs: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for entry in results.get("comparisons") or ():
        pair = str(entry.get("a", MISSING)), str(entry.get("b", MISSING))
        pairs.setdefault(pair, {})[str(entry.get("metric", MISSING))] = entry
    metrics = keys_of(pairs.values())
    lines = []
    for (a, b), every in pairs.items():
        cells = [_difference(name, every.get(name) or {}) for name in metrics]
        many = sum(one == a for one, _ in pairs) > sum(other == b for _, other in pairs)
        kind, name = (f"{a} against", b) if many else (f"Against {b}", a)
        lines.append(Line(name, cells, kind))
    kinds = list(dict.fromkeys(line.kind for line in lines))
    lines.sort(key=lambda line: kinds.index(line.kind))
    note = (
        "Differences in percentage points with 95 % intervals, paired by resample, seeds averaged. "
        '"Better" (underlined) and "worse" mean that the interval excludes 0, and that whatever '
        "was trained has three seeds."
    )
    return Table("Paired comparisons", metrics, lines, note, apart=True) if lines else None


def false_positive_table(results: Results) -> Table | None:
    """Return each row's false positives over the best rule's; None where there are none."""
    entries: dict[str, dict[Any, Mapping[str, Any]]] = {}
    for each in found(results, "false_positives", list):
        entries.setdefault(str(each.get("a")), {})[each.get("recall")] = each
    if not entries:
        return None
    recalls = list(dict.fromkeys(recall for every in entries.values() for recall in every))
    rows, lines = by_name(results), []
    for name, every in entries.items():
        cells = []
        for recall in recalls:
            share: Any = (every.get(recall) or {}).get("share")
            pair: Any = (every.get(recall) or {}).get("interval")
            text = f"{share:.2f}" if is_number(share) else MISSING
            sure = bool(interval(pair))
            cells.append(Cell(text, f"{pair[0]:.2f}–{pair[1]:.2f}" if sure else "",
                              sure and pair[1] < 1))  # fmt: skip
        lines.append(line_of(rows.get(name) or {"name": name}, cells, strong(results)))
    columns = [f"at recall {recall:g}" for recall in recalls if is_number(recall)]
    note = (
        f"False positives of a row over those of {tables.best_rule(results)}, where both find the "
        "same share of the positives, with 95 % intervals; 1 is as many. Underlined: fewer."
    )
    return Table("False positives against the best rule", columns, lines, note)


def calibration_table(results: Results) -> Table | None:
    """Return errors before and after calibration; None where there are none."""
    rows, lines = by_name(results), []
    for name, each in found(results, "calibration", dict).items():
        before, after = (each.get(key) or {} for key in ("before", "after"))
        cells = [
            Cell(_shown(metric, part.get(metric)))
            for metric in (ECE, LOG_LOSS, ROC_AUC)
            for part in (before, after)
        ]
        cells += [
            Cell(", ".join(f"{x:.3g}" for x in each.get(key) or () if is_number(x)) or MISSING)
            for key in ("scale", "shift", "threshold")
        ]
        lines.append(line_of(rows.get(name) or {"name": name}, cells, strong(results)))
    note = (
        "Before and after a rising line over the logits (scale and shift, one a seed), fitted on "
        "validation. ECE and ROC-AUC in %, the log loss in nats; the threshold is a calibrated "
        "probability. The line changes no order, so ROC-AUC stays."
    )
    spans = [(name, 2) for name in (ECE, LOG_LOSS, ROC_AUC)] + [("by seed", 3)]
    columns = ["before", "after"] * 3 + ["scale", "shift", "threshold"]
    return Table("Calibration", columns, lines, note, spans) if lines else None


def segment_tables(results: Results) -> list[Table]:
    """Return one table for each way in which the rows were cut."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for each in found(results, "segments", list):
        groups.setdefault(str(each.get("by")), []).append(each)
    return [_areas(results, f"By {by}", parts) for by, parts in groups.items()]


def _areas(results: Results, title: str, parts: list[Mapping[str, Any]]) -> Table:
    """Return PR-AUC and ROC-AUC of rows in some parts of the data."""
    rows = by_name(results)
    lines = []
    for name in keys_of(part.get("rows") or {} for part in parts):
        cells = []
        for part in parts:
            known = (part.get("rows") or {}).get(name) or {}
            ends = known.get("interval") or {}
            cells += [Cell(percent(known.get(n)), interval(ends.get(n))) for n in AREAS]
        lines.append(line_of(rows.get(name) or {"name": name}, cells, strong(results)))
    spans = [
        (f"{p.get('segment')} (n={counted(p.get('n'))}, {counted(p.get('positives'))} positive)", 2)
        for p in parts
    ]
    note = (
        "In %, with 95 % intervals. A PR-AUC depends on the share of positives, so those of two "
        "segments are not to be compared. A segment with fewer than five rows of a class has none."
    )
    return Table(title, list(AREAS) * len(parts), lines, note, spans)


def help_table(results: Results) -> Table | None:
    """Return what pictures add to texts, and texts to pictures, by segment."""
    entries: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    names: dict[str, str] = {}
    for each in found(results, "help", list):
        part = str(each.get("part"))
        key = str(each.get("by")), str(each.get("segment"))
        entries.setdefault(key, {})[part] = each
        names.setdefault(part, f"{PARTS.get(part, part)}: {each.get('a')} less {each.get('b')}")
    lines = []
    for (by, segment), every in entries.items():
        one = next(iter(every.values()))
        cells = [Cell(counted(one.get("n"))), Cell(counted(one.get("positives")))]
        for part in names:
            for metric in AREAS:
                cells.append(_difference(metric, (every.get(part) or {}).get(metric) or {}))
        lines.append(Line(segment, cells, "" if by == "all" else by))
    tests = max(len(lines) - 1, 0) * len(names) * len(AREAS)
    note = (
        "Paired differences in percentage points with 95 % intervals. Of "
        f"{tests} intervals by segment about {tests / 20:.0f} exclude 0 by chance alone."
    )
    spans = [("", 2)] + [(name, len(AREAS)) for name in names.values()]
    columns = ["rows", "positive"] + [*AREAS] * len(names)
    title = "What each part adds"
    return Table(title, columns, lines, note, spans, apart=True) if lines else None


def points(value: Any, sign: bool = False) -> str:
    """Return a sum of costs and gains.

    Example:
      >>> points(12.34), points(-3.0, True), points(None)
      ('12.3', '−3.0', '–')
    """
    if not is_number(value):
        return MISSING
    return f"{value:{'+' if sign else ''},.1f}".replace("-", "−")


def worth_table(results: Results) -> Table | None:
    """Return hits, false positives and their worth per 1,000 decisions."""
    costs = found(results, "costs", dict)
    titles = {
        "chosen": "at the threshold that validation chose",
        "pays": "at the probability from which a decision pays, cost / (cost + gain)",
    }
    lines = []
    for each in costs.get("rows") or ():
        apart = each.get("over rule") or {}
        pair: Any = each.get("interval")
        ends: Any = apart.get("interval")
        threshold = each.get("threshold")
        cells = [
            Cell(f"{threshold:.3f}" if is_number(threshold) else MISSING),
            *(Cell(points(each.get(name))) for name in ("hits", "false", "missed")),
            Cell(points(each.get("value")),
                 f"{points(pair[0])} to {points(pair[1])}" if interval(pair) else ""),
            Cell(points(apart.get("difference"), True),
                 f"{points(ends[0], True)} to {points(ends[1], True)}" if interval(ends) else "",
                 apart.get("verdict") == "above"),
        ]  # fmt: skip
        name = str(each.get("row"))
        at = str(each.get("at"))
        lines.append(Line(name, cells, titles.get(at, at), name in strong(results)))
    gain, cost = (f"{x:g}" if is_number(x) else MISSING for x in map(costs.get, ("gain", "cost")))
    note = (
        f"Per 1,000 decisions; a hit brings {gain}, a false positive costs {cost}, what is called "
        "negative is worth 0. Underlined: above the best rule. Thresholds are means over seeds."
    )
    columns = ["threshold", "hits", "false positives", "missed", "worth", "over the best rule"]
    return Table("Worth of 1,000 decisions", columns, lines, note) if lines else None


def drift_table(results: Results) -> Table | None:
    """Return ROC-AUC and mean probability by month or year."""
    parts = found(results, "drift", list)
    names = keys_of(part.get("rows") or {} for part in parts)
    lines = []
    for part in parts:
        cells = [Cell(counted(part.get("n"))), Cell(percent(part.get("share"), 1))]
        for name in names:
            known = (part.get("rows") or {}).get(name) or {}
            ends = (known.get("interval") or {}).get(ROC_AUC)
            cells.append(Cell(percent(known.get(ROC_AUC), 1), interval(ends)))
            cells.append(Cell(percent(known.get("mean probability"), 1)))
        lines.append(Line(str(part.get("segment")), cells))
    columns = ["rows", "positive, %"] + [ROC_AUC, "mean probability"] * len(names)
    note = (
        "In %. Where the mean probability leaves the share of positives, the calibration has grown "
        "old. A PR-AUC would follow that share, so it is not shown over time."
    )
    spans = [("", 2)] + [(name, 2) for name in names]
    by = str(parts[0].get("by", "period")) if parts else ""
    return Table(f"By {by}", columns, lines, note, spans) if lines else None


def why_tables(results: Results) -> list[Table]:
    """Return what is lost where one thing that the model reads is removed, over all and by row."""
    why = found(results, "why", dict)
    parts = [each for each in why.get("parts") or () if isinstance(each, Mapping)]
    if not parts:
        return []
    name, rows = why.get("row", MISSING), why.get("rows")
    lines = [
        Line(
            str(each.get("part")),
            [
                Cell(_logit(each.get("change"), False)),
                Cell(signed(each.get("PR-AUC"))),
                Cell(f"{percent(each.get('decisions'))} %"),
            ],
        )
        for each in parts
    ]
    note = (
        f"{name}, asked again without one thing, {counted(rows)} rows. What two things say "
        "together is lost with either of them, so the lines do not add up. History: what is known "
        "of earlier rows as numbers and by attention; what those said is text."
    )
    columns = ["mean change of the logit", f"{PR_AUC}, points", "calls that change"]
    tables_ = [Table("Without", columns, lines, note)]
    removed = [str(each.get("part")) for each in parts]
    shown = []
    for each in why.get("examples") or ():
        without = each.get("without") or {}
        cells = [Cell(f"{percent(each.get('p'))} %")]
        cells += [Cell(_logit(without.get(part))) for part in removed]
        kind = WHY_KINDS.get(str(each.get("kind")), MISSING)
        shown.append(Line(str(each.get("item", MISSING)), cells, kind))
    note = (
        "What the logit of each pair loses without each thing, first seed: above 0 it speaks for "
        "the positive class. The surest calls, right and wrong, and what was missed by most."
    )
    columns = ["probability", *(f"without {part}" for part in removed)]
    return [*tables_, *([Table("Single pairs", columns, shown, note)] if shown else [])]


WHY_KINDS = {
    "found": "Called positive, and positive",
    "false": "Called positive, and negative",
    "missed": "Not called, and positive",
}


def _logit(value: Any, sign: bool = True) -> str:
    if not is_number(value):
        return MISSING
    return f"{value:+.2f}".replace("-", "−") if sign else f"{value:.2f}"


def extra_tables(results: Results) -> list[Table]:
    """Return what else stands in results.json or its "pairs", as plain tables."""
    more = {n: each for n, each in section(results, "pairs").items() if n not in KNOWN}
    return sections.extra_tables(results) + sections.extra_tables(more)  # type: ignore[arg-type]
