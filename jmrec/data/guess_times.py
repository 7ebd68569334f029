"""Guess which columns say when something happened, and in which order. For `jmrec data init`."""

import re
import time as clock
from collections.abc import Iterable, Sequence

import numpy as np

from jmrec.data.guess_columns import ROLES, Column, plain, read_numbers, share, words
from jmrec.data.times import Times, read_times, show_time
from jmrec.data.units import DAY, LIKELY, MODERN

_OTHER_TIME = re.compile(
    r"birth|geburt|nacim|naiss|expir|valid|gueltig|gultig|release|erschein|publish|regist|signup|"
    r"joined|member|inscri|since|deliver|liefer|ship|versand|retour|paid|bezahl|updat|modif|changed|"
    r"limit|deadline|estimat|import|export|load|ingest|sync|dob"
)
"""What a column of times may say that is not when an event happened."""
_NO_TIME = re.compile(
    r"phone|telef|mobile|handy|ean|gtin|upc|isbn|postal|plz|price|preis|amount|categor|kategor|"
    r"(id|nr|number|nummer)$"
)
_NO_TIME_WORDS = {
    "id", "nr", "no", "num", "number", "nummer", "code", "tel", "fax", "sku", "key", "zip", "item",
    "product", "artikel", "order", "user", "cat",
}  # fmt: skip
_ORDERS = re.compile(
    r"order|posi|seq|index|step|frame|reihe|rank|event.?(id|nr|no)|click.?(id|nr|no)"
)


def find_time(
    columns: Iterable[Column], items: Sequence[str], owners: Sequence[str]
) -> Column | None:
    """Return the column that says when events happened; None if none looks like it.

    Names, formats, ranges and what the values go with decide together: a number that every event
    of an item shares is a number of the item.

    Args:
      columns: Of the events.
      items: The item of each event.
      owners: The user of each event where sessions are made of users, else nothing.

    Example:
      >>> ids = Column.of("order_no", ["1700000001", "1700000005"])
      >>> find_time([ids, Column.of("day", ["1.2.2026", "13.2.2026"])], ["a", "b"], []).name
      'day'
    """
    best: tuple[float, int, int] | None = None
    found = None
    instants: list[tuple[Column, Times]] = []
    for column in columns:
        if column.times is None:
            continue
        score = _score(column, column.times, items, owners)
        names = ROLES["time"].split()
        place = names.index(plain(column.name)) if column.is_called("time") else len(names)
        counts = column.times.unit != "" and not column.is_called("time")
        if score <= (0 if counts else -2):
            continue
        instants += [] if _coarse(column.times) else [(column, column.times)]
        rank = (score, -place, column.distinct)
        if best is None or rank > best:
            best, found = rank, column
    if found is None or found.times is None or not _coarse(found.times):
        return found
    return next((c for c, times in instants if _same_days(found.times, times)), found)


def _same_days(days: Times, instants: Times) -> bool:
    """Whether instants lie in the days beside them, whatever the zone of either."""
    apart = instants.seconds - days.seconds
    apart = apart[~np.isnan(apart)]
    inside = (apart >= -DAY / 2) & (apart < 1.6 * DAY)
    return len(apart) > 0 and bool(inside.mean() > 0.95)


def _score(column: Column, times: Times, items: Sequence[str], owners: Sequence[str]) -> float:
    says = set(words(column.name))
    name = "_".join(words(column.name))
    score = 5.0 if column.is_called("time") else 2.0 * column.says_time
    if _OTHER_TIME.search(name) or (
        not column.says_time and (_NO_TIME.search(name) or says & _NO_TIME_WORDS)
    ):
        score -= 3
    known = times.seconds[~np.isnan(times.seconds)]
    if not column.is_called("time"):
        score += 2 * (not times.unit) - (times.unit in LIKELY)
        # An order number is one more than the one before; so are days, where the name says so.
        counts = times.unit and not column.says_time and len(known) >= 20 and _counter(column)
        score -= 2 * bool(counts)
    if len(known):
        middle = float(np.median(known))
        score += 1 if MODERN <= middle <= clock.time() + DAY else -2
        score -= float((known > clock.time() + DAY).mean()) > 0.05
    score -= _coarse(times)
    score -= 3 * (_goes_with(column.cells, items) or _goes_with(column.cells, owners))
    return score - 2 * (column.distinct < 2)


def _counter(column: Column) -> bool:
    values = np.unique(read_numbers(column.cells)[0])
    values = values[~np.isnan(values)]
    return bool(len(values) and values[-1] - values[0] < 1.5 * len(values))


def _coarse(times: Times) -> bool:
    """Whether times are days, or longer."""
    return bool((times.span[times.manner > 0] > 0).all())


