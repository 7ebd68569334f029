"""Figures, slices, comparisons and results.json against plain loops."""

import json

import numpy as np
import pytest

from jmrec.evaluation.figures import bias, figures, intervals, slices
from jmrec.evaluation.protocol import Ranked, make_predictions
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.summary import Row, compare, mean_panel, measure, plain, summarise
from jmrec.metrics.ranks import NAMES

V = 40


@pytest.fixture(scope="module")
def dataset(make_sessions, make_dataset):
    rng = np.random.default_rng(0)

    def some(count: int, longest: int, items: int):
        lists = [rng.integers(0, items, rng.integers(1, longest)).tolist() for _ in range(count)]
        users = rng.integers(0, count // 2, count).tolist()
        return make_sessions(lists, users)

    splits = {"train": some(30, 9, 30), "validation": some(20, 9, V), "test": some(60, 70, V)}
    return make_dataset(splits, ["x"] * V)


@pytest.fixture(scope="module")
def asked(dataset):
    return make_predictions(dataset.splits["test"])


@pytest.fixture(scope="module")
def ranks(asked):
    return np.random.default_rng(1).integers(1, V, (3, len(asked)))


def as_row(ranks: np.ndarray, name: str, kind: str = "student") -> Row:
    top = np.zeros((ranks.shape[1], 20), np.int32)
    return Row(name, kind, [Ranked(one[None], top, top.astype(np.float32)) for one in ranks])


def value(rank: int, name: str) -> float:
    family, k = name.split("@")
    if rank > int(k):
        return 0.0
    return {"HR": 1.0, "MRR": 1 / rank, "NDCG": 1 / np.log2(1 + rank)}[family]


def test_the_three_averages_by_loops(asked, ranks) -> None:
    found = figures(ranks, asked)
    for name in NAMES:
        values = [np.mean([value(seed[i], name) for seed in ranks]) for i in range(len(asked))]
        by_session: dict[int, list[float]] = {}
        for i, number in enumerate(values):
            if asked.position[i] <= 20:
                by_session.setdefault(int(asked.session[i]), []).append(number)
        session = np.mean([np.mean(numbers) for numbers in by_session.values()])
        single = np.mean([v for i, v in enumerate(values) if asked.position[i] <= 50])
        last = np.mean([v for i, v in enumerate(values) if asked.is_last[i]])
        assert found["session"][name] == pytest.approx(session)
        assert found["prediction"][name] == pytest.approx(single)
        assert found["last"][name] == pytest.approx(last)
    # The data tells the averages apart: some sessions are longer than 20 and than 50.
    assert asked.position.max() > 50
    assert (asked.position[~asked.is_last] == 50).any()


def test_intervals_hold_the_figure_and_draw_users(asked, ranks) -> None:
    table, ends = figures(ranks, asked), intervals(ranks, asked)
    for figure, row in ends.items():
        for name, (low, high) in row.items():
            assert low < table[figure][name] < high
    one_user = asked.__class__(**{**vars(asked), "user": np.zeros_like(asked.user)})
    low, high = intervals(ranks, one_user)["session"]["MRR@20"]
    assert low == pytest.approx(high)
    nobody = asked.__class__(**{**vars(asked), "user": np.full_like(asked.user, -1)})
    low, high = intervals(ranks, nobody)["session"]["MRR@20"]
    assert low < table["session"]["MRR@20"] < high


def test_slices_by_loops(asked, ranks, dataset) -> None:
    count = dataset.train_count
    found = slices(ranks, asked, count)
    tests = {
        ("train count", "0"): lambda i: count[asked.target[i]] == 0,
        ("train count", "1-4"): lambda i: 1 <= count[asked.target[i]] <= 4,
        ("train count", "5-19"): lambda i: 5 <= count[asked.target[i]] <= 19,
        ("train count", "20+"): lambda i: count[asked.target[i]] >= 20,
        ("position", "1"): lambda i: asked.position[i] == 1,
        ("position", "11-20"): lambda i: 11 <= asked.position[i] <= 20,
        ("position", "21-50"): lambda i: 21 <= asked.position[i] <= 50,
        ("session length", "2"): lambda i: asked.length[i] == 2,
        ("session length", "21+"): lambda i: asked.length[i] >= 21,
        ("target", "warm"): lambda i: count[asked.target[i]] > 0,
        ("target", "cold"): lambda i: count[asked.target[i]] == 0,
    }
    for (slicing, part), test in tests.items():
        limit = 50 if slicing == "position" else 20
        rows = [i for i in range(len(asked)) if asked.position[i] <= limit and test(i)]
        entry = found[slicing][part]
        assert entry["n"] == len(rows)
        if not rows:
            assert entry["MRR@20"] is None
            continue
        by_session: dict[int, list[float]] = {}
        for i in rows:
            mean = np.mean([value(seed[i], "MRR@20") for seed in ranks])
            by_session.setdefault(int(asked.session[i]), []).append(mean)
        assert entry["MRR@20"] == pytest.approx(np.mean([np.mean(v) for v in by_session.values()]))
    parts = found["train count"].values()
    assert sum(part["n"] for part in parts) == (asked.position <= 20).sum()


def test_bias_counts_what_is_shown() -> None:
    top = np.array([[0, 1], [1, -1]], np.int32)
    one = Ranked(np.ones((1, 2), np.int64), top, np.zeros((2, 2), np.float32))
    found = bias([one], np.array([10, 4, 0, 0]))
    assert found == {"coverage@20": 0.5, "mean training count@20": 6.0}


def test_comparisons_need_three_seeds_of_what_was_trained(asked, ranks) -> None:
    better = np.maximum(ranks // 4, 1)
    rule = as_row(ranks[:1], "rule", "rule")
    found = compare(as_row(better, "student"), rule, asked)
    assert found["verdict"] == "above"
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    mine, theirs = figures(better, asked), figures(ranks[:1], asked)
    expected = mine["session"]["MRR@20"] - theirs["session"]["MRR@20"]
    assert found["difference"] == pytest.approx(expected)
    few = compare(as_row(better[:2], "student"), rule, asked)
    assert few["verdict"] == "not told apart"
    assert few["reason"] == "fewer than 3 seeds: student"
    assert compare(rule, as_row(better, "student"), asked, "last", "HR@20")["verdict"] == "below"
    same = compare(rule, as_row(ranks[:1], "twin", "blend"), asked)
    assert (same["verdict"], same["difference"]) == ("not told apart", 0.0)


def test_panels_are_averaged_over_seeds() -> None:
    panels = [{"n": 3, "HR@20": 0.2, "MRR@20": None}, {"n": 3, "HR@20": 0.4, "MRR@20": 0.1}]
    assert mean_panel(panels) == {"n": 3, "HR@20": pytest.approx(0.3), "MRR@20": None}
    assert mean_panel([]) == {}


def test_results_have_every_part_and_are_json(dataset, asked, ranks) -> None:
    counts = dataset.train_count
    validation = make_predictions(dataset.splits["validation"])
    common = {"n_items": V, "exclude_seen": False, "cold": counts == 0}
    popular = StaticRule("popularity", counts.astype(np.float32), {"half": np.float32(0.5)})
    new = StaticRule("newest", -counts.astype(np.float32))
    rows = [measure(one.name, "rule", [one], asked, validation, **common) for one in (popular, new)]
    rows.append(as_row(np.maximum(ranks // 4, 1), "student"))
    result = summarise(
        rows,
        asked,
        dataset,
        "test",
        pairs=[("popularity", "newest")],
        test_reads=2,
        system="tpad",
        stages={"student": {"group": "", "seed": np.int64(3)}},
        curves={"student": {"step": np.arange(2), "loss": np.array([1.0, np.nan])}},
    )
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == result
    assert list(result) == [
        *("format", "system", "primary", "caption", "dataset", "kinds", "rows", "comparisons"),
        *("best_rule", "served", "test_reads", "stages", "curves"),
    ]
    assert [kind["name"] for kind in result["kinds"]] == ["rule", "student"]
    assert result["stages"] == {"student": {"group": "", "seed": 3}}
    assert "stay candidates" in result["caption"]
    assert "users" in result["caption"]
    lengths = dataset.splits["test"].lengths
    counted = result["dataset"]["predictions"]
    assert counted["all"] == np.maximum(lengths - 1, 0).sum()
    assert counted["1-50"] == np.clip(lengths - 1, 0, 50).sum()
    assert counted["1-20"] == np.clip(lengths - 1, 0, 20).sum()
    assert counted["last"] == (lengths > 1).sum()
    assert counted["cold"] == result["rows"][0]["slices"]["target"]["cold"]["n"] > 0
    assert result["dataset"]["sessions"]["test"] == (lengths > 1).sum()
    held = [counts[t] for t, p in zip(asked.target, asked.position) if p <= 20]
    assert result["dataset"]["training count"] == {
        "mean of targets": pytest.approx(np.mean(held)),
        "mean of the catalogue": pytest.approx(counts.sum() / V),
    }
    for row in result["rows"]:
        assert set(row["figures"]["session"]) == set(NAMES)
        assert set(row["interval"]["last"]) == {"HR@20", "MRR@20"}
    assert result["rows"][2]["seeds"] == 3
    assert result["rows"][0]["settings"] == {"half": 0.5}
    cold = result["rows"][0]["cold"]
    assert cold["HR@20"] == result["rows"][0]["slices"]["target"]["cold"]["HR@20"]
    asked_pairs = [(one["a"], one["b"], one["metric"]) for one in result["comparisons"]]
    assert ("popularity", "newest", "MRR@20") in asked_pairs
    assert ("student", result["best_rule"], "HR@20") in asked_pairs
    assert result["best_rule"] == "popularity"
    assert result["curves"]["student"] == {"step": [0, 1], "loss": [1.0, None]}


def test_rows_need_distinct_names_and_pairs_need_rows(dataset, asked, ranks) -> None:
    row = as_row(ranks, "student")
    with pytest.raises(ValueError, match="distinct"):
        summarise([row, row], asked, dataset, "test")
    with pytest.raises(ValueError, match="no row named ghost"):
        summarise([row], asked, dataset, "test", pairs=[("student", "ghost")])
    assert plain((np.bool_(True), np.inf)) == [True, None]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_live_rules_stand_beside_the_best_rule_that_is_frozen_as_models_are(
    asked, dataset, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    few = [rng.integers(1, V, (1, len(asked))) for _ in range(4)]
    rows = [as_row(few[n], name, "rule") for n, name in enumerate(("a", "b"))]
    rows += [as_row(np.maximum(few[n] // 2, 1), f"{name}, live", "rule")
             for n, name in enumerate(("a", "b"))]  # fmt: skip
    for row in rows[2:]:
        row.counts = "live"
    rows.append(as_row(few[3], "student"))
    found = summarise(rows, asked, dataset, "test")
    value = {row["name"]: row["figures"]["session"]["MRR@20"] for row in found["rows"]}
    assert found["best_rule"] == max(("a", "b"), key=lambda name: value[name])
    live = max(("a, live", "b, live"), key=lambda name: value[name])
    assert found["best_live_rule"] == live
    assert value[live] > value[found["best_rule"]]
    pairs = {(each["a"], each["b"]) for each in found["comparisons"]}
    assert pairs == {("student", found["best_rule"]), ("student", live)}
    assert [row.get("counts") for row in found["rows"]] == [None, None, "live", "live", None]
    assert "students too, is frozen" in found["caption"]
    without = summarise([*rows[:2], rows[4]], asked, dataset, "test")
    assert "best_live_rule" not in without
    assert "live" not in without["caption"]
