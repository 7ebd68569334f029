"""A shop's columns and pictures, written as a form says: for right_folders.py."""

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from right_forms import Column
from right_shop import Shop, name, plain_words
from right_words import LATER, TIMES

PRICES = ("price", "preis", "list_price", "precio")
CLOCKS = (("date", "time"), ("Datum", "Uhrzeit"), ("order_date", "order_time"), ("day", "clock"))
EPOCH = date(1970, 1, 1)
ODD_PICTURES = {
    "grey 16": "png", "grey 16 tiff": "tif", "floats": "tif", "palette": "png", "clear": "png",
    "cmyk": "jpg",
}  # fmt: skip
"""Kinds of pictures that are not as most are -> endings."""


def spell(cells: Sequence[str | None], how: str, rng: random.Random) -> list[str | None]:
    """Return ids in another spelling; each stands in the ordinary one at least once."""
    change: dict[str, Callable[[str], str]] = {
        "point": lambda c: f"{c}.0",
        "some points": lambda c: f"{c}.0",
        "lost zeros": lambda c: c.lstrip("0"),
        "no width": lambda c: c + rng.choice(["\u200b", "\ufeff", "\u2060"]),
        "padded": lambda c: f" {c} ",
    }
    seen: set[str] = set()
    out = []
    for cell in cells:
        odd = how == "point" or (cell in seen and rng.random() < 0.5)
        out.append(cell if cell is None or not odd or how == "same" else change[how](cell))
        seen.add(cell or "")
    return out


def typed_ids(cells: Sequence[str | None], style: str, how: str) -> pa.Array | None:
    """Return ids as Parquet may hold them: integers, floats beside gaps, a dictionary."""
    if how not in ("same", "point", "some points") or (style == "long" and None in cells):
        return None
    if style in ("int", "long"):
        values = [None if c is None else int(c.removesuffix(".0")) for c in cells]
        floats = None in cells or how != "same"
        return pa.array(values, pa.float64() if floats else pa.int64(), from_pandas=True)
    return pa.array(cells, pa.string()).dictionary_encode()


def amount(value: float, money: str, decimal: str) -> str:
    """Return a number as shops write it."""
    mark = {"thousands space": " ", "thousands apostrophe": "'"}.get(
        money, "." if decimal == "," else ","
    )
    text = f"{value:,.2f}" if "thousands" in money else f"{value:.2f}"
    text = text.translate(str.maketrans({",": mark, ".": decimal}))
    forms = {"sign before": "€ {}", "sign after": "{} €", "code after": "{} EUR"}
    return forms.get(money, "${}" if money == "thousands sign" else "{}").format(text)


def item_columns(shop: Shop, form: dict[str, Any], rng: random.Random, taken: set[str],
                 id_name: str) -> tuple[list[Column], list[str]]:  # fmt: skip
    """Return the columns of the items, and the names of those that nobody should read."""
    columns = [Column(id_name, list(shop.ids), typed_ids(shop.ids, form["item ids"], "same"))]
    if form["title languages"]:
        first = [title if rng.random() < 0.6 else None for title in shop.titles]
        second = [None if a else title for a, title in zip(first, shop.titles)]
        columns += [Column("title_de", first), Column("title_en", second)]
    else:
        columns.append(Column(name("title", rng, taken), list(shop.titles)))
    if shop.descriptions is not None:
        columns.append(Column(name("description", rng, taken), list(shop.descriptions)))
    for key, names in shop.category.items():
        columns.append(Column(key, list(names), pa.array(names).dictionary_encode()))
    for key, values in shop.number.items():
        columns.append(_number(key, values, form, rng))
    for key, lists in shop.lists.items():
        sign = form["list separator"]
        between = sign + " " * (rng.random() < 0.3)
        cells: list[str | None] = [between.join(words) for words in lists]
        columns.append(Column(key, cells, pa.array(lists)))
    columns += [Column(key, list(texts)) for key, texts in shop.texts.items()]
    if shop.windows:
        for role, days in zip(("from", "until"), shop.windows):
            same = form["windows"] == "as events"
            write = TIMES[form["time"]].write if same else LATER[form["windows"]]
            texts = [None if day is None else write(day) for day in days]
            whole = [None if d is None else EPOCH + timedelta(seconds=d) for d in days]
            typed = None if same else pa.array(whole, pa.date32())
            columns.append(Column(name(role, rng, taken), texts, typed))
    unread: list[str] = []
    if form["leak"]:
        sold = [sum(e.item == i for e in shop.events) for i in range(len(shop.ids))]
        columns.append(Column("n_sold", list(map(str, sold)), pa.array(sold)))
        unread.append("n_sold")
    if form["junk"]:
        ean = [4_260_000_000_000 + rng.randrange(10**9) for _ in shop.ids]
        columns.append(Column("ean", list(map(str, ean)), pa.array(ean)))
        urls: list[str | None] = [f"https://shop.example/p/{i}" for i in range(len(shop.ids))]
        columns.append(Column("url", urls))
        made = [f"{rng.randint(2005, 2011)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}" for _ in ean]
        columns.append(Column("created", list(made)))
        unread += ["ean", "url", "created"]
    return columns, unread


