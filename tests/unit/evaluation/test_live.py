"""Live rules against the frozen ones, fitted anew before each prediction by a plain loop."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.folder import read_folder
from jmrec.data.prepared import build
from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import split_by_event, split_by_time
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker, ask, rank
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.cooccurrence import (
    LinearRule,
    SessionNeighbours,
    cosine,
    markov,
    session_matrix,
    tie_break,
    transitions,
)
from jmrec.evaluation.rankers.known import popularity
from jmrec.evaluation.rankers.live import FORMS, live
from jmrec.evaluation.rankers.past import Past
from jmrec.evaluation.rankers.popularity import SessionPopularity, StaticRule, recent_popularity

TWEETINGS = Path(__file__).resolve().parents[3] / "experiments/data/tweetings.toml"
V = 14
HOUR = 3600.0
Log = dict[str, list[tuple[float, int]]]
Fit = Callable[[Sessions, Sessions, float], Ranker]
"""(what is counted, the same without the prediction's session, training period) -> the rule."""


def logged(log: Log) -> Sessions:
    """Return the sessions of a log that have an event, by their start."""
    some = sorted(((name, e) for name, e in log.items() if e), key=lambda each: each[1][0][0])
    flat = [event for _, events in some for event in events]
    return Sessions(
        ids=[name for name, _ in some],
        users=np.full(len(some), -1, np.int32),
        offsets=np.cumsum([0, *(len(events) for _, events in some)]).astype(np.int64),
        items=np.array([item for _, item in flat], np.int32),
        times=np.array([time for time, _ in flat], np.float64),
        events=np.zeros(len(flat), np.int32),
        ratings=np.zeros(len(flat), np.float32),
    )


def draw(seed: int, users: int = 25, n: int = 330, hours: int = 90) -> Log:
    """Return users' events in which many share a moment, items repeat and one user has very many.

    No two users begin together: which of equal neighbours is taken depends on their order.
    """
    rng = np.random.default_rng(seed)
    log: Log = {f"u{user}": [(1.7e9 - users + user, user % 5)] for user in range(users)}
    for time in np.sort(rng.integers(0, hours, n)):
        user = 0 if rng.random() < 0.25 else rng.integers(users)
        # What is liked drifts, and items V - 3 and later come late.
        item = int(rng.integers(V if time > 0.85 * hours else V - 3) * rng.random() ** 0.5)
        log[f"u{user}"].append((1.7e9 + HOUR * float(time), item))
    return log


def sessions_of(seed: int) -> Log:
    """Return short sessions that overlap one another."""
    rng = np.random.default_rng(seed)
    start = np.sort(rng.choice(150, 100, replace=False))
    return {
        f"s{k}": [(1.7e9 + HOUR * float(t), int(rng.integers(V)))
                  for t in np.sort(begin + rng.integers(0, 5, rng.integers(2, 7)))]
        for k, begin in enumerate(start)
    }  # fmt: skip


def dataset_of(log: Log, make_dataset: Callable[..., Dataset], by_event: bool) -> Dataset:
    whole = logged(log)
    splits = split_by_event(whole) if by_event else split_by_time(whole)
    return make_dataset(splits, [f"item {k}" for k in range(V)])


def linear(name: str, matrix: Callable[[Sessions], object], scale: float, decay: float) -> Fit:
    def fit(counted: Sessions, _: Sessions, __: float) -> Ranker:
        prior, share = tie_break(counted, V, scale)
        return LinearRule(name, matrix(counted), prior, share, decay)

    return fit


def voting(k: int, power: float) -> Fit:
    def fit(counted: Sessions, others: Sessions, _: float) -> Ranker:
        share = popularity(counted, V)
        return SessionNeighbours(session_matrix(others, V), share / share.max(), k, power)

    return fit


def recent(share: float) -> Fit:
    def fit(counted: Sessions, _: Sessions, period: float) -> Ranker:
        return recent_popularity(counted, V, share * period / np.ptp(counted.times))

    return fit


def relative(counted: Sessions, _: Sessions, __: float) -> Ranker:
    share = popularity(counted, V)
    return SessionPopularity(share / share.max())


RULES: dict[str, list[tuple[dict, Fit]]] = {
    "popularity": [({}, lambda c, _, __: StaticRule("popularity", popularity(c, V)))],
    "recent popularity": [
        ({"half-life / training period": share}, recent(share)) for share in (0.5, 0.03, 0.001)
    ],
    "session popularity": [({}, relative)],
    "Markov + popularity": [
        ({"backoff": b}, lambda c, _, __, b=b: markov(c, V, b)) for b in (1.0, 10.0, 300.0)
    ],
    "sequential rules": [
        (
            {"steps": s, "power": p, "decay": d},
            linear("", lambda c, s=s, p=p: transitions(c, V, s, p), 1.0, d),
        )
        for s, p, d in ((10, 1.0, 0.0), (30, 0.5, 0.8), (10, 1.0, 0.5))
    ],
    "item-kNN": [
        (
            {"shrink": s, "length power": p, "decay": d},
            linear("", lambda c, s=s, p=p: cosine(c, V, s, p), 0.1, d),
        )
        for s, p, d in ((0.0, 0.0, 0.5), (10.0, 0.0, 0.95), (10.0, 0.5, 0.8))
    ],
    "V-SKNN": [
        ({"k": k, "length power": p}, voting(k, p)) for k, p in ((200, 0.5), (4, 0.0), (3, 1.0))
    ],
}
CASES = [(name, n) for name, each in RULES.items() for n in range(len(each))]


def frozen(name: str, settings: dict) -> Ranker:
    """Return a rule by its name, of which the live form reads the settings alone."""
    return StaticRule(name, np.zeros(V, np.float32), settings)


def at_target(asked: Predictions) -> Prefixes:
    """Return the prefixes with the moment of what follows."""
    prefixes = asked.prefixes
    assert prefixes.of is not None
    return replace(prefixes, time=prefixes.of.times[prefixes.last_event + 1])


def known_before(log: Log, own: str, position: int, time: float) -> Iterator[tuple[str, list]]:
    for name, events in log.items():
        past = [event for event in events if event[0] < time]
        yield name, events[: max(position, len(past))] if name == own else past


@pytest.fixture(scope="module", params=["users", "users' next", "sessions"])
def case(request, make_dataset) -> tuple[Log, Dataset, Predictions, Prefixes]:
    """Log, data set, predictions of test, and their prefixes with a moment each."""
    log = sessions_of(1) if request.param == "sessions" else draw(0)
    dataset = dataset_of(log, make_dataset, request.param != "sessions")
    asked = ask(dataset, "test")
    return log, dataset, asked, (
        at_target(asked) if request.param == "users' next" else asked.prefixes
    )


def past_of(dataset: Dataset) -> Past:
    return Past(dataset, min(ask(dataset, split).time.min() for split in ("validation", "test")))


def test_every_form_is_tried() -> None:
    assert RULES.keys() == FORMS.keys()


@pytest.mark.parametrize(("name", "number"), CASES)
def test_scores_are_those_of_the_rule_fitted_before_each_moment(case, name, number) -> None:
    log, dataset, asked, prefixes = case
    settings, fit = RULES[name][number]
    found = live(frozen(name, settings), past_of(dataset)).scores(prefixes, slice(0, V))
    period = np.ptp(dataset.splits["train"].times)
    assert len(asked) > 20
    for row in range(len(asked)):
        own = dataset.splits["test"].ids[asked.session[row]]
        at = own, int(asked.position[row]), float(prefixes.time[row])
        counted = dict(known_before(log, *at))
        others = {who: events for who, events in counted.items() if who != own}
        rule = fit(logged(counted), logged(others), period)
        right = rule.scores(prefixes.take(slice(row, row + 1)), slice(0, V))[0]
        np.testing.assert_allclose(found[row], right, atol=1e-6, rtol=1e-6)
