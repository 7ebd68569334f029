"""Reasons by exact removal against a direct recomputation, and the choice of examples."""

import jax
import numpy as np
import pytest

from jmrec.evaluation.explain import choose_examples, explain, removals, rule_in_words
from jmrec.evaluation.protocol import Prefixes, make_predictions
from jmrec.evaluation.rankers.neural import CompiledEncoder, NeuralRanker
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.student import StudentConfig, student

V, F, WINDOW, IDS = 30, 5, 8, 1024


@pytest.fixture(scope="module")
def tower() -> CompiledEncoder:
    stack = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
    return CompiledEncoder(student(StudentConfig(features=F, ids=IDS, stack=stack)), np.arange(V))


@pytest.fixture(scope="module")
def params(tower: CompiledEncoder) -> dict:
    made = tower.model.init(jax.random.key(0))
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), made)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(V, F)).astype(np.float32)


def ranker_of(tower: CompiledEncoder, params: dict, features: np.ndarray) -> NeuralRanker:
    ranker = tower.ranker("student", params)
    ranker.prepare({"features": features})
    return ranker


def all_scores(ranker: NeuralRanker, prefix: list[int]) -> np.ndarray:
    """Score the catalogue after one session, nothing shared with `explain`."""
    windows = np.full((1, WINDOW), -1, np.int32)
    windows[0, : len(prefix)] = prefix
    zero = np.zeros(1, np.int32)
    none = np.zeros((1, WINDOW), np.int32)
    one = Prefixes(windows, none.astype(np.float32), none, zero, zero + len(prefix) - 1, zero)
    return ranker.scores(one, slice(0, V))[0]


def test_every_reason_is_what_scoring_again_gives(
    tower: CompiledEncoder, params: dict, features: np.ndarray
) -> None:
    ranker = ranker_of(tower, params, features)
    prefix, items = [3, 17, 3, 9], np.array([5, 21])
    candidate = np.ones(V, bool)
    candidate[prefix] = False
    bare = features[items] * np.array([1, 1, 0, 0, 0], np.float32)
    without = {
        "picture": [ranker.vectors(bare, items)[0], None],
        "id": list(ranker.vectors(features[items], np.full(2, IDS - 1))),
    }
    found = explain(ranker, np.array(prefix), items, without, candidate, WINDOW)
    whole = all_scores(ranker, prefix)

    def place(scores: np.ndarray, item: int) -> int:
        rivals = [row for row in np.flatnonzero(candidate) if row != item]
        return 1 + sum(scores[row] >= scores[item] for row in rivals)

    for item, why in zip(items.tolist(), found):
        assert why.score == pytest.approx(whole[item], abs=1e-5)
        assert why.place == place(whole, item)
        assert len(why.past) == len(prefix)
        for position, removal in enumerate(why.past):
            again = all_scores(ranker, prefix[:position] + prefix[position + 1 :])
            assert removal is not None
            assert removal.contribution == pytest.approx(whole[item] - again[item], abs=1e-5)
            assert removal.place == place(again, item)
    # An item without a part is another catalogue, in which nothing else has changed: the session,
    # which does not hold the item, is read as before.
    changed = features.copy()
    changed[items[0]] = bare[0]
    again = all_scores(ranker_of(tower, params, changed), prefix)
    picture = found[0].own["picture"]
    assert picture is not None
    assert picture.contribution == pytest.approx(whole[5] - again[5], abs=1e-5)
    assert picture.place == place(again, 5)
    assert abs(picture.contribution) > 0.01
    assert found[1].own["picture"] is None
    for item, why in zip(items.tolist(), found):
        ids = np.arange(V)
        ids[item] = IDS - 1
        other = ranker_of(CompiledEncoder(tower.model, ids), params, features)
        again, removal = all_scores(other, prefix), why.own["id"]
        assert removal is not None
        assert removal.contribution == pytest.approx(whole[item] - again[item], abs=1e-5)
        assert removal.place == place(again, item)


def test_the_vectors_of_the_same_features_and_ids_are_the_catalogue_s(
    tower: CompiledEncoder, params: dict, features: np.ndarray
) -> None:
    ranker, rows = ranker_of(tower, params, features), np.array([4, 0])
    np.testing.assert_allclose(ranker.vectors(features[rows], rows), ranker.items[rows], rtol=1e-6)


def test_the_only_click_cannot_be_taken_away(
    tower: CompiledEncoder, params: dict, features: np.ndarray
) -> None:
    ranker = ranker_of(tower, params, features)
    assert len(removals(np.array([3]), WINDOW)) == 1
    (why,) = explain(ranker, np.array([3]), np.array([5]), {}, np.ones(V, bool), WINDOW)
    assert why.past == [None]
    assert why.own == {}


def test_examples_are_evenly_spaced_and_one_is_cold(make_sessions) -> None:
    lists = [[row % 10, (row + 1) % 10, (row + 2) % 10][: 2 + row % 2] for row in range(30)]
    lists[11] = [1, 2, 19]
    lists[20] = [3, 18]
    lists[25] = [4, 5, 6, 7, 8, 9, 0, 1, 17]  # a cold target, but not early
    asked = make_predictions(make_sessions(lists))
    cold = np.arange(20) >= 15
    chosen = choose_examples(asked, cold, count=4, clicks=6)
    assert asked.session[chosen].tolist() == [5, 15, 25, 20]
    assert asked.position[chosen].tolist() == [2, 2, 6, 1]
    # Two cold targets are early, of sessions 11 and 20: the middle one is the second.
    assert asked.target[chosen[-1]] == 18
    plain = choose_examples(asked, np.zeros(20, bool), count=4, clicks=6)
    assert asked.session[plain].tolist() == [3, 11, 18, 26]
    few = choose_examples(make_predictions(make_sessions([[1, 2], [3]])), cold)
    assert few.tolist() == [0]
    assert choose_examples(make_predictions(make_sessions([[3]])), cold).tolist() == []
    assert "new item" in rule_in_words(3, 6, True)
    assert "new item" not in rule_in_words(4, 6, False)


def test_without_a_click_the_pauses_around_it_are_one() -> None:
    gaps = np.log1p(np.array([0.0, 10.0, 5.0])).astype(np.float32)
    found = removals(np.array([4, 5, 6]), 4, gaps, np.array([1, 2, 3]))
    seconds = np.expm1(found.gaps)
    np.testing.assert_allclose(
        seconds, [[0, 10, 5, 0], [0, 5, 0, 0], [0, 15, 0, 0], [0, 10, 0, 0]], atol=1e-4
    )
    assert found.events.tolist() == [[1, 2, 3, 0], [2, 3, 0, 0], [1, 3, 0, 0], [1, 2, 0, 0]]