def _number(
    key: str, values: Sequence[float | None], form: dict[str, Any], rng: random.Random
) -> Column:
    money = form["money"] if key != "year" else "plain"
    if key == "year":
        cells = [None if v is None else str(int(v)) for v in values]
        return Column(key, cells, pa.array([None if v is None else int(v) for v in values]))
    cells = [None if v is None else amount(v, money, form["decimal"]) for v in values]
    signed = money in ("sign before", "sign after", "code after", "thousands sign")
    asked = form["on request"] and (signed or key.lower() in PRICES)
    if asked:
        cells = [c or rng.choice(["on request", "sold out"]) for c in cells]
    kind = rng.choice([pa.float64(), pa.float32(), pa.decimal128(12, 2)])
    exact = [None if v is None else Decimal(f"{v:.2f}") for v in values]
    typed = pa.array(exact if pa.types.is_decimal(kind) else values, kind)
    return Column(key, cells, typed, word=not asked)


def event_columns(
    shop: Shop, form: dict[str, Any], rng: random.Random, id_name: str
) -> list[Column]:
    """Return the columns of the interactions."""
    events = shop.events
    taken: set[str] = set()
    if form["sessions"] == "cells":
        firsts = [e for i, e in enumerate(events) if not i or e.session != events[i - 1].session]
    else:
        firsts = list(events)
    item_name = id_name if rng.random() < 0.5 else name("item", rng, taken)
    taken.add(item_name.lower())
    gone = "987654321" if shop.ids[0].isdigit() else "gone"
    ids: list[str | None] = [shop.ids[e.item] if e.item >= 0 else gone for e in events]
    typed = typed_ids(ids, form["item ids"], form["item spelling"])
    ids = spell(ids, form["item spelling"], rng)
    if form["sessions"] == "cells":
        typed = None
        rows: dict[str, list[str]] = {}
        for event, cell in zip(events, ids):
            rows.setdefault(event.session, []).append(cell or "")
        ids = [form["between items"].join(each) for each in rows.values()]
    columns = [Column(item_name, ids, typed)]
    if form["sessions"] != "users":
        cells: list[str | None] = [event.session for event in firsts]
        typed = typed_ids(cells, form["session ids"], form["session spelling"])
        spelt = spell(cells, form["session spelling"], rng)
        columns.append(Column(name("session", rng, taken), spelt, typed))
    if form["users"]:
        cells = [event.user for event in firsts]
        typed = typed_ids(cells, form["user ids"], form["user spelling"])
        spelt = spell(cells, form["user spelling"], rng)
        columns.append(Column(name("user", rng, taken), spelt, typed))
    if form["time"]:
        columns += _times([event.time for event in firsts], form, rng, taken)
    if form["order"]:
        places = [event.place + 1 for event in firsts]
        columns.append(Column(name("order", rng, taken), list(map(str, places)), pa.array(places)))
    if form["event"]:
        kinds = [event.kind for event in firsts]
        columns.append(Column(name("event", rng, taken), list(kinds)))
    if form["rating"]:
        values = [event.rating for event in firsts]
        stars = [None if v is None else str(v).replace(".", form["decimal"]) for v in values]
        columns.append(Column(name("rating", rng, taken), stars, pa.array(values)))
    if form["remarks"]:
        columns.append(Column("comment", [plain_words(form["language"], rng) for _ in firsts]))
    if form["junk"]:
        columns += _junk(firsts, form, rng)
    return columns


