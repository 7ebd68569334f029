"""Write clean shops in odd forms, let the data verbs read them, compare with what was drawn.

    python tests/integration/fuzz_folders.py --right --folders 500 --seed 0
    python tests/integration/fuzz_folders.py --right --seed 0 --only 17     # one of them again

Each folder is a shop whose sessions and items are known (right_shop.py), written in a form that
jmrec promises to read (right_forms.py). `jmrec data init` and `prepare` have to bring out the same
sessions, splits and items. A form that nobody can read for sure has to be answered by a sentence
and exit code 2; the fuzzer knows which these are: days that may be months, a table without a
header.
"""

import math
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from right_columns import event_columns, item_columns, write_pictures
from right_forms import Column, draw_form, options, settle, write_table
from right_shop import Shop, Visit, draw_events, draw_items, name, split, visits
from right_words import DAY, MONTH, TIMES, floored, readings

from jmrec.data.pictures import decode_pictures
from jmrec.data.prepared import load_prepared
from jmrec.data.schema import Dataset, Items, Sessions

Ask = Callable[..., tuple[int, str]]
"""Words of a command -> exit code and what it said."""


class Misread(AssertionError):
    """What came out is not what was drawn."""


def same(what: str, found: Any, expected: Any) -> None:
    """Refuse a difference."""
    if found != expected:
        raise Misread(f"{what}: {str(found)[:300]} where it is {str(expected)[:300]}")


def write_folder(
    folder: Path, form: dict[str, Any], seed: str
) -> tuple[Shop, list[Any], list[str], bool]:
    """Draw and write a shop.

    Returns:
      The shop, the colours of its pictures, columns that nobody should read, and whether nobody can
      read it for sure.
    """
    rng = random.Random(seed)
    taken: set[str] = set()
    id_name = name("id", rng, taken)
    shop = draw_items(form, rng, taken)
    draw_events(shop, form, rng)
    folder.mkdir()
    cells, colours = write_pictures(folder, shop, form, rng)
    columns, unread = item_columns(shop, form, rng, taken, id_name)
    if form["pictures"] not in ("", "by id"):
        columns.append(Column(name("picture", rng, taken), cells))
    if form["items twice"]:
        again = rng.sample(range(len(shop.ids)), 3)
        columns = [_longer(column, again) for column in columns]
    events = event_columns(shop, form, rng, id_name)
    stems = ["items", "interactions"]
    if not form["usual files"]:
        used: set[str] = set()
        stems = [name("items", rng, used), name("events", rng, used)]
    write_table(folder, stems[0], "items", columns, form, rng)
    if form["months"]:
        half = len(events[0].cells) // 2
        for number, rows in enumerate((slice(0, half), slice(half, None)), 9):
            part = [_part(column, rows) for column in events]
            write_table(folder, f"{stems[1]}_{number}", "events", part, form, rng)
    else:
        write_table(folder, stems[1], "events", events, form, rng)
    if form["another table"]:
        users = sorted({event.user or "" for event in shop.events})
        text = "".join(f'"{user}",{30 + i},Town {i % 3}\n' for i, user in enumerate(users))
        (folder / "people.csv").write_text(f"customer,age,city\n{text}", encoding="utf-8")
        (folder / "README.txt").write_text("The data of our shop.\n\nAsk Ann.\n", encoding="utf-8")
    unsure = bool(form["no header"]) and form[f"{form['no header']} kind"].startswith("csv")
    if form["time"] and not form["clock"]:
        how = TIMES[form["time"]]
        times = [event.time for event in shop.events if not math.isnan(event.time)]
        unsure |= readings(how, [how.write(time) for time in times]) > 1
    return shop, colours, unread, unsure


def _longer(column: Column, rows: Sequence[int]) -> Column:
    """Return a column with some of its cells once more."""
    typed = column.typed
    if typed is not None:
        typed = pa.concat_arrays([typed, typed.take(pa.array(rows))])
    return replace(column, cells=column.cells + [column.cells[i] for i in rows], typed=typed)


def _part(column: Column, rows: slice) -> Column:
    """Return some rows of a column."""
    typed = None if column.typed is None else column.typed[rows]
    return replace(column, cells=column.cells[rows], typed=typed)


def last_second(day: float, step: float) -> float:
    """Return the last second of what is available until a day, written in steps."""
    if step == MONTH:
        return floored(floored(day, MONTH) + 32 * DAY, MONTH) - 1
    return day + DAY - 1 if step == DAY else day


def try_shop(form: dict[str, Any], seed: str, ask: Ask) -> str:
    """Write one shop and read it; return "read" or "refused".

    Raises:
      Misread: if what comes out is something else.
    """
    form = settle(form)
    with tempfile.TemporaryDirectory() as root:
        folder, out = Path(root) / "shop", Path(root) / "out"
        shop, colours, unread, unsure = write_folder(folder, form, seed)
        for words in (("init", str(folder)), ("prepare", str(folder), "--out", str(out))):
            code, said = ask("data", *words)
            if code == 2 and unsure:
                return "refused"
            if code != 0:
                raise Misread(f"jmrec data {words[0]}: {said.strip()}")
        dataset = load_prepared(out)
        compare_items(dataset.items, shop, form, colours, unread)
        compare_sessions(dataset, shop, form)
        if unsure:
            raise Misread("nobody can read it for sure, and nobody said so")
        return "read"


