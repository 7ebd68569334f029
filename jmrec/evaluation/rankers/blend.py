"""A blend of rankers: a weighted sum of scores, standardised within each prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jmrec.evaluation.protocol import FLOOR, Predictions, Prefixes, Ranker, miss
from jmrec.evaluation.rankers.servable import servable
from jmrec.evaluation.results import MRR20
from jmrec.metrics.ranks import metric, session_mean

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5)
"""Weights tried for a member, relative to the best single member's 1."""
BLEND = "blend of rules"
SLICE = 8192
BUDGET = 120_000_000
"""Scores held while weights are searched; more validation sessions than fit are sampled."""


@servable
@dataclass
class Blend:
    """Adds its members' scores, each with mean 0 and deviation 1 over the catalogue.

    Attributes:
      members: Fitted rankers.
      weights: One a member.
      n_items: V.
      settings: The weights by name, for the table.
    """

    members: Sequence[Ranker]
    weights: Sequence[float]
    n_items: int
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = BLEND
    kind: str = "blend"

    def __post_init__(self) -> None:
        self._cached: tuple[Prefixes, list[tuple[np.ndarray, np.ndarray]]] | None = None

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Hand the features to every member."""
        for member in self.members:
            member.prepare(features)

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        if item_slice.start == 0 and item_slice.stop == self.n_items:
            parts = [_floats(member, prefixes, item_slice) for member in self.members]
            moments = [_finish(*_moments(part), self.n_items) for part in parts]
        else:
            # The moments are over the whole catalogue, so one more pass is needed.
            kept = self._cached  # read once: another thread may ask of other prefixes meanwhile
            if kept is None or kept[0] is not prefixes:
                found = [catalogue_moments(m, prefixes, self.n_items) for m in self.members]
                self._cached = kept = prefixes, found
            moments = kept[1]
            parts = [_floats(member, prefixes, item_slice) for member in self.members]
        total = np.zeros(parts[0].shape, np.float32)
        for part, weight, (mean, scale) in zip(parts, self.weights, moments):
            total += np.float32(weight) * ((part - mean[:, None]) * scale[:, None])
        return total


def _floats(member: Ranker, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
    return np.asarray(member.scores(prefixes, item_slice), np.float32)


def _moments(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scores.sum(axis=1, dtype=np.float64), np.einsum(
        "pi,pi->p", scores, scores, dtype=np.float64
    )


def _finish(total: np.ndarray, square: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 (mean, 1 / deviation), 0 for the latter where all scores are equal."""
    mean = total / count
    variance = np.maximum(square / count - mean**2, 0.0)
    spread = variance > 1e-12 * np.maximum(mean**2, 1e-30)
    scale = np.where(spread, 1.0 / np.sqrt(np.where(spread, variance, 1.0)), 0.0)
    return mean.astype(np.float32), scale.astype(np.float32)


def catalogue_moments(
    ranker: Ranker, prefixes: Prefixes, n_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 [P] mean and 1 / deviation of a ranker's scores over the catalogue.

    Args:
      ranker: What scores.
      prefixes: P prefixes.
      n_items: V.
    """
    total, square = np.zeros(len(prefixes)), np.zeros(len(prefixes))
    for start in range(0, n_items, SLICE):
        items = slice(start, min(start + SLICE, n_items))
        first, second = _moments(_floats(ranker, prefixes, items))
        total, square = total + first, square + second
    return _finish(total, square, n_items)


def fit_blend(
    members: Sequence[Ranker],
    validation: Predictions,
    *,
    n_items: int,
    exclude_seen: bool,
    allowed: np.ndarray | None = None,
    rounds: int = 3,
    seed: int = 0,
) -> Blend:
    """Choose a blend's weights on validation by coordinate ascent on the primary figure.

    The best single member starts with weight 1; then each weight in turn takes the value of
    ``WEIGHTS`` that does best, until a round changes nothing. Members that end at 0 are dropped.

    Args:
      members: Fitted and prepared rankers.
      validation: Predictions of the validation split; positions 1 to 20 are used.
      n_items: V.
      exclude_seen: Of the data set.
      allowed: bool [V] availability.
      rounds: At most so many rounds.
      seed: Of the sample of sessions, where not all fit into ``BUDGET``.

    Returns:
      The blend.
    """
    asked = validation.take(validation.place <= 20)
    asked = _sample(asked, BUDGET // (n_items * max(len(members), 1)), seed)
    # Only what can still rank: non-candidates never count.
    blocked = np.zeros((len(asked), n_items), bool)
    if allowed is not None:
        blocked |= ~allowed
    if asked.available is not None:
        blocked |= ~asked.available.open(asked.time, slice(0, n_items))
    if exclude_seen:
        blocked[asked.seen()] = True
    tables = [Blend([member], [1.0], n_items) for member in members]
    scores = np.stack(
        [_in_slices(table, asked.prefixes, n_items) for table in tables]
    )  # [M, P, V] float32
    rows = np.arange(len(asked))
    missed = blocked[rows, asked.target]

    def figure(total: np.ndarray) -> float:
        wanted = total[rows, asked.target][:, None]
        ranks = ((total >= wanted) & ~blocked).sum(axis=1)
        return session_mean(metric(MRR20, np.where(missed, miss(n_items), ranks)), asked.session)

    single = [figure(one) for one in scores]
    weights = np.zeros(len(members))
    weights[int(np.argmax(single))] = 1.0
    best = max(single)
    total = scores[int(np.argmax(single))].copy()
    for _ in range(rounds):
        changed = False
        for index in np.argsort(single)[::-1]:
            rest = total - np.float32(weights[index]) * scores[index]
            for weight in WEIGHTS:
                if weight == weights[index] or not weights.sum() - weights[index] + weight:
                    continue
                found = figure(rest + np.float32(weight) * scores[index])
                if found > best + 1e-9:
                    best, weights[index], changed = found, weight, True
            total = rest + np.float32(weights[index]) * scores[index]
        if not changed:
            break
    kept = np.flatnonzero(weights).tolist()
    return Blend(
        [members[index] for index in kept],
        [float(weights[index]) for index in kept],
        n_items,
        {members[index].name: float(weights[index]) for index in kept},
    )


def _sample(predictions: Predictions, room: int, seed: int) -> Predictions:
    """Keep whole sessions at random, until about ``room`` predictions are taken."""
    if len(predictions) <= room:
        return predictions
    sessions = np.random.default_rng(seed).permutation(np.unique(predictions.session))
    size = np.bincount(predictions.session)[sessions]
    kept = sessions[: max(1, int(np.searchsorted(np.cumsum(size), room)))]
    return predictions.take(np.isin(predictions.session, kept))


def _in_slices(ranker: Ranker, prefixes: Prefixes, n_items: int) -> np.ndarray:
    parts = [
        np.maximum(ranker.scores(prefixes, slice(start, min(start + SLICE, n_items))), FLOOR)
        for start in range(0, n_items, SLICE)
    ]
    return np.concatenate(parts, axis=1)
