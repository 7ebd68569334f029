"""The evaluation protocol: which predictions are made, and the rank of every target.

A session of n items gives a prediction at position p (1-based, 1 <= p < n): from its first p
items, item p + 1. Positions 1 to 50 are scored, and the last one where it is later. A *Ranker*
scores slices of the catalogue; :func:`rank` folds the slices into ranks and a top list, so
nothing of shape [predictions, catalogue] is ever held.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from jmrec.data.schema import Dataset, Sessions
from jmrec.evaluation.policy import Availability
from jmrec.evaluation.shares import own_parts, part_size, share_out
from jmrec.evaluation.top_list import TopList, comparable
from jmrec.metrics.ranks import CUTOFFS
from jmrec.preemption import look

WINDOW = 50
"""Positions scored, and how many items of the past a Ranker sees."""
ITEM_CHUNK = 16_384
"""Items of a slice: most catalogues are one, and are then scored once."""
FEW = 32
"""So many predictions are at least asked together; a larger catalogue is scored in slices."""
BLOCK = 1 << 18
"""Scores that are looked at together: they fit the cache of a core."""


@dataclass(frozen=True)
class Prefixes:
    """P prefixes of sessions, stored as windows with an end, as causal encoders read them.

    Prefix i is ``windows[window[i], : end[i] + 1]``. Rows of one window are neighbours.

    Attributes:
      windows: int32 [W, L] item rows, padded on the right with -1.
      gaps: float32 [W, L] log(1 + seconds since the item before); 0 at the first and at padding.
      events: int32 [W, L] event types; 0 at padding.
      window: int32 [P] the window that a prediction reads, ascending.
      end: int32 [P] the index of the prefix's last item.
      time: float64 [P] the moment: the time of the prefix's last event, or as of `at_target`.
      of: The sessions that they are prefixes of; None where they are of none, such as a request.
      last_event: int64 [P] each prefix's last event, its place in ``of.items``.
    """

    windows: np.ndarray
    gaps: np.ndarray
    events: np.ndarray
    window: np.ndarray
    end: np.ndarray
    time: np.ndarray
    of: Sessions | None = None
    last_event: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.window)

    def expand(self) -> list[np.ndarray]:
        """Return P int32 arrays, one prefix each, oldest item first."""
        return [self.windows[w, : e + 1] for w, e in zip(self.window, self.end)]

    def last(self) -> np.ndarray:
        """Return int32 [P]: the last item of each prefix."""
        return self.windows[self.window, self.end]

    def take(self, index: np.ndarray | slice) -> "Prefixes":
        """Return the prefixes at ascending ``index`` (or mask, or slice), with their windows."""
        used, window = np.unique(self.window[index], return_inverse=True)
        return Prefixes(
            windows=self.windows[used],
            gaps=self.gaps[used],
            events=self.events[used],
            window=window.astype(np.int32),
            end=self.end[index],
            time=self.time[index],
            of=self.of,
            last_event=self.last_event if self.of is None else self.last_event[index],
        )


@dataclass(frozen=True)
class Predictions:
    """P predictions to be made; entry i asks for ``target[i]`` after ``prefixes`` i.

    Attributes:
      session: int32 [P] row of the session in its split, ascending.
      position: int32 [P] 1-based position p; the target is item p + 1.
      place: int32 [P] 1-based number of the prediction among those of its session; where all
        events are targets it is the position, up to the window.
      target: int32 [P] catalogue row of the true next item.
      is_last: bool [P] whether the target is the session's last item.
      user: int32 [P] user code, -1 where the data has no users.
      time: float64 [P] time of the prefix's last event.
      length: int32 [P] items in the whole session.
      prefixes: The P prefixes.
      seen_items: int32 [N] items of all sessions, flat.
      seen_start: int64 [P] where the session starts in ``seen_items``; the session so far is
        ``seen_items[seen_start : seen_start + position]``, also beyond the window.
      available: When items may be recommended at all; at ``time``. None is always.
    """

    session: np.ndarray
    position: np.ndarray
    place: np.ndarray
    target: np.ndarray
    is_last: np.ndarray
    user: np.ndarray
    time: np.ndarray
    length: np.ndarray
    prefixes: Prefixes
    seen_items: np.ndarray
    seen_start: np.ndarray
    available: Availability | None = None

    def __repr__(self) -> str:
        return f"Predictions({len(self):,} of {len(np.unique(self.session)):,} sessions)"

    def __len__(self) -> int:
        return len(self.session)

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, item), int64 and int32 [M]: every item of every session so far."""
        row = np.repeat(np.arange(len(self)), self.position)
        first = np.cumsum(self.position) - self.position
        within = np.arange(len(row)) - first[row]
        return row, self.seen_items[self.seen_start[row] + within]

    def take(self, index: np.ndarray | slice) -> "Predictions":
        """Return the predictions at ascending ``index`` (or mask, or slice)."""
        return Predictions(
            session=self.session[index],
            position=self.position[index],
            place=self.place[index],
            target=self.target[index],
            is_last=self.is_last[index],
            user=self.user[index],
            time=self.time[index],
            length=self.length[index],
            prefixes=self.prefixes.take(index),
            seen_items=self.seen_items,
            seen_start=self.seen_start[index],
            available=self.available,
        )


