"""The report's smaller tables: cold targets, controls, bias, cost, settings, data, and the rest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jmrec.evaluation.results import (
    AMONG_COLD,
    CONTROL,
    COVERAGE,
    DEPTH,
    HR20,
    METRICS,
    MRR20,
    OFFSET,
    POPULARITY,
    SHARE_COLD,
    TEACHER,
    WARM_LOST,
    Cost,
    Results,
)
from jmrec.report.tables import (
    MISSING,
    Cell,
    Line,
    Table,
    as_text,
    counted,
    figure,
    figure_text,
    group_of,
    interval,
    is_number,
    keys_of,
    line_of,
    ordered_rows,
    percent,
    primary,
    role,
    served_row,
)
from jmrec.usage import duration as in_words

COLD_COLUMNS = {
    AMONG_COLD: f"{AMONG_COLD} items only",
    **{name: name for name in (HR20, MRR20, "offset", HR20 + OFFSET, MRR20 + OFFSET)},
    **{name: name for name in (WARM_LOST, f"warm {MRR20}{OFFSET}")},
    **{name: name.removeprefix("share of ") for name in (SHARE_COLD, SHARE_COLD + OFFSET)},
}
BIAS_COLUMNS = {COVERAGE: "coverage, %", POPULARITY: "training clicks"}
NO_PERCENT = ("offset", POPULARITY)
SIDE = "Side by side"
KNOWN = Results.__annotations__.keys()
"""Sections of results.json that have a place of their own on the page."""
MOST_LINES = 200
"""Lines shown of a section about which the page knows nothing."""


def cold_table(results: Results) -> Table | None:
    """Return the panel of targets that training never saw, None where no row has one."""
    rows = [row for row in ordered_rows(results) if row.get("cold")]
    if not rows:
        return None
    names = [name for name in COLD_COLUMNS if any(name in row["cold"] for row in rows)]
    names += [name for name in keys_of(row["cold"] for row in rows) if name not in {*names, "n"}]
    lines = [
        line_of(row, [Cell(_value(name, row["cold"].get(name))) for name in names], set())
        for row in rows
    ]
    count = next((row["cold"]["n"] for row in rows if "n" in row["cold"]), None)
    return Table(
        "Cold targets",
        [COLD_COLUMNS.get(name, name) for name in names],
        lines,
        note=f"{counted(count)} predictions whose target was never seen in training; in %, the "
        "offset in units of the score. The first column asks whether new items can be told "
        "apart; the rest rank the whole catalogue. The offset is added to the score of cold "
        "items and was chosen on validation; a model that merely pushes new items up loses "
        "warm targets and fills its top 20 with new items.",
    )


def bias_table(results: Results) -> Table | None:
    """Return coverage and popularity of what is recommended, None where no row has it.

    The served row and the teacher come first, with what people chose, against which popularity is
    to be read.
    """
    rows = [row for row in ordered_rows(results) if row.get("bias")]
    rows = [row for row in rows if role(results, row) != CONTROL]
    if not rows:
        return None
    names = keys_of(row["bias"] for row in rows)
    model = served_row(results)
    first = [row for row in rows if row.get("name") == model]
    first += [row for row in rows if role(results, row) == TEACHER and row not in first]
    shown = [(str(row.get("name", MISSING)), row["bias"], SIDE) for row in first]
    dataset = results.get("dataset") or {}
    chosen = (dataset.get("training count") or {}).get("mean of targets")
    if is_number(chosen) and POPULARITY in names:
        shown.append(("what people chose next", {POPULARITY: chosen}, SIDE))
    shown += [
        (str(row.get("name", MISSING)), row["bias"], str(row.get("kind", "")))
        for row in rows
        if row not in first
    ]
    numbers = {n: [x[n] for _, x, _ in shown if is_number(x.get(n))] for n in names}
    most = {name: max(found, default=0.0) for name, found in numbers.items()} | {COVERAGE: 1.0}
    lines = []
    for name, bias, kind in shown:
        cells = [
            Cell(
                _value(column, bias.get(column)),
                bar=bias[column] / most[column]
                if is_number(bias.get(column)) and most[column] > 0
                else None,
            )
            for column in names
        ]
        lines.append(Line(name, cells, kind, strong=name == model))
    columns = [BIAS_COLUMNS.get(name, name) for name in names]
    note = (
        "Coverage: the share of the catalogue that is in anybody's top 20. Training clicks: how "
        "often an item of a top 20 was clicked in the training sessions, on average; far above "
        "what people chose next means that popular items are pushed."
    )
    return Table("Bias", columns, lines, note)


def control_table(results: Results) -> Table | None:
    """Return the controls behind the rows that they are of, None where there is none."""
    every = ordered_rows(results)
    controls = [row for row in every if role(results, row) == CONTROL]
    if not controls:
        return None
    of = {
        str(control["name"]): row
        for row in every
        for control in controls
        if str(control["name"]).startswith(f"{row['name']}, ")
    }
    whole = {str(row["name"]): row for row in of.values()}
    rows = []
    for row in whole.values():
        rows += [row, *(each for each in controls if of.get(str(each["name"])) is row)]
    rows += [each for each in controls if str(each["name"]) not in of]
    metrics = [f"{metric}@{DEPTH}" for metric in METRICS]
    judge = primary(results)
    lines = []
    for row in rows:
        found = (row.get("interval") or {}).get(judge["figure"]) or {}
        cells = [
            Cell(figure_text(row, name, judge["figure"]), interval(found.get(name)))
            for name in metrics
        ]
        base = figure(results, of[name]) if (name := str(row["name"])) in of else 0.0
        share = figure(results, row) / base if base > 0 else None
        known = is_number(share)
        cells.append(Cell(percent(share, 0) if known else MISSING, bar=share if known else None))
        lines.append(line_of(row, cells, {*whole}))
    note = (
        "In %, primary figure. A control breaks one thing: the order inside sessions, which "
        "picture or text belongs to which item, or a part of a blend. What does not fall with it "
        "was not used."
    )
    return Table("Controls", [*metrics, f"{judge['metric']} kept, %"], lines, note)


def settings_table(results: Results) -> Table | None:
    """Return every row's seeds and settings, None where no row has any."""
    lines = []
    for row in ordered_rows(results):
        settings = row.get("settings") or {}
        text = ", ".join(f"{name}={as_text(value)}" for name, value in settings.items())
        lines.append(line_of(row, [Cell(str(row.get("seeds", 1))), Cell(text or MISSING)], set()))
    note = "Chosen on validation where there was a choice."
    return Table("Settings", ["seeds", "settings"], lines, note, text=True) if lines else None


