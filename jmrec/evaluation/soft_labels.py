"""Soft labels: a Ranker's distribution after every click of some sessions, kept as a top-k.

Any Ranker can be a teacher. Its scores become logits by a temperature that fits validation; of each
distribution the k likeliest items stay, and the mass of all the others as one more logit. A teacher
that labels its own training data teaches what it remembers, so it is fitted out of fold: the Ranker
that labels a session has not seen that session's user.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from jmrec.data.pipeline import cut_windows
from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import gather, take
from jmrec.evaluation.protocol import (
    ITEM_CHUNK,
    WINDOW,
    Predictions,
    Ranker,
    chunks,
    comparable,
    make_predictions,
)
from jmrec.evaluation.rankers.rules import fit_rules

TEMPERATURES = np.geomspace(0.02, 5.0, 40)
BATCH = 512


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
    validation: Predictions, features: dict[str, np.ndarray]
) -> Callable[[Dataset], Ranker]:
    """Return what fits the blend of all rules on a data set's training sessions."""

    def fit(dataset: Dataset) -> Ranker:
        return fit_rules(dataset, validation, features=features)[-1]

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
    for part in chunks(asked, BATCH):
        few = asked.take(part)
        scores = _scores(ranker, few, known)
        wanted = scores[np.arange(len(few)), few.target]
        for index, temperature in enumerate(TEMPERATURES):
            loss[index] += (logsumexp(scores / temperature, axis=1) - wanted / temperature).sum()
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
    for part in chunks(asked, BATCH):
        few = asked.take(part)
        at = event[few.seen_start + few.position - 1]
        logits = (_scores(ranker, few, known) / temperature).astype(np.float32)
        # Stable: of equal scores the lower row, whatever the machine.
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        labels.rows[at] = best
        labels.logits[at] = np.take_along_axis(logits, best, axis=1)
        np.put_along_axis(logits, best, -np.inf, axis=1)
        # Where k items are all there are, the rest has no mass; a table holds finite numbers.
        with np.errstate(divide="ignore"):
            labels.tail[at] = np.maximum(logsumexp(logits, axis=1), -1e30)


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


def _scores(ranker: Ranker, asked: Predictions, known: np.ndarray) -> np.ndarray:
    """Return float64 [P, V], -inf where an item is no candidate."""
    n_items = len(known)
    parts = [
        comparable(ranker.scores(asked.prefixes, slice(start, min(start + ITEM_CHUNK, n_items))))
        for start in range(0, n_items, ITEM_CHUNK)
    ]
    return np.where(known, np.concatenate(parts, axis=1).astype(np.float64), -np.inf)
