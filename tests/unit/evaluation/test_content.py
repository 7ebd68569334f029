"""Content rules and the blend."""

from dataclasses import dataclass

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers import blend as blend_module
from jmrec.evaluation.rankers.blend import Blend, fit_blend
from jmrec.evaluation.rankers.content import FeatureNeighbours, TextNeighbours, texts_of
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.metrics.ranks import metric, session_mean


@pytest.fixture(scope="module")
def asked(make_sessions):
    rng = np.random.default_rng(1)
    return make_predictions(
        make_sessions([rng.permutation(30)[: rng.integers(2, 9)].tolist() for _ in range(15)])
    )


def test_tfidf_is_computed_by_hand(make_sessions, make_dataset) -> None:
    texts = ["red shoe", "red hat", "blue shoe", "green scarf"]
    dataset = make_dataset({"train": make_sessions([[0, 1, 2]])}, texts)
    rule = next(TextNeighbours.grid(Known(dataset)))
    words = ["blue", "hat", "red", "shoe"]  # green and scarf are not in training
    count = np.array([[word in text.split() for word in words] for text in texts], float)
    idf = np.log((1 + 3) / (1 + count[:3].sum(axis=0))) + 1
    table = count * idf
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    prefixes = make_predictions(make_sessions([[0, 1], [3, 0]])).prefixes
    found = rule.scores(prefixes, slice(0, 4))
    assert found == pytest.approx(table[[0, 3]] @ table.T, abs=1e-6)
    assert (found[1] == 0).all()


def test_text_holds_fields_and_category_names(make_sessions, make_dataset) -> None:
    items = make_dataset({"train": make_sessions([[0]])}, ["a", "b"]).items
    items.text["plot"] = ["dies", ""]
    items.category["genre"] = np.array([0, 1])
    items.category_names["genre"] = ["", "drama"]
    assert texts_of(items) == ["a . dies", "b . drama"]


def test_a_catalogue_of_stop_words_scores_zero(make_sessions, make_dataset) -> None:
    dataset = make_dataset({"train": make_sessions([[0, 1]])}, ["the", "and"])
    rule = next(TextNeighbours.grid(Known(dataset)))
    prefixes = make_predictions(make_sessions([[0, 1]])).prefixes
    assert rule.scores(prefixes, slice(0, 2)).tolist() == [[0, 0]]


@pytest.mark.parametrize("center", [False, True])
def test_feature_neighbours_are_cosine(asked, center: bool) -> None:
    rng = np.random.default_rng(4)
    table = rng.normal(size=(30, 6)) + 2.0
    table[5] = 0.0
    table[6] = np.nan
    seen = np.arange(30) < 20
    rule = FeatureNeighbours("vision", seen, center, decay=0.5)
    rule.prepare({"vision": table, "other": table[:3]})
    found = rule.scores(asked.prefixes, slice(0, 30))
    known = ~np.isin(np.arange(30), [5, 6])
    mean = table[known & seen].mean(axis=0) if center else 0.0
    unit = np.where(known[:, None], table - mean, 0.0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    for prefix, scores in zip(asked.prefixes.expand(), found, strict=True):
        profile = sum(0.5**age * unit[item] for age, item in enumerate(prefix[::-1]))
        assert scores == pytest.approx(unit @ profile, abs=1e-4)
    assert (found[:, [5, 6]] == 0).all()
    assert rule.scores(asked.prefixes, slice(3, 8)) == pytest.approx(found[:, 3:8], abs=1e-6)


def test_feature_tables_that_do_not_fit_are_refused_in_one_sentence(asked) -> None:
    rule = FeatureNeighbours("vision", np.ones(30, bool))
    with pytest.raises(UserError, match="no feature table named 'vision'"):
        rule.scores(asked.prefixes, slice(0, 30))
    with pytest.raises(UserError, match="no feature table named 'vision'"):
        rule.prepare({"text": np.zeros((30, 2))})
    with pytest.raises(UserError, match="has 29 rows and the catalogue 30"):
        rule.prepare({"vision": np.zeros((29, 2))})


@dataclass
class Noisy:
    """Scores the targets up, a share of the time, on top of noise."""

    seed: int
    knows: np.ndarray
    answers: dict[int, int]
    name: str = "noisy"

    def prepare(self, features: object) -> None:
        pass

    def scores(self, prefixes, item_slice):
        out = []
        for prefix in prefixes.expand():
            key = int(np.sum(prefix * (np.arange(len(prefix)) + 3)))
            row = np.random.default_rng([self.seed, key]).normal(size=30) * 10 + 100
            target = self.answers.get(key)
            if target is not None and self.knows[target]:
                row[target] += 30
            out.append(row)
        return np.array(out)[:, item_slice]


@pytest.fixture(scope="module")
def experts(asked):
    keys = [int(np.sum(p * (np.arange(len(p)) + 3))) for p in asked.prefixes.expand()]
    answers = dict(zip(keys, asked.target.tolist(), strict=True))
    even = np.arange(30) % 2 == 0
    return [Noisy(0, even, answers, "even"), Noisy(1, ~even, answers, "odd")]


def mrr(ranker, asked) -> float:
    ranks = rank(ranker, asked, n_items=30, exclude_seen=True).ranks[0]
    return session_mean(metric("MRR@20", ranks), asked.session)


def test_a_blend_adds_standardised_scores_in_any_slicing(asked, experts, monkeypatch) -> None:
    flat = StaticRule("flat", np.full(30, 7.0, np.float32))
    fixed = StaticRule("fixed", np.random.default_rng(2).random(30, np.float32))
    mixed = Blend([fixed, *experts, flat], [0.3, 1.0, 0.5, 3.0], 30)
    expected = np.zeros((len(asked), 30))
    for weight, member in zip([0.3, 1.0, 0.5], [fixed, *experts], strict=True):
        scores = member.scores(asked.prefixes, slice(0, 30))
        mean, spread = scores.mean(axis=1, keepdims=True), scores.std(axis=1, keepdims=True)
        expected += weight * (scores - mean) / spread
    whole = mixed.scores(asked.prefixes, slice(0, 30))
    assert whole == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(blend_module, "SLICE", 7)
    parts = [mixed.scores(asked.prefixes, slice(a, min(a + 11, 30))) for a in range(0, 30, 11)]
    assert np.concatenate(parts, axis=1) == pytest.approx(whole, abs=1e-4)


def test_the_chosen_blend_unites_experts_and_drops_what_is_useless(asked, experts) -> None:
    useless = StaticRule("flat", np.zeros(30, np.float32))
    mixed = fit_blend([useless, *experts], asked, n_items=30, exclude_seen=True)
    assert set(mixed.settings) == {"even", "odd"}
    assert mrr(mixed, asked) > max(mrr(one, asked) for one in experts) + 0.03


def test_a_blend_of_one_is_that_one(asked, experts) -> None:
    mixed = fit_blend(experts[:1], asked, n_items=30, exclude_seen=True)
    assert mixed.settings == {"even": 1.0}
    assert mrr(mixed, asked) == mrr(experts[0], asked)


def test_weights_can_be_searched_on_a_sample(asked, experts, monkeypatch) -> None:
    monkeypatch.setattr(blend_module, "BUDGET", 30 * 2 * 20)
    sampled = blend_module.some_sessions(asked, 20, seed=0)
    assert 0 < len(sampled) <= 20
    whole = np.isin(asked.session, sampled.session)
    assert len(sampled) == whole.sum()
    mixed = fit_blend(experts, asked, n_items=30, exclude_seen=True)
    assert len(mixed.members) >= 1
