"""Make sessions from events, and split them by time so that nothing of the future leaks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jmrec.data.description import Description
from jmrec.data.folder import Raw
from jmrec.data.schema import SPLITS, Sessions
from jmrec.data.split_keys import EVENT_TIME
from jmrec.errors import UserError


def sessionise(raw: Raw) -> Sessions:
    """Group the events of a catalogue folder into sessions.

    A session is one session id where the data has them; else the events of one user up to a
    pause longer than the description's gap; else (no times) all events of one user. Inside a
    session events are in the order of time, then of the order column, then of the file.

    Args:
      raw: The validated folder.

    Returns:
      All sessions, sorted by start time, ties in the file's order.
    """
    check_targets(raw.description, raw.event_names)
    return sessions_of(raw, np.arange(len(raw.item)))[0]


def sessions_of(raw: Raw, position: np.ndarray) -> tuple[Sessions, np.ndarray]:
    """Return the sessions of some events of a folder, and the place of each one's first event.

    Args:
      raw: The events, all those of a session among them, in the file's order.
      position: int64 [N], their places among all events of the folder.

    Returns:
      The sessions as `sessionise` returns them; int64 [S], which orders those of one start.
    """
    n = len(raw.item)
    groups = raw.session or raw.user
    assert groups is not None  # describe() refuses data with neither
    group, names = groups
    tie = position if raw.order is None else raw.order
    time = position.astype(np.float64) if raw.time is None else raw.time
    by_time = np.zeros(n) if raw.time is None else time
    order = np.lexsort((position, tie, by_time, group))
    group_sorted = group[order]
    new = np.diff(group_sorted, prepend=-1) != 0
    gap = raw.description.session_gap_minutes * 60
    by_gap = raw.session is None and raw.time is not None and gap < np.inf
    if by_gap:
        pause = np.diff(time[order], prepend=-np.inf)
        new |= pause > gap
    starts = np.flatnonzero(new)
    first = np.minimum.reduceat(position[order], starts)
    if raw.time is None:
        # The file's order is used as time: a session's events take its places in the file.
        places = position[order]
        times = places[np.lexsort((places, np.cumsum(new)))].astype(np.float64)
    else:
        times = time[order]
    ids = [names[g] for g in group_sorted[starts]]
    if by_gap:
        head = np.flatnonzero(np.diff(group_sorted[starts], prepend=-1))
        count = np.arange(len(starts)) - np.repeat(head, np.diff([*head, len(starts)]))
        ids = [f"{name}:{k}" for name, k in zip(ids, count)]
    user = np.full(n, -1) if raw.user is None else raw.user[0][order]
    users = np.maximum.reduceat(user, starts).astype(np.int32)  # a session has one, or guests
    begun = np.lexsort((first, times[starts]))
    offsets, event = _events_of(np.append(starts, n).astype(np.int64), begun)
    del position, tie, group_sorted, new, user  # as long as the data: for memory
    order = order[event]
    sessions = Sessions(
        ids=[ids[i] for i in begun],
        users=users[begun],
        offsets=offsets,
        items=raw.item[order],
        times=times[event],
        events=raw.event[order],
        ratings=raw.rating[order],
        targets=_targets(raw)[order],
    )
    return sessions, first[begun]


def check_targets(description: Description, event_names: Sequence[str]) -> None:
    """Check that the events that are to be predicted occur.

    Raises:
      UserError: One does not.
    """
    for name in description.interactions.target_events:
        if name not in event_names[1:]:
            known = ", ".join(map(repr, event_names[1:6]))
            raise UserError(
                f"target_events names {name!r}, and no row of {description.interactions_file} has "
                f"this event; its events are {known}."
            )


def _targets(raw: Raw) -> np.ndarray:
    """Return which events are predicted, bool [N]."""
    wanted = raw.description.interactions.target_events
    codes = [code for code, name in enumerate(raw.event_names) if name in wanted]
    return np.isin(raw.event, codes) if wanted else np.ones(len(raw.item), bool)


def no_sessions() -> Sessions:
    """Return sessions of which there are none.

    Example:
      >>> len(no_sessions())
      0
    """
    rows, numbers = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return Sessions([], rows, np.zeros(1, np.int64), rows, np.zeros(0), rows, numbers)


def take(sessions: Sessions, index: np.ndarray) -> Sessions:
    """Return the sessions at ``index`` (int [K]), in that order.

    Example:
      >>> s = Sessions(["a", "b"], np.array([0, 1]), np.array([0, 2, 3]), np.array([7, 8, 9]),
      ...              np.arange(3.0), np.zeros(3, int), np.zeros(3))
      >>> [x.tolist() for x in take(s, np.array([1, 0]))]
      [[9], [7, 8]]
    """
    index = np.asarray(index, np.int64)
    if np.array_equal(index, np.arange(len(sessions))):
        return sessions
    return gather(sessions, index, *_events_of(sessions.offsets, index))


def _events_of(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of some sessions, and where their events were (int64)."""
    lengths = np.diff(offsets)[index]
    own = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    event = np.repeat(offsets[index] - own[:-1], lengths)
    event += np.arange(own[-1])
    return own, event


