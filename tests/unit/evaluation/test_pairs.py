"""Ranking a pair: the sections of results.json against sklearn, brute force and planted truths."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn import metrics as truth

from jmrec.errors import UserError
from jmrec.evaluation.pairs.measure import measure
from jmrec.evaluation.pairs.rows import PairData, Pairs, Scored, Settings
from jmrec.evaluation.results import (
    FORMAT,
    PAIR_METRICS,
    make_cost,
    primary_of,
    read_results,
    write_results,
)
from jmrec.metrics.bootstrap import resampling_counts

ITEMS, USERS = 40, 60
SETTINGS = Settings(draws=200, cost=1.0, gain=3.0)


def split(n: int, seed: int) -> tuple[Pairs, np.ndarray]:
    """Return pairs whose labels follow a picture and a text that are both known, and logits.

    Items below half have no picture: there the picture part is 0.
    """
    rng = np.random.default_rng(seed)
    items, users = rng.integers(0, ITEMS, n), rng.integers(-1, USERS, n)
    text, picture = rng.normal(0, 1.2, n), rng.normal(0, 1.2, n) * (items >= ITEMS // 2)
    labels = (rng.random(n) < expit(text + picture - 2)).astype(int)
    pairs = Pairs(
        labels, items, users, np.sort(rng.uniform(1.5e9, 1.51e9, n)),
        rng.integers(0, 30, n), rng.integers(0, 30, n), items >= ITEMS // 2,
        rng.integers(0, 900, n).astype(float), {"genre": np.array(["a", "b"])[items % 2]},
    )  # fmt: skip
    return pairs, np.stack([text, picture], 1)


def make(seed: int = 0, n: int = 1500) -> tuple[PairData, list[Scored]]:
    (validation, early), (test, late) = split(n, seed), split(n, seed + 1)
    rng = np.random.default_rng(seed + 2)

    def seeds(weights: list[float], noise: float = 0.3) -> list[np.ndarray]:
        return [
            np.stack([x @ weights + rng.normal(0, noise, len(x)) for _ in range(3)])
            for x in (early, late)
        ]

    def ranker(name: str, weights: list[float], kind: str = "ranker", **more: Any) -> Scored:
        return Scored(name, kind, *seeds(weights), **more)

    scored = [
        Scored("oracle", "oracle", *(x.sum(1) - 2 for x in (early, late))),
        Scored("item mean", "rule", *(np.round(x @ [0.3, 0.0]) for x in (early, late))),
        Scored("item + user mean", "rule", *(np.round(x @ [0.5, 0.0], 1) for x in (early, late))),
        Scored("gradient boosting", "rival", *(x @ [1.0, 0.2] for x in (early, late))),
        ranker("both", [1, 1], arm="both", strategy="none"),
        ranker("text", [1, 0], arm="text", strategy="none"),
        ranker("picture", [0, 1], arm="picture", strategy="none"),
        ranker("both, focal", [0.9, 1], arm="both", strategy="focal"),
        ranker("both, pictures permuted", [1, 0], "control", of="both"),
    ]
    data = PairData("made up", "score <= 0.25", validation, test, facts={"items": ITEMS})
    return data, scored


@pytest.fixture(scope="module")
def measured() -> tuple[PairData, list[Scored], dict[str, Any]]:
    data, scored = make()
    return data, scored, measure(data, scored, SETTINGS)


def row_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["name"] == name)


def compared(found: dict[str, Any], a: str, b: str, metric: str) -> dict[str, Any]:
    return next(
        each
        for each in found["comparisons"]
        if (each["a"], each["b"], each["metric"]) == (a, b, metric)
    )


def test_it_is_a_results_file(measured: Any, tmp_path: Any) -> None:
    _, _, found = measured
    head = {"format": FORMAT, "system": "mmrec", "served": None, "test_reads": 1}
    write_results(tmp_path, {**head, "stages": {}, "curves": {}, **found}, make_cost())
    read = read_results(tmp_path / "results.json")
    assert read["pairs"] == json.loads(json.dumps(found["pairs"]))
    assert primary_of(read, "both") == row_of(found, "both")["figures"]["pair"]["PR-AUC"]
    assert [kind["name"] for kind in read["kinds"]] == [
        *("oracle", "rule", "rival", "ranker", "control")
    ]
    assert read["dataset"]["positives"]["test"] < read["dataset"]["rows"]["test"] == 1500


def test_figures_are_those_of_sklearn(measured: Any) -> None:
    data, scored, found = measured
    y = data.test.labels
    for row, given in zip(found["rows"], scored):
        figures = row["figures"]["pair"]
        assert set(figures) == set(PAIR_METRICS)
        lines = found["pairs"]["calibration"][row["name"]]
        areas, losses, at = [], [], []
        for x, scale, shift, threshold in zip(
            given.test, lines["scale"], lines["shift"], lines["threshold"]
        ):
            p = expit(scale * x + shift)
            areas.append([truth.average_precision_score(y, x), truth.roc_auc_score(y, x)])
            losses.append(truth.log_loss(y, p))
            called = [(p >= cut).astype(int) for cut in (0.5, threshold)]
            at.append(
                [
                    [
                        truth.precision_score(y, each, zero_division=np.nan),
                        truth.recall_score(y, each),
                        truth.f1_score(y, each),
                        each[y == 0].mean(),
                    ]
                    for each in called
                ]
            )
        means = np.mean(areas, 0), np.mean(losses), np.mean(at, 0)
        assert [figures["PR-AUC"], figures["ROC-AUC"]] == pytest.approx(means[0])
        assert figures["log loss"] == pytest.approx(means[1])
        for rates, end in zip(means[2], ("", " at threshold")):
            names = [f"{name}{end}" for name in ("precision", "recall", "F1", "FPR")]
            shown = [np.nan if figures[name] is None else figures[name] for name in names]
            assert shown == pytest.approx(rates, nan_ok=True)


def test_intervals_and_differences_are_of_whole_items(measured: Any) -> None:
    data, scored, found = measured
    by_name = {row.name: row for row in scored}
    y, items = data.test.labels, data.test.items
    codes = np.unique(items, return_inverse=True)[1]
    counts = resampling_counts(codes.max() + 1, SETTINGS.draws)
    draws: dict[str, list] = {"both": [], "item + user mean": []}
    for draw in counts:
        rows = np.repeat(np.arange(len(y)), draw[codes].astype(int))
        for name, values in draws.items():
            every = [truth.average_precision_score(y[rows], x[rows]) for x in by_name[name].test]
            values.append(np.mean(every))
    for name, values in draws.items():
        expected = np.quantile(values, [0.025, 0.975])
        assert row_of(found, name)["interval"]["pair"]["PR-AUC"] == pytest.approx(expected)
    entry = compared(found, "both", "item + user mean", "PR-AUC")
    apart = np.subtract(*draws.values())
    assert entry["interval"] == pytest.approx(np.quantile(apart, [0.025, 0.975]))
    assert entry["verdict"] == "above"
    assert compared(found, "both", "item + user mean", "FPR@recall .5")["verdict"] == "below"


def test_who_is_compared_with_whom(measured: Any) -> None:
    _, _, found = measured
    pairs = {(each["a"], each["b"]) for each in found["comparisons"]}
    rule = found["best_rule"]
    assert rule == found["pairs"]["chosen"]["rule"] == "item + user mean"
    models = ("both", "text", "picture", "both, focal")
    assert {(name, rule) for name in (*models, "gradient boosting")} <= pairs
    assert {("both", "text"), ("both", "picture"), ("both, focal", "both")} <= pairs
    assert ("both", "both, pictures permuted") in pairs
    best = found["pairs"]["chosen"]["model"]
    assert {(best, "item mean"), (best, "gradient boosting")} <= pairs
    assert all(a != b for a, b in pairs)
    chosen = found["pairs"]["chosen"]
    assert (chosen["arm"], chosen["strategy"]) == ("both", "both, focal")
    broken = compared(found, "both", "both, pictures permuted", "PR-AUC")
    assert broken["verdict"] == "above"


def test_who_reads_the_same_in_another_way_is_compared() -> None:
    data, scored = make(n=600)
    by_name = {each.name: each for each in scored}
    (worse,) = (each for each in scored if each.name == "text")
    rows = [
        *scored[:3],
        by_name["both"],
        replace(worse, name="text of a writer", arm="text"),
        replace(worse, name="text of nobody", arm="text"),
    ]
    told: list[None] = []
    found = measure(data, rows, Settings(draws=20), lambda: told.append(None))
    assert len(told) == len(rows)
    assert found["pairs"]["chosen"]["arm"] == "both"
    assert compared(found, "text of nobody", "text of a writer", "PR-AUC")["difference"] == 0
    pairs = [{each["a"], each["b"]} for each in found["comparisons"] if each["metric"] == "PR-AUC"]
    assert all(pairs.count(each) == 1 for each in pairs)


def test_few_seeds_claim_nothing() -> None:
    data, scored = make(n=600)
    one = [Scored("one seed", "ranker", scored[0].validation, scored[0].test, "both", "none")]
    found = measure(data, [*scored[1:3], *one], Settings(draws=50))
    entry = compared(found, "one seed", found["best_rule"], "PR-AUC")
    assert entry["interval"][0] > 0
    assert entry["verdict"] == "not told apart"
    assert entry["reason"] == "fewer than 3 seeds: one seed"


def test_calibration_keeps_the_order_and_takes_back_the_odds() -> None:
    data, scored = make(n=3000)
    skewed = [
        Scored("weighted", "ranker", 0.5 * o.validation + 3, 0.5 * o.test + 3, "both", "weights")
        for o in scored[:1]
    ]
    found = measure(data, [*scored[1:3], *skewed], Settings(draws=50))
    line = found["pairs"]["calibration"]["weighted"]
    assert line["before"]["ECE"] > 0.3
    assert line["after"]["ECE"] < 0.03
    assert line["after"]["ROC-AUC"] >= line["before"]["ROC-AUC"]
    assert line["scale"][0] == pytest.approx(2.0, rel=0.15)
    row = row_of(found, "weighted")
    low, high = row["interval"]["pair"]["ECE"]
    assert low <= row["figures"]["pair"]["ECE"] <= high
    raw = measure(data, skewed, Settings(draws=50, calibrate=False))
    assert row_of(raw, "weighted")["figures"]["pair"]["ECE"] == pytest.approx(line["before"]["ECE"])


@pytest.mark.parametrize(("goal", "metric"), [("recall", "recall"), ("fpr", "FPR")])
def test_the_threshold_is_chosen_on_validation(goal: str, metric: str) -> None:
    data, scored = make(n=3000)
    how = Settings(draws=20, goal=goal, level=0.3, split="validation")
    reached = row_of(measure(data, scored, how), "both")["figures"]["pair"]
    assert reached[f"{metric} at threshold"] == pytest.approx(0.3, abs=0.01)
    how = Settings(draws=20, goal=goal, level=0.3)
    reached = row_of(measure(data, scored, how), "both")["figures"]["pair"]
    assert reached[f"{metric} at threshold"] == pytest.approx(0.3, abs=0.06)


def test_validation_needs_no_test_scores() -> None:
    data, scored = make(n=600)
    blind = [
        Scored(row.name, row.kind, row.validation, np.zeros((row.seeds, 0)), row.arm, row.strategy)
        for row in scored
    ]
    found = measure(data, blind, Settings(draws=20, split="validation"))
    assert found["dataset"]["split"] == "validation"
    expected = truth.average_precision_score(data.validation.labels, scored[0].validation[0])
    assert found["rows"][0]["figures"]["pair"]["PR-AUC"] == pytest.approx(expected)


def test_pictures_help_where_there_are_some(measured: Any) -> None:
    _, _, found = measured
    table = found["pairs"]["help"]
    said = {(each["part"], each["by"], each["segment"]): each["ROC-AUC"] for each in table}
    assert said["picture", "all", "all"]["verdict"] == "above"
    assert said["text", "all", "all"]["verdict"] == "above"
    assert said["picture", "picture of the item", "with"]["verdict"] == "above"
    without = said["picture", "picture of the item", "without"]
    assert abs(without["difference"]) < 0.02
    whole = next(each for each in table if each["by"] == "all" and each["part"] == "picture")
    assert whole["PR-AUC"] == {
        name: compared(found, "both", "text", "PR-AUC")[name]
        for name in ("difference", "interval", "verdict")
    }


def test_segments_hold_every_row_once(measured: Any) -> None:
    data, scored, found = measured
    table = found["pairs"]["segments"]
    for by in {each["by"] for each in table}:
        parts = [each for each in table if each["by"] == by]
        assert sum(each["n"] for each in parts) == len(data.test)
        assert sum(each["positives"] for each in parts) == data.test.labels.sum()
    cold = next(each for each in table if (each["by"], each["segment"]) == ("genre", "b"))
    at = data.test.items % 2 == 1
    expected = [truth.roc_auc_score(data.test.labels[at], x[at]) for x in scored[4].test]
    assert cold["rows"]["both"]["ROC-AUC"] == pytest.approx(np.mean(expected))
    low, high = cold["rows"]["both"]["interval"]["ROC-AUC"]
    assert low < np.mean(expected) < high


def test_costs_are_counted(measured: Any) -> None:
    data, scored, found = measured
    costs = found["pairs"]["costs"]
    lines = found["pairs"]["calibration"]["both"]
    y = data.test.labels
    for at in ("chosen", "pays"):
        line = next(r for r in costs["rows"] if (r["row"], r["at"]) == ("both", at))
        cuts = lines["threshold"] if at == "chosen" else [1 / 4] * 3
        values = []
        for x, scale, shift, cut in zip(scored[4].test, lines["scale"], lines["shift"], cuts):
            called = expit(scale * x + shift) >= cut
            values.append(1000 * (3 * (called & (y == 1)).mean() - (called & (y == 0)).mean()))
        assert line["value"] == pytest.approx(np.mean(values))
        assert line["interval"][0] < line["value"] < line["interval"][1]
        assert line["hits"] + line["missed"] == pytest.approx(1000 * y.mean())
        assert line["over rule"]["verdict"] == "above"


def test_reliability_curve_and_drift(measured: Any) -> None:
    data, scored, found = measured
    bins = found["pairs"]["reliability"][0]["bins"]
    assert sum(each["n"] for each in bins) == 3 * len(data.test)
    assert all(a["p"] < b["p"] for a, b in pairwise(bins))
    inside = [each["interval"][0] <= each["share"] <= each["interval"][1] for each in bins]
    assert np.mean(inside) > 0.8
    line = next(each for each in found["pairs"]["curve"] if each["row"] == "text")
    precision, recall, _ = truth.precision_recall_curve(data.test.labels, scored[5].test[0])
    assert np.interp(0.5, recall[::-1], precision[::-1]) == pytest.approx(
        line["precision"][24], abs=0.05
    )
    assert line["fpr"][24] == pytest.approx(
        row_of(found, "text")["figures"]["pair"]["FPR@recall .5"]
    )
    drift = found["pairs"]["drift"]
    assert [each["by"] for each in drift] == ["month"] * len(drift)
    assert sum(each["n"] for each in drift) == len(data.test)
    model = drift[0]["rows"][found["pairs"]["chosen"]["model"]]
    assert model["mean probability"] == pytest.approx(drift[0]["share"], abs=0.1)


def test_the_share_of_false_positives(measured: Any) -> None:
    _, _, found = measured
    table = found["pairs"]["false_positives"]
    line = next(each for each in table if (each["a"], each["recall"]) == ("both", 0.5))
    mine, its = (
        row_of(found, name)["figures"]["pair"]["FPR@recall .5"] for name in ("both", line["b"])
    )
    assert line["share"] == pytest.approx(mine / its)
    assert line["interval"][0] < line["share"] < line["interval"][1] < 1


def test_users_are_clusters_and_nobody_is_alone() -> None:
    data, scored = make(n=600)
    found = measure(data, scored[:3], Settings(draws=50, clusters="user"))
    assert "whole users" in found["caption"]
    assert found["pairs"]["help"] == []
    assert found["pairs"]["chosen"]["model"] is None


def test_what_does_not_fit_is_refused() -> None:
    data, scored = make(n=100)
    with pytest.raises(ValueError, match="distinct"):
        measure(data, [scored[0], scored[0]], SETTINGS)
    with pytest.raises(ValueError, match="which is no row"):
        measure(data, scored[-1:], SETTINGS)
    short = Scored("short", "rule", scored[0].validation, np.zeros(3))
    with pytest.raises(ValueError, match="scores not every row"):
        measure(data, [short], SETTINGS)
    with pytest.raises(ValueError, match="no finite number"):
        Scored("nan", "rule", np.zeros(2), np.array([np.nan]))
    with pytest.raises(ValueError, match="numbers of seeds"):
        Scored("two", "rule", np.zeros((2, 2)), np.zeros((3, 2)))
    data.test.labels[:] = 0
    with pytest.raises(UserError, match="no row of the test split is positive"):
        measure(data, scored, SETTINGS)


def test_probabilities_are_taken_too() -> None:
    row = Scored.of_probabilities("p", "rule", np.array([0.2, 1.0]), np.array([0.5]), arm="text")
    assert row.validation == pytest.approx(np.array([[logit(0.2), logit(1 - 1e-6)]]))
    assert (row.seeds, row.arm) == (1, "text")
