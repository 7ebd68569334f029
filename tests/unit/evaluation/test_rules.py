"""Rules against hand-made numbers, brute force and independent formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers import bags, content
from jmrec.evaluation.rankers.bags import context_weights
from jmrec.evaluation.rankers.blend import some_sessions
from jmrec.evaluation.rankers.cooccurrence import (
    LinearRule,
    SessionNeighbours,
    compact,
    cosine,
    markov,
    session_matrix,
    transitions,
)
from jmrec.evaluation.rankers.ease import ease
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import (
    SessionPopularity,
    newest_first,
    recent_popularity,
)
from jmrec.evaluation.rankers.rules import RULES, best_on_validation, fit_rules
from jmrec.metrics.ranks import metric, session_mean

LISTS = [[0, 1, 2], [0, 1], [1, 2, 0], [3], [0, 1, 0, 4]]
V = 6


@pytest.fixture(scope="module")
def train(make_sessions):
    return make_sessions(LISTS)


@pytest.fixture(scope="module")
def random_train(make_sessions):
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 30, rng.integers(1, 12)).tolist() for _ in range(120)]
    return make_sessions(lists)


@pytest.fixture(scope="module")
def asked(make_sessions):
    rng = np.random.default_rng(1)
    lists = [rng.integers(0, 30, rng.integers(2, 9)).tolist() for _ in range(12)]
    return make_predictions(make_sessions(lists))


def test_first_order_counts_by_hand(train) -> None:
    counts = transitions(train, V).toarray()
    expected = np.zeros((V, V))
    expected[0, 1], expected[1, 2], expected[2, 0], expected[1, 0], expected[0, 4] = 3, 2, 1, 1, 1
    assert counts.tolist() == expected.tolist()


@pytest.mark.parametrize(("steps", "power"), [(1, 1.0), (3, 1.0), (20, 0.5)])
def test_transitions_are_a_double_loop(random_train, steps: int, power: float) -> None:
    expected = np.zeros((30, 30))
    for one in random_train:
        for i in range(len(one)):
            for j in range(i + 1, min(i + steps, len(one) - 1) + 1):
                expected[one[i], one[j]] += (j - i) ** -power
    assert transitions(random_train, 30, steps, power).toarray() == pytest.approx(expected)


def test_markov_is_a_mixture_of_counts_and_popularity(train, make_sessions) -> None:
    rule = markov(train, V, backoff=2.0)
    prefixes = make_predictions(make_sessions([[3, 0, 5], [5, 1]])).prefixes
    popular = np.array([5, 4, 2, 1, 1, 0]) / 13
    after_3, after_0, after_5 = rule.scores(prefixes, slice(0, V))
    counts = np.array([0, 3, 0, 0, 1, 0])
    assert after_0 == pytest.approx((counts + 2 * popular) / (4 + 2))
    # Nothing ever followed item 3, and item 5 was never seen: popularity alone.
    assert after_3 == pytest.approx(popular)
    assert after_5 == pytest.approx(popular)
    assert after_0.sum() == pytest.approx(1.0)


def test_cosine_is_that_of_the_dense_matrix(random_train) -> None:
    held = np.zeros((len(random_train), 30))
    for row, one in enumerate(random_train):
        held[row, one] = 1
    for shrink, power in ((0.0, 0.0), (5.0, 0.5)):
        weight = held.sum(axis=1) ** -power
        together = held.T @ (held * weight[:, None])
        norm = np.sqrt(np.diag(together) + shrink)
        expected = together / np.outer(norm, norm)
        np.fill_diagonal(expected, 0)
        found = cosine(random_train, 30, shrink, power).toarray()
        assert found == pytest.approx(expected, abs=1e-6)


def test_ease_is_a_ridge_regression_of_each_item_on_the_others(random_train) -> None:
    held = session_matrix(random_train, 30).toarray().astype(np.float64)
    weights = ease(random_train, 30, l2=3.0)
    for item in range(30):
        others = np.delete(np.arange(30), item)
        gram = held[:, others].T @ held[:, others] + 3.0 * np.eye(29)
        solved = np.linalg.solve(gram, held[:, others].T @ held[:, item])
        assert weights[others, item] == pytest.approx(solved, abs=2e-5)
        assert weights[item, item] == 0


@pytest.mark.parametrize(("decay", "last"), [(0.0, None), (0.5, None), (1.0, None), (0.9, 2)])
def test_linear_rules_are_a_decayed_sum_over_the_prefix(asked, decay, last) -> None:
    matrix = np.random.default_rng(2).random((30, 30)).astype(np.float32)
    prior, share = np.linspace(0, 1, 30, dtype=np.float32), np.full(30, 0.1, np.float32)
    for kept in (matrix, sp.csr_array(matrix)):
        rule = LinearRule("linear", kept, prior, share, decay, last)
        found = rule.scores(asked.prefixes, slice(0, 30))
        for prefix, scores in zip(asked.prefixes.expand(), found, strict=True):
            expected = np.zeros(30)
            for age, item in enumerate(prefix[::-1]):
                if last is None or age < last:
                    expected += decay**age * (matrix[item] + 0.1 * prior)
            # Weights below a ten-thousandth are left out.
            assert scores == pytest.approx(expected, abs=2e-3, rel=1e-4)
        parts = [rule.scores(asked.prefixes, slice(a, min(a + 7, 30))) for a in range(0, 30, 7)]
        assert np.concatenate(parts, axis=1) == pytest.approx(found, rel=1e-6)


def test_sparse_matrices_stay_sparse(random_train) -> None:
    few = transitions(random_train, 5000)
    assert not isinstance(compact(few), np.ndarray)
    rule = LinearRule("wide", compact(few), np.zeros(5000), np.zeros(5000))
    prefixes = make_predictions(random_train).prefixes
    dense = few.toarray()[prefixes.last()]
    assert np.array_equal(rule.scores(prefixes, slice(0, 5000)), dense)
    assert np.array_equal(rule.scores(prefixes, slice(10, 40)), dense[:, 10:40])


@pytest.mark.parametrize(("k", "power", "sample"), [(7, 0.5, 40), (3, 1.0, 5), (60, 0.0, 1000)])
def test_session_neighbours_are_a_plain_loop(random_train, asked, k, power, sample) -> None:
    held = session_matrix(random_train, 30)
    rule = SessionNeighbours(held, np.zeros(30, np.float32), k, power, sample)
    found = rule.scores(asked.prefixes, slice(0, 30))
    past = [set(one.tolist()) for one in random_train]
    for prefix, scores in zip(asked.prefixes.expand(), found, strict=True):
        alike = np.array(
            [
                sum((m + 1) / len(prefix) for m, item in enumerate(prefix) if item in one)
                / len(one) ** power
                for one in past
            ]
        )
        near = np.flatnonzero(alike)[-sample:]
        order = near[np.argsort(-alike[near], kind="stable")]
        # Ties at the edge of the neighbourhood may fall either way: compare where there is none.
        if len(order) > k and np.isclose(alike[order[k - 1]], alike[order[k]]):
            continue
        votes = {}
        for s in order[:k]:
            age = min(len(prefix) - 1 - m for m, item in enumerate(prefix) if item in past[s])
            votes[s] = alike[s] / (1 + age)
        expected = np.zeros(30)
        for s, vote in votes.items():
            for item in past[s]:
                expected[item] += vote / max(votes.values())
        assert scores == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert rule.scores(asked.prefixes, slice(4, 9)) == pytest.approx(found[:, 4:9], abs=1e-6)


def test_recent_popularity_halves(make_sessions) -> None:
    train = make_sessions([[0, 1], [2]], times=[[0.0, 50.0], [100.0]])
    values = recent_popularity(train, 4, share=0.25).values
    assert values[:3] == pytest.approx([1 / 16, 1 / 4, 1.0], rel=1e-4)
    assert values[3] == 0


def test_session_popularity_counts_the_session_then_popularity(make_sessions) -> None:
    prior = np.array([0.1, 0.9, 1.0, 0.0], np.float32)
    prefixes = make_predictions(make_sessions([[0, 0, 3, 1]])).prefixes
    scores = SessionPopularity(prior).scores(prefixes, slice(0, 4))
    assert scores == pytest.approx(
        np.array([[1.1, 0.9, 1.0, 0.0], [2.1, 0.9, 1.0, 0.0], [2.1, 0.9, 1.0, 1.0]])
    )


def test_newest_first_orders_the_unseen_then_the_latest(make_sessions, make_dataset) -> None:
    train = make_sessions([[2, 0], [2, 1]])
    items = make_dataset({"train": train}, list("abcdef")).items
    order = np.argsort(-newest_first(train, items).values)
    assert order.tolist() == [5, 4, 3, 1, 0, 2]
    order = np.argsort(-newest_first(train, items, "first seen, early rows").values)
    assert order.tolist() == [3, 4, 5, 1, 0, 2]
    items.number["year"] = np.array([2000, 1990, 2010, np.nan, 2010, 1980], np.float32)
    order = np.argsort(-newest_first(train, items, "year").values)
    assert order.tolist() == [4, 2, 0, 1, 5, 3]


def test_context_weights_sum_repeats(make_sessions) -> None:
    prefixes = make_predictions(make_sessions([[1, 2, 1, 0]])).prefixes
    assert context_weights(prefixes, 3, 0.5).toarray()[2] == pytest.approx([0, 1.25, 0.5])


def test_rules_need_nothing_but_the_training_sessions(random_train, make_dataset, asked) -> None:
    dataset = make_dataset({"train": random_train}, ["word"] * 30)
    for name, grid in RULES.items():
        rules = list(grid(Known(dataset)))
        assert len({str(rule.settings) for rule in rules}) == len(rules) <= 12
        for rule in rules:
            assert rule.name == name
            scores = rule.scores(asked.prefixes, slice(0, 30))
            assert scores.shape == (len(asked), 30)
            assert np.isfinite(scores).all()
            part = rule.scores(asked.prefixes, slice(11, 13))
            assert part == pytest.approx(scores[:, 11:13], rel=1e-5, abs=1e-7)


def test_fit_rules_chooses_by_session_averaged_mrr(random_train, make_dataset, asked) -> None:
    rng = np.random.default_rng(3)
    texts = [f"colour{i % 5} shape{i % 3}" for i in range(30)]
    dataset = make_dataset({"train": random_train, "validation": random_train}, texts)
    steps: list[tuple[str, int, int]] = []
    fitted = fit_rules(
        dataset,
        asked,
        features={"pixels": rng.normal(size=(30, 8))},
        progress=lambda name, done, total: steps.append((name, done, total)),
    )
    kinds = [rule.kind for rule in fitted]
    plain = len(RULES) - 1  # all but the one that reads texts, which the pixels' follows
    assert kinds == ["rule"] * plain + ["content"] * 2 + ["blend"]
    assert [done for _, done, _ in steps] == list(range(plain + 4))
    common = {"n_items": 30, "exclude_seen": False}
    for rule, grid in zip(fitted, RULES.values(), strict=False):
        singles = [rank(one, asked, **common).ranks[0] for one in grid(Known(dataset))]
        best = max(session_mean(metric("MRR@20", ranks), asked.session) for ranks in singles)
        assert rule.settings["validation MRR@20"] == pytest.approx(best, abs=1e-5)
    # The blend starts from the best of them, and was chosen on these very predictions.
    figures = [rule.settings["validation MRR@20"] for rule in fitted]
    assert figures[-1] >= max(figures[:-1]) - 1e-5


def test_the_first_of_equals_is_chosen(asked) -> None:
    rule = SessionPopularity(np.zeros(30, np.float32))
    twin = SessionPopularity(np.zeros(30, np.float32))
    assert best_on_validation([rule, twin], asked, n_items=30, exclude_seen=False)[0] is rule
    with pytest.raises(ValueError, match="candidate"):
        best_on_validation([], asked, n_items=30, exclude_seen=False)


def test_settings_are_chosen_on_some_sessions_where_all_are_too_many(
    random_train, make_dataset, asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one is best is judged by a draw of them, and its figure by all."""
    dataset = make_dataset({"train": random_train, "validation": random_train}, ["word"] * 30)
    early = asked.take(asked.place <= 20)
    room = len(early) // 3
    monkeypatch.setattr("jmrec.evaluation.rankers.rules.CHOOSING", 30 * room)
    monkeypatch.setattr("jmrec.evaluation.rankers.rules.ENOUGH", 1)
    few = some_sessions(early, room, 0)
    assert 0 < len(few) <= room
    fitted = {rule.name: rule for rule in fit_rules(dataset, asked, blend=False)}
    common = {"n_items": 30, "exclude_seen": False}
    apart = 0
    for name, grid in RULES.items():
        if name not in fitted:
            continue
        rules = list(grid(Known(dataset)))

        def figure(rule, predictions) -> float:
            ranks = rank(rule, predictions, **common).ranks[0]
            return session_mean(metric("MRR@20", ranks), predictions.session)

        by_few, by_all = ([figure(rule, some) for rule in rules] for some in (few, early))
        best = int(np.argmax(by_few))
        assert fitted[name].settings["validation MRR@20"] == pytest.approx(by_all[best], abs=1e-5)
        chosen = {k: v for k, v in fitted[name].settings.items() if k != "validation MRR@20"}
        assert chosen == rules[best].settings
        apart += by_all[best] < max(by_all)
    assert apart, "the draw decides"


