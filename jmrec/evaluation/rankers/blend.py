"""A blend of rankers: a weighted sum of scores, standardised within each prediction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker, miss
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.rankers.servable import servable
from jmrec.evaluation.results import MIX, MRR20, mixed_name
from jmrec.evaluation.top_list import FLOOR
from jmrec.metrics.ranks import metric, session_mean

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5)
"""Weights tried for a member, relative to the best single member's 1."""
BLEND = "blend of rules"
SLICE = 8192
BUDGET = 120_000_000
"""Scores held while weights are searched; more validation sessions than fit are sampled."""
ENOUGH = 1000
"""So many predictions choose weights at least, where there are as many."""
CACHED = 2**18
"""Scores of a member that are added at a time: they stay in a processor's cache."""
STRETCH = 2**14
"""Scores of one prediction that are summed at a time: their copy stays in a processor's cache."""
BLOCK = 20_000_000
"""Scores of all items that are held at a time, where only the best of them are kept."""


def _ascend(
    scores: np.ndarray,
    weights: np.ndarray,
    order: Sequence[int],
    figure: Callable[[np.ndarray], float],
    rounds: int,
) -> tuple[float, np.ndarray]:
    """Change one weight after the other while that is better; return the figure and the weights.

    Args:
      scores: float32 [M, ...] of each member.
      weights: float64 [M], where it begins; changed in place.
      order: In which order the members take turns.
      figure: Of their sum.
      rounds: At most so many turns of all.
    """
    total = np.tensordot(weights.astype(np.float32), scores, 1)
    best = figure(total)
    for _ in range(rounds):
        changed = False
        for index in order:
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
    return best, weights


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
        # What is the same after every prefix is standardised once.
        self._fixed: dict[int, np.ndarray] = {}
        for index, (member, weight) in enumerate(zip(self.members, self.weights)):
            if isinstance(member, StaticRule):
                values = member.values[None]
                mean, scale = _finish(*_moments(values), self.n_items)
                self._fixed[index] = _standard(values, mean, scale, weight)

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Hand the features to every member."""
        for member in self.members:
            member.prepare(features)

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        moving = [member for n, member in enumerate(self.members) if n not in self._fixed]
        moments: list[tuple[np.ndarray, np.ndarray]] | None = None
        if item_slice.start > 0 or item_slice.stop < self.n_items:
            # The moments are over the whole catalogue, so one more pass is needed.
            kept = self._cached  # read once: another thread may ask of other prefixes meanwhile
            if kept is None or kept[0] is not prefixes:
                found = [catalogue_moments(m, prefixes, self.n_items) for m in moving]
                self._cached = kept = prefixes, found
            moments = kept[1]
        parts = [_floats(member, prefixes, item_slice) for member in moving]
        width = len(range(self.n_items)[item_slice])
        total = np.zeros((len(prefixes), width), np.float32)
        rows = max(CACHED // max(width, 1), 1)
        for start in range(0, len(total), rows):
            some = slice(start, start + rows)
            if moments is None:
                own = [_finish(*_moments(part[some]), self.n_items) for part in parts]
            else:
                own = [(mean[some], scale[some]) for mean, scale in moments]
            others = zip(parts, own)
            for index, weight in enumerate(self.weights):
                if index in self._fixed:
                    total[some] += self._fixed[index][:, item_slice]
                else:
                    part, (mean, scale) = next(others)
                    total[some] += _standard(part[some], mean, scale, weight)
        return total


def _standard(scores: np.ndarray, mean: np.ndarray, scale: np.ndarray, weight: float) -> np.ndarray:
    """Return float32 [P, n]: scores with mean 0 and deviation 1 over the catalogue, weighted."""
    found = scores - mean[:, None]
    found *= scale[:, None]
    found *= np.float32(weight)
    return found


def _floats(member: Ranker, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
    return np.asarray(member.scores(prefixes, item_slice), np.float32)


def _moments(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(scores) == 1:  # one session waits for its answer: a third of the time
        parts = (scores[0, at : at + STRETCH] for at in range(0, scores.shape[1], STRETCH))
        wide = (part.astype(np.float64) for part in parts)
        found = np.array([(each.sum(), np.dot(each, each)) for each in wide])
        return found[:, 0].sum(keepdims=True), found[:, 1].sum(keepdims=True)
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


@dataclass(frozen=True)
class _Table:
    """What the search for weights looks at, C candidates of each of P predictions.

    Attributes:
      scores: float32 [M, P, C] of each member, standardised over the catalogue.
      blocked: bool [P, C], what is no candidate.
      column: int [P], where the target stands.
    """

    scores: np.ndarray
    blocked: np.ndarray
    column: np.ndarray

    def ranks(self, total: np.ndarray, n_items: int) -> np.ndarray:
        """Return int [P] ranks of the targets by scores [P, C]."""
        rows = np.arange(len(total))
        wanted = total[rows, self.column][:, None]
        ranks = ((total >= wanted) & ~self.blocked).sum(axis=1)
        return np.where(self.blocked[rows, self.column], miss(n_items), ranks)


def fit_blend(
    members: Sequence[Ranker],
    validation: Predictions,
    *,
    n_items: int,
    exclude_seen: bool,
    allowed: np.ndarray | None = None,
    rounds: int = 3,
    seed: int = 0,
    start: Sequence[float] | None = None,
) -> Blend:
    """Choose a blend's weights on validation by coordinate ascent on the primary figure.

    The best single member starts with weight 1; then each weight in turn takes the value of
    ``WEIGHTS`` that does best, until a round changes nothing. Members that end at 0 are dropped.
    At most ``BUDGET`` scores are held. Of a catalogue of which fewer than ``ENOUGH`` predictions
    would fit, only those items are looked at that are among the best of a member.

    Args:
      members: Fitted and prepared rankers.
      validation: Predictions of the validation split; positions 1 to 20 are used.
      n_items: V.
      exclude_seen: Of the data set.
      allowed: bool [V] availability.
      rounds: At most so many rounds.
      seed: Of the sample of sessions, where not all fit into ``BUDGET``.
      start: Weights to start from too, one a member, not all 0; the better of the two ends stays,
        so that the blend is no worse than these on what it looks at.

    Returns:
      The blend.
    """
    asked = validation.take(validation.place <= 20)
    held = BUDGET // max(len(members), 1)  # candidates, of all predictions
    room = held // n_items
    whole = room >= min(ENOUGH, len(asked))
    asked = some_sessions(asked, room if whole else ENOUGH, seed)
    blocked = partial(_blocked, n_items=n_items, exclude_seen=exclude_seen, allowed=allowed)
    if whole:
        table = _Table(
            _standardised(members, asked.prefixes, n_items), blocked(asked), asked.target
        )
    else:
        table = _best_of_each(members, asked, n_items, held // max(len(asked), 1), blocked)
    scores = table.scores

    def figure(total: np.ndarray) -> float:
        return session_mean(metric(MRR20, table.ranks(total, n_items)), asked.session)

    single = [figure(one) for one in scores]
    alone = np.zeros(len(members))
    alone[int(np.argmax(single))] = 1.0
    order = np.argsort(single)[::-1].tolist()
    starts = [alone] if start is None else [np.array(start, float), alone]
    found = [_ascend(scores, each, order, figure, rounds) for each in starts]
    weights = max(found, key=lambda each: each[0])[1]
    kept = np.flatnonzero(weights).tolist()
    return Blend(
        [members[index] for index in kept],
        [float(weights[index]) for index in kept],
        n_items,
        {members[index].name: float(weights[index]) for index in kept},
    )


def fit_mixed(
    rules: Sequence[Ranker], student: Ranker, validation: Predictions, **common: Any
) -> Blend:
    """Blend rules and a student, as `fit_blend` does: what is counted and what is learned.

    It begins as the blend of the rules alone too, where there is one.

    Args:
      rules: Fitted and prepared, their blend among them or not.
      student: Trained and prepared.
      validation: As in `fit_blend`.
      **common: The other arguments of `fit_blend`.

    Returns:
      The blend, in which the student comes last; one that adds nothing is left out.
    """
    members = [rule for rule in rules if not isinstance(rule, Blend)]
    start = None
    for blend in rules:
        if isinstance(blend, Blend):
            own = {each.name: weight for each, weight in zip(blend.members, blend.weights)}
            start = [*(own.get(rule.name, 0.0) for rule in members), 0.0]
    found = fit_blend([*members, student], validation, start=start, **common)
    return replace(found, name=mixed_name(student.name), kind=MIX)


def _blocked(
    asked: Predictions, n_items: int, exclude_seen: bool, allowed: np.ndarray | None
) -> np.ndarray:
    """Return bool [P, V]: what can not be recommended, and so never counts."""
    blocked = np.zeros((len(asked), n_items), bool)
    if allowed is not None:
        blocked |= ~allowed
    if asked.available is not None:
        blocked |= ~asked.available.open(asked.time, slice(0, n_items))
    if exclude_seen:
        blocked[asked.seen()] = True
    return blocked


def _best_of_each(
    members: Sequence[Ranker],
    asked: Predictions,
    n_items: int,
    most: int,
    blocked: Callable[[Predictions], np.ndarray],
) -> _Table:
    """Return the target and the best items of each member, of which ranks near the top are made.

    Of the others none is near the top of any member, so that hardly one passes a target that is
    near the top of a blend: ranks are too good by these few. With one member alone they are exact
    as far as its best items reach. At most about ``BLOCK`` scores of all items are held at a time.

    Args:
      members: M rankers.
      asked: P predictions.
      n_items: V.
      most: How many candidates of a prediction are kept, the target included.
      blocked: See `_blocked`.
    """
    best = min(max((most - 1) // len(members), 1), n_items)
    shape = len(asked), 1 + best * len(members)
    scores = np.zeros((len(members), *shape), np.float32)
    closed = np.ones(shape, bool)
    size = max(BLOCK // (n_items * len(members)), 1)
    for start in range(0, len(asked), size):
        part = slice(start, min(start + size, len(asked)))
        few = asked.take(part)
        refused, found = blocked(few), _standardised(members, few.prefixes, n_items, n_items)
        rest = refused.copy()
        rest[np.arange(len(few)), few.target] = True
        top = np.argpartition(np.where(rest, np.inf, -found), best - 1, axis=2)[:, :, :best]
        for row, target in enumerate(few.target.tolist()):
            items = np.unique(top[:, row])
            items = np.concatenate([[target], items[~rest[row, items]]])
            scores[:, start + row, : len(items)] = found[:, row, items]
            closed[start + row, : len(items)] = refused[row, items]
    return _Table(scores, closed, np.zeros(len(asked), int))


def some_sessions(predictions: Predictions, room: int, seed: int) -> Predictions:
    """Return the predictions of whole sessions, drawn until about ``room`` are taken.

    Args:
      predictions: They; all are returned where they are no more.
      room: How many are wanted.
      seed: Of the draw.
    """
    if len(predictions) <= room:
        return predictions
    sessions = np.random.default_rng(seed).permutation(np.unique(predictions.session))
    size = np.bincount(predictions.session)[sessions]
    kept = sessions[: max(1, int(np.searchsorted(np.cumsum(size), room)))]
    return predictions.take(np.isin(predictions.session, kept))


def _standardised(
    members: Sequence[Ranker], prefixes: Prefixes, n_items: int, step: int = SLICE
) -> np.ndarray:
    """Return float32 [M, P, V]: each member's scores with mean 0 and deviation 1.

    Args:
      members: M rankers.
      prefixes: P prefixes.
      n_items: V.
      step: Items that are scored together.
    """
    found = np.empty((len(members), len(prefixes), n_items), np.float32)
    for scores, member in zip(found, members):
        alone = Blend([member], [1.0], n_items)
        for start in range(0, n_items, step):
            items = slice(start, min(start + step, n_items))
            np.maximum(alone.scores(prefixes, items), FLOOR, out=scores[:, items])
    return found