def gather(
    sessions: Sessions, owner: np.ndarray, offsets: np.ndarray, event: np.ndarray
) -> Sessions:
    """Return sessions made of events of others.

    Args:
      sessions: Where the events come from.
      owner: int [K], the session whose id and user each has.
      offsets: int64 [K + 1], as those of `Sessions`.
      event: int [offsets[-1]], the events as indices into ``sessions.items``, or a mask of them.

    Example:
      >>> s = Sessions(["a"], np.array([4]), np.array([0, 3]), np.array([7, 8, 9]), np.arange(3.0),
      ...              np.zeros(3, int), np.zeros(3))
      >>> both = gather(s, np.array([0, 0]), np.array([0, 1, 3]), np.array([0, 1, 2]))
      >>> both.ids, [x.tolist() for x in both]
      (['a', 'a'], [[7], [8, 9]])
    """
    return Sessions(
        ids=[sessions.ids[i] for i in owner],
        users=sessions.users[owner],
        offsets=offsets,
        items=sessions.items[event],
        times=sessions.times[event],
        events=sessions.events[event],
        ratings=sessions.ratings[event],
        targets=sessions.targets[event],
    )


def until(sessions: Sessions, time: float) -> Sessions:
    """Return the sessions without the events later than ``time``; none may become empty.

    Args:
      sessions: Sessions that start at or before ``time``.
      time: The last time that is kept.

    Returns:
      Sessions with the same ids.
    """
    return _events(sessions, sessions.times <= time)


def split_by_time(
    sessions: Sessions,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    keep_single: bool = False,
    back: int = 0,
) -> dict[str, Sessions]:
    """Split sessions by their start into training, validation and test.

    The sessions of two or more events are counted; the first ``floor(fractions[0] * n)`` of them,
    by start time, train, and so on. What a session does after the next split has begun is cut
    off, so no training event is later than the start of any validation or test session, and no
    validation event later than the start of any test session.

    Args:
      sessions: All sessions, sorted by start time.
      fractions: Shares of train, validation and test; they add up to 1.
      keep_single: Whether sessions of one event that start before the first validation session
        stay in train. They hold no transition, so no model learns from them, and an item that
        occurs in nothing else is learned by no model: by default they are left out, and such
        an item counts as cold.
      back: How many test windows earlier the data ends: with 1 the test is the window before the
        last, what follows it is not there, and training is as much shorter.

    Returns:
      "train", "validation" and "test", each sorted by start time.

    Raises:
      UserError: if the fractions are not three shares of 1, or a split has no session left.
    """
    shares = _shares(fractions, back)
    two = np.flatnonzero(sessions.lengths >= 2)
    # Rounded, because 0.7 + 0.2 is less than 0.9.
    edges = [int(round(share * len(two), 6)) for share in shares]
    parts = dict(zip(SPLITS, np.split(two, edges)))
    if any(len(part) == 0 for part in parts.values()):
        raise UserError(
            f"The data has {len(two)} sessions of two or more events, too few to split; "
            "bring more sessions or join shorter ones with a larger session_gap_minutes."
        )
    start = sessions.times[sessions.offsets[:-1]]
    cut, cut_test = start[parts["validation"][0]], start[parts["test"][0]]
    if keep_single:
        single = np.flatnonzero((sessions.lengths == 1) & (start < cut))
        parts["train"] = np.sort(np.concatenate([parts["train"], single]))
    out = {name: take(sessions, part) for name, part in parts.items()}
    out["train"] = _at_least(until(out["train"], cut), 1 if keep_single else 2)
    out["validation"] = _at_least(until(out["validation"], cut_test), 2)
    for name, part in out.items():
        if not (part.lengths >= 2).any():
            raise UserError(
                f"No session of two or more events is left in {name} after the cut by time, "
                "because sessions overlap the split; make them shorter with a smaller "
                "session_gap_minutes or give times."
            )
        if not part.predicted.any():
            raise UserError(
                f"No event of {name} that is one of target_events has an earlier one of its "
                "session; name more of them in dataset.toml."
            )
    return out


