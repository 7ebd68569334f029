"""The report's example sessions, ready to be shown: titles, pictures, and bars for the reasons."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jmrec.evaluation.results import Results
from jmrec.report.tables import MISSING, counted, is_number

LONGEST = 90
"""Characters of a title that are shown."""
NO_ID = "a new item, without an id of its own"


@dataclass(frozen=True)
class Thing:
    """An item as it is shown.

    Attributes:
      title: Its title, else its id; cut where it is very long.
      picture: A data URI, "" where it has no picture.
      new: Whether training never saw it.
    """

    title: str
    picture: str
    new: bool


@dataclass(frozen=True)
class Reason:
    """One thing that was taken away, and what the score lost; or one that the score is made of.

    Attributes:
      name: What it is, such as "its text".
      of: The title of a past item, "" where the thing is the recommended item's own.
      words: What was counted, of a part of a rule's score.
      value: The contribution, signed, "" where it was not taken away.
      place: The recommended item's place without it.
      absent: Why it was not taken away, else "".
      left, width: Where its bar is, in percent of the room for bars.
    """

    name: str
    of: str
    value: str = ""
    place: str = ""
    absent: str = ""
    left: float = 0.0
    width: float = 0.0
    words: str = ""


@dataclass(frozen=True)
class Recommendation:
    """A recommended item: its place and score, its reasons, whether it is what came next.

    Attributes:
      zero: Where the bars begin, in percent of the room for bars.
      adds_up: Whether the reasons are parts of which the score is the sum.
    """

    place: int
    thing: Thing
    score: str
    hit: bool
    reasons: list[Reason]
    zero: float
    adds_up: bool = False


@dataclass(frozen=True)
class Example:
    """One session: its clicks, what came next and at which place, what was recommended."""

    title: str
    clicks: list[Thing]
    next: Thing
    next_place: str
    recommended: list[Recommendation]


def thing_of(item: str, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Thing:
    """Return an item as it is shown.

    Args:
      item: Its id.
      facts: Its "title", and "train count" where that is known.
      pictures: Item id -> JPEG.
    """
    title = " ".join(str(facts.get("title") or item).split())
    title = title if len(title) <= LONGEST else title[: LONGEST - 1] + "…"
    data = pictures.get(item)
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode() if data else ""
    return Thing(title, uri, facts.get("train count") == 0)


def example_sessions(results: Results, pictures: Mapping[str, bytes]) -> list[Example]:
    """Return the section "examples" of results.json, ready to be shown.

    Args:
      results: The contents of results.json.
      pictures: Item id -> JPEG.
    """
    section = results.get("examples") or {}
    items = section.get("items") or {}

    def thing(item: str) -> Thing:
        return thing_of(item, items.get(item) or {}, pictures)

    shown = []
    for number, session in enumerate(section.get("sessions") or [], 1):
        clicks = [thing(item) for item in session["past"]]
        after = session["next"]
        # One scale for the session, so that its bars can be compared.
        ends = (
            [0.0]
            + [
                each["contribution"]
                for found in session["recommended"]
                for each in [*found["past"], *found["own"].values()]
                if each is not None and is_number(each["contribution"])
            ]
            + [
                part["value"]
                for found in session["recommended"]
                for part in found.get("parts") or ()
                if is_number(part["value"])
            ]
        )
        low, high = min(ends), max(ends)
        recommended = []
        for found in session["recommended"]:
            own = found["own"]
            # Its text first, its id last; between them what else it is made of.
            order = sorted(own, key=lambda part: (part == "id", part != "text", part))
            parts = [
                (f"its {part}", "", own[part], NO_ID if part == "id" else f"it has no {part}")
                for part in order
            ]
            parts += [
                (f"click {place}", click.title, each, "the only click: nothing is left without it")
                for place, (click, each) in enumerate(zip(clicks, found["past"]), 1)
            ]
            made_of = found.get("parts")
            recommended.append(
                Recommendation(
                    place=found["place"],
                    thing=thing(found["item"]),
                    score=_number(found["score"]),
                    hit=found["item"] == after["item"],
                    reasons=[_reason(*part, low, high) for part in parts] if made_of is None
                    else [_part(each, clicks, low, high) for each in made_of],
                    zero=_share(0.0, low, high),
                    adds_up=made_of is not None,
                )
            )  # fmt: skip
        plural = "" if len(clicks) == 1 else "s"
        title = f"Example {number}: after {len(clicks)} click{plural}"
        place = counted(after.get("place"))
        shown.append(Example(title, clicks, thing(after["item"]), place, recommended))
    return shown


def example_note(results: Results) -> list[str]:
    """Return what one must know to read the examples."""
    section = results.get("examples") or {}
    if not section.get("sessions"):
        return []
    if section.get("seed") is None:
        return [
            str(section.get("rule") or ""),
            f"What {section.get('row')} recommends out of {counted(section.get('candidates'))} "
            "items, and why. A rule's score is a sum: each bar is a part of it (to the right: it "
            "adds; to the left: it takes away), with what was counted in the training sessions. "
            "The parts add up to the score; those that are 0 are left out.",
        ]
    return [
        str(section.get("rule") or ""),
        f"What {section.get('row', 'the model')} (seed {section.get('seed', MISSING)}) "
        f"recommends out of {counted(section.get('candidates'))} items, and why. Each bar is "
        "exact: the item is scored again with one thing taken away, and the bar is the score "
        "that this costs (to the right: the thing helped; to the left: it stood in the way). "
        "Beside it stands the place that the item would have without the thing. A click is "
        "taken out of the session; text, picture, features and id are taken from the recommended "
        "item, which is read again as a new item would be that came without them. What works "
        "together is counted in each part, so the bars need not add up to the score.",
    ]


def _reason(
    name: str, of: str, found: Mapping[str, Any] | None, absent: str, low: float, high: float
) -> Reason:
    if found is None:
        return Reason(name, of, absent=absent)
    value = found["contribution"]
    length = value if is_number(value) else 0.0
    ends = sorted((_share(0.0, low, high), _share(length, low, high)))
    return Reason(
        name,
        of,
        value=_number(value, "+"),
        place=counted(found["place"]),
        left=round(ends[0], 2),
        width=round(ends[1] - ends[0], 2),
    )


def _part(part: Mapping[str, Any], clicks: list[Thing], low: float, high: float) -> Reason:
    """Return a part of a rule's score, with the click that brings it."""
    at: Any = part.get("click")
    name, of = (f"click {at + 1}", clicks[at].title) if is_number(at) else ("", "")
    shown = {"contribution": part["value"], "place": None}
    found = _reason(name, of, shown, "", low, high)
    return replace(found, words=str(part["words"]), value=_fine(part["value"]))


def _fine(value: Any) -> str:
    """Return a part of a score with three significant digits: those of a rule may be small."""
    return f"{value:+.3g}".replace("-", "−") if is_number(value) else MISSING


def _share(value: float, low: float, high: float) -> float:
    return 100 * (value - low) / (high - low) if high > low else 0.0


def _number(value: Any, sign: str = "") -> str:
    if not is_number(value):
        return MISSING
    text = f"{round(value, 2) + 0.0:{sign}.2f}"  # there is no minus nought
    return text.replace("-", "−")