def _times(times: list[float], form: dict[str, Any], rng: random.Random, taken: set[str]
           ) -> list[Column]:  # fmt: skip
    moments = [None if math.isnan(t) else datetime.fromtimestamp(t, UTC) for t in times]
    if form["clock"]:
        day, clock = rng.choice(CLOCKS)
        write = TIMES[rng.choice(["iso day", "points day", "english day", "compact day"])].write
        return [
            Column(day, [write(t) for t in times]),
            Column(clock, [moment and moment.strftime(form["clock"]) for moment in moments]),
        ]
    how = TIMES[form["time"]]
    cells = [None if math.isnan(t) else how.write(t) for t in times]
    typed = None
    if form["time"] == "iso day":
        typed = pa.array([moment and moment.date() for moment in moments], pa.date32())
    elif form["time"].startswith("iso"):
        zone = rng.choice([None, "UTC", "Europe/Berlin"])
        unit = rng.choice(["ms", "us", "ns"])
        if zone is None:
            moments = [moment and moment.replace(tzinfo=None) for moment in moments]
        typed = pa.array(moments, pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone))
    elif all(c is None or c.isdigit() for c in cells):
        typed = pa.array([c and int(c) for c in cells], pa.int64())
    elif form["time"] in ("excel", "unix float"):
        typed = pa.array([c and float(c) for c in cells])
        if form["decimal"] == "," and form["time"] == "excel":
            cells = [c and c.replace(".", ",") for c in cells]
    return [Column(name("time", rng, taken), cells, typed)]


def _junk(events: Sequence[Any], form: dict[str, Any], rng: random.Random) -> list[Column]:
    """Return columns that look like times or ids and say nothing of when something happened."""
    count = len(events)
    users = sorted({event.user or "" for event in events})
    phone = {user: str(1_555_000_000 + 7919 * i) for i, user in enumerate(users)}
    born = {user: f"19{60 + i % 35}-0{1 + i % 9}-17" for i, user in enumerate(users)}
    first = rng.choice([1_600_000_001, 10_000_001, 1_700_000_000_000])
    orders = list(range(first, first + count))
    category = [1_563_013_552_259_662_037 + event.item % 5 for event in events]
    found = [
        Column("category_id", list(map(str, category)), pa.array(category)),
        Column("quantity", [str(rng.randint(1, 3)) for _ in events]),
        Column("ip", [f"10.0.{rng.randrange(200)}.{rng.randrange(200)}" for _ in events]),
    ]
    if form["rows"] == "by time":  # an order's number grows with time
        found.append(Column("order_no", list(map(str, orders)), pa.array(orders)))
    if form["users"]:
        found.append(Column("phone", [phone[event.user or ""] for event in events]))
        found.append(Column("birth_date", [born[event.user or ""] for event in events]))
    return found


def write_pictures(
    folder: Path, shop: Shop, form: dict[str, Any], rng: random.Random
) -> tuple[list[str | None], list[tuple[int, int, int] | None]]:
    """Write the pictures; return the cells that name them, and the colours to be seen."""
    if not form["pictures"]:
        return [None] * len(shop.ids), [None] * len(shop.ids)
    images = folder / "images"
    (images / "a").mkdir(parents=True)
    cells: list[str | None] = []
    seen: list[tuple[int, int, int] | None] = []
    for i, colour in enumerate(shop.pictures):
        if colour is None:
            cells.append(None)
            seen.append(None)
            continue
        kind = rng.choice(["png", "png", "jpg", "webp", "gif", "bmp", "tif", *ODD_PICTURES])
        stem = shop.ids[i] if form["pictures"] == "by id" else f"p{i}"
        below = "a/" if form["pictures"] == "below" else ""
        path = images / f"{below}{stem}.{ODD_PICTURES.get(kind, kind)}"
        seen.append(_save(path, kind, colour, (rng.randint(5, 30),) * 2))
        start = {"folder": "images/", "dot slash": "./images/", "backslash": "images\\"}
        cells.append(start.get(form["pictures"], "") + below + path.name)
    return cells, seen


def _save(
    path: Path, kind: str, colour: tuple[int, int, int], size: tuple[int, int]
) -> tuple[int, int, int]:
    """Write a picture of one colour; return the colour to be seen."""
    grey = colour[1]
    if kind.startswith("grey 16"):
        Image.fromarray(np.full(size, 257 * grey, np.uint16)).save(path)
    elif kind == "floats":
        Image.fromarray(np.full(size, grey / 255, np.float32)).save(path)
    elif kind == "clear":  # what is transparent is seen on white
        Image.new("RGBA", size, (*colour, 0)).save(path)
        return 255, 255, 255
    else:
        image = Image.new("RGB", size, colour)
        if kind == "palette":
            image = image.quantize(4)
        (image.convert("CMYK") if kind == "cmyk" else image).save(path)
        return colour
    return grey, grey, grey