@dataclass(frozen=True)
class Ranked:
    """What :func:`rank` found.

    Attributes:
      ranks: int64 [O, P] rank of the target under each of O offsets; 1 is best, :func:`miss`
        a target that was no candidate.
      top_ids: int32 [P, K] best items under the first offset, best first; -1 where fewer than K
        candidates. A target tied with others comes after them, as its rank says.
      top_scores: float32 [P, K] their scores, -inf where ``top_ids`` is -1.
    """

    ranks: np.ndarray
    top_ids: np.ndarray
    top_scores: np.ndarray


@runtime_checkable
class Ranker(Protocol):
    """What evaluation sees of a rule, student, teacher or blend.

    Who inherits from it needs a name and `scores`, and `prepare` where features are read;
    `help(jmrec)` has an example. Items are rows of ``dataset.items``.
    """

    if TYPE_CHECKING:  # frozen classes rank too

        @property
        def name(self) -> str: ...  # noqa: D102
    else:  # which whoever inherits may set
        name: str

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Take feature tables [V, D] by name: those of the run; over ids alone there are none."""
        return  # so that who needs nothing may inherit it

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float [P, slice length]; scores are compared within one prediction only.

        ``prefixes.expand()`` is a list of P arrays of rows, oldest first.
        """


def ask(dataset: Dataset, split: str) -> Predictions:
    """Lay out every prediction of one split, with the catalogue's windows of availability."""
    # Without times, the order of events is used, and no window of availability applies.
    available = Availability.of(dataset.items) if dataset.has_time else None
    return make_predictions(dataset.splits[split], available=available)


def at_target(predictions: Predictions) -> Predictions:
    """Return the predictions at the moment of what they predict, which is later by a pause.

    That is when a server is asked by somebody who comes back; ``time``, which windows of
    availability are read by, stays that of the prefix's last event.

    Args:
      predictions: Made of sessions.

    Example:
      >>> from jmrec.data.schema import Sessions
      >>> one = Sessions(["a"], np.array([-1]), np.array([0, 3]), np.array([7, 8, 9]),
      ...     np.array([10.0, 20.0, 50.0]), np.zeros(3), np.zeros(3))
      >>> made = make_predictions(one)
      >>> made.prefixes.time.tolist(), at_target(made).prefixes.time.tolist()
      ([10.0, 20.0], [20.0, 50.0])
    """
    prefixes = predictions.prefixes
    if prefixes.of is None:
        raise ValueError("these prefixes are of no sessions, so nothing follows them")
    time = np.asarray(prefixes.of.times, np.float64)[prefixes.last_event + 1]
    return replace(predictions, prefixes=replace(prefixes, time=time))


