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
    wanted = ("median_ms", "p99_ms", "parameters")
    if not all(is_number(side.get(key)) for side in (student, teacher) for key in wanted):
        return []
    tables = [_number(side.get("table_bytes"), "{:.1f}", 1e6) for side in (student, teacher)]
    said = (
        f"Serving: {student.get('name')} answers a session in {student['median_ms']:.2f} ms at the "
        f"median (p99 {student['p99_ms']:.2f}), its teacher in {teacher['median_ms']:.2f} ms (p99 "
        f"{teacher['p99_ms']:.2f}): {_ratio(teacher['median_ms'], student['median_ms'])}; it has "
        f"{student['parameters']:,} parameters and {tables[0]} MB of tables, the teacher "
        f"{teacher['parameters']:,} and {tables[1]} MB."
    )
    sentences = [said, *_quality(results, str(student.get("name")))]
    return [" ".join(sentences)]


def _quality(results: Results, student: str) -> list[str]:
    """Say how the served student ranks beside its teacher, and beside one that had none."""
    said = []
    for entry in results.get("comparisons") or []:
        a, b = entry.get("a"), entry.get("b")
        wanted = (entry.get("metric"), entry.get("figure")) == (PRIMARY, "session")
        if a == student and b in ("teacher", "undistilled") and wanted:
            pair = entry.get("interval")
            around = f" ({signed(pair[0])} to {signed(pair[1])})" if interval(pair) else ""
            said.append(f"{signed(entry.get('difference'))}{around} against {b}")
    return [f"Its {PRIMARY}, in points: {', '.join(said)}."] if said else []


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
