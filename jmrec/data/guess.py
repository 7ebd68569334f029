"""Guess the ``dataset.toml`` of a folder, each line with its reason: ``jmrec data init``."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data.description import describe
from jmrec.data.findings import shown
from jmrec.data.guess_columns import (
    ROLES,
    Column,
    are_codes,
    are_links,
    are_short,
    as_ids,
    decimal_of,
    files_by_id,
    files_elsewhere,
    follows,
    holds_files,
    holds_lists,
    in_languages,
    is_number,
    list_separator_of,
    names_pictures,
    per_user,
    plain,
    says_price,
    stands_for,
    value_lines,
)
from jmrec.data.guess_encodings import encodings, own_encodings
from jmrec.data.guess_labels import is_review, propose_label
from jmrec.data.guess_lines import Lines
from jmrec.data.guess_people import find_people
from jmrec.data.guess_remedies import below_zero
from jmrec.data.guess_tables import Candidate, Pair, find_tables
from jmrec.data.guess_times import (
    find_clock,
    find_order,
    find_time,
    form_of,
    in_company,
    say_range,
)
from jmrec.data.layouts import says_names
from jmrec.data.missing import DOUBTFUL, MISSING, show_words
from jmrec.data.pictures import BY_ID, IMAGES
from jmrec.data.sources import CSV, PAIR_READ
from jmrec.data.times import Times, read_times
from jmrec.errors import UserError

GAP = 30
"""Minutes of a pause that ends a session, where none is given."""
ENOUGH = 0.2
"""Of the events so many are in a session with others, or whole histories are proposed."""
_SIGNS = {
    ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space", PAIR_READ: "two colons",
}  # fmt: skip


def write_guess(folder: str | Path) -> Path:
    """Guess what a folder's columns mean and write ``dataset.toml``, to be edited.

    Args:
      folder: The catalogue folder.

    Returns:
      The path of what was written, which `describe` reads.

    Raises:
      UserError: if there is a dataset.toml already, or nothing can be guessed; nothing is written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the one that holds your tables.")
    path = folder / "dataset.toml"
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists and is not overwritten; edit it, or move it away first.")
    text = guess(folder)
    with tempfile.TemporaryDirectory() as name:
        trial = Path(name) / "dataset.toml"
        trial.write_text(text, encoding="utf-8")
        describe(folder, trial)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return path


def guess(folder: Path) -> str:
    """Return the text of a description of the folder.

    Raises:
      UserError: if no two tables are linked by item ids, or nobody can be told from another.
    """
    pair = find_tables(folder)
    events = Lines()
    items = Lines()
    dataset = Lines()
    decimal = decimal_of([*pair.item_columns.values(), *pair.event_columns.values()])
    group, times, written, visits = _events(pair, events, decimal)
    _items(folder, pair, items, decimal)
    _dataset(folder, pair, dataset, decimal, group)
    _split(group, None if visits else times, dataset)
    _time_format(pair, dataset, times, written)
    head = (
        "# What the columns of this folder mean: a first guess by jmrec data init. Read every\n"
        "# line, change what is wrong, then run jmrec data check.\n"
    )
    tables = {"dataset": dataset, "items": items, "interactions": events}
    own_encodings(pair, tables)
    text = "".join(f"\n[{name}]\n" + "\n".join(each.lines) + "\n" for name, each in tables.items())
    return head + text + value_lines(pair.item_columns.values(), decimal)


