"""What is served: its cost beside a teacher's, and what people corrected, as tables and words."""

from collections.abc import Mapping
from typing import Any

from jmrec.evaluation.results import BEST, RANKING, Cost, Results, spoken
from jmrec.report.tables import (
    MISSING,
    Cell,
    Line,
    Table,
    interval,
    is_number,
    percent,
    primary,
    primary_comparisons,
    section,
    signed,
)


def serving_table(cost: Cost | None) -> Table | None:
    """Return the artefact's cost, beside the teacher's if any; None where none was exported."""
    serving = section(cost or {}, "serving")
    if not serving.get("served"):
        return None
    teacher = serving.get("teacher") or {}
    sides = [serving["served"], *([teacher] if teacher else [])]
    one = _asked(serving)
    shown = {
        "parameters": ("parameters", "{:,.0f}", 1),
        "parameters, MB": ("parameter_bytes", "{:.2f}", 1e6),
        "tables of the items, MB": ("table_bytes", "{:.2f}", 1e6),
        f"one {one}, median, ms": ("median_ms", "{:.2f}", 1),
        f"one {one}, 99 of 100 within, ms": ("p99_ms", "{:.2f}", 1),
    }
    lines = [
        Line(title, [Cell(_number(side.get(key), form, unit)) for side in sides])
        for title, (key, form, unit) in shown.items()
    ]
    seconds = serving.get("seconds") or {}
    start = ", ".join(f"{name} {each:.2f} s" for name, each in seconds.items())
    note = (
        f"The artefact is {_number(serving.get('bytes'), '{:.2f}', 1e6)} MB for "
        f"{_number(serving.get('items'))} items. A new process on the CPU: {start}. One {one}: "
        f"from ids to the ten best of the catalogue, policy included, on the CPU, "
        f"{_number(serving.get('calls'))} calls after warming up"
    )
    note += (
        ", student and teacher in turn. The teacher reads features that the Knowledge tower made "
        "before."
        if teacher
        else "."
    )
    names = [str(side.get("name", MISSING)) for side in sides]
    return Table("Serving", names, lines, note)


def policy_table(results: Results) -> Table | None:
    """Return what a correction does to the served row, None where none was given."""
    policy = section(results, "policy")
    figures = policy.get("figures") or {}
    if not figures:
        return None
    lines = []
    for entry in policy.get("comparisons") or []:
        metric, pair = str(entry.get("metric")), entry.get("interval")
        found = [(figures.get(name) or {}).get(metric) for name in ("without", "with")]
        cells = [Cell(percent(each)) for each in found]
        note = f"{signed(pair[0])} to {signed(pair[1])}" if interval(pair) else ""
        lines.append(Line(metric, [*cells, Cell(signed(entry.get("difference")), note)]))
    allowed = policy.get("allowed")
    note = (
        f"The row {policy.get('row', MISSING)}, in %, primary figure. "
        + ("No allow-list" if allowed is None else f"{allowed:,} allowed")
        + f", {_number(policy.get('blocked'))} blocked, {_number(policy.get('pinned'))} pinned; "
        f"{_number(policy.get('candidates'))} of {_number(policy.get('items'))} items may be "
        f"recommended; {percent(policy.get('targets lost'))} % of the targets may not; "
        f"{percent(policy.get('top 20 changed'))} % of the places in the top 20 changed. The "
        "other tables are without this correction."
    )
    return Table("Correction by people", ["without", "with", "difference"], lines, note)


def why_served(results: Results) -> str:
    """Say which row is served and why, "" where the results do not say.

    Args:
      results: Of an evaluation.
    """
    served: Mapping[str, Any] = section(results, "served")
    choice = served.get("choice")
    if not choice:
        return ""
    values: Mapping[str, float | None] = choice["validation"]

    def figure(row: str) -> str:
        value = values.get(row)
        return "no figure" if value is None else f"{100 * value:.2f} %"

    name, judge = served["row"], spoken({"figure": choice["figure"], "metric": choice["metric"]})
    if choice["wanted"] == BEST:
        how = f"the best of {len(values)} rows on validation: {judge} {figure(name)}"
    else:
        how = f"which evaluate.serve names: {judge} on validation {figure(name)}"
        best = max(values, key=lambda row: values[row] or 0.0)
        how += "" if best == name else f", and {figure(best)} of {best}, the best row there"
    student = served.get("student", name)
    beside = "" if student == name else f"; {student}, the best student, has {figure(student)}"
    return f"Served is {name}, {how}{beside}."


