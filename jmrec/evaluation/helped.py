"""Whom a row helps and whom it harms: sessions that it ranks better or worse than another row."""

from collections.abc import Sequence
from copy import copy

import numpy as np

from jmrec.data.schema import Items
from jmrec.evaluation.figures import per_prediction, units
from jmrec.evaluation.protocol import Predictions
from jmrec.evaluation.results import RANKING, ServedRow
from jmrec.evaluation.sections import Helped, HelpedSession
from jmrec.evaluation.summary import Row

EXAMPLES, CLICKS = 3, 6
"""Sessions shown of each sort, and clicks of each at most, the last ones."""
EQUAL = 1e-9
"""Session figures that differ by less are the same: means of seeds add up in another order."""


def two_rows(
    served: ServedRow | None, best_rule: str | None, rows: Sequence[Row]
) -> tuple[Row, Row] | None:
    """Return the served row and the one it is seen beside, None where there is only one.

    That is the best rule; where that rule itself is served, the student beside it.

    Args:
      served: "served" of results.json.
      best_rule: The same.
      rows: Of the table.
    """
    if served is None:
        return None
    named = {row.name: row for row in rows}
    others = [name for name in (best_rule, served.get("student")) if name != served["row"]]
    other = next((named[name] for name in others if name in named), None)
    own = named.get(served["row"])
    return None if own is None or other is None else (own, other)


def helped(own: Row, other: Row, predictions: Predictions, items: Items, seed: int = 0) -> Helped:
    """Return in how many sessions a row is better than another, and examples of both.

    A session counts by its primary figure, the mean over its positions 1-20, seeds averaged.

    Args:
      own: The row.
      other: The other.
      predictions: What both were asked.
      items: Whose titles are shown.
      seed: By which the examples are drawn: of the sessions of each sort any is as likely.
    """
    metric, figure = RANKING["metric"], RANKING["figure"]
    mine, its = (per_prediction(row.ranks(), metric) for row in (own, other))
    difference = units(mine, predictions, figure)[0] - units(its, predictions, figure)[0]
    sessions = np.unique(predictions.session[predictions.place <= 20])
    better, worse = difference > EQUAL, difference < -EQUAL
    count = len(difference)
    shown = [
        [
            _example(number, own, other, mine - its, sign, predictions, items)
            for number in _drawn(sessions[which], seed)
        ]
        for which, sign in ((better, 1), (worse, -1))
    ]
    named = {item for each in [*shown[0], *shown[1]] for item in [*each["past"], each["next"]]}
    return {
        "row": own.name,
        "other": other.name,
        "metric": metric,
        "sessions": count,
        "helped": float(better.mean()) if count else 0.0,
        "harmed": float(worse.mean()) if count else 0.0,
        "same": float((~better & ~worse).mean()) if count else 0.0,
        "gain": float(difference[better].mean()) if better.any() else None,
        "loss": float(difference[worse].mean()) if worse.any() else None,
        "better": shown[0],
        "worse": shown[1],
        "items": {
            item: {"title": title} for item, title in zip(items.ids, items.titles) if item in named
        },
    }


def _drawn(sessions: np.ndarray, seed: int) -> list[int]:
    """Return some sessions, drawn by lot, in their order."""
    lot = np.random.default_rng(seed).permutation(len(sessions))[:EXAMPLES]
    return np.sort(sessions[lot]).tolist()


def _example(
    session: int,
    own: Row,
    other: Row,
    difference: np.ndarray,
    sign: int,
    predictions: Predictions,
    items: Items,
) -> HelpedSession:
    """Show a session at the position at which the rows differ most in a direction."""
    inside = np.flatnonzero((predictions.session == session) & (predictions.place <= 20))
    at = int(inside[np.argmax(sign * difference[inside])])
    past = predictions.take(slice(at, at + 1)).prefixes.expand()[0]
    places = [float(row.ranks()[:, at].mean()) for row in (own, other)]
    return {
        "session": session,
        "past": [items.ids[row] for row in past[-CLICKS:]],
        "cut": max(len(past) - CLICKS, 0),
        "next": items.ids[int(predictions.target[at])],
        "places": places,
    }


def kept_helped(found: Helped, keep: np.ndarray) -> Helped:
    """Return it without the examples that are of sessions that go; the shares stay.

    Args:
      found: What `helped` returned.
      keep: bool [S] of the split, the sessions that stay.
    """
    number = np.cumsum(keep) - 1

    def stay(part: list[HelpedSession]) -> list[HelpedSession]:
        kept = [copy(each) for each in part if keep[each["session"]]]
        for each in kept:
            each["session"] = int(number[each["session"]])
        return kept

    result = copy(found)
    result["better"], result["worse"] = stay(found["better"]), stay(found["worse"])
    every = [*result["better"], *result["worse"]]
    named = {item for each in every for item in [*each["past"], each["next"]]}
    result["items"] = {item: fact for item, fact in found["items"].items() if item in named}
    return result