def _events(
    pair: Pair, lines: Lines, decimal: str
) -> tuple[list[str], Times | None, Column | None, bool]:
    """Guess [interactions].

    Returns:
      The cells that group events, their times, those as cells, and whether sessions are given.
    """
    columns = {n: c for n, c in pair.event_columns.items() if n != pair.item}
    file = pair.interactions.name
    why = "The table with one row for each click, view or purchase."
    lines.say("file", _names(pair.interactions), why)
    for sentence in pair.said:
        lines.note(sentence)
    _column_names(pair.interactions, lines)
    lines.say("item", pair.item, f"{pair.known:.0%} of its cells are ids of items.")
    if pair.separator:
        why = "What stands between the items of a cell, which lists those of a session in order."
        lines.say("item_separator", pair.separator, why)
    roles: dict[str, str] = {}

    def by_name(role: str, good: Any = lambda column: True) -> None:
        named = [c for c in columns.values() if c.is_called(role) and c.filled and good(c)]
        if named:
            # Of two the one with fewer gaps: who is logged in has a number, all have a name.
            order = ROLES[role].split().index
            gaps = {c.name: c.cells.count("") > 0.2 * len(c.cells) for c in named}
            roles[role] = min(named, key=lambda c: (gaps[c.name], order(plain(c.name)))).name
            del columns[roles[role]]

    by_name("session")
    by_name("user")
    who = {role: as_ids(pair.event_columns[roles[role]]) for role in roles}
    users = who["user"].cells if list(roles) == ["user"] else []
    timed = find_time(columns.values(), pair.event_columns[pair.item].cells, users)
    if timed:
        roles["time"] = timed.name
        del columns[timed.name]
    by_name("review", lambda c: is_review(c, decimal))
    if not who:
        role, found, doubt = find_people(pair, columns)
        roles[role], who[role] = found.name, as_ids(columns.pop(found.name))
        if doubt:
            lines.note(f"{doubt}.")
    by_name("event", lambda c: c.distinct <= 100)
    by_name("rating", lambda c: is_number(c, decimal))
    by_name("order", lambda c: is_number(c, decimal) and c.distinct > 1)
    several: dict[str, list[str]] = {}
    group = (who.get("session") or who["user"]).cells
    if {"session", "user"} <= set(roles) and per_user(who["session"], who["user"]):
        several["session"] = [roles["user"], roles["session"]]
        group = list(map(":".join, zip(who["user"].cells, group)))
    times = timed.times if timed else None
    if timed and times and (clock := find_clock(columns.values(), times)):
        several["time"] = [timed.name, clock.name]
        both = list(map(" ".join, zip(timed.cells, clock.cells)))
        times, timed = read_times(both), Column.of(timed.name, both, files=timed.files)
        del columns[clock.name]
    if "order" not in roles and (by := find_order(columns.values(), times, group, decimal)):
        roles["order"] = by.name
        del columns[by.name]
    _roles(pair, roles, several, times, lines)
    for sentence in below_zero(columns.values(), decimal):
        lines.note(sentence)
    _label(columns, pair.event_columns.get(roles.get("rating", "")), lines, decimal)
    if times is None:
        lines.note(
            f"no column of {file} is read as a time, so the split follows the order of its rows; "
            'if one is, name it as time = "...".'
        )
    return group, times, timed, "session" in roles


def _roles(
    pair: Pair, roles: dict[str, str], several: dict[str, list[str]], times: Times | None,
    lines: Lines,
) -> None:  # fmt: skip
    """Say which column is what: role -> its name, or those of several."""
    reasons = {
        "session": "Events of one value are one session.",
        "user": "Who did it. Without a column of sessions, they are made of a user's events.",
        "time": "When it happened; the format is time_format above.",
        "event": "What kind of event it was.",
        "rating": "A number that was given with it.",
        "order": "Orders events of the same time.",
        "review": "What was written with it.",
    }
    if times is not None and (between := say_range(times)):
        reasons["time"] = f"When it happened, {between}; the format is time_format above."
    default = {"session": "session_id", "user": "user_id", "time": "timestamp"}
    for role, reason in reasons.items():
        name = default.get(role, role)
        if role in roles:
            lines.say(role, several.get(role, roles[role]), reason)
            if role == "event":
                _targets(pair.event_columns[roles[role]], lines)
        elif name in pair.event_columns:
            lines.say(role, "", f"{reason} {name!r} does not look like it.")
        else:
            lines.idle(role, name, f"{reason} No column looks like it.")


def _column_names(table: Candidate, lines: Lines) -> None:
    """Name the columns of files that do not."""
    source = table.sources[0]
    if source.nameless:
        lines.say("column_names", source.header, says_names(source.header, source.name))


