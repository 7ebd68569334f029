"""A clean shop, drawn, and what has to come out of it: for right_folders.py.

What is expected follows from the drawing and from the rules that jmrec states (a session by its id,
or by pauses of 30 minutes; a split by the starts of sessions), written down here a second time in
plain Python.
"""

import math
import random
import string
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from right_words import DAY, LANGUAGES, MONTH, NAMES, SPACES, TIMES, floored

MISSED = None
"""In place of a value that is missing."""
COLOURS = ((255, 0, 0), (0, 128, 0), (0, 0, 255), (250, 200, 10), (10, 10, 10), (120, 120, 120))
GAP = 1800.0


@dataclass(frozen=True)
class Event:
    """One row of the interactions, or one item of a row that lists a session.

    A row with the item -1 names one that the catalogue does not have, and is left out, as is one
    with no number for its time.
    """

    session: str
    user: str | None
    item: int
    time: float
    place: int
    kind: str | None
    rating: float | None


@dataclass
class Shop:
    """What was drawn.

    Attributes:
      ids: V item ids.
      titles: V titles, None where missing.
      descriptions: V texts; None where the shop has no such column.
      category: Column -> V names.
      number: Column -> V numbers.
      lists: Column -> V lists of words.
      texts: Column -> V texts.
      pictures: V colours, None where an item has no picture.
      windows: Two lists of V days, as unix seconds: from the first to the last. None without.
      events: In the order of the file.
    """

    ids: list[str]
    titles: list[str | None]
    descriptions: list[str | None] | None = None
    category: dict[str, list[str | None]] = field(default_factory=dict)
    number: dict[str, list[float | None]] = field(default_factory=dict)
    lists: dict[str, list[list[str]]] = field(default_factory=dict)
    texts: dict[str, list[str | None]] = field(default_factory=dict)
    pictures: list[tuple[int, int, int] | None] = field(default_factory=list)
    windows: tuple[list[float | None], list[float | None]] | None = None
    events: list[Event] = field(default_factory=list)


def ids(style: str, count: int, rng: random.Random, letter: str) -> list[str]:
    """Return different ids of one style."""
    numbers = sorted(rng.sample(range(1, 9 * count), count))
    forms: dict[str, Callable[[int], str]] = {
        "letter": lambda n: f"{letter}{n}",
        "int": str,
        "zeros": lambda n: f"{n:06d}",
        "long": lambda n: str(4_006_381_000_000 + 7919 * n),
        "dash": lambda n: f"{letter.upper()}-{n:04d}/{n % 7}",
        "hex": lambda n: f"{n * 2_654_435_761 % 2**32:08x}{letter}",
        "space": lambda n: f"{letter} {n}",
        "comma": lambda n: f"{letter},{n}",
        "mail": lambda n: f"{letter}{n}@example.org",
        "uuid": lambda n: str(uuid.UUID(int=n * 2_654_435_761**4 % 2**128)),
        "accent": lambda n: f"{letter}é{n}",
    }
    return [forms[style](n) for n in numbers]


def phrase(language: str, rng: random.Random, low: int, high: int) -> str:
    """Return some words of a language."""
    words = LANGUAGES[language][1].split()
    return SPACES.get(language, " ").join(rng.choice(words) for _ in range(rng.randint(low, high)))


def name(role: str, rng: random.Random, taken: set[str]) -> str:
    """Return a name in use for a column, other than those taken; now and then in capitals."""
    free = [each.replace("·", " ") for each in NAMES[role].split()]
    free = [each for each in free if each.lower() not in taken]
    chosen = rng.choice(free)
    taken.add(chosen.lower())
    return chosen.upper() if rng.random() < 0.1 else chosen