def cost_table(results: Results, cost: Cost) -> Table | None:
    """Return what each stage cost, its seeds together; None where it is not known."""
    spent: Any = cost.get("evaluation")
    if not cost["stages"]:
        return None
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for stage, entry in cost["stages"].items():
        groups.setdefault(group_of(results, stage), []).append(entry)
    if spent:
        groups["evaluation"] = [spent]
    longest = max(_sum(entries, "seconds") or 0.0 for entries in groups.values())
    lines, every = [], [entry for entries in groups.values() for entry in entries]
    for stage, entries in groups.items():
        seeds = f" ({len(entries)} seeds)" if len(entries) > 1 else ""
        lines.append(Line(stage + seeds, _cost_cells(entries, longest)))
    lines.append(Line("in all", _cost_cells(every, 0.0), strong=True))
    columns = ["time", "peak memory", "updates", "FLOPs an update", "FLOPs in all"]
    kept = [
        place
        for place in range(len(columns))
        if any(line.cells[place].text != MISSING for line in lines)
    ]
    lines = [Line(x.name, [x.cells[p] for p in kept], x.kind, x.strong) for x in lines]
    note = (
        "Time by the clock, on this machine beside whatever else it did. Peak memory is what the "
        "process (the first of several) held at most. FLOPs count the products of matrices in "
        "the training updates, over all devices, as the traced program states them: forward, "
        "backward, recomputed blocks and frozen teachers; evaluation and reading are not in them."
    )
    if makers := sorted({entry["made_by"] for entry in every if "made_by" in entry}):
        note += f" Some stages were taken from {', '.join(makers)}: it is what they cost there."
    if ranked := (spent or {}).get("ranked"):
        each = ", ".join(f"process {n} {count:,}" for n, count in enumerate(ranked))
        note += f" Predictions that were ranked, all rows together: {each}."
    return Table("Cost", [columns[place] for place in kept], lines, note)