def test_one_prefix_scores_as_among_others(make_sessions: Any, make_dataset: Any) -> None:
    """The way of one answer is another one than that of an evaluation."""
    rng = np.random.default_rng(4)
    lists = [rng.integers(0, 40, rng.integers(2, 12)).tolist() for _ in range(150)]
    texts = [" ".join(rng.choice(["red", "tall", "warm", "old"], 3)) for _ in range(44)]
    splits = {"train": make_sessions(lists), "validation": make_sessions(lists[:9])}
    asked = make_predictions(splits["validation"])
    rules = fit_rules(make_dataset(splits, texts), asked, ease_items=20)
    assert {type(rule).__name__ for rule in rules} >= {
        "Blend", "FrequentItems", "LinearRule", "SessionNeighbours", "TextNeighbours",
    }  # fmt: skip
    sparse = [replace(rule, matrix=sp.csr_array(rule.matrix)) for rule in rules if linear(rule)]
    asked = make_predictions(make_sessions([*lists[:20], [41, 42, 41, 3, 2]]))
    for rule in [*rules, *sparse]:
        among = rule.scores(asked.prefixes, slice(0, 44))
        for few, small in ((1, 0), (bags.FEW, content.SMALL)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(bags, "FEW", few)
                patch.setattr(content, "SMALL", small)
                for row in range(len(asked)):
                    alone = asked.take(np.array([row])).prefixes
                    for items in (slice(0, 44), slice(7, 30)):
                        found = rule.scores(alone, items)
                        assert found == pytest.approx(among[[row], items], rel=1e-4, abs=1e-6)


def linear(rule: Any) -> bool:
    return isinstance(rule, LinearRule)
