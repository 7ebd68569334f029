"""What is served: its cost beside the teacher's, and what people corrected, as tables and words."""

from typing import Any

from jmrec.evaluation.report_tables import (
    MISSING,
    PRIMARY,
    Cell,
    Line,
    Results,
    Table,
    interval,
    is_number,
    percent,
    signed,
)


def serving_table(results: Results) -> Table | None:
    """Return the artefact's cost beside the teacher's, None where none was exported."""
    serving = results.get("serving") or {}
    sides = [serving.get("student") or {}, serving.get("teacher") or {}]
    if not all(sides):
        return None
    shown = {
        "parameters": ("parameters", "{:,.0f}", 1),
        "parameters, MB": ("parameter_bytes", "{:.2f}", 1e6),
        "tables of the items, MB": ("table_bytes", "{:.2f}", 1e6),
        "one session, median, ms": ("median_ms", "{:.2f}", 1),
        "one session, 99 of 100 within, ms": ("p99_ms", "{:.2f}", 1),
    }
    lines = [
        Line(title, [Cell(_number(side.get(key), form, unit)) for side in sides])
        for title, (key, form, unit) in shown.items()
    ]
    seconds = serving.get("seconds") or {}
    start = ", ".join(f"{name} {each:.2f} s" for name, each in seconds.items())
    note = (
        f"The artefact is {_number(serving.get('bytes'), '{:.2f}', 1e6)} MB for "
        f"{_number(serving.get('items'))} items. A new process on the CPU: {start}. One session: "
        f"from item ids to the ten best of the catalogue, policy included, on the CPU, "
        f"{_number(serving.get('calls'))} calls after warming up, student and teacher in turn. "
        "The teacher reads features that the Knowledge tower made before."
    )
    names = [str(side.get("name", MISSING)) for side in sides]
    return Table("Serving", names, lines, note)


def policy_table(results: Results) -> Table | None:
    """Return what a correction does to the served student, None where none was given."""
    policy = results.get("policy") or {}
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
        f"The student {policy.get('student', MISSING)}, in %, primary figure. "
        + ("No allow-list" if allowed is None else f"{allowed:,} allowed")
        + f", {_number(policy.get('blocked'))} blocked, {_number(policy.get('pinned'))} pinned; "
        f"{_number(policy.get('candidates'))} of {_number(policy.get('items'))} items may be "
        f"recommended; {percent(policy.get('targets lost'))} % of the targets may not; "
        f"{percent(policy.get('top 20 changed'))} % of the places in the top 20 changed. The "
        "other tables are without this correction."
    )
    return Table("Correction by people", ["without", "with", "difference"], lines, note)


def serving_sentences(results: Results) -> list[str]:
    """Say what the distillation bought, and what it cost, no more than was measured."""
    serving = results.get("serving") or {}
    student, teacher = serving.get("student") or {}, serving.get("teacher") or {}
    numbers = [side.get(key) for key in ("median_ms", "parameters") for side in (teacher, student)]
    if not all(is_number(each) and each > 0 for each in numbers):
        return []
    said = (
        f"Serving: {student.get('name')} answers a session in {student['median_ms']:.2f} ms at the "
        f"median (p99 {student['p99_ms']:.2f}), its teacher in {teacher['median_ms']:.2f} ms (p99 "
        f"{teacher['p99_ms']:.2f}): {_ratio(numbers[0], numbers[1], 'as fast', 'as slow')}; it has "
        f"{student['parameters']:,} parameters against {teacher['parameters']:,}"
    )
    return [f"{said}{_quality(results, str(student.get('name')))}."]


def _quality(results: Results, student: str) -> str:
    for entry in results.get("comparisons") or []:
        names = (entry.get("a"), entry.get("b"), entry.get("metric"), entry.get("figure"))
        if names == (student, "teacher", PRIMARY, "session"):
            pair = entry.get("interval")
            around = f" ({signed(pair[0])} to {signed(pair[1])})" if interval(pair) else ""
            return f", and {signed(entry.get('difference'))} points of {PRIMARY}{around} beside it"
    return ""


def _ratio(teacher: float, student: float, faster: str, slower: str) -> str:
    if teacher >= student:
        return f"{teacher / student:.1f} times {faster}"
    return f"{student / teacher:.1f} times {slower}"


def _number(value: Any, form: str = "{:,}", unit: float = 1) -> str:
    if not is_number(value):
        return MISSING
    return form.format(value / unit if unit != 1 else value)
