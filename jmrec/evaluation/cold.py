"""The cold panel: what a ranker does with items that training never saw.

A model can look good on new items by pushing all of them up. So four things are measured:
whether it can rank new items among each other, whether they reach the top beside warm ones, what a
score offset for all of them would bring, and what that costs on warm targets.

All figures are session-averaged over positions 1 to 20: the mean, over sessions that have such
a target, of the mean over those predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jmrec.evaluation.protocol import ITEM_CHUNK, Predictions, Ranked, Ranker, chunks, rank
from jmrec.evaluation.rankers.blend import ENOUGH, some_sessions
from jmrec.evaluation.rankers.rules import CHOOSING
from jmrec.evaluation.results import AMONG_COLD, HR20, MRR20, OFFSET, SHARE_COLD, WARM_LOST
from jmrec.metrics.ranks import metric, session_mean

POSITIONS = 20
GRID = (*(eighth / 8 for eighth in range(9)), 1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Offsets tried, in units of the ranker's own score spread.

Finer near the offset that a good ranker needs: there a quarter of a spread costs or brings a tenth
of the MRR@20.
"""


@dataclass(frozen=True)
class OffsetChoice:
    """The offset for cold items that validation chose.

    Attributes:
      offset: Added to cold items' scores.
      spread: The ranker's score spread.
      grid: float [G] offsets tried.
      overall: float [G] session-averaged MRR@20 of each, over all targets.
      warm: float [G] over warm targets.
      cold: float [G] over cold targets (NaN where there are none).
    """

    offset: float
    spread: float
    grid: np.ndarray
    overall: np.ndarray
    warm: np.ndarray
    cold: np.ndarray


