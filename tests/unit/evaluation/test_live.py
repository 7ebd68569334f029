"""Live rules against the frozen ones, fitted anew before each prediction by a plain loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.folder import read_folder
from jmrec.data.prepared import build
from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import split_by_event, split_by_time
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Predictions, Ranker, ask, at_target, rank
from jmrec.evaluation.rankers import past as past_module
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


def cut(whole: Sessions, times: list[float]) -> dict[str, Sessions]:
    """Split by event at given times, as `split_by_event` does at shares."""
    shares = np.diff([0, *np.searchsorted(np.sort(whole.times), times), len(whole.times)])
    return split_by_event(whole, shares / len(whole.times))


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


def known_before(log: Log, own: str, position: int, time: float) -> Log:
    """Return the events strictly before a time, and the first ``position`` of ``own``."""
    past = {who: [event for event in events if event[0] < time] for who, events in log.items()}
    assert past[own] == log[own][: len(past[own])]
    return past | {own: log[own][:position]}


@dataclass
class Case:
    """A data set, predictions of test with a moment each, and what is known before some of them."""

    dataset: Dataset
    asked: Predictions
    past: Past
    before: dict[int, tuple[Sessions, Sessions]]


@pytest.fixture(scope="module", autouse=True)
def _short_stretches() -> Iterator[None]:
    """Let a stretch of time have a few events, so that small data has many stretches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past_module, "SHORTEST", 5)
        yield


@pytest.fixture(scope="module", params=["last event", "target", "sessions"])
def case(request: pytest.FixtureRequest, make_dataset: Callable[..., Dataset]) -> Case:
    by_event = request.param != "sessions"
    drawn = draw(0) if by_event else sessions_of(1)
    dataset = dataset_of(drawn, make_dataset, by_event)
    log: Log = {}
    for sessions in dataset.splits.values():  # a later split holds a user's whole history
        for row, name in enumerate(sessions.ids):
            events = slice(sessions.offsets[row], sessions.offsets[row + 1])
            log[name] = list(zip(sessions.times[events].tolist(), sessions.items[events].tolist()))
    if by_event:
        assert log == {name: events for name, events in drawn.items() if len(events) > 1}
    asked = ask(dataset, "test")
    asked = at_target(asked) if request.param == "target" else asked
    before = {}
    for row in range(0, len(asked), 2):
        own = dataset.splits["test"].ids[asked.session[row]]
        counted = known_before(log, own, int(asked.position[row]), float(asked.prefixes.time[row]))
        others = {who: events for who, events in counted.items() if who != own}
        before[row] = logged(counted), logged(others)
    return Case(dataset, asked, Past(dataset, asked.prefixes.time.min()), before)


def test_every_form_is_tried() -> None:
    assert RULES.keys() == FORMS.keys()


@pytest.mark.parametrize(("name", "number"), CASES)
def test_scores_are_those_of_the_rule_fitted_before_each_moment(
    case: Case, name: str, number: int
) -> None:
    settings, fit = RULES[name][number]
    prefixes = case.asked.prefixes
    found = live(frozen(name, settings), case.past).scores(prefixes, slice(0, V))
    period = np.ptp(case.dataset.splits["train"].times)
    assert len(case.before) > 10
    for row, known in case.before.items():
        rule = fit(*known, period)
        right = rule.scores(prefixes.take(slice(row, row + 1)), slice(0, V))[0]
        np.testing.assert_allclose(found[row], right, atol=1e-6, rtol=1e-6)
    parts = [
        live(frozen(name, settings), case.past).scores(prefixes, slice(at, min(at + 5, V)))
        for at in range(0, V, 5)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), found)


def every_rule(past: Past) -> list[Ranker]:
    return [live(frozen(name, RULES[name][n][0]), past) for name, n in CASES]


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_what_happens_at_a_moment_or_after_it_changes_no_bit(
    make_dataset: Callable[..., Dataset], seed: int
) -> None:
    """Others' events are planted from a moment on; predictions up to it must not see them."""
    log = draw(seed)
    asked = at_target(ask(dataset_of(log, make_dataset, True), "test"))
    moments = np.sort(asked.prefixes.time)
    moment = float(moments[len(moments) // 2])
    planted = {who: list(events) for who, events in log.items()}
    for step in range(40):  # at the very moment and after it; V - 1 is what nobody looks at
        planted[f"u{5 + step % 3}"].append((moment + (step // 8) * HOUR, V - 1 - step % 2))
    planted = {who: sorted(events, key=lambda event: event[0]) for who, events in planted.items()}
    own = {f"u{5 + step}" for step in range(3)}

    def scores(of: Log) -> tuple[list[np.ndarray], np.ndarray]:
        # The same events are in the same split, whatever is planted.
        whole, edges = logged(of), np.sort(logged(log).times)
        times = [edges[int(share * len(edges))] for share in (0.8, 0.9)]
        dataset = make_dataset(cut(whole, times), [f"item {k}" for k in range(V)])
        asked = at_target(ask(dataset, "test"))
        ids = np.array(dataset.splits["test"].ids)[asked.session]
        early = (asked.prefixes.time <= moment) & ~np.isin(ids, list(own))
        asked = asked.take(early)
        past = Past(dataset, times[0])
        return [rule.scores(asked.prefixes, slice(0, V)) for rule in every_rule(past)], ids[early]

    (before, who), (after, same) = scores(log), scores(planted)
    assert who.tolist() == same.tolist()
    assert len(who) > 5
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