def serving_sentences(results: Results | None, cost: Cost | None) -> list[str]:
    """Say what serving takes, beside the teacher if any, no more than was measured."""
    serving = section(cost or {}, "serving")
    student, teacher = serving.get("served") or {}, serving.get("teacher") or {}
    if not _measured(student):
        return []
    quality = _quality(results, str(student.get("name"))) if results else []
    kept = kept_sentences(serving.get("keep"))
    if not _measured(teacher):
        learned = f"{student['parameters']:,} parameters and " if student["parameters"] else ""
        said = (
            f"Serving: {student.get('name')} answers a {_asked(serving)} in "
            f"{student['median_ms']:.2f} ms at the median (p99 {student['p99_ms']:.2f}); it has "
            f"{learned}{_number(student.get('table_bytes'), '{:.1f}', 1e6)} MB of tables."
        )
        return [" ".join([said, *quality, *kept])]
    tables = [_number(side.get("table_bytes"), "{:.1f}", 1e6) for side in (student, teacher)]
    said = (
        f"Serving: {student.get('name')} answers a session in {student['median_ms']:.2f} ms at the "
        f"median (p99 {student['p99_ms']:.2f}), its teacher in {teacher['median_ms']:.2f} ms (p99 "
        f"{teacher['p99_ms']:.2f}): {_ratio(teacher['median_ms'], student['median_ms'])}; it has "
        f"{student['parameters']:,} parameters and {tables[0]} MB of tables, the teacher "
        f"{teacher['parameters']:,} and {tables[1]} MB."
    )
    return [" ".join([said, *quality, *kept])]


def kept_sentences(kept: Any) -> list[str]:
    """Say what an artefact's rules have forgotten and what that costs; nothing where nothing is.

    Args:
      kept: "kept" of its provenance, from `jmrec export --keep`.
    """
    if not isinstance(kept, Mapping) or not all(is_number(each) for each in kept.values()):
        return []
    smaller, whole = percent(kept.get("kept")), percent(kept.get("whole"))
    return [
        f"Of what an item says of others its tables keep the {_number(kept.get('entries'))} "
        f"largest entries; the run's figures are of all. {RANKING['metric']} on validation is "
        f"{smaller} % with them, {whole} % with all."
    ]


def _asked(serving: Mapping[str, Any]) -> str:
    """Return whom the artefact answers."""
    return "user" if serving.get("asked") == "user" else "session"


def _measured(side: Mapping[str, Any]) -> bool:
    return all(is_number(side.get(key)) for key in ("median_ms", "p99_ms", "parameters"))


def _quality(results: Results, served: str) -> list[str]:
    """Say how the served row ranks beside those that it is to be seen beside."""
    said = []
    beside = section(results, "served").get("beside") or ()
    for entry in primary_comparisons(results):
        sides = [entry.get("a"), entry.get("b")]
        if served in sides and (other := sides[sides[0] == served]) in beside:
            pair: Any = entry.get("interval")
            difference: Any = entry.get("difference")
            if sides[1] == served and interval(pair) and is_number(difference):
                difference, pair = -difference, [-pair[1], -pair[0]]
            around = f" ({signed(pair[0])} to {signed(pair[1])})" if interval(pair) else ""
            said.append(f"{signed(difference)}{around} against {other}")
    return [f"Its {primary(results)['metric']}, in points: {', '.join(said)}."] if said else []


def _ratio(teacher: float, student: float) -> str:
    if max(teacher, student) < 1.05 * min(teacher, student):
        return "about as fast"
    if teacher >= student:
        return f"{teacher / student:.1f} times as fast"
    return f"{student / teacher:.1f} times as slow"


def _number(value: Any, form: str = "{:,}", unit: float = 1) -> str:
    if not is_number(value):
        return MISSING
    return form.format(value / unit if unit != 1 else value)
