"""Why an item was recommended: what its score loses when one thing is taken away, exactly.

Nothing is estimated. The model scores the item again without the thing, and the difference is the
thing's contribution: a past item is left out of the session; the text, picture or id of the
recommended item is left out of its vector. What things do together is counted in each of them, so
the contributions need not add up to the score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker
from jmrec.evaluation.rankers.neural import NeuralRanker

ITEM_CHUNK = 8192


@dataclass(frozen=True)
class Removal:
    """What one removal does to a recommended item.

    Attributes:
      contribution: Its score minus its score without the thing.
      place: Its place among the candidates without the thing; 1 is best, ties count against it.
    """

    contribution: float
    place: int


@dataclass(frozen=True)
class Reasons:
    """Why one item was recommended.

    Attributes:
      score: Its score.
      place: Its place among the candidates.
      past: One per item of the session, oldest first; None where it is the only one, for no
        session is left without it.
      own: "text", "picture", "id" -> what it does, in the order given; None where the item has
        no such thing.
    """

    score: float
    place: int
    past: list[Removal | None]
    own: dict[str, Removal | None]


def removals(
    prefix: np.ndarray,
    window: int,
    gaps: np.ndarray | None = None,
    events: np.ndarray | None = None,
) -> Prefixes:
    """Return the session, and the session without each of its items in turn.

    Args:
      prefix: int [n] item rows, oldest first, n at most ``window``.
      window: The length to which windows are padded.
      gaps: float [n] log(1 + seconds since the item before), or None. Without an item the pauses
        around it are one.
      events: int [n] event types, or None.

    Returns:
      n + 1 prefixes, the whole one first; of one item only the whole one.

    Example:
      >>> removals(np.array([7, 8, 9]), 3).windows.tolist()
      [[7, 8, 9], [8, 9, -1], [7, 9, -1], [7, 8, -1]]
    """
    size = len(prefix)
    kept = [np.arange(size)]
    if size > 1:
        kept += [np.delete(np.arange(size), each) for each in range(size)]
    count = len(kept)
    windows = np.full((count, window), -1, np.int32)
    pauses, types = np.zeros(windows.shape, np.float32), np.zeros(windows.shape, np.int32)
    time = np.zeros(size) if gaps is None else np.cumsum(np.expm1(gaps.astype(np.float64)))
    for row, part in enumerate(kept):
        windows[row, : len(part)] = prefix[part]
        pauses[row, : len(part)] = np.log1p(np.diff(time[part], prepend=time[part[0]]))
        if events is not None:
            types[row, : len(part)] = events[part]
    return Prefixes(
        windows=windows,
        gaps=pauses,
        events=types,
        window=np.arange(count, dtype=np.int32),
        end=np.array([len(part) - 1 for part in kept], np.int32),
        time=np.zeros(count),
    )


def explain(
    ranker: Ranker,
    prefix: np.ndarray,
    items: np.ndarray,
    without: Mapping[str, Sequence[np.ndarray | None]],
    candidate: np.ndarray,
    window: int,
    gaps: np.ndarray | None = None,
    events: np.ndarray | None = None,
) -> list[Reasons]:
    """Explain why items were recommended after a session.

    Args:
      ranker: Prepared; where something is left out of an item it is a session encoder, whose score
        is a state's product with an item's vector.
      prefix: int [n] the session's item rows, oldest first, n at most ``window``.
      items: int [R] recommended rows, candidates all.
      without: "text", "picture", "id" -> R vectors [D], each the item's without that thing; None
        where the item has no such thing.
      candidate: bool [V], what may be recommended after this session. A past item that is left
        out of the session is no candidate either.
      window: As in `removals`.
      gaps: As in `removals`.
      events: As in `removals`.

    Returns:
      One `Reasons` per item.
    """
    prefixes = removals(prefix, window, gaps, events)
    states = ranker.states(prefixes) if isinstance(ranker, NeuralRanker) else None
    others = candidate.nonzero()[0]
    # Score of every recommended item by every prefix [n + 1, R], and under the item's own
    # removals; then how many candidates score as much, folded over the catalogue.
    scores = np.stack([ranker.scores(prefixes, slice(row, row + 1))[:, 0] for row in items], 1)
    moved = {
        (name, place): float(states[0] @ vector)
        for name, vectors in without.items()
        for place, vector in enumerate(vectors)
        if vector is not None and states is not None
    }
    ahead = np.zeros(scores.shape, np.int64)
    ahead_moved = dict.fromkeys(moved, 0)
    for start in range(0, len(candidate), ITEM_CHUNK):
        chunk = slice(start, min(start + ITEM_CHUNK, len(candidate)))
        rows = others[(others >= chunk.start) & (others < chunk.stop)]
        found = ranker.scores(prefixes, chunk)[:, rows - chunk.start]
        for place, row in enumerate(items):
            rival = rows != row
            ahead[:, place] += (found[:, rival] >= scores[:, place, None]).sum(1)
            for name in without:
                if (name, place) in moved:
                    level = moved[name, place]
                    ahead_moved[name, place] += int((found[0, rival] >= level).sum())

    reasons = []
    for place in range(len(items)):
        score = float(scores[0, place])
        past: list[Removal | None] = [
            Removal(score - float(scores[row, place]), int(ahead[row, place]) + 1)
            for row in range(1, len(scores))
        ]
        own = {
            name: Removal(score - moved[name, place], ahead_moved[name, place] + 1)
            if (name, place) in moved
            else None
            for name in without
        }
        reasons.append(Reasons(score, int(ahead[0, place]) + 1, past or [None], own))
    return reasons


def choose_examples(
    predictions: Predictions, cold: np.ndarray, count: int = 4, clicks: int = 6
) -> np.ndarray:
    """Choose predictions to show, by their place in the split and nothing that a model did.

    The last one has a cold target, where there is one: the middle one, in the split's order, of
    all predictions of a cold item within the first ``clicks`` clicks. The others are the sessions
    in the middle of equal parts of the split, each after its first ``clicks`` clicks, or one
    click before its end if that is earlier.

    Args:
      predictions: Of the split.
      cold: bool [V], items that training never saw.
      count: How many to choose at most.
      clicks: The longest session so far that is shown.

    Returns:
      int [at most count] rows of ``predictions``, distinct.
    """
    early = np.flatnonzero(predictions.position <= clicks)
    if not len(early):
        return early
    # The last of each session's early predictions: rows are ordered by session and position.
    ends = np.diff(predictions.session[early], append=-1) != 0
    latest = early[ends]
    new = early[cold[predictions.target[early]]]
    unseen = new[len(new) // 2 : len(new) // 2 + 1]
    parts = count - len(unseen)
    middles = (2 * np.arange(parts) + 1) * len(latest) // (2 * parts)
    chosen = np.unique(latest[middles])
    return np.concatenate([chosen[~np.isin(chosen, unseen)], unseen])


RULE = (
    "No model had a say in which sessions are shown: they are those in the middle of {parts} "
    "equal parts of the split, in its order, each after its first {clicks} clicks (or one click "
    "before its end){cold}."
)


def rule_in_words(parts: int, clicks: int, cold: bool) -> str:
    """Return what `choose_examples` did, for the page."""
    also = "; and, of all that a new item followed so early, the one in the middle" if cold else ""
    return RULE.format(parts=parts, clicks=clicks, cold=also)