def _names(table: Candidate) -> str | list[str]:
    names = [source.name for source in table.sources]
    return names[0] if len(names) == 1 else names


def _targets(event: Column, lines: Lines) -> None:
    """Show the key that says which events are predicted, with those that there are."""
    names = [name for name, _ in Counter(filter(None, event.cells)).most_common(20)]
    why = (
        "Every event is read, and every one is predicted; with this key those of the list alone "
        "are predicted."
    )
    lines.idle("target_events", names, why)


def _label(columns: dict[str, Column], rating: Column | None, lines: Lines, decimal: str) -> None:
    """Propose a label, commented out: what is to be ranked nobody can guess."""
    what = "A column of 1 and 0, or a rule over a number column: rows are then ranked by it"
    found = propose_label(columns.values(), rating, decimal)
    if found:
        lines.idle("label", found[0], f"{what}. Perhaps this one: {found[1]}.")
    else:
        lines.idle("label", "rating <= 2", f"{what}. No column looks like it.")
    lines.idle("label_means", "avoid", 'What to do where the label occurs: "avoid" or "want".')


def _items(folder: Path, pair: Pair, lines: Lines, decimal: str) -> None:
    """Guess [items]."""
    columns = {n: c for n, c in pair.item_columns.items() if n != pair.id}
    what = "The table with one row for each item."
    verb = "name" if len(pair.interactions.sources) > 1 else "names"
    why = f"Its values differ from row to row, and {pair.interactions.name} {verb} them."
    if pair.items is pair.interactions:
        what = "The table of events: there is none of items, and the first row of each counts."
        why = "Each of its values is an item."
    lines.say("file", _names(pair.items), what)
    _column_names(pair.items, lines)
    lines.say("id", pair.id, why)
    text = [c for c in columns.values() if c.filled and not is_number(c, decimal)]
    named_files = [c for c in text if names_pictures(c)]
    text = [c for c in text if c not in named_files]
    where, under = "", IMAGES
    roles: dict[str, str] = {}
    several = {role: in_languages(role, text) for role in ("title", "description")}
    if not several["title"]:  # a short one is the title, below
        several["description"] = [n for n in several["description"] if not are_short(columns[n])]
    for role in ("title", "description", "picture", "available_from", "available_until"):
        for name in (names := several.get(role, [])):
            roles[role] = names[0]
            text = [c for c in text if c.name != name]
            del columns[name]
        if role in roles:
            continue
        named = [c for c in columns.values() if c.is_called(role) and c.filled]
        if role.startswith("available"):
            named = [c for c in named if c.times is not None]
        if role == "picture":
            # Under images/ whatever they are called, else where the names say that they are files.
            named = [c for c in named + text + named_files if holds_files(folder, c, "images")]
            if not named and (found := files_elsewhere(folder, named_files)):
                named, where, under = [found[0]], found[1], found[2]
        elif role in ("title", "description"):
            named = [c for c in named if c in text + named_files]
        if not named and role == "title":
            named = [c for c in text if c.distinct > 0.8 * len(c.filled) and are_short(c)]
        if not named and role == "description":
            named = [c for c in text if c.mean_length >= 60]
        if named:
            order = {name: i for i, name in enumerate(ROLES[role].split())}
            roles[role] = min(named, key=lambda c: order.get(plain(c.name), len(order))).name
            text = [c for c in text if c.name != roles[role]]
            del columns[roles[role]]
    reasons = {
        "title": "The item's name, read first.",
        "description": "A longer text about it.",
        "picture": " ".join(filter(None, [f"A path under {under}/.", where])),
        "available_from": "When it may first be recommended.",
        "available_until": "When it may last be recommended.",
    }
    default = {"picture": "image"}
    for role, reason in reasons.items():
        name = default.get(role, role)
        if role in roles:
            names = several.get(role, [])
            lines.say(role, names if len(names) > 1 else roles[role], reason)
            if role == "picture" and under != IMAGES:
                lines.say("pictures", under, "The folder of the pictures.")
        elif role == "picture" and (by_id := files_by_id(folder, pair.item_columns[pair.id])):
            lines.say(role, BY_ID, f"The files under {by_id}/ are named by the ids of the items.")
            if by_id != IMAGES:
                lines.say("pictures", by_id, "The folder of the pictures.")
        elif role == "picture" and named_files:
            lost = f"{named_files[0].name!r} names files that are not in this folder: put them into"
            lines.say(role, "", f"{reason} {lost} images/ and write its name here.")
        elif name in pair.item_columns or (role == "picture" and "picture" in pair.item_columns):
            lines.say(role, "", f"{reason} {name!r} does not look like it.")
        else:
            lines.idle(role, name, f"{reason} No column looks like it.")
    _other_columns(pair, columns, lines, decimal)