def draw_items(form: dict[str, Any], rng: random.Random, taken: set[str]) -> Shop:
    """Draw the catalogue of a shop; the names of its columns are added to ``taken``."""
    count = rng.randint(40, 60)
    language = form["language"]

    def some(value: Callable[[int], Any], gaps: float) -> list[Any]:
        return [MISSED if rng.random() < gaps else value(i) for i in range(count)]

    def title(i: int) -> str:
        text = phrase(language, rng, 2, 4) + (f" {i}" if language in SPACES else f" No {i}")
        odd = rng.random()
        if form["titles"] == "inches" and odd < 0.4:
            return f'{text} 15"' if odd < 0.2 else f'17" {text}'
        if form["titles"] == "lone quotes" and odd < 0.25:
            return f'"{text}'
        if form["titles"] == "quoted words" and odd < 0.4:
            return f'{text} "{phrase(language, rng, 1, 1)}", new' if odd < 0.2 else f'"{text}" {i}'
        if form["titles"] == "delimiters" and odd < 0.4:
            return text + rng.choice([", blue", "; set", " | x", ", a, b"])
        return text

    shop = Shop(ids(form["item ids"], count, rng, "i"), some(title, 0.05))
    if form["description"]:
        between = "\n" if form["description"] == "lines" else ". "
        shop.descriptions = some(
            lambda i: between.join(phrase(language, rng, 8, 12) for _ in range(2)), 0.3
        )
    for _ in range(rng.randint(1, 2)):
        words = list(dict.fromkeys(phrase(language, rng, 1, 2) for _ in range(9)))[:5]
        shop.category[name("category", rng, taken)] = some(lambda i: rng.choice(words), 0.1)  # noqa: B023
    for _ in range(rng.randint(1, 2)):
        most = 4_000 if "thousands" in form["money"] else 60
        shop.number[name("number", rng, taken)] = some(
            lambda i: rng.randint(200, 100 * most) / 100,  # noqa: B023
            0.3 if form["on request"] else 0.1,
        )
    if form["years"]:
        shop.number["year"] = some(lambda i: float(rng.randint(1990, 2005)), 0.1)
    tags = [word for word in LANGUAGES[language][1].split() if len(word) < 9][:8]
    for _ in range(rng.randint(0, 2) if form["list separator"] else 0):
        shop.lists[name("list", rng, taken)] = [
            rng.sample(tags, rng.choice([1, 2, 2, 3, 3])) for _ in range(count)
        ]
    if form["slogan"]:
        shop.texts["slogan"] = some(lambda i: phrase(language, rng, 2, 5) + f" {i}", 0.1)
    shop.pictures = [
        None if not form["pictures"] or rng.random() < 0.3 else rng.choice(COLOURS)
        for _ in range(count)
    ]
    if form["windows"]:
        first = datetime(2015, 1, 5, tzinfo=UTC).timestamp()
        starts = some(lambda i: first + DAY * rng.randint(0, 400), 0.3)
        ends = some(lambda i: first + DAY * rng.randint(401, 900), 0.5)
        shop.windows = starts, ends
    return shop


def draw_events(shop: Shop, form: dict[str, Any], rng: random.Random) -> None:
    """Draw what people did, in the order of time; rows are shuffled where the form says so."""
    sessions = rng.randint(60, 110)
    step = TIMES[form["time"]].step if form["time"] else 1.0
    base = datetime(rng.randint(2012, 2021), rng.randint(1, 9), 1, tzinfo=UTC).timestamp()
    # Within twelve days nobody can tell the day from the month.
    span = DAY * (11 if form["twelve days"] else rng.randint(40, 100))
    span *= 10 if step == MONTH else 1
    users = ids(form["user ids"], rng.randint(8, 15), rng, "u")
    names = ids(form["session ids"], sessions, rng, "s")
    kinds = ["view", "view", "view", "cart", "purchase"]
    if form["own kinds"]:
        words = LANGUAGES[form["language"]][1].split()
        kinds = [words[0], words[0], words[0], words[1], words[2]]
    drawn: list[list[Event]] = []
    for k in range(sessions):
        user = rng.choice(users)
        who = None if form["guests"] and rng.random() < 0.4 else user
        logs_in = form["guests"] == "until login" and rng.random() < 0.7
        time = base + rng.random() * (span - DAY)
        rows = []
        for i in range(rng.choice([1, 2, 2, 3, 3, 4, 5, 6])):
            time += rng.randint(1, 700) if i and form["sessions"] != "cells" else 0
            item = -1 if form["strays"] and rng.random() < 0.03 else rng.randrange(len(shop.ids))
            rows.append(
                Event(
                    names[k], user if logs_in and i > 0 else who, item,
                    floored(time, step), i,
                    rng.choice(kinds) if form["event"] else None,
                    rng.randint(2, 10) / 2 if form["rating"] and rng.random() < 0.5 else None,
                )
            )  # fmt: skip
        drawn.append(rows)
    drawn.sort(key=lambda rows: rows[0].time)
    if form["sessions"] == "per user":  # numbered in the order of time
        drawn = _numbered(drawn)
    if form["sessions"] == "cells":
        shop.events = [event for rows in drawn for event in rows]
        return
    events = [event for rows in drawn for event in rows]
    if form["rows"] == "shuffled":
        rng.shuffle(events)
    elif form["rows"] == "newest first":
        events.reverse()
    else:
        events.sort(key=lambda event: event.time)  # stable: a visit keeps its order
    if form["gaps in time"]:
        events = [replace(e, time=math.nan) if rng.random() < 0.03 else e for e in events]
    shop.events = events


