"""The blend of live rules and a student against rules fitted anew before each prediction."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from jmrec.data.schema import Dataset
from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker, ask, at_target
from jmrec.evaluation.rankers import past as past_module
from jmrec.evaluation.rankers.blend import WEIGHTS
from jmrec.evaluation.rankers.live import LiveBlend, live
from jmrec.evaluation.rankers.past import Past
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.rankers.rules import choose_live, choose_live_mixed, fit_rules
from jmrec.evaluation.results import MIX, MRR20
from jmrec.metrics.ranks import metric
from tests.unit.evaluation.test_live import RULES, V, dataset_of, draw, frozen, known_before, logged

COUNTED = {"popularity": 0, "recent popularity": 1, "Markov + popularity": 1, "item-kNN": 2}
"""Rule -> which of its settings."""


@dataclass
class Student:
    """What reads the last two items of a session, by drawn numbers that stay as they are."""

    name: str = "student"
    kind: str = "student"
    pairs: np.ndarray = field(default_factory=lambda: np.random.default_rng(7).random((2, V, V)))

    def prepare(self, features: Mapping[str, np.ndarray]) -> None: ...

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        rows = [self.pairs[0][p[-1]] + self.pairs[1][p[-2:][0]] for p in prefixes.expand()]
        return np.stack(rows)[:, item_slice].astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _short_stretches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past_module, "SHORTEST", 5)
        yield


def by_hand(dataset: Dataset, split: str, asked: Predictions, still: list[Ranker]) -> np.ndarray:
    """Return [M, P, V]: each counted rule fitted on what is before each moment, then the others."""
    log = {}
    for sessions in dataset.splits.values():  # a later split holds a user's whole history
        for row, name in enumerate(sessions.ids):
            part = slice(sessions.offsets[row], sessions.offsets[row + 1])
            log[name] = list(zip(sessions.times[part].tolist(), sessions.items[part].tolist()))
    period = float(np.ptp(dataset.splits["train"].times))
    found = np.empty((len(COUNTED) + len(still), len(asked), V))
    for row in range(len(asked)):
        one = asked.prefixes.take(slice(row, row + 1))
        own = dataset.splits[split].ids[asked.session[row]]
        past = known_before(log, own, int(asked.position[row]), float(one.time[0]))
        others = {who: events for who, events in past.items() if who != own}
        rules = [RULES[n][at][1](logged(past), logged(others), period) for n, at in COUNTED.items()]
        for member, rule in enumerate([*rules, *still]):
            found[member, row] = rule.scores(one, slice(0, V))[0]
    return (found - found.mean(2, keepdims=True)) / found.std(2, keepdims=True)


def mrr(scores: np.ndarray, asked: Predictions) -> float:
    """Return the primary figure of scores [P, V], ties against the model."""
    own = scores[np.arange(len(asked)), asked.target][:, None]
    values = metric(MRR20, (scores >= own - 1e-6).sum(1))
    early = asked.place <= 20
    users = np.unique(asked.session[early])
    return float(np.mean([values[early & (asked.session == who)].mean() for who in users]))


@pytest.mark.parametrize("seed", [5, 10])
def test_it_is_the_sum_of_what_is_fitted_before_each_moment_and_a_student_that_stays(
    make_dataset: Callable[..., Dataset], seed: int
) -> None:
    dataset = dataset_of(draw(seed), make_dataset, True)
    validation, asked = (at_target(ask(dataset, split)) for split in ("validation", "test"))
    past = Past(dataset, validation.prefixes.time.min())
    student = Student()
    ease = StaticRule("EASE", np.random.default_rng(seed).random(V).astype(np.float32))
    fitted = [*(frozen(name, RULES[name][at][0]) for name, at in COUNTED.items()), ease]
    counted = [live(rule, past) for rule in fitted[:-1]]
    mixed = choose_live_mixed(fitted, counted, student, validation, n_items=V, exclude_seen=False)
    assert isinstance(mixed, LiveBlend)
    assert (mixed.name, mixed.kind) == ("blend of rules and student, live", MIX)
    names = [*(f"{name}, live" for name in COUNTED), "EASE", "student"]
    weights = np.array([mixed.settings.get(name, 0.0) for name in names])
    assert (weights > 0).sum() == len(mixed.settings) >= 3
    assert weights[-1] > 0  # the student is in it, as a member that nothing is counted into

    truth = by_hand(dataset, "test", asked, [ease, student])
    found = mixed.scores(asked.prefixes, slice(0, V))
    np.testing.assert_allclose(found, np.tensordot(weights, truth, 1), atol=2e-4)

    # No other weight of one member is better on validation, with counts up to each moment.
    known = by_hand(dataset, "validation", validation, [ease, student])
    figure = partial(mrr, asked=validation)
    best = figure(np.tensordot(weights, known, 1))
    for member in range(len(names)):
        for weight in WEIGHTS:
            other = np.where(np.arange(len(names)) == member, weight, weights)
            if other.any():
                assert figure(np.tensordot(other, known, 1)) <= best + 1e-6


def test_it_begins_as_the_live_blend_of_the_rules(make_dataset: Callable[..., Dataset]) -> None:
    dataset = dataset_of(draw(7), make_dataset, True)
    early = ask(dataset, "validation")
    validation = at_target(early)
    past = Past(dataset, validation.prefixes.time.min())
    fitted = fit_rules(dataset, early)
    counted = choose_live(fitted, dataset, validation, past)
    common = {"n_items": V, "exclude_seen": False}
    mixed = choose_live_mixed(fitted, counted, Student(), validation, **common)
    blend, *_ = [rule for rule in counted if rule.name == "blend of rules, live"]

    def figure(rule: Ranker) -> float:
        return mrr(rule.scores(validation.prefixes, slice(0, V)).astype(float), validation)

    assert figure(mixed) >= max(figure(blend), figure(Student())) - 1e-6
    # Every counted member is live: no frozen form of one that has a live one.
    assert not {rule.name.removesuffix(", live") for rule in counted} & mixed.settings.keys()