def _goes_with(cells: Sequence[str], others: Sequence[str]) -> bool:
    """Whether the other column tells the cell, for the values of it that occur more than once."""
    if not others or len(set(cells)) < 2:
        return False
    first: dict[str, str] = {}
    same = [
        cell == first[o] for cell, o in zip(cells, others) if o in first or first.update({o: cell})
    ]
    return len(same) >= 20 and share(same, same) > 0.98


def find_clock(columns: Iterable[Column], times: Times) -> Column | None:
    """Return a column of times of day, where the times are days."""
    if not _coarse(times):
        return None
    form = r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d([.,]\d+)?)?( ?[APap][Mm])?"
    for column in columns:
        if share(column.filled, [bool(re.fullmatch(form, c)) for c in column.filled]) > 0.95:
            return column
    return None


def find_order(
    columns: Iterable[Column], times: Times | None, owners: Sequence[str], decimal: str
) -> Column | None:
    """Return a column of numbers that orders events of one session or user and one time.

    Args:
      columns: Those without another role.
      times: Of the events; None where there are none.
      owners: The session or user of each event.
      decimal: "." or ",".
    """
    groups = np.unique(np.array(owners), return_inverse=True)[1]
    if times is not None:
        when = np.unique(times.seconds, return_inverse=True)[1]
        groups = groups * (when.max() + 1) + when
    # Numbered anew: there are far more pairs of an owner and a time than events.
    groups, events = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    tied = events[groups] > 1
    if tied.sum() < 10 or tied.mean() < 0.2:
        return None
    for column in columns:
        values = read_numbers(column.cells, decimal)[0]
        if np.isnan(values).any():
            continue
        order = np.lexsort((np.arange(len(values)), groups))
        inside = np.diff(groups[order]) == 0
        steps = np.diff(values[order])[inside]
        ordered = float((steps > 0).mean()) > 0.98
        sort = np.lexsort((values, groups))
        gaps = np.diff(values[sort])[np.diff(groups[sort]) == 0]
        if float((gaps == 0).mean()) > 0.01:
            continue  # ties
        name = "_".join(words(column.name))
        if ordered or float((gaps == 1).mean()) > 0.95 or _ORDERS.search(name):
            return column
    return None


def say_range(times: Times) -> str:
    """Return the first and the last time, as a person reads them; "" where none is known."""
    known = times.seconds[~np.isnan(times.seconds)]
    if not len(known):
        return ""
    first, last = (show_time(float(each)) for each in (known.min(), known.max()))
    return f"{first} to {last}"


def in_company(owners: Sequence[str], times: Times, minutes: float) -> float:
    """Return the share of events that have another of their owner within so many minutes.

    Events of nobody or without a time do not count; 1 where there are no others.

    Example:
      >>> times = read_times(["2026-01-01 10:00", "2026-01-01 10:20", "2026-01-01 11:00"])
      >>> round(in_company(["a", "a", "a"], times, 30), 2)
      0.67
    """
    somebody = np.array([bool(each) for each in owners], bool)
    known = np.flatnonzero(~np.isnan(times.seconds) & somebody)
    _, whose = np.unique([owners[each] for each in known.tolist()], return_inverse=True)
    order = np.lexsort((times.seconds[known], whose))
    whose, seconds = whose[order], times.seconds[known][order]
    near = (np.diff(whose) == 0) & (np.diff(seconds) <= 60 * minutes)
    return float((np.append(near, False) | np.append(False, near)).mean()) if len(known) else 1.0


_ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:([T ])\d\d:\d\d(:\d\d)?([.,]\d{1,6})?( ?UTC|Z|[+-]\d\d:?\d\d)?)?"
)


def form_of(cell: str) -> str:
    """Return a time_format that reads a cell as it is read without one, "" where none is known.

    Example:
      >>> form_of("2024-02-29T22:07:31Z"), form_of("29.02.2024 22:07"), form_of("1709244451")
      ('%Y-%m-%dT%H:%M:%SZ', '%d.%m.%Y %H:%M', 's')
      >>> form_of("29 Feb 2024")
      ''
    """
    found = read_times([cell])
    form = found.time_format or found.unit
    if not form and (iso := _ISO.fullmatch(cell)):
        between, seconds, rest, zone = iso.groups(default="")
        form = "%Y-%m-%d" + (f"{between}%H:%M" if between else "") + (":%S" if seconds else "")
        form += f"{rest[0]}%f" if rest else ""
        form += "%z" if zone[:1] in ("+", "-") and zone else zone
    same = form and read_times([cell], form).seconds[0] == found.seconds[0]
    return form if same else ""
