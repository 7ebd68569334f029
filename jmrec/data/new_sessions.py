"""Read a file of sessions that came after training: what of it is new becomes a batch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jmrec.data.folder import Raw
from jmrec.data.forgotten import SESSION, USER, Forgotten
from jmrec.data.ids import plain_id, without_point
from jmrec.data.live import Events, copies_of, gather_events
from jmrec.data.more_rows import read_more_events, read_more_items, read_own_events
from jmrec.data.remembered import Batch, Remembered, join_items
from jmrec.data.schema import Dataset, Items, Sessions, take_items
from jmrec.data.times import show_time
from jmrec.errors import UserError


@dataclass
class Counted:
    """What became of a file.

    Attributes:
      file: Its name.
      events: How many new events are remembered, in ``sessions`` sessions (or users, where sessions
        are made of what they do), of which ``continued`` were known.
      times: The unix seconds of the first and the last new event; () without times.
      known: How many were counted before.
      forgotten: How many are of users or sessions that were forgotten.
      items: How many items are new.
      warnings: What was left out or mended, one sentence a kind.
    """

    file: str
    events: int = 0
    sessions: int = 0
    continued: int = 0
    times: tuple[float, ...] = ()
    known: int = 0
    forgotten: int = 0
    items: int = 0
    warnings: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """Return all of it in words."""
        said = [
            f"{self.file}: {self.events:,} new events of {self.sessions:,} sessions are counted, "
            f"{self.continued:,} of which were known and go on."
        ]
        if self.times:
            first, last = map(show_time, self.times)
            said.append(f"They are of {first} to {last} (UTC).")
        if self.known:
            said.append(f"{self.known:,} events were counted before and are not counted again.")
        if self.forgotten:
            said.append(f"{self.forgotten:,} events of people who were forgotten are left out.")
        if self.items:
            said.append(f"New items: {self.items:,}.")
        return said


def read_batch(
    path: Path,
    dataset: Dataset,
    remembered: Remembered,
    items_path: Path | None = None,
    forgotten: Forgotten | None = None,
) -> tuple[Batch, Counted]:
    """Read what is new in a file of sessions.

    Args:
      path: The file, with the columns of the run's own interactions.
      dataset: Sessions of all splits, and the catalogue with all items that are known by now.
      remembered: The batches of before.
      items_path: A table of items, of which the new ones are added; None for none.
      forgotten: Who is left out.

    Raises:
      UserError: The file can not be read, or nothing in it is new.
    """
    reading, counted = remembered.reading, Counted(path.name)
    items = join_items([])
    if items_path is not None:
        items, said = _new_items(items_path, dataset.items.ids, remembered)
        counted.warnings += said
        counted.items = len(items)
    every = [*dataset.items.ids, *items.ids]
    raw = read_more_events(path, reading.description, _catalogue(every))
    counted.warnings += raw.warnings
    rows = {item: row for row, item in enumerate(every)}
    known = gather_events(dataset, remembered, rows)
    raw = _spelt_as_known(raw, known.names, counted)
    keep = _not_forgotten(raw, forgotten)
    counted.forgotten = int((~keep).sum())
    whole, place = _all_of(raw, keep, every, remembered)
    number = len(remembered.parts) + 1
    grown = replace(remembered, batches=(*remembered.batches, whole))
    events = gather_events(dataset, grown, rows)
    first, own = events.first(), np.flatnonzero(events.source == number)
    if not reading.has_time:
        _check_begins(events, first, own, path)
    new = first[own] == own
    counted.known = int((~new).sum())
    if not new.any() and not len(items):
        why = "all of its events were counted before" if len(own) else "no event of it is left"
        raise UserError(f"{path}: {why}; nothing is changed.")
    batch = _only(whole, new)
    if not reading.has_time:
        last = float(known.times.max(initial=-1.0))
        rank = np.argsort(np.argsort(place[new], kind="stable"), kind="stable")
        batch = replace(batch, events=replace(batch.events, times=last + 1 + rank))
    before = set(known.names)
    counted.events, counted.sessions = int(new.sum()), len(batch.events)
    if reading.has_time and counted.events:
        counted.times = float(batch.events.times.min()), float(batch.events.times.max())
    counted.continued = sum(name in before for name in batch.events.ids)
    return replace(batch, items=items), counted


def read_begin(
    folder: Path, dataset: Dataset, remembered: Remembered, forgotten: Forgotten | None = None
) -> Batch | None:
    """Read what the catalogue folder holds and preparing left out; see `Remembered.begin`.

    Args:
      folder: The catalogue folder.
      dataset: What was prepared of it.
      remembered: Without any batch.
      forgotten: Who is left out.

    Returns:
      A batch, or None where there is nothing. Without times nobody can tell where an event stood
      that a filter has taken out of training; then nothing is read.
    """
    d = remembered.reading.description
    if not remembered.reading.has_time and (d.k_core, d.min_session_length) != (1, 2):
        return None
    ids = dataset.items.ids
    raw = read_own_events(folder, d, _catalogue(ids))
    whole, place = _all_of(raw, _not_forgotten(raw, forgotten), ids, remembered)
    rows = {item: row for row, item in enumerate(ids)}
    events = gather_events(dataset, replace(remembered, begin=whole), rows)
    first, own = events.first(), np.flatnonzero(events.source == 1)
    if not remembered.reading.has_time:
        _check_begins(events, first, own, folder)
    new = first[own] == own
    batch = _only(whole, new)
    if not remembered.reading.has_time:  # their places in the file are their times
        batch = replace(batch, events=replace(batch.events, times=place[new].astype(np.float64)))
    return batch if new.any() else None


def _catalogue(ids: list[str]) -> Items:
    return Items(ids, ids, {"title": ids}, [b""] * len(ids))


def _new_items(
    path: Path, present: Sequence[str], remembered: Remembered
) -> tuple[Items, list[str]]:
    """Return the items of a table that are not known yet, and what is said of it."""
    items, said = read_more_items(path, remembered.reading.description)
    spelt = {plain_id(item): item for item in present}
    rows, known = [], set(present)
    for row, item in enumerate(items.ids):
        if item in known:
            continue
        if plain_id(item) in spelt:
            said.append(
                f"{path.name}: the item {item!r} is {spelt[plain_id(item)]!r} in another spelling "
                "and is not taken for a new one; give it another id if it is one."
            )
        else:
            rows.append(row)
    new = take_items(items, rows)
    # What a category says is a text of the item, as any other.
    more = {
        name: [items.category_names[name][code] for code in codes]
        for name, codes in new.category.items()
    }
    return replace(new, text={**new.text, **more}, category={}, category_names={}, number={}), said


def _spelt_as_known(raw: Raw, names: Sequence[str], counted: Counted) -> Raw:
    """Return events whose session or user "7.0" is "7" where that one is known, or the other way.

    Programs add a point to numbers or take it away; read with all the others they are one.
    """
    group = raw.session or raw.user
    assert group is not None  # a description has one of them
    codes, own = group
    known, plain = set(names), {without_point(name): name for name in names}
    same = {
        name: plain[without_point(name)]
        for name in own
        if name not in known and without_point(name) in plain
    }
    if not same:
        return raw
    one = next(iter(same))
    counted.warnings.append(
        f"{counted.file}: {one!r} is read as {same[one]!r}, as it was known before "
        f"({len(same):,} such ids)."
    )
    spelt = [same.get(name, name) for name in own]
    words = {name: code for code, name in enumerate(dict.fromkeys(spelt))}
    # One more for -1, which stays -1.
    place = np.array([*(words[name] for name in spelt), -1], np.int64)
    found = (place[codes], list(words))
    return replace(raw, session=found) if raw.session else replace(raw, user=found)


def _not_forgotten(raw: Raw, forgotten: Forgotten | None) -> np.ndarray:
    """Return bool [N], the events of nobody who was forgotten."""
    keep = np.ones(len(raw.item), bool)
    if forgotten is None:
        return keep
    for kind, group in ((SESSION, raw.session), (USER, raw.user)):
        if group is not None:
            gone = np.array([forgotten.holds(kind, name) for name in group[1]] + [False])
            keep &= ~gone[group[0]]
    return keep


def _all_of(
    raw: Raw, keep: np.ndarray, ids: Sequence[str], remembered: Remembered
) -> tuple[Batch, np.ndarray]:
    """Return a file as a batch, known events too, and int64 [N], each event's place in the file."""
    group = raw.session or raw.user
    assert group is not None
    reading, index = remembered.reading, np.flatnonzero(keep)
    codes, names = group[0][index], group[1]
    time = np.zeros(len(index)) if raw.time is None else raw.time[index]
    tie = index if raw.order is None else raw.order[index]
    order = np.lexsort((index, tie, time, codes))
    at, whose = index[order], codes[order]
    starts = np.flatnonzero(np.diff(whose, prepend=-1) != 0)
    offsets = np.append(starts, len(at)).astype(np.int64)
    lengths = np.diff(offsets)
    columns = {"whose": whose, "items": raw.item[at], "times": time[order], "events": raw.event[at]}
    copies = np.arange(len(at)) - np.repeat(starts, lengths)
    place = at
    if reading.has_time:
        copies = copies_of(columns)
    else:  # as sessionise does: a session takes the places that its events have in the file
        place = at[np.lexsort((at, whose))]
    people = raw.user if raw.session is not None else None
    user = np.full(len(at), -1) if people is None else people[0][at]
    users = np.maximum.reduceat(user, starts) if len(starts) else np.zeros(0)
    events = Sessions(
        ids=[names[code] for code in whose[starts]],
        users=users.astype(np.int32),
        offsets=offsets,
        items=raw.item[at],
        times=columns["times"],
        events=raw.event[at],
        ratings=raw.rating[at],
    )
    batch = Batch(
        events, copies.astype(np.int32), list(ids), raw.event_names,
        [] if people is None else people[1], join_items([]),
    )  # fmt: skip
    return batch, place