def make_predictions(
    sessions: Sessions, window: int = WINDOW, available: Availability | None = None
) -> Predictions:
    """Lay out every prediction that evaluation makes of some sessions.

    Positions 1 to ``window`` of every session with two items or more; and the last position
    where it is later, which reads the last ``window`` items before its target. Where some
    events only are targets, each of them is asked for, also beyond the window.

    Args:
      sessions: The sessions of one split.
      window: The longest prefix that a Ranker sees.
      available: When items may be recommended; None is always.

    Returns:
      The predictions, ordered by session and position.

    Example:
      >>> from jmrec.data.schema import Sessions
      >>> two = Sessions(ids=["a", "b"], users=np.array([-1, -1]), offsets=np.array([0, 3, 4]),
      ...     items=np.array([7, 8, 9, 5]), times=np.arange(4.0), events=np.zeros(4),
      ...     ratings=np.zeros(4))
      >>> made = make_predictions(two)
      >>> made.target.tolist(), made.position.tolist(), made.is_last.tolist()
      ([8, 9], [1, 2], [False, True])
    """
    length = sessions.lengths
    session = np.repeat(np.arange(len(sessions)), length)
    position = np.arange(len(session)) - sessions.offsets[session]
    asked = sessions.predicted
    if sessions.targets.all():
        asked &= (position <= window) | (position == length[session] - 1)
    session, position = session[asked], position[asked]

    # The predictions of a session share its first window; each later one reads its own.
    beyond = position > window
    new = beyond | (np.diff(session, prepend=-1) != 0)
    window_of = np.cumsum(new) - 1
    owner, late = session[new], beyond[new]
    start = (sessions.offsets[owner] + np.where(late, position[new] - window, 0)).astype(np.int64)
    size = np.where(late, window, np.minimum(length[owner], window))

    column = np.arange(window)
    real = column < size[:, None]
    at = np.where(real, start[:, None] + column, 0)
    items = np.asarray(sessions.items)
    times, events = np.asarray(sessions.times, np.float64), np.asarray(sessions.events)
    if len(items) == 0:
        items, times, events = np.zeros(1, np.int32), np.zeros(1), np.zeros(1)
    gaps = np.zeros(at.shape, np.float32)
    seconds = np.maximum(times[at[:, 1:]] - times[at[:, :-1]], 0.0)
    gaps[:, 1:] = np.where(real[:, 1:], np.log1p(seconds), 0.0)
    offset = sessions.offsets[session]
    time = times[offset + position - 1]
    prefixes = Prefixes(
        windows=np.where(real, items[at], -1).astype(np.int32),
        gaps=gaps,
        events=np.where(real, events[at], 0).astype(np.int32),
        window=window_of.astype(np.int32),
        end=np.minimum(position, window).astype(np.int32) - 1,
        time=time,
        of=sessions,
        last_event=(offset + position - 1).astype(np.int64),
    )
    return Predictions(
        session=session.astype(np.int32),
        position=position.astype(np.int32),
        place=(np.arange(len(session)) - np.searchsorted(session, session) + 1).astype(np.int32),
        target=items[offset + position].astype(np.int32),
        is_last=position == length[session] - 1,
        user=np.asarray(sessions.users)[session].astype(np.int32),
        time=time,
        length=length[session].astype(np.int32),
        prefixes=prefixes,
        seen_items=items.astype(np.int32),
        seen_start=offset.astype(np.int64),
        available=available,
    )


def miss(n_items: int) -> int:
    """Return the rank of a target that is no candidate: beyond the catalogue and every cut-off.

    Args:
      n_items: V.

    Example:
      >>> miss(3322), miss(4)
      (3323, 21)
    """
    return max(n_items, max(CUTOFFS)) + 1