def _other_columns(pair: Pair, columns: dict[str, Column], lines: Lines, decimal: str) -> None:
    count = Counter(pair.event_columns[pair.item].cells)
    counts = np.array([count[name] for name in pair.item_columns[pair.id].cells], float)
    kinds: dict[str, list[str]] = {k: [] for k in ("text", "category", "number", "list", "never")}
    words = [c for c in columns.values() if not is_number(c, decimal)]  # "$1,250" is no list
    separators = Counter(s for c in words if (s := list_separator_of(c)))
    separator = separators.most_common(1)[0][0] if separators else "|"
    unused = []
    for name, column in columns.items():
        number = bool(column.filled) and is_number(column, decimal)
        if column.leaks():
            kinds["never"].append(name)
        elif (
            column.distinct < 2
            or are_links(column)
            or names_pictures(column)
            or name in ("title", "description", "facts")
            or (not number and column.times is not None)
            or (column.distinct == len(column.filled) > 20 and are_codes(column, number))
        ):
            unused.append(name)
        elif number and stands_for(column):
            repeated = column.distinct <= min(0.5 * len(column.filled), 1000)
            (kinds["category"] if repeated else unused).append(name)
        elif number and follows(column, counts, decimal):
            kinds["never"].append(name)
        elif number:
            kinds["number"].append(name)
        elif list_separator_of(column) == separator or (
            separators and holds_lists(column, separator)
        ):
            kinds["text"].append(name)
            kinds["list"].append(name)
        elif column.distinct <= min(0.2 * len(column.filled), 1000) and column.mean_length <= 40:
            kinds["category"].append(name)
        else:
            kinds["text"].append(name)
        if not number and says_price(column):
            lines.note(
                f"{name!r} is called a price, and its cells are not read as numbers; write them "
                'as such, or see decimal = "," above.'
            )
    lines.say("text_columns", kinds["text"], "Further texts, read in this order.")
    lines.say("category_columns", kinds["category"], "Few values that many items share.")
    lines.say("number_columns", kinds["number"], "Numbers that say something about an item.")
    lines.say("list_columns", kinds["list"], "Texts whose cells are lists.")
    tell = lines.say if kinds["list"] else lines.idle
    tell("list_separator", separator, "What stands between the entries of a list.")
    lines.say(
        "never_use",
        kinds["never"],
        "They seem to come from what people did: a model that reads them knows the future.",
    )
    if unused:
        lines.lines.append(
            f"# Not used (an id, a link, a time, one value, ...): {json.dumps(unused)}"
        )


