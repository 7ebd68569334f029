"""Soft labels: a Ranker's distribution after every click of some sessions, kept as a top-k.

Any Ranker can be a teacher. Its scores become logits by a temperature that fits validation; of each
distribution the k likeliest items stay, and the mass of all the others as one more logit. A teacher
that labels its own training data teaches what it remembers, so it is fitted out of fold: the Ranker
that labels a session has not seen that session's user.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from jmrec.data.pipeline import cut_windows
from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import gather, take
from jmrec.evaluation.protocol import (
    BLOCK,
    ITEM_CHUNK,
    WINDOW,
    Predictions,
    Ranker,
    chunks,
    make_predictions,
)
from jmrec.evaluation.rankers.known import EASE_ITEMS
from jmrec.evaluation.rankers.rules import fit_rules
from jmrec.evaluation.top_list import FLOOR, TopList, comparable

TEMPERATURES = np.geomspace(0.02, 5.0, 40)
BATCH = 512
ROOM = 64_000_000
"""So many scores are held at a time, but for those of one window."""


@dataclass(frozen=True)
class SoftLabels:
    """A teacher's distribution of the next item, after each of N events.

    Attributes:
      rows: int32 [N, K], the likeliest items, best first.
      logits: float32 [N, K], their logits.
      tail: float32 [N], the logsumexp of the logits of all other items.
    """

    rows: np.ndarray
    logits: np.ndarray
    tail: np.ndarray


def out_of_fold(
    dataset: Dataset,
    validation: Predictions,
    fit: Callable[[Dataset], Ranker],
    *,
    folds: int = 5,
    top: int = 100,
    seed: int = 0,
    window: int = WINDOW,
    progress: Callable[[int], None] | None = None,
) -> tuple[SoftLabels, list[float]]:
    """Label the training sessions by rankers that have not seen them.

    Args:
      dataset: Its training sessions are labelled; candidates are the items that occur in them.
      validation: The predictions that decide on the temperature.
      fit: Makes a Ranker from a data set with fewer training sessions.
      folds: F, in how many parts the users are cut (the sessions, where there are no users).
      top: K; fewer where there are fewer candidates.
      seed: Of the folds.
      window: The longest stretch of a session that is read, as in training.
      progress: Called with the number of folds done.

    Returns:
      The soft labels, one row per event of the training sessions (zeros for the last event of a
      session, which nothing follows), and each fold's temperature.

    Raises:
      ValueError: If there are fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, not {folds}")
    train = dataset.splits["train"]
    known = dataset.train_count > 0
    k = min(top, int(known.sum()))
    n = len(train.items)
    labels = SoftLabels(
        np.zeros((n, k), np.int32), np.zeros((n, k), np.float32), np.zeros(n, np.float32)
    )
    temperatures = []
    fold = folds_of(train, folds, seed)
    for number in range(folds):
        others = take(train, np.flatnonzero(fold != number))
        ranker = fit(replace(dataset, splits={**dataset.splits, "train": others}))
        temperature = calibrate(ranker, validation, known)
        temperatures.append(temperature)
        own = np.flatnonzero(fold == number)
        if len(own):
            write_soft_labels(labels, ranker, train, own, known, temperature, window)
        if progress is not None:
            progress(number + 1)
    return labels, temperatures


def blend_of(
    validation: Predictions, features: dict[str, np.ndarray], ease_items: int = EASE_ITEMS
) -> Callable[[Dataset], Ranker]:
    """Return what fits the blend of all rules on a data set's training sessions."""

    def fit(dataset: Dataset) -> Ranker:
        return fit_rules(dataset, validation, features=features, ease_items=ease_items)[-1]

    return fit