def dataset_table(results: Results) -> Table | None:
    """Return what was evaluated on, None where it is not known."""
    dataset = results.get("dataset") or {}
    flat: dict[str, Any] = {}
    for name, value in dataset.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}, {part}": inner for part, inner in value.items()}
        else:
            flat[name] = value
    names = {
        "exclude_seen": "items of the session so far",
        "predictions, 1-50": "predictions, positions 1-50",
        "predictions, 1-20": "predictions, positions 1-20",
        "predictions, cold": "predictions, cold target",
    }
    lines = []
    for name, value in flat.items():
        if name == "exclude_seen":
            value = "are no candidates" if value else "are candidates"
        text = counted(value) if isinstance(value, int) else as_text(value)
        lines.append(Line(names.get(name, name), [Cell(text)]))
    return Table("Data", [""], lines, text=True) if lines else None


def extra_tables(results: Results) -> list[Table]:
    """Return the sections of results.json that have no place of their own, as plain tables.

    Each may hold anything that JSON can. A mapping of mappings, or a list of mappings, becomes a
    table with a row for each; all else becomes names and values. A text under "note" comes last.
    """
    tables = []
    for name, value in results.items():
        if name in KNOWN or value is None or value in ({}, [], ""):
            continue
        title = name.replace("_", " ").capitalize()
        note = ""
        if isinstance(value, Mapping):
            note = str(value.get("note") or "")
            value = {key: each for key, each in value.items() if key != "note"}
        rows = _as_rows(value)
        if rows:
            columns = keys_of(row for _, row in rows)
            lines = [
                Line(label, [Cell(as_text(row.get(column))) for column in columns])
                for label, row in rows[:MOST_LINES]
            ]
            tables.append(Table(title, columns, lines, note))
        else:
            flat = [Line(path or name, [Cell(as_text(each))]) for path, each in _flat(value)]
            tables.append(Table(title, [""], flat[:MOST_LINES], note, text=True))
    return tables


def duration(seconds: Any) -> str:
    """Return seconds as "7.0 s", "3 min 20 s" or "2 h 05 min".

    Example:
      >>> duration(7), duration(200), duration(7500), duration(None)
      ('7.0 s', '3 min 20 s', '2 h 05 min', '–')
    """
    if not is_number(seconds):
        return MISSING
    return in_words(seconds)


def scaled(value: Any, unit: str) -> str:
    """Return a large number with a prefix.

    Example:
      >>> scaled(1_234_000_000, "FLOP"), scaled(12, "B"), scaled(None, "B")
      ('1.23 GFLOP', '12 B', '–')
    """
    if not is_number(value):
        return MISSING
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _cost_cells(entries: Sequence[Mapping[str, Any]], longest: float) -> list[Cell]:
    seconds, updates, flops = (_sum(entries, name) for name in ("seconds", "updates", "flops"))
    peaks = [e["peak_memory"] for e in entries if is_number(e.get("peak_memory"))]
    each = flops / updates if flops and updates and longest else None
    bar = seconds / longest if seconds is not None and longest > 0 else None
    return [
        Cell(duration(seconds), bar=bar),
        Cell(scaled(max(peaks, default=None), "B")),
        Cell(counted(updates)),
        Cell(scaled(each, "")),
        Cell(scaled(flops, "")),
    ]


def _sum(entries: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Return the sum of what is known, None where nothing is."""
    known = [entry[name] for entry in entries if is_number(entry.get(name))]
    return sum(known) if known else None


def _as_rows(value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (label, row of plain values) where a value is a table, else nothing."""
    if isinstance(value, Mapping):
        pairs = [(str(label), row) for label, row in value.items()]
    elif isinstance(value, list):
        pairs = [(str(place), row) for place, row in enumerate(value, 1)]
    else:
        return []
    for _, row in pairs:
        if not isinstance(row, Mapping) or any(isinstance(x, Mapping | list) for x in row.values()):
            return []
    return pairs


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, plain value) of whatever JSON can hold."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}, {name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        for place, inner in enumerate(value, 1):
            yield from _flat(inner, f"{path} {place}".strip())
    else:
        yield path, ", ".join(map(as_text, value)) if isinstance(value, list) else value


def _value(name: str, value: Any) -> str:
    if name in NO_PERCENT:
        return f"{value:.4g}" if is_number(value) else MISSING
    return percent(value) if is_number(value) or value is None else str(value)