def _check_begins(events: Events, first: np.ndarray, own: np.ndarray, path: Path) -> None:
    """Check, without times, that a known session begins in a file as it is known.

    Raises:
      UserError: It does not: nobody could tell new events from those that were counted.
    """
    same = (events.items[first[own]] == events.items[own]) & (
        events.events[first[own]] == events.events[own]
    )
    if not same.all():
        name = events.names[events.whose[own[~same][0]]]
        raise UserError(
            f"{path}: session {name!r} is known and begins otherwise here. Without times an event "
            "is known by its place in its session: give a session that goes on whole, from its "
            "first event."
        )


def _only(whole: Batch, keep: np.ndarray) -> Batch:
    """Return a batch with the events where ``keep`` (bool [N]), and the names that they need."""
    part = whole.events
    count = np.concatenate([[0], np.cumsum(keep)])[part.offsets]
    left = np.flatnonzero(np.diff(count))
    items, item_codes = np.unique(part.items[keep], return_inverse=True)
    kinds, kind_codes = np.unique(part.events[keep], return_inverse=True)
    people, user_codes = np.unique(part.users[left], return_inverse=True)
    nobody = int((people < 0).any())
    events = Sessions(
        ids=[part.ids[row] for row in left],
        users=(user_codes - nobody).astype(np.int32),
        offsets=np.append(0, count[1:][left]).astype(np.int64),
        items=item_codes.astype(np.int32),
        times=part.times[keep],
        events=kind_codes.astype(np.int32),
        ratings=part.ratings[keep],
    )
    return replace(
        whole,
        events=events,
        copies=whole.copies[keep],
        item_ids=[whole.item_ids[row] for row in items],
        event_names=[whole.event_names[code] for code in kinds],
        user_ids=[whole.user_ids[code] for code in people[nobody:]],
    )


def without_people(
    batch: Batch, users: Collection[str], own: Collection[str], gone: np.ndarray
) -> tuple[Batch, int]:
    """Take people out of a batch.

    Args:
      batch: The batch.
      users: User ids: their sessions go.
      own: Ids by which events belong together: they go.
      gone: bool [N], events that go.

    Returns:
      The batch without them, and how many events went.
    """
    part, own, users = batch.events, {*own}, {*users}
    away = np.array([name in own for name in part.ids], bool)
    of_user = np.array([*(name in users for name in batch.user_ids), False], bool)
    away |= of_user[part.users]
    events = np.repeat(away, part.lengths) | gone
    return _only(batch, ~events), int(events.sum())