def _shares(fractions: Sequence[float], back: int) -> np.ndarray:
    """Return where train, validation and test end, as shares of the data."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"The split fractions {tuple(fractions)} are not three shares above 0 that add up to "
            "1; write for example 0.8, 0.1, 0.1."
        )
    if back < 0 or fractions[0] - back * fractions[2] < 1e-6:
        raise UserError(
            f"{back} test windows back leave nothing to train on; choose from 0 to "
            f"{int(round(fractions[0] / fractions[2], 6) - 1e-6)}, or smaller windows."
        )
    return np.asarray(np.cumsum(fractions) - back * fractions[2])


def split_by_event(
    sessions: Sessions,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    keep_single: bool = False,
    back: int = 0,
    moments: tuple[float, float] | None = None,
) -> dict[str, Sessions]:
    """Split events by their own time: each is predicted from the earlier ones of its session.

    The first ``floor(fractions[0] * N)`` events by time train, and so on; events of one time are in
    one split. A session of validation or test holds all its events until the split ends; those of
    before the split's beginning are read, and are no targets.

    Args:
      sessions: All sessions, in the order of their start.
      fractions: Shares of train, validation and test; they add up to 1.
      keep_single: Whether sessions that have one event in train stay there.
      back: How many test windows earlier the data ends, see `split_by_time`.
      moments: Unix seconds at which validation and test begin, in place of shares.

    Returns:
      "train", "validation" and "test"; of the last two those sessions that have a target.

    Raises:
      UserError: if the fractions are not three shares of 1, or a split has no target left.

    Example:
      >>> one = Sessions(["a"], np.array([0]), np.array([0, 10]), np.arange(10), np.arange(10.0),
      ...                np.zeros(10, int), np.zeros(10))
      >>> test = split_by_event(one, (0.6, 0.2, 0.2))["test"]
      >>> test.items[test.targets].tolist(), len(test.items)
      ([8, 9], 10)
    """
    ends = [] if moments is None else [*moments, np.inf]
    if not ends:
        shares = _shares(fractions, back)
        times = np.sort(sessions.times)
        edges = [int(round(share * len(times), 6)) for share in shares]
        ends = [times[edge] if edge < len(times) else np.inf for edge in edges]
    elif back:
        raise UserError("the moments of this data's split are given, so there are no earlier ones.")
    out = {}
    for name, begin, end in zip(SPLITS, [-np.inf, *ends], ends):
        part = _events(sessions, sessions.times < end)
        part = replace(part, targets=part.targets & (part.times >= begin))
        if name == SPLITS[0]:
            out[name] = _at_least(part, 1 if keep_single else 2)
        else:
            owner = np.repeat(np.arange(len(part)), part.lengths)
            out[name] = take(part, np.unique(owner[part.predicted]))
        if not out[name].predicted.any():
            raise UserError(
                f"No event of {name} has an earlier one of its session to be predicted from; bring "
                f'more data, or leave out split = "{EVENT_TIME}".'
            )
    return out


def split_last_out(sessions: Sessions, *, keep_single: bool = False) -> dict[str, Sessions]:
    """Split by place: the last event of a session is test, the one before it validation.

    Papers do so (leave-last-out, leave-one-out). Training then knows what happened after the moment
    of a test event, so that its figures are no forecast of what a model is worth tomorrow.

    Args:
      sessions: All sessions, each in the order of time.
      keep_single: Whether sessions that have one event in train stay there.

    Returns:
      "train" (sessions without their last two events), "validation" and "test" (what comes before
      their one target is read). A session of two events is in test alone.

    Raises:
      UserError: if a split has no target left.

    Example:
      >>> one = Sessions(["a"], np.array([0]), np.array([0, 5]), np.arange(5), np.arange(5.0),
      ...                np.zeros(5, int), np.zeros(5))
      >>> split = split_last_out(one)
      >>> [part.items.tolist() for part in split.values()]
      [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
      >>> split["test"].items[split["test"].targets].tolist()
      [4]
    """
    left = np.repeat(sessions.offsets[1:], sessions.lengths) - np.arange(len(sessions.items))
    out = {}
    for name, first in zip(SPLITS, (3, 2, 1)):
        part = replace(sessions, targets=sessions.targets & ((left == first) | (first == 3)))
        part = _at_least(_events(part, left >= first), 1 if first == 3 and keep_single else 2)
        if first < 3:
            owner = np.repeat(np.arange(len(part)), part.lengths)
            part = take(part, np.unique(owner[part.predicted]))
        if not part.predicted.any():
            raise UserError(
                f"No session is long enough for {name} when the last events are left out; bring "
                "longer ones, or another split in dataset.toml."
            )
        out[name] = part
    return out


def split_given(
    sessions: Sessions, test: np.ndarray, fractions: Sequence[float] = (0.8, 0.1, 0.1)
) -> dict[str, Sessions]:
    """Split sessions whose test split is given: validation is the last of the others.

    Nothing is cut by time: the split is taken as it is.

    Args:
      sessions: All sessions, sorted by start time, or in the file's order.
      test: bool [S], those of the given test split.
      fractions: The first two say how the others are shared between train and validation.

    Returns:
      "train", "validation" and "test", sessions of one event left out.

    Raises:
      UserError: if a split has no session of two events.
    """
    two = sessions.lengths >= 2
    others = np.flatnonzero(two & ~test)
    edge = int(round(fractions[0] / (fractions[0] + fractions[1]) * len(others), 6))
    rows = {"train": others[:edge], "validation": others[edge:], "test": np.flatnonzero(two & test)}
    for name, part in rows.items():
        if not len(part):
            raise UserError(
                f"No session of two or more events is in {name}; bring more sessions, or leave out "
                "test_file in dataset.toml to split by time."
            )
    return {name: take(sessions, part) for name, part in rows.items()}


def last_alone(sessions: Sessions) -> Sessions:
    """Return sessions of which the last target alone is one; what is before it is read.

    Example:
      >>> s = Sessions(["a", "b"], np.array([0, 1]), np.array([0, 3, 5]), np.array([7, 8, 9, 5, 6]),
      ...              np.arange(5.0), np.zeros(5, int), np.zeros(5))
      >>> last = last_alone(s)
      >>> last.items[last.targets].tolist(), len(last.items)
      ([9, 6], 5)
    """
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths)
    place = np.full(len(sessions), -1)
    wanted = np.flatnonzero(sessions.targets)
    place[owner[wanted]] = wanted  # of several the last one stays
    targets = np.zeros(len(sessions.items), bool)
    targets[place[place >= 0]] = True
    return replace(sessions, targets=targets)


def filter_training(train: Sessions, *, k_core: int, min_session_length: int) -> Sessions:
    """Take rare items and short sessions out of training, again and again until none is left.

    It sees the training sessions alone: what validation and test hold neither keeps an item nor
    costs one, and they stay as they are. An item that is taken out counts as cold.

    Args:
      train: The training sessions.
      k_core: Items with fewer events in training are taken out.
      min_session_length: Sessions of fewer events are taken out.

    Returns:
      The sessions that are left, in their order.

    Raises:
      UserError: if nothing is left.

    Example:
      >>> s = Sessions(["a", "b"], np.array([0, 1]), np.array([0, 3, 5]), np.array([7, 8, 7, 7, 9]),
      ...              np.arange(5.0), np.zeros(5, int), np.zeros(5))
      >>> [x.tolist() for x in filter_training(s, k_core=2, min_session_length=2)]
      [[7, 7]]
    """
    while True:
        session = np.repeat(np.arange(len(train)), train.lengths)
        count = np.bincount(train.items) if len(train.items) else np.zeros(0, int)
        keep = count[train.items] >= k_core
        left = np.bincount(session[keep], minlength=len(train))
        keep &= left[session] >= min_session_length
        if not keep.any():
            raise UserError(
                f"k_core = {k_core} and min_session_length = {min_session_length} leave no session "
                "in training; make them smaller in dataset.toml."
            )
        if keep.all():
            return train
        train = _events(train, keep)


def _events(sessions: Sessions, keep: np.ndarray) -> Sessions:
    """Return the sessions with the events where ``keep`` (bool [N]), without those left empty."""
    if keep.all():
        return take(sessions, np.flatnonzero(sessions.lengths > 0))
    kept = np.concatenate([[0], np.cumsum(keep)])
    offsets = kept[sessions.offsets].astype(np.int64)
    part = gather(sessions, np.arange(len(sessions)), offsets, keep)
    return take(part, np.flatnonzero(part.lengths > 0))


def _at_least(sessions: Sessions, length: int) -> Sessions:
    return take(sessions, np.flatnonzero(sessions.lengths >= length))