def chunks(predictions: Predictions, batch: int) -> Iterator[slice]:
    """Yield slices of about ``batch`` predictions that never split a window."""
    window = predictions.prefixes.window
    starts = np.flatnonzero(np.diff(window, prepend=-1))
    begin = 0
    for here, there in pairwise([*starts.tolist(), len(window)]):
        if there - begin > batch and here > begin:
            yield slice(begin, here)
            begin = here
    if begin < len(window):
        yield slice(begin, len(window))


def rank(
    ranker: Ranker,
    predictions: Predictions,
    *,
    n_items: int,
    exclude_seen: bool,
    cold: np.ndarray | None = None,
    offsets: Sequence[float] = (0.0,),
    top: int = 20,
    allowed: np.ndarray | None = None,
    only: np.ndarray | None = None,
    item_chunk: int | None = None,
    batch: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Ranked:
    """Rank the target of every prediction among all candidates.

    rank = 1 + the number of other candidates that do not score below the target, so ties count
    against the model (and a NaN is the lowest score there is). Scores are compared in float32.
    Never more than about [batch, item_chunk] scores are held. A catalogue that is larger is scored
    as a whole for fewer predictions at a time; one that needs several slices all the same is scored
    twice, first to learn the targets' scores. Where several
    processes rank, each does its part; all call it alike and get the whole result.

    Args:
      ranker: What is evaluated.
      predictions: What is asked.
      n_items: V, the catalogue's size.
      exclude_seen: Whether items of the session so far are no candidates.
      cold: bool [V], items never seen in training; the offsets are added to their scores.
      offsets: One set of ranks is computed for each.
      top: K, how many of the best items to keep (under the first offset); 0 saves time.
      allowed: bool [V], items that may be recommended at all, whenever; None is all.
      only: bool [V], a further restriction of the candidates, such as the cold items.
      item_chunk: Items in a slice; None is `ITEM_CHUNK`, or all of somewhat more.
      batch: Predictions in a chunk; a window's predictions stay together.
      progress: Called with (predictions done, all of them) after each chunk.

    Returns:
      Ranks [len(offsets), P] and the top list.

    Raises:
      ValueError: If an offset other than 0 is asked for without ``cold``.
    """
    if cold is None:
        if any(offset != 0 for offset in offsets):
            raise ValueError("offsets are added to cold items: pass cold")
        cold = np.zeros(n_items, bool)
    candidate = _in_all(n_items, allowed, only)
    if item_chunk is None:
        few = batch * ITEM_CHUNK // max(n_items, 1)
        whole = n_items <= ITEM_CHUNK or few >= FEW
        item_chunk, batch = (n_items, min(batch, few)) if whole else (ITEM_CHUNK, batch)
    slices = [slice(a, min(a + item_chunk, n_items)) for a in range(0, n_items, item_chunk)]
    shifts = np.asarray(offsets, np.float32)
    total = len(predictions)
    ranks = np.empty((len(shifts), total), np.int64)
    top_ids = np.empty((total, top), np.int32)
    top_scores = np.empty((total, top), np.float32)
    parts = [*chunks(predictions, part_size(total, batch))]
    for part in own_parts(parts):
        masked = _Masked(ranker, predictions.take(part), candidate, exclude_seen)
        best = TopList(predictions.target[part], n_items, top)
        ranks[:, part] = _ranks(masked, best, slices, cold, shifts)
        top_ids[part], top_scores[part] = best.result()
        if progress is not None:
            progress(part.stop, total)
    share_out(parts, (ranks.T, top_ids, top_scores))
    return Ranked(ranks, top_ids, top_scores)


def _ranks(
    masked: "_Masked", best: TopList, slices: Sequence[slice], cold: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Return int64 [O, P], the ranks of the targets; ``best`` takes all scores."""
    target = masked.asked.target
    wanted = np.full(len(target), -np.inf, np.float32)
    above = np.zeros((len(shifts), len(target)), np.int64)

    def count(block: slice, items: slice, scores: np.ndarray) -> None:
        asked = wanted[block], cold[items], cold[target[block]]
        above[:, block] += _not_below(scores, *asked, shifts)

    for items in slices:
        for block, scores in masked.blocks(items):
            here, column = _targets(target[block], items)
            wanted[block.start + here] = scores[here, column]
            if best.top:
                shift = shifts[0] * cold[items] if shifts[0] else None
                best.add(block, scores if shift is None else scores + shift, items.start)
            if len(slices) == 1:
                count(block, items, scores)
    for items in slices if len(slices) > 1 else ():
        for block, scores in masked.blocks(items):
            # A ranker's second answer may differ in the last bit: the target is still itself.
            here, column = _targets(target[block], items)
            scores[here, column] = wanted[block.start + here]
            count(block, items, scores)
    # The target is counted too: it is the 1 of the rank.
    return np.where(np.isneginf(wanted), miss(best.n_items), above)


def _in_all(n_items: int, *masks: np.ndarray | None) -> np.ndarray:
    """Return bool [V]: what every mask has that is given."""
    return np.logical_and.reduce([np.ones(n_items, bool), *(m for m in masks if m is not None)])


class _Masked:
    """Scores of one chunk as float32 with -inf where an item is no candidate."""

    def __init__(
        self, ranker: Ranker, asked: Predictions, candidate: np.ndarray, exclude_seen: bool
    ) -> None:
        self.ranker, self.asked = ranker, asked
        self.refused = ~candidate
        self.row, self.item = asked.seen() if exclude_seen else (np.zeros(0, int),) * 2

    def blocks(self, items: slice) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some rows and their scores float32 [R, n], a copy that the caller may change."""
        look()
        given = self.ranker.scores(self.asked.prefixes, items)
        size = max(BLOCK // max(items.stop - items.start, 1), 1)
        for start in range(0, len(given), size):
            block = slice(start, min(start + size, len(given)))
            scores = comparable(given[block])
            scores[:, self.refused[items]] = -np.inf
            if self.asked.available is not None:
                closed = ~self.asked.available.open(self.asked.time[block], items)
                scores[closed] = -np.inf
            of = slice(*np.searchsorted(self.row, (block.start, block.stop)))
            row, item = self.row[of], self.item[of]
            inside = (item >= items.start) & (item < items.stop)
            scores[row[inside] - start, item[inside] - items.start] = -np.inf
            yield block, scores


def _targets(target: np.ndarray, items: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have their target in a slice, and its column there."""
    here = np.flatnonzero((target >= items.start) & (target < items.stop))
    return here, target[here] - items.start


def _not_below(
    scores: np.ndarray,
    wanted: np.ndarray,
    cold_item: np.ndarray,
    cold_target: np.ndarray,
    shifts: np.ndarray,
) -> np.ndarray:
    """Count, int64 [O, P], the candidates that score at least as much as the target."""
    counts = np.empty((len(shifts), len(wanted)), np.int64)
    counts[:] = _count(scores, wanted)
    if not cold_item.any() and not cold_target.any():
        return counts
    new = scores[:, cold_item]
    counts -= _count(new, wanted)  # the warm items are left
    # Among those only a cold target's own score moves with the offset.
    moved, moved_new = scores[cold_target], new[cold_target]
    for index, shift in enumerate(shifts):
        bar = np.where(cold_target, wanted + shift, wanted)
        if shift != 0 and len(moved):
            own = bar[cold_target]
            counts[index, cold_target] = _count(moved, own) - _count(moved_new, own)
        counts[index] += _count(new + shift, bar)
    return counts


def _count(scores: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """Return int64 [P]: how many of each row's scores [P, n] are no less than its bar."""
    # Row by row: over an axis numpy is ten times as slow.
    return np.array([np.count_nonzero(row) for row in scores >= bar[:, None]], np.int64)