def folds_of(sessions: Sessions, folds: int, seed: int) -> np.ndarray:
    """Return each session's fold, int [S]; all sessions of a user are in one.

    Example:
      >>> s = Sessions(list("abc"), np.array([7, 7, -1]), np.arange(4), np.zeros(3, int),
      ...              np.zeros(3), np.zeros(3, int), np.zeros(3))
      >>> fold = folds_of(s, 2, seed=0)
      >>> bool(fold[0] == fold[1] != fold[2])
      True
    """
    alone = -1 - np.arange(len(sessions))  # no user has a negative code
    owners = np.where(sessions.users >= 0, sessions.users, alone)
    unique, of = np.unique(owners, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    return (order % folds)[of]


def calibrate(ranker: Ranker, validation: Predictions, known: np.ndarray) -> float:
    """Return the temperature under which a ranker's scores fit validation best.

    Args:
      ranker: Prepared; its scores have no scale of their own.
      validation: Predictions; those whose target is no candidate are left out.
      known: bool [V], the candidates.

    Returns:
      The one of `TEMPERATURES` with the highest likelihood of the targets under
      softmax(scores / T) over the candidates; 1 where there is no such target.
    """
    asked = validation.take(np.flatnonzero(known[validation.target]))
    if not len(asked):
        return 1.0
    loss = np.zeros(len(TEMPERATURES))
    for few, scores in _scored(ranker, asked, len(known)):
        found = np.empty((len(TEMPERATURES), len(few)))
        for block in _blocks(scores):
            masked = np.where(known, scores[block].astype(np.float64), -np.inf)
            wanted = masked[np.arange(len(masked)), few.target[block]]
            for index, temperature in enumerate(TEMPERATURES):
                whole = logsumexp(masked / temperature, axis=1)
                found[index, block] = whole - wanted / temperature
        loss += found.sum(axis=1)
    return float(TEMPERATURES[np.argmin(loss)])


def write_soft_labels(
    labels: SoftLabels,
    ranker: Ranker,
    sessions: Sessions,
    own: np.ndarray,
    known: np.ndarray,
    temperature: float,
    window: int = WINDOW,
) -> None:
    """Write a ranker's distributions over some sessions into their rows of ``labels``.

    Args:
      labels: Over all events of ``sessions``, changed in place.
      ranker: Prepared.
      sessions: All sessions.
      own: int [S], which of them are labelled.
      known: bool [V], the candidates.
      temperature: Scores / temperature are logits.
      window: As in training: a longer session is read in stretches.
    """
    stretches, event = in_stretches(sessions, own, window)
    asked = make_predictions(stretches, window)
    k = labels.rows.shape[1]
    for few, scores in _scored(ranker, asked, len(known)):
        at = event[few.seen_start + few.position - 1]
        nobody = np.full(len(few), -1)  # of equal scores the lower row, whatever the target
        best = TopList(nobody, len(known), k)
        tail = np.empty(len(few), np.float32)
        for block in _blocks(scores):
            logits = (scores[block].astype(np.float64) / temperature).clip(FLOOR, -FLOOR)
            # 0 is added so that -0.0 is 0.0, which it ties with.
            logits = logits.astype(np.float32) + np.float32(0)
            logits[:, ~known] = -np.inf
            best.add(block, logits, 0)
            np.put_along_axis(logits, best.result()[0][block], -np.inf, axis=1)
            # Where k items are all there are, the rest has no mass; a table holds finite numbers.
            with np.errstate(divide="ignore"):
                tail[block] = np.maximum(logsumexp(logits, axis=1), -1e30)
        labels.rows[at], labels.logits[at] = best.result()
        labels.tail[at] = tail


def in_stretches(sessions: Sessions, own: np.ndarray, window: int) -> tuple[Sessions, np.ndarray]:
    """Cut sessions as training does: every stretch with the event after it, as a session.

    Returns:
      The stretches, and int [M]: the index into ``sessions.items`` of each of their events.
    """
    picked = take(sessions, own)
    lengths = sessions.lengths[own]
    source = np.arange(lengths.sum()) + np.repeat(
        sessions.offsets[own] - picked.offsets[:-1], lengths
    )
    windows = cut_windows(picked, window)
    size = windows.size + 1
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    event = np.arange(offsets[-1]) + np.repeat(windows.start - offsets[:-1], size)
    owner = np.searchsorted(picked.offsets, windows.start, side="right") - 1
    return gather(picked, owner, offsets, event), source[event]


def _scored(
    ranker: Ranker, asked: Predictions, n_items: int
) -> Iterator[tuple[Predictions, np.ndarray]]:
    """Yield some predictions and a ranker's scores of all items for them, float32 [P, V].

    The larger the catalogue, the fewer they are: about `ROOM` scores are held.
    """
    for part in chunks(asked, min(BATCH, max(ROOM // n_items, 1))):
        few = asked.take(part)
        scores = np.empty((len(few), n_items), np.float32)
        for start in range(0, n_items, ITEM_CHUNK):
            items = slice(start, min(start + ITEM_CHUNK, n_items))
            scores[:, items] = comparable(ranker.scores(few.prefixes, items))
        yield few, scores


def _blocks(scores: np.ndarray) -> Iterator[slice]:
    """Yield rows that are worked on together, so that what is made of them fits the cache."""
    size = max(BLOCK // scores.shape[1], 1)
    for start in range(0, len(scores), size):
        yield slice(start, min(start + size, len(scores)))
