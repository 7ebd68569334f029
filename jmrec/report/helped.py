"""Whom the served row helps and harms, and what made the results: ready to be shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jmrec.evaluation.results import Cost, Results
from jmrec.report.examples import Thing, thing_of
from jmrec.report.tables import (
    MISSING,
    Cell,
    Line,
    Table,
    counted,
    figure_of_points,
    is_number,
    percent,
    section,
)
from jmrec.usage import duration

PARTS = {"helped": "better", "same": "the same", "harmed": "worse"}


@dataclass(frozen=True)
class Seen:
    """A session in which two rows rank what came next apart.

    Attributes:
      clicks: What was clicked, oldest first.
      cut: How many clicks before them are not shown.
      next: What came next.
      places: (row, its place of that) of both rows.
    """

    clicks: list[Thing]
    cut: int
    next: Thing
    places: list[tuple[str, str]]


@dataclass(frozen=True)
class Shown:
    """The section, ready to be shown.

    Attributes:
      sentence: What it says in words.
      bars: (class, words, share in percent) that add up to 100.
      groups: (heading, sessions).
    """

    sentence: str
    bars: list[tuple[str, str, float]]
    groups: list[tuple[str, list[Seen]]]


def helped_sessions(results: Results, pictures: Mapping[str, bytes]) -> Shown | None:
    """Return the section "helped" of results.json, ready to be shown; None where it is missing.

    Args:
      results: The contents of results.json.
      pictures: Item id -> JPEG.
    """
    found: Mapping[str, Any] = section(results, "helped")
    if not found or not all(is_number(found.get(name)) for name in PARTS):
        return None
    row, other = str(found.get("row")), str(found.get("other"))
    ends = [found.get("gain"), found.get("loss")]
    means = [
        f"{figure_of_points(end)} points {word} on average"
        for end, word in zip(ends, ("higher", "lower")) if is_number(end)
    ]  # fmt: skip
    said = (
        f"Of {counted(found.get('sessions'))} sessions, {row} ranks what came next better than "
        f"{other} in {percent(found['helped'], 1)} %, worse in {percent(found['harmed'], 1)} % and "
        f"the same in {percent(found['same'], 1)} %, by each session's {found.get('metric')}"
    )
    said += f" ({', '.join(means)})." if means else "."
    items: Mapping[str, Any] = found.get("items") or {}

    def things(session: Mapping[str, Any]) -> Seen:
        names = [thing_of(item, items.get(item) or {}, pictures) for item in session["past"]]
        return Seen(
            clicks=names,
            cut=session.get("cut", 0),
            next=thing_of(session["next"], items.get(session["next"]) or {}, pictures),
            places=[(name, _place(p)) for name, p in zip((row, other), session["places"])],
        )

    groups = [
        (f"{heading} with {row}", [things(each) for each in found.get(part) or ()])
        for part, heading in (("better", "Better"), ("worse", "Worse"))
    ]
    bars = [(name, words, 100 * found[name]) for name, words in PARTS.items()]
    return Shown(said, bars, [group for group in groups if group[1]])


def _place(value: Any) -> str:
    """Return a place, or the mean of places of several seeds."""
    if not is_number(value):
        return MISSING
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:.1f}"


def made_table(cost: Cost) -> Table | None:
    """Return when, by which versions and on which machine the results were made."""
    made = section(cost, "made")
    lines = [Line(str(name), [Cell(str(value))]) for name, value in made.items()]
    return Table("How it was made", [""], lines, text=True) if lines else None


def made_sentence(cost: Cost) -> str:
    """Return the same in a sentence, "" where nothing is known."""
    made = section(cost, "made")
    if not made:
        return ""
    said = f"Evaluated {made.get('date', '')}".strip()
    commit = f" at commit {made['commit']}" if made.get("commit") else ""
    devices = f" on {made['devices']}" if made.get("devices") else ""
    spent: Any = section(cost, "evaluation").get("seconds")
    took = f", which took {duration(spent)}" if is_number(spent) else ""
    return f"{said}{commit}{devices}{took}."


def rows_table(cost: Cost) -> Table | None:
    """Return what each row cost in the evaluation, None where it is not known."""
    rows = section(cost, "rows")
    columns = {"fit": "fitted in", "rank": "ranked in"}
    lines = [
        Line(
            str(name),
            [Cell(duration(each[key]) if is_number(each.get(key)) else MISSING) for key in columns],
        )
        for name, each in rows.items()
    ]
    note = (
        "Fitted: a rule is counted and its settings are chosen on validation. Ranked: every target "
        "among the whole catalogue, seeds together."
    )
    return Table("Cost of each row", list(columns.values()), lines, note) if lines else None
