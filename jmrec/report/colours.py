"""One colour a row, the same in every plot of a report."""

import math

from jmrec.evaluation.results import BOUND, LIVE, MODEL, RULE, TEACHER, WEEKLY, Results
from jmrec.report.tables import (
    best_model,
    best_rule,
    figure,
    ordered_rows,
    role,
    served_row,
    shown_student,
)

COLOURS = (
    *("#3578c9", "#cc7519", "#2f9e63", "#b8478f", "#8566c9", "#8a8a2e", "#c9483b"),
    *("#2a8fa3", "#a0694a"),
)
"""Readable on white and on black; a test computes the contrast."""
GREY = "#7f8792"
"""Of rows that have none of their own."""


def own_name(name: str) -> str:
    """Return the name of the row of which this is a form that counts on.

    Example:
      >>> own_name("EASE, live"), own_name("EASE, recency")
      ('EASE', 'EASE, recency')
    """
    for counts in (WEEKLY, LIVE):
        name = name.removesuffix(f", {counts}")
    return name


def colours(results: Results) -> dict[str, str]:
    """Return the colour of each row, by its name; those that count on have that of their own.

    The served row has the first, the best rule the second; then come the student and the teacher,
    models by their figure and the best of the other rules. What is left is grey.
    """
    rows = [row for row in ordered_rows(results) if row.get("name")]
    names = [str(row["name"]) for row in rows]
    value = {str(row["name"]): figure(results, row) for row in rows}
    of_role: dict[str, list[str]] = {}
    for name, row in zip(names, rows):
        if value[name] > -math.inf:
            of_role.setdefault(role(results, row), []).append(name)
    first: list[str | None] = [served_row(results), best_rule(results)]
    first += [shown_student(results), best_model(results)]
    for what in (TEACHER, MODEL, BOUND, RULE):
        first += sorted(of_role.get(what, ()), key=lambda name: -value[name])
    chosen = dict.fromkeys(own_name(name) for name in first if name in value)
    own = dict(zip(chosen, COLOURS))
    return {name: own.get(own_name(name), GREY) for name in names}
