"""All that is known of sessions until now: what the data holds and what was remembered since.

It is a pure function of the events: whatever batches they came in, the sessions are the same, in
one order (their start, then their id). An event is known by its session or user, its item, its
time and its type, and by how many of the same came before it; without times by its place in its
session.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from jmrec.data.remembered import Batch, Reading, Remembered
from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import filter_training, take

SPLITS = ("test", "validation", "train")
"""In this order: a later split may hold the whole session of which an earlier has a part."""


@dataclass(frozen=True)
class Events:
    """N events in the order in which they came, some of them several times.

    Attributes:
      reading: How sessions are made of them.
      names: W ids of sessions, or of users where sessions are made of what they do.
      whose: int64 [N], places in ``names``.
      items: int64 [N] rows of the catalogue.
      times: float64 [N].
      events: int64 [N] codes of ``event_names``.
      ratings: float32 [N].
      users: int64 [N] codes, -1 for none; those of the data come first.
      copies: int64 [N], see `jmrec.data.remembered.Batch`.
      source: int64 [N], 0 of what the data holds, then the number of the batch, the first of
        `Remembered.parts` being 1.
      session: int64 [N], places in ``session_ids`` of what the data holds, -1 of all else.
      session_ids: Ids of the sessions of the data.
      event_names: Names of types of events.
    """

    reading: Reading
    names: list[str]
    whose: np.ndarray
    items: np.ndarray
    times: np.ndarray
    events: np.ndarray
    ratings: np.ndarray
    users: np.ndarray
    copies: np.ndarray
    source: np.ndarray
    session: np.ndarray
    session_ids: list[str]
    event_names: list[str]

    def first(self) -> np.ndarray:
        """Return int64 [N]: the place of the first event that is known by the same as each."""
        keys = [self.copies, self.whose]
        if self.reading.has_time:
            keys = [self.copies, self.events, self.times, self.items, self.whose]
        order = np.lexsort(keys)  # stable: what came first stands first
        new = np.ones(len(order), bool)
        new[1:] = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
        out = np.empty(len(order), np.int64)
        out[order] = order[new][np.cumsum(new) - 1]
        return out


def gather_events(dataset: Dataset, remembered: Remembered, rows: Mapping[str, int]) -> Events:
    """Lay out every event that the data and the batches hold.

    Args:
      dataset: Its sessions of all splits.
      remembered: The batches.
      rows: Item id -> row of the catalogue; events of other items are left out.
    """
    reading, names = remembered.reading, dict[str, int]()
    known = dict.fromkeys(dataset.event_names)
    more = {name for batch in remembered.parts for name in batch.event_names} - known.keys()
    types = {name: code for code, name in enumerate([*known, *sorted(more)])}
    code = 1 + max((int(dataset.splits[s].users.max(initial=-1)) for s in SPLITS), default=-1)
    people = sorted({user for batch in remembered.parts for user in batch.user_ids})
    users = {user: code + place for place, user in enumerate(people)}
    ids: list[str] = []
    parts = []
    for split in SPLITS:
        part = dataset.splits[split]
        parts.append(_of_split(part, reading, names, len(ids)))
        ids += part.ids
    for number, batch in enumerate(remembered.parts, 1):
        parts.append(_of_batch(batch, number, names, rows, types, users))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Events(
        reading=reading, names=list(names), session_ids=ids, event_names=list(types), **columns
    )


def _of_split(
    part: Sessions, reading: Reading, names: dict[str, int], before: int
) -> dict[str, np.ndarray]:
    own = [each.rpartition(":")[0] for each in part.ids] if reading.by_gap else part.ids
    codes = np.array([names.setdefault(each, len(names)) for each in own], np.int64)
    count = len(part.items)
    found = {
        "whose": np.repeat(codes, part.lengths),
        "items": part.items.astype(np.int64),
        "times": part.times,
        "events": part.events.astype(np.int64),
        "ratings": part.ratings,
        "users": np.repeat(part.users.astype(np.int64), part.lengths),
        "source": np.zeros(count, np.int64),
        "session": before + np.repeat(np.arange(len(part)), part.lengths),
    }
    place = np.arange(count) - np.repeat(part.offsets[:-1], part.lengths)
    return found | {"copies": copies_of(found) if reading.has_time else place}


def _of_batch(
    batch: Batch,
    number: int,
    names: dict[str, int],
    rows: Mapping[str, int],
    types: Mapping[str, int],
    users: Mapping[str, int],
) -> dict[str, np.ndarray]:
    events = batch.events
    codes = np.array([names.setdefault(each, len(names)) for each in events.ids], np.int64)
    row = np.array([rows.get(each, -1) for each in batch.item_ids], np.int64)
    kind = np.array([types[each] for each in batch.event_names], np.int64)
    who = np.array([*(users[each] for each in batch.user_ids), -1], np.int64)  # -1 stays -1
    items = row[events.items]
    found = {
        "whose": np.repeat(codes, events.lengths),
        "items": items,
        "times": events.times,
        "events": kind[events.events],
        "ratings": events.ratings,
        "users": np.repeat(who[events.users], events.lengths),
        "copies": batch.copies.astype(np.int64),
        "source": np.full(len(items), number, np.int64),
        "session": np.full(len(items), -1, np.int64),
    }
    return {name: column[items >= 0] for name, column in found.items()}


def copies_of(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return int64 [N]: how many events of the same session, item, time and type came before each.

    Example:
      >>> one = np.zeros(4)
      >>> columns = {"whose": one, "items": np.array([7, 8, 7, 7]), "times": one, "events": one}
      >>> copies_of(columns).tolist()
      [0, 0, 1, 2]
    """
    keys = [columns[name] for name in ("events", "times", "items", "whose")]
    order = np.lexsort(keys)
    new = np.ones(len(order), bool)
    new[1:] = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    place = np.arange(len(order))
    copies = np.empty(len(order), np.int64)
    copies[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return copies


def sessions_of(events: Events) -> tuple[Sessions, np.ndarray]:
    """Make sessions of all events, each counted once.

    Sessions are as `jmrec.data.sessions.sessionise` makes them. Events of one time stand in the
    order in which they came. Where sessions are made of what users do, one of the data keeps its
    id, and others of its user are numbered after the last of those.

    Returns:
      All sessions, those of one event too, sorted by start and id; and int64 [N], the place of each
      event's session among them.
    """
    first = events.first()
    index = np.flatnonzero(first == np.arange(len(first)))
    order = index[np.lexsort((events.times[index], events.whose[index]))]
    whose, times = events.whose[order], events.times[order]
    new = np.diff(whose, prepend=-1) != 0
    if events.reading.by_gap:
        gap = events.reading.description.session_gap_minutes * 60
        new |= np.diff(times, prepend=-np.inf) > gap
    starts = np.flatnonzero(new)
    own = np.where(events.source[order] == 0, events.users[order], -1)
    user, other = (np.maximum.reduceat(u, starts) for u in (own, events.users[order]))
    wanted = events.reading.description.interactions.target_events
    codes = [code for code, name in enumerate(events.event_names) if name in wanted]
    kinds = events.events[order]
    made = Sessions(
        ids=_ids(events, order, starts),
        users=np.where(user >= 0, user, other).astype(np.int32),
        offsets=np.append(starts, len(order)).astype(np.int64),
        items=events.items[order].astype(np.int32),
        times=times,
        events=kinds.astype(np.int32),
        ratings=events.ratings[order],
        targets=np.isin(kinds, codes) if wanted else np.ones(len(order), bool),
    )
    place = np.lexsort((np.unique(made.ids, return_inverse=True)[1], times[starts]))
    back = np.empty(len(place), np.int64)
    back[place] = np.arange(len(place))
    of_event = np.empty(len(first), np.int64)
    of_event[order] = back[np.cumsum(new) - 1]
    return take(made, place), of_event[first]


def _ids(events: Events, order: np.ndarray, starts: np.ndarray) -> list[str]:
    """Return the ids of sessions that begin at ``starts`` (of events in ``order``)."""
    names = [events.names[code] for code in events.whose[order][starts]]
    if not events.reading.by_gap:
        return names
    session, last = events.session[order], len(order)
    place = np.minimum.reduceat(np.where(session >= 0, np.arange(last), last), starts)
    number: dict[str, int] = {}
    for each in events.session_ids:
        name, _, count = each.rpartition(":")
        number[name] = max(number.get(name, 0), int(count) + 1)
    ids = []
    for name, known in zip(names, place.tolist()):
        if known < last:
            ids.append(events.session_ids[session[known]])
        else:
            ids.append(f"{name}:{number.setdefault(name, 0)}")
            number[name] += 1
    return ids


def live_dataset(dataset: Dataset, remembered: Remembered) -> Dataset:
    """Return a data set whose training sessions are all sessions that are known until now.

    What training leaves out is left out: sessions of one event, and whatever the description's
    filters say.

    Args:
      dataset: What was prepared, with a catalogue that holds the new items.
      remembered: At least one batch.
    """
    rows = {item: row for row, item in enumerate(dataset.items.ids)}
    events = gather_events(dataset, remembered, rows)
    every, _ = sessions_of(events)
    d = remembered.reading.description
    live = take(every, np.flatnonzero(every.lengths >= 2))
    if (d.k_core, d.min_session_length) != (1, 2):
        filters = {"k_core": d.k_core, "min_session_length": d.min_session_length}
        live = filter_training(live, **filters)
    splits: dict[str, Sessions] = {**dataset.splits, "train": live}
    return replace(dataset, splits=splits, event_names=events.event_names)


def held_after_training(dataset: Dataset, remembered: Remembered) -> int:
    """Return how many events the data and its folder hold that were not trained on."""
    rows = {item: row for row, item in enumerate(dataset.items.ids)}
    events = gather_events(dataset, replace(remembered, batches=()), rows)
    return len(np.unique(events.first())) - len(dataset.splits["train"].items)