def compare_items(
    items: Items, shop: Shop, form: dict[str, Any], colours: Sequence[Any], unread: Sequence[str]
) -> None:
    """Compare the catalogue with what was drawn."""
    same("item ids", items.ids, shop.ids)
    same("titles", items.titles, [title or "" for title in shop.titles])
    if shop.descriptions is not None:
        same("description", items.text.get("description"), [d or "" for d in shop.descriptions])
    for key, lists in shop.lists.items():
        same(key, items.text.get(key), [", ".join(words) for words in lists])
    for key, texts in shop.texts.items():
        same(key, items.text.get(key), [text or "" for text in texts])
    for key, names in shop.category.items():
        codes = items.category.get(key)
        found = [] if codes is None else [items.category_names[key][code] for code in codes]
        same(key, found, [each or "" for each in names])
    for key, values in shop.number.items():
        numbers = items.number.get(key)
        expected = np.array([np.nan if v is None else v for v in values], np.float32)
        if numbers is None or not np.array_equal(numbers, expected, equal_nan=True):
            same(key, None if numbers is None else numbers.tolist(), expected.tolist())
    read = {*items.text, *items.category, *items.number}
    same("columns that nobody should read", sorted(read & set(unread)), [])
    starts, ends = shop.windows or ([None] * len(shop.ids), [None] * len(shop.ids))
    step = TIMES[form["time"]].step if form["windows"] == "as events" else DAY
    first = [-np.inf if s is None else floored(s, step) for s in starts]
    same("available from", items.available_from.tolist(), first)
    last = [np.inf if e is None else last_second(e, step) for e in ends]
    same("available until", items.available_until.tolist(), last)
    same("pictures", [bool(p) for p in items.pictures], [c is not None for c in colours])
    pixels, _ = decode_pictures(items, 4)
    for i, colour in enumerate(colours):
        if colour is not None and np.abs(pixels[i, 1:3, 1:3].astype(int) - colour).max() > 16:
            same(f"the picture of {shop.ids[i]}", pixels[i, 1, 1].tolist(), list(colour))


def compare_sessions(dataset: Dataset, shop: Shop, form: dict[str, Any]) -> None:
    """Compare the sessions of the three splits with what was drawn."""
    parts = split(visits(shop, form))
    same("whether there are times", dataset.has_time, bool(form["time"]))
    kinds = dataset.event_names
    users: dict[str, int] = {}
    for part, expected in parts.items():
        found = dataset.splits[part]
        same(f"{part}: session ids", found.ids, [visit.name for visit in expected])
        for s, visit in enumerate(expected):
            where = f"{part}, session {visit.name}"
            own = slice(int(found.offsets[s]), int(found.offsets[s + 1]))
            _compare_visit(where, found, own, visit, kinds)
            code = int(found.users[s])
            if visit.user is None or not form["users"]:
                same(f"{where}: user", code, -1)
            else:
                same(f"{where}: user", code, users.setdefault(visit.user, code))
    same("users", len(set(users.values())), len(users))


def _compare_visit(
    where: str, found: Sessions, own: slice, visit: Visit, kinds: Sequence[str]
) -> None:
    events = visit.events
    same(f"{where}: items", found.items[own].tolist(), [event.item for event in events])
    late = np.abs(found.times[own] - np.array(visit.times)).max()
    if not late < 0.002:
        same(f"{where}: times", found.times[own].tolist(), list(visit.times))
    said = [kinds[code] for code in found.events[own]]
    same(f"{where}: events", said, [event.kind or "" for event in events])
    ratings = [None if np.isnan(r) else float(r) for r in found.ratings[own]]
    same(f"{where}: ratings", ratings, [event.rating for event in events])


def fault(form: dict[str, Any], key: str, ask: Ask) -> tuple[str, str]:
    """Return what became of a shop, and what is wrong with that, "" if nothing is."""
    try:
        return try_shop(form, key, ask), ""
    except Exception as error:  # whatever it is, it is no reading
        return "wrong", f"{type(error).__name__}: {error}"


def plainer(form: dict[str, Any], key: str, ask: Ask) -> dict[str, Any]:
    """Return the options that a fault needs: the others are made plain one after the other."""
    plain = {name_: values[0] for name_, values in options().items()}
    kind = fault(form, key, ask)[1].split(":")[:2]
    for name_ in form:
        trial = form | {name_: plain[name_]}
        if trial != form and fault(trial, key, ask)[1].split(":")[:2] == kind:
            form = trial
    return {name_: value for name_, value in form.items() if value != plain[name_]}


def right(
    folders: int, seed: int, ask: Ask, say: Callable[[str], None], only: int | None = None
) -> dict[str, int]:
    """Try so many shops; return how many were read right, refused rightly, and read wrong."""
    count = {"read": 0, "refused": 0, "wrong": 0}
    for number in range(folders) if only is None else [only]:
        key = f"{seed}:{number}"
        form = draw_form(random.Random(key))
        answer, wrong = fault(form, key, ask)
        count[answer] += 1
        if wrong:
            say(f"folder {number} is read wrong: {wrong[:700]}\n  again: python tests/integration/"
                f"fuzz_folders.py --right --seed {seed} --only {number}")  # fmt: skip
        if wrong and only is not None:
            say(f"  it needs {plainer(form, key, ask)}")
        if (number + 1) % 50 == 0:
            say(f"{sum(count.values())} folders: {count}")
    return count