def _dataset(folder: Path, pair: Pair, lines: Lines, decimal: str, group: list[str]) -> None:
    """Guess [dataset]."""
    name = folder.resolve().name
    known = name if name.isprintable() and 0 < len(name) <= 200 else "catalogue"
    lines.say("name", known.encode("utf-8", "replace").decode(), "For captions.")
    seen = len(set(zip(group, pair.event_columns[pair.item].cells)))
    repeated = 1 - seen / max(len(group), 1)
    lines.say(
        "exclude_seen",
        repeated < 0.001,
        f"{repeated:.1%} of the events repeat an item. true: what was seen is not recommended.",
    )
    lines.idle("min_session_length", 3, "Training leaves out sessions with fewer events.")
    lines.idle("k_core", 5, "Training leaves out items with fewer events in training.")
    found = {each for names in encodings(pair).values() for each in names}
    if len(found) == 1 and not min(found).startswith("utf"):
        lines.say("encoding", min(found), "The files are not UTF-8; this is the likeliest.")
    else:
        lines.idle("encoding", "cp1252", "Of CSV files; found out where it is not given.")
    sources = (*pair.items.sources, *pair.interactions.sources)
    used = {source.delimiter for source in sources if source.kind == CSV}
    between = " and ".join(sign for d, sign in _SIGNS.items() if d in used) or "nothing"
    lines.idle("delimiter", ";", f"Of CSV files; found out where it is not given ({between} here).")
    lines.idle("quoting", "none", "Where quotes of CSV files are characters like any other.")
    if decimal == ".":
        lines.idle("decimal", ",", "What stands before the decimals of a number.")
    else:
        lines.say("decimal", decimal, "What stands before the decimals of a number.")
    why = "Cells that mean nothing and are read as empty"
    if pair.words:
        lines.say("missing", MISSING, f"{why} ({show_words(pair.words)} here).")
    else:
        lines.idle("missing", MISSING[:4], f"{why}; common ones are known.")
    _doubtful(pair, lines)


def _split(users: list[str], times: Times | None, lines: Lines) -> None:
    """Guess whether sessions are made of pauses, or one of a user's whole history.

    Args:
      users: The owners of the events.
      times: Theirs; None where sessions are given, or no times are.
      lines: Of [dataset].
    """
    gap = "A longer pause ends a session made of a user's events."
    lines.idle("session_gap_minutes", GAP, gap)
    what = "Each event by its own time, from a user's whole history."
    if times is None or (near := in_company(users, times, GAP)) >= ENOUGH:
        lines.idle("split", "event_time", what)
        return
    why = f"{near:.0%} of the events have another of their user within {GAP} minutes: few sessions."
    lines.say("split", "event_time", f"{what} {why}")


def _doubtful(pair: Pair, lines: Lines) -> None:
    """Name words that may mean nothing, or be a value."""
    others = {n: c for n, c in pair.event_columns.items() if n != pair.item}
    others |= {n: c for n, c in pair.item_columns.items() if n != pair.id}
    said = []
    for name, column in others.items():
        count = Counter(cell for cell in column.filled if cell.casefold() in DOUBTFUL)
        said += [f"{word!r} in {shown(name)} ({n:,})" for word, n in count.most_common(3) if n > 1]
    if said:
        lines.lines.append(f"# They may mean nothing too; if so, add them: {', '.join(said[:9])}.")


def _time_format(pair: Pair, lines: Lines, times: Times | None, column: Column | None) -> None:
    """Say how times are written, or how they are where it need not be said."""
    form = times.time_format if times else ""
    if times and times.order == "?":
        other = times.pattern.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")
        lines.note(
            f"all dates fit {times.pattern} (day first) and {other} (month first): write below "
            "which is right, without the #."
        )
        lines.idle("time_format", times.pattern, "How times are written.")
    elif form:
        if form == "%m%d" and column is not None:
            lines.note(
                f"the times in {column.name} are months and days of no year and are all read as of "
                "2000; where they go on into a new year, write the year into the cells."
            )
        lines.say("time_format", form, "How times are written.")
    elif times and column is not None:
        files = [source.name for source in pair.interactions.sources]
        cells = [next(filter(None, part), "") for part in column.by_file]
        seen = {form_of(cell): (cell, file) for cell, file in zip(cells, files) if cell}
        shown_ = ", ".join(f"{shown(cell)} in {file}" for cell, file in seen.values())
        example = next(filter(None, seen), "%d.%m.%Y %H:%M")
        lines.idle("time_format", example, f"Found out where it is not given (here: {shown_}).")
    else:
        lines.idle("time_format", "%d.%m.%Y %H:%M", "Found out where it is not given.")