def _numbered(drawn: list[list[Event]]) -> list[list[Event]]:
    count: dict[str | None, int] = {}
    out = []
    for rows in drawn:
        user = rows[0].user
        count[user] = count.get(user, 0) + 1
        out.append([replace(event, session=str(count[user])) for event in rows])
    return out


@dataclass(frozen=True)
class Visit:
    """A session as it has to come out: its id, its user and its events."""

    name: str
    user: str | None
    events: tuple[Event, ...]
    times: tuple[float, ...]


def visits(shop: Shop, form: dict[str, Any]) -> list[Visit]:
    """Return the sessions of a shop in the order of their start."""
    timed = bool(form["time"])
    known = [e for e in shop.events if e.item >= 0 and not (timed and math.isnan(e.time))]
    rows = list(enumerate(known))

    def key(row: tuple[int, Event]) -> tuple[float, float, int]:
        order = row[1].place if form["order"] else row[0]
        return (row[1].time if timed else 0.0, order, row[0])

    groups: dict[str, list[tuple[int, Event]]] = {}
    for row in rows:
        event = row[1]
        owner = event.session
        if form["sessions"] == "per user":
            owner = f"{event.user}:{event.session}"
        elif form["sessions"] == "users":
            owner = str(event.user)
        groups.setdefault(owner, []).append(row)
    found: list[tuple[float, int, Visit]] = []
    for owner, own in groups.items():
        own.sort(key=key)
        parts = [own]
        if form["sessions"] == "users" and timed:
            parts = [[own[0]]]
            for before, row in pairwise(own):
                if row[1].time - before[1].time > GAP:
                    parts.append([])
                parts[-1].append(row)
        for k, part in enumerate(parts):
            name_ = f"{owner}:{k}" if form["sessions"] == "users" and timed else owner
            places = sorted(place for place, _ in part)
            times = [event.time for _, event in part] if timed else [float(p) for p in places]
            users = {event.user for _, event in part} - {None}
            visit = Visit(
                name_, users.pop() if users else None, tuple(e for _, e in part), tuple(times)
            )
            found.append((times[0], places[0], visit))
    return [visit for _, _, visit in sorted(found, key=lambda each: each[:2])]


def split(all_visits: Sequence[Visit]) -> dict[str, list[Visit]]:
    """Split sessions of two or more events by their start, 80, 10 and 10 in a hundred."""
    two = [visit for visit in all_visits if len(visit.events) > 1]
    first, second = int(0.8 * len(two) + 1e-6), int(0.9 * len(two) + 1e-6)
    parts = {"train": two[:first], "validation": two[first:second], "test": two[second:]}
    ends = {"train": parts["validation"][0].times[0], "validation": parts["test"][0].times[0]}
    for part, end in ends.items():
        cut = [sum(time <= end for time in visit.times) for visit in parts[part]]
        parts[part] = [
            Visit(visit.name, visit.user, visit.events[:n], visit.times[:n])
            for visit, n in zip(parts[part], cut)
            if n > 1
        ]
    return parts


def plain_words(language: str, rng: random.Random) -> str:
    """Return a remark that somebody wrote, with signs that files are written with."""
    signs = rng.choice([", ", "; ", " - ", ': "', ", so ", "! "])
    end = '"' if '"' in signs else rng.choice(["", ".", "!", string.ascii_letters[:3]])
    return phrase(language, rng, 3, 8) + signs + phrase(language, rng, 2, 6) + end
