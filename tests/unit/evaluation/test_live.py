"""Live rules against the frozen ones, fitted anew before each prediction by a plain loop."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.folder import read_folder
from jmrec.data.prepared import build
from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import split_by_event, split_by_time
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker, ask, at_target, rank
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
from jmrec.evaluation.rankers.known import Known, popularity
from jmrec.evaluation.rankers.live import FORMS, live
from jmrec.evaluation.rankers.past import Past
from jmrec.evaluation.rankers.popularity import SessionPopularity, StaticRule, recent_popularity
from jmrec.evaluation.rankers.rules import CHOSEN_BY, choose_live, fit_rules
from jmrec.evaluation.rankers.rules import RULES as TABLE

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


def test_a_live_blend_adds_its_live_members_with_its_weights(case: Case) -> None:
    rng = np.random.default_rng(0)
    fixed = StaticRule("EASE", rng.random(V).astype(np.float32))
    members = [frozen(name, RULES[name][0][0]) for name in ("popularity", "item-kNN")]
    mixed = live(Blend([*members, fixed], [0.5, 1.0, 2.0], V), case.past)
    assert mixed.name == "blend of rules, live"
    prefixes = case.asked.prefixes
    right = np.zeros((len(prefixes), V))
    for member, weight in zip([*members, fixed], (0.5, 1.0, 2.0), strict=True):
        part = live(member, case.past).scores(prefixes, slice(0, V)).astype(float)
        right += weight * (part - part.mean(1, keepdims=True)) / part.std(1, keepdims=True)
    assert mixed.scores(prefixes, slice(0, V)) == pytest.approx(right, abs=1e-4)


def test_what_has_no_live_form_stays_as_it_is(case: Case) -> None:
    for name in ("EASE", "newest first", "content-kNN (TF-IDF)", "student"):
        rule = frozen(name, {})
        assert live(rule, case.past) is rule


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_settings_are_chosen_under_live_counts(
    make_dataset: Callable[..., Dataset], seed: int
) -> None:
    dataset = dataset_of(draw(seed), make_dataset, True)
    frozen_asked = ask(dataset, "validation")
    asked = at_target(frozen_asked)
    past = Past(dataset, asked.prefixes.time.min())
    fitted = fit_rules(dataset, frozen_asked)
    chosen = {rule.name: rule for rule in choose_live(fitted, dataset, asked, past)}
    assert list(chosen) == [f"{name}, live" for name in (*FORMS, "blend of rules")]

    def figure(rule: Ranker) -> float:
        ranks = rank(rule, asked, n_items=V, exclude_seen=False, top=0).ranks[0]
        values = np.where((ranks <= 20) & (asked.place <= 20), 1 / ranks, 0.0)
        early = asked.place <= 20
        users = np.unique(asked.session[early])
        return float(np.mean([values[early & (asked.session == who)].mean() for who in users]))

    for name in ("recent popularity", "Markov + popularity", "V-SKNN"):
        tried = [figure(live(rule, past)) for rule in TABLE[name](Known(dataset))]
        rule = chosen[f"{name}, live"]
        assert figure(rule) == pytest.approx(max(tried), abs=1e-9)
        assert rule.settings[CHOSEN_BY] == pytest.approx(max(tried), abs=1e-5)
    blend = figure(chosen["blend of rules, live"])
    others = [rule for name, rule in chosen.items() if "blend" not in name]
    others += [rule for rule in fitted if rule.name not in (*FORMS, "blend of rules")]
    assert blend >= max(figure(rule) for rule in others) - 1e-9


def test_data_without_times_and_other_prefixes_are_refused(
    case: Case, make_dataset: Callable[..., Dataset]
) -> None:
    with pytest.raises(UserError, match=r"has no times.*leave out --counts\."):
        Past(replace(case.dataset, has_time=False), 0.0)
    rule = live(frozen("popularity", {}), case.past)
    prefixes = case.asked.prefixes
    for wrong, words in (
        (replace(prefixes, of=None), "of a split of the same"),
        (ask(dataset_of(draw(9), make_dataset, True), "test").prefixes, "of a split of the same"),
        (replace(prefixes, time=prefixes.time - 1e7), "before what"),
        (replace(prefixes, time=prefixes.time + 1.0), "neither"),
        (replace(prefixes, time=prefixes.time + 1e9), "neither"),
    ):
        with pytest.raises(ValueError, match=words):
            rule.scores(wrong, slice(0, V))


@dataclass
class Window:
    """Popularity of the last days before the moment; equal counts by popularity."""

    past: Past
    days: float
    name: str = "last days"

    def prepare(self, features: Mapping[str, np.ndarray]) -> None: ...

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        ends = [prefixes.time, prefixes.time - self.days * 24 * HOUR]
        ranks = [np.searchsorted(self.past.moments, end) for end in ends]
        whole, before = (self.past.events.rows(each, item_slice) for each in ranks)
        return whole - before + 1e-4 * whole


def test_tweetings_live_rules_reach_what_an_independent_program_reached(shared_data: Path) -> None:
    """The live table of SOURCE.md: counts up to the moment of what is predicted."""
    dataset = build(read_folder(shared_data / "tweetings", TWEETINGS, check_pictures=False))
    asked = at_target(ask(dataset, "test"))
    past = Past(dataset, asked.prefixes.time.min() - 3 * 24 * HOUR)
    tables: dict[tuple[float, float], Ranker] = {
        (0.194, 0.048): live(frozen("popularity", {}), past),
        (0.322, 0.103): Window(past, 3),
        # A back-off of 1 orders equal counts by popularity and nothing else.
        (0.245, 0.083): live(frozen("Markov + popularity", {"backoff": 1.0}), past),
    }
    n_items = len(dataset.items)
    for (hits, reciprocal), rule in tables.items():
        ranks = rank(rule, asked, n_items=n_items, exclude_seen=True, top=0).ranks[0]
        assert (ranks <= 20).mean() == pytest.approx(hits, abs=0.003), rule.name
        found = np.where(ranks <= 20, 1 / ranks, 0.0).mean()
        assert found == pytest.approx(reciprocal, abs=0.003), rule.name
