"""Showing what an evaluation found: as a report, on the terminal, and in the mirrors of a run."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jmrec.evaluation.results import Cost, Results
from jmrec.report.examples import Example, example_sessions
from jmrec.report.page import write_report
from jmrec.report.tables import figures_of
from jmrec.report.terminal import print_results
from jmrec.systems.work import Work
from jmrec.tracking import Card, Outcome

SIDE, GAP = 96, 8
"""Pixels of a picture on a card, and between two."""
NO_ENDS = (None, None)
MOST = 6
"""Pictures of a side of a card: of the last clicks, and of what is recommended."""


def show(
    work: Work,
    folder: Path,
    results: Results,
    cost: Cost,
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Write the report beside results.json, tell the mirrors, and print the table where wanted.

    Args:
      work: The run.
      folder: Of results.json.
      results: Its contents.
      cost: Those of cost.json.
      pictures: Item id -> JPEG of the items in the examples.
    """
    page = folder / "report.html"
    write_report(results, page, cost, pictures)
    if work.tracker.mirrored:
        work.tracker.conclude(outcome(results, page, pictures))
    if work.prints:
        print_results(results, cost)


def outcome(results: Results, report: Path, pictures: Mapping[str, bytes] | None = None) -> Outcome:
    """Return what a `jmrec.tracking.Tracker` shows of an evaluation.

    Args:
      results: The contents of results.json.
      report: The page that was written of them.
      pictures: Item id -> JPEG of the items in the examples.

    Returns:
      Of the summary: "served/row" and every figure of the served row, "served/FIGURE METRIC"; of
      every other row its primary figure "ROW/FIGURE METRIC", and with " low" and " high" its 95 %
      interval. The table has every figure of every row.
    """
    figure, metric = results["primary"]["figure"], results["primary"]["metric"]
    main = f"{figure} {metric}"
    served = results["served"]["row"] if results["served"] else None
    columns = list(dict.fromkeys(name for row in results["rows"] for name in figures_of(row)))
    summary: dict[str, Any] = {} if served is None else {"served/row": served}
    table = []
    for row in results["rows"]:
        found = figures_of(row)
        if row["name"] == served:
            summary |= {f"served/{name}": each for name, each in found.items() if each is not None}
        ends: Sequence[float | None] = row["interval"].get(figure, {}).get(metric) or NO_ENDS
        values = {main: found.get(main), f"{main} low": ends[0], f"{main} high": ends[1]}
        summary |= {f"{row['name']}/{n}": each for n, each in values.items() if each is not None}
        table.append(
            [row["name"], row["kind"], row["seeds"], *ends, *(found.get(name) for name in columns)]
        )
    head = ["row", "kind", "seeds", f"{main} low", f"{main} high"]
    split = str(results["dataset"].get("split") or "results")
    cards = _cards(results, pictures or {})
    return Outcome(split, summary, [*head, *columns], table, report, cards)


def _cards(results: Results, pictures: Mapping[str, bytes]) -> list[Card]:
    """Return a card for each example session: its clicks, then what is recommended."""
    sessions = (results.get("examples") or {}).get("sessions") or []
    shown = example_sessions(results, {})
    cards = []
    for session, example in zip(sessions, shown):
        past = session["past"][-MOST:]
        best = [each["item"] for each in session["recommended"][:MOST]]
        found = [[pictures.get(item) for item in side] for side in (past, best)]
        some = any(each for side in found for each in side)
        cards.append(Card(_caption(example), _row_of(*found) if some else b""))
    return cards


def _caption(example: Example) -> str:
    clicks = "; ".join(each.title for each in example.clicks)
    best = "; ".join(
        f"{each.place}. {each.thing.title}{' (came next)' if each.hit else ''}"
        for each in example.recommended
    )
    came = f"{example.next.title}, at place {example.next_place}"
    return f"{example.title}. Seen: {clicks}. Recommended: {best}. Came next: {came}."


def _row_of(past: Sequence[bytes | None], best: Sequence[bytes | None]) -> bytes:
    """Return a PNG: clicks at the left, a line, recommended items at the right."""
    places = len(past) + len(best)
    width = places * (SIDE + GAP) + 3 * GAP
    sheet = Image.new("RGB", (width, SIDE + 2 * GAP), "white")
    for place, data in enumerate([*past, *best]):
        left = GAP + place * (SIDE + GAP) + (2 * GAP if place >= len(past) else 0)
        if data:
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            sheet.paste(picture, (left, GAP))
    line = len(past) * (SIDE + GAP) + GAP
    sheet.paste("black", (line, 0, line + 2, SIDE + 2 * GAP))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()