def score_spread(
    ranker: Ranker, predictions: Predictions, n_items: int, sample: int = 200
) -> float:
    """Return how far a ranker's scores spread: the mean over predictions of their deviation.

    The deviation is over the catalogue, within one prediction. It makes offsets comparable
    between rankers whose scores are counts, cosines or logits.

    Args:
      ranker: What scores.
      predictions: The first, of about ``sample`` evenly chosen, are looked at.
      n_items: V.
      sample: How many predictions.
    """
    step = max(1, len(predictions) // max(sample, 1))
    asked = predictions.take(slice(None, None, step))
    deviations = []
    for part in chunks(asked, 512):
        prefixes = asked.take(part).prefixes
        total, square = np.zeros(len(prefixes)), np.zeros(len(prefixes))
        for start in range(0, n_items, ITEM_CHUNK):
            items = slice(start, min(start + ITEM_CHUNK, n_items))
            scores = np.asarray(ranker.scores(prefixes, items), np.float64)
            scores = np.where(np.isfinite(scores), scores, 0.0)
            total, square = total + scores.sum(axis=1), square + (scores**2).sum(axis=1)
        variance = square / n_items - (total / n_items) ** 2
        deviations.append(np.sqrt(np.maximum(variance, 0.0)))
    return float(np.concatenate(deviations).mean()) if deviations else 0.0


def choose_offset(
    ranker: Ranker,
    validation: Predictions,
    *,
    n_items: int,
    exclude_seen: bool,
    cold: np.ndarray,
    allowed: np.ndarray | None = None,
    grid: Sequence[float] = GRID,
    warm_loss: float | None = None,
) -> OffsetChoice:
    """Choose the cold offset on validation.

    By default the one with the best overall session-averaged MRR@20, the smaller of equals.
    Of a large catalogue so many sessions of validation are drawn as the settings of rules are
    judged by, see `jmrec.evaluation.rankers.rules.CHOOSING`.
    With ``warm_loss``, the one with the best cold MRR@20 among those that cost warm targets at
    most that share of their MRR@20.

    Args:
      ranker: What is evaluated.
      validation: Predictions of the validation split; positions 1 to 20 are used.
      n_items: V.
      exclude_seen: Of the data set.
      cold: bool [V].
      allowed: bool [V] availability.
      grid: Offsets to try, in units of the score spread; ascending, 0 first.
      warm_loss: See above; a fraction such as 0.05.

    Returns:
      The choice, with what each offset of the grid would have done.
    """
    asked = validation.take(validation.place <= POSITIONS)
    asked = some_sessions(asked, max(CHOOSING // max(n_items, 1), ENOUGH), 0)
    spread = score_spread(ranker, asked, n_items)
    offsets = np.asarray(grid) * spread
    found = rank(
        ranker,
        asked,
        n_items=n_items,
        exclude_seen=exclude_seen,
        cold=cold,
        offsets=tuple(map(float, offsets)),
        top=0,
        allowed=allowed,
    )
    new = cold[asked.target]
    values = metric(MRR20, found.ranks)
    overall, warm, among = (
        np.array([session_mean(row[which], asked.session[which]) for row in values])
        for which in (np.ones(len(asked), bool), ~new, new)
    )
    if warm_loss is None or not new.any():
        best = int(np.argmax(np.nan_to_num(overall)))
    else:
        affordable = warm >= (1.0 - warm_loss) * warm[0]
        best = int(np.argmax(np.where(affordable, among, -1.0)))
    return OffsetChoice(float(offsets[best]), spread, offsets, overall, warm, among)


def cold_panel(
    ranker: Ranker,
    predictions: Predictions,
    plain: Ranked,
    *,
    n_items: int,
    exclude_seen: bool,
    cold: np.ndarray,
    offset: float,
    allowed: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the cold figures of one ranker, in the form of results.json.

    Args:
      ranker: What is evaluated.
      predictions: What was asked.
      plain: Its ranks and top list without an offset.
      n_items: V.
      exclude_seen: Of the data set.
      cold: bool [V].
      offset: From :func:`choose_offset`.
      allowed: bool [V] availability.

    Returns:
      Name -> number; None where there is no such target. `WARM_LOST` is the figure
      without the offset minus the figure with it.
    """
    used = predictions.place <= POSITIONS
    asked, session = predictions.take(used), predictions.session[used]
    new = cold[asked.target]
    common: dict[str, Any] = {"n_items": n_items, "exclude_seen": exclude_seen, "allowed": allowed}
    before, before_top = plain.ranks[0][used], plain.top_ids[used]
    after, after_top = before, before_top
    if offset != 0 and cold.any():
        moved = rank(ranker, asked, cold=cold, offsets=(offset,), **common)
        after, after_top = moved.ranks[0], moved.top_ids
    among = np.zeros(0, np.int64)
    if new.any():
        among = rank(ranker, asked.take(new), only=cold, top=0, **common).ranks[0]

    def mean(name: str, ranks: np.ndarray, which: np.ndarray) -> float | None:
        return session_mean(metric(name, ranks), session[which]) if which.any() else None

    def share(top: np.ndarray) -> float | None:
        real = top >= 0
        shown = (cold[np.where(real, top, 0)] & real).sum(axis=1) / np.maximum(real.sum(axis=1), 1)
        return session_mean(shown, session) if len(session) else None

    warm_before, warm_after = mean(HR20, before[~new], ~new), mean(HR20, after[~new], ~new)
    lost = None
    if warm_before is not None and warm_after is not None:
        lost = warm_before - warm_after
    return {
        "n": int(new.sum()),
        AMONG_COLD: mean(HR20, among, new),
        HR20: mean(HR20, before[new], new),
        MRR20: mean(MRR20, before[new], new),
        "offset": float(offset),
        HR20 + OFFSET: mean(HR20, after[new], new),
        MRR20 + OFFSET: mean(MRR20, after[new], new),
        WARM_LOST: lost,
        f"warm {MRR20}{OFFSET}": mean(MRR20, after[~new], ~new),
        SHARE_COLD: share(before_top),
        SHARE_COLD + OFFSET: share(after_top),
    }
