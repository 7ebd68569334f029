"""What results.json may hold, made up: every section, names of every sort, no run needed."""

import math
from typing import Any

import numpy as np

from jmrec.evaluation.results import RANKING, kinds_of

BUCKETS = {
    "train count": {"0": 337, "1-4": 702, "5-19": 1040, "20+": 1075},
    "position": {"1": 320, "2-5": 1011, "6-10": 802, "11-20": 1021, "21-50": 1965},
    "session length": {"2": 12, "3-5": 140, "6-10": 411, "11-20": 803, "21+": 1788},
    "target": {"warm": 2817, "cold": 337},
    "genre of the target": {"Drama": 1500, "Comedy & <b>Crime</b>": 1200, "(others)": 454},
}
ROWS = [
    ("oracle", "oracle", 0.41, 1),
    ("popularity", "rule", 0.041, 1),
    ("first-order Markov", "rule", 0.182, 1),
    ("V-SKNN", "rule", 0.2213, 1),
    ("EASE, recency decay", "rule", 0.2105, 1),
    ("newest first", "content", 0.012, 1),
    ("content-kNN, TF-IDF", "content", 0.0913, 1),
    ("content-kNN, k and t", "content", 0.131, 1),
    ("blend: V-SKNN, EASE, TF-IDF", "blend", 0.2377, 1),
    ("id only", "student", 0.2011, 3),
    ("text only", "student", 0.2204, 3),
    ("picture only", "student", 0.1902, 3),
    ("undistilled", "student", 0.2498, 3),
    ("distilled", "student", 0.2611, 3),
    ("Transfer tower", "teacher", 0.2555, 1),
    ("distilled, order shuffled", "control", 0.2104, 3),
    ("distilled, pictures permuted", "control", 0.2291, 3),
    ("distilled, texts permuted", "control", 0.1722, 3),
]


def make_row(name: str, kind: str, value: float, seeds: int) -> dict[str, Any]:
    """Return a row whose numbers differ from each other and follow from ``value``."""

    def scaled(factor: float) -> dict[str, float]:
        return {
            f"{metric}@{cutoff}": round(value * factor * step * share, 5)
            for metric, step in (("HR", 1.7), ("MRR", 1.0), ("NDCG", 1.2))
            for cutoff, share in ((1, 0.5), (5, 0.8), (10, 0.92), (20, 1.0))
        }

    figures = {"session": scaled(1), "prediction": scaled(0.8), "last": scaled(0.9)}
    row: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "seeds": seeds,
        "settings": {"k": 100, "weight": 0.25} if kind == "rule" else {},
        "figures": figures,
        "interval": {
            averaged: {
                metric: [figures[averaged][metric] * 0.93, figures[averaged][metric] * 1.06]
                for metric in ("HR@20", "MRR@20")
            }
            for averaged in figures
        },
        "slices": {
            slicing: {
                bucket: {
                    "n": n,
                    "HR@20": value * (0.9 + 0.2 * i),
                    "MRR@20": value * (0.5 + 0.15 * i),
                }
                for i, (bucket, n) in enumerate(buckets.items())
            }
            for slicing, buckets in BUCKETS.items()
        },
        "bias": {"coverage@20": 0.31, "mean training count@20": 55.25},
    }
    if kind not in ("oracle", "control"):
        row["cold"] = {
            **{"n": 337, "HR@20 among cold": value * 1.5, "HR@20": value / 9, "MRR@20": value / 30},
            **{"offset": 1.25, "HR@20 with offset": value / 3, "MRR@20 with offset": value / 7},
            **{"warm HR@20 lost": 0.011, "warm MRR@20 with offset": value * 0.97},
            **{"share of cold in top 20": 0.02, "share of cold in top 20 with offset": 0.11},
        }
    return row


def make_curve(seed: int, updates: int = 400) -> dict[str, list]:
    steps = list(range(1, updates + 1))
    noise = np.random.default_rng(seed).normal(0, 0.05, updates)
    loss = [3 * math.exp(-step / 90) + 1 + float(each) for step, each in zip(steps, noise)]
    every = [0.25 * (1 - math.exp(-step / 80)) if step % 50 == 0 else None for step in steps]
    return {
        **{"step": steps, "loss": loss, "loss_kl": [each / 3 for each in loss]},
        **{"validation MRR@20": every, "learning_rate": [1e-3] * updates},
    }


def make_results() -> dict[str, Any]:
    return {
        **{"format": 2, "system": "tpad", "primary": dict(RANKING)},
        "kinds": kinds_of(["oracle", "rule", "content", "blend", "student", "teacher", "control"]),
        "served": {"row": "distilled", "beside": ["Transfer tower", "undistilled"]},
        "caption": "movies, test split: every target ranked among all 3,322 items; items of the "
        "session so far are no candidates; 95 % bootstrap intervals over users.",
        "dataset": {
            **{"name": "movies", "items": 3322, "exclude_seen": True, "split": "test"},
            "sessions": {"train": 2552, "validation": 319, "test": 320},
            "predictions": {"all": 10156, "1-50": 5119, "1-20": 3154, "cold": 337},
        },
        "rows": [make_row(*row) for row in ROWS],
        "comparisons": [
            {
                **{"a": "distilled", "b": "blend: V-SKNN, EASE, TF-IDF", "figure": "session"},
                **{"metric": metric, "difference": 0.0234, "interval": [0.0071, 0.0402]},
                "verdict": "above",
            }
            for metric in ("MRR@20", "HR@20")
        ]
        + [
            {
                **{"a": "distilled", "b": "undistilled", "figure": "session", "metric": "MRR@20"},
                **{"difference": 0.0113, "interval": [-0.0021, 0.0252]},
                "verdict": "not told apart",
            },
            {
                **{"a": "Transfer tower", "b": "V-SKNN", "figure": "session", "metric": "MRR@20"},
                **{"difference": 0.03, "interval": [0.01, 0.05], "verdict": "not told apart"},
                "reason": "fewer than 3 seeds: Transfer tower",
            },
        ],
        "best_rule": "blend: V-SKNN, EASE, TF-IDF",
        "test_reads": 1,
        "stages": {
            **{name: {"group": "", "seed": None} for name in ("knowledge", "transition", "read")},
            **{
                f"students/distilled-{seed}": {"group": "students/distilled", "seed": seed}
                for seed in range(3)
            },
        },
        "curves": {
            stage: make_curve(i)
            for i, stage in enumerate(
                ["knowledge", "transition", "students/distilled-0", "students/distilled-1"]
            )
        },
        "examples": make_examples(),
        "helped": make_helped(),
        "stock_on_hand": {"megabytes": 1.9, "load": {"seconds": 0.4}, "note": "On one core."},
        "returns": {"allow": {"items": 12, "HR@20": 0.25}, "block": {"items": 3, "HR@20": 0.21}},
    }


def make_helped() -> dict[str, Any]:
    """Return whom the served row helps: two sessions of each sort."""

    def session(number: int, places: list[float]) -> dict[str, Any]:
        past = ["i1", "i4", "i2"]
        return {"session": number, "past": past, "cut": 2, "next": "i3", "places": places}

    titles = ["", "Mug", "Tea", "Coat", ""]
    return {
        **{"row": "distilled", "other": "blend: V-SKNN, EASE, TF-IDF", "metric": "MRR@20"},
        **{"sessions": 320, "helped": 0.45, "harmed": 0.3, "same": 0.25},
        **{"gain": 0.125, "loss": -0.0625},
        "better": [session(3, [1.0, 17.0]), session(8, [2.3333, 1204.0])],
        "worse": [session(5, [40.6667, 2.0])],
        "items": {f"i{n}": {"title": name} for n, name in enumerate(titles)},
    }


def make_cost() -> dict[str, Any]:
    return {
        "format": 2,
        "made": {
            **{"date": "2026-11-29 17:08 UTC", "commit": "b2c7eec43100"},
            **{"versions": "jmrec 0.1, jax 0.10", "devices": "NVIDIA H200"},
        },
        "evaluation": {"seconds": 95.5, "peak_memory": 900_000_000},
        "rows": {"EASE, recency decay": {"fit": 3.25, "rank": 0.5}, "distilled": {"rank": 4.0}},
        "stages": {
            "knowledge": stage_cost(512.4, 600),
            "transition": stage_cost(201.0, 400),
            "read": {"seconds": 33.2, "peak_memory": 2_400_000_000},
            **{f"students/distilled-{seed}": stage_cost(1400.0, 450) for seed in range(3)},
        },
        "commands": {
            "run": "jmrec run --config experiments/tpad.py:data=folder,size=small --workdir RUN",
            "recommend": "jmrec recommend --workdir RUN --items 12,57,3 --top 10",
        },
    }


def stage_cost(seconds: float, updates: int) -> dict[str, Any]:
    flops = updates * 1_500_000_000
    known = {"seconds": seconds, "peak_memory": 1_300_000_000}
    return {**known, "updates": updates, "flops": flops}


def make_examples() -> dict[str, Any]:
    """Return two sessions: of two clicks, and of one that a new item follows."""

    def why(item: str, place: int, past: list, id_known: bool = True) -> dict[str, Any]:
        own = {"text": removal(3.5, 812), "picture": removal(-0.25, 1), "id": removal(0.1, 2)}
        own = own if id_known else {**own, "id": None}
        return {"item": item, "score": 5.5 - place, "place": place, "past": past, "own": own}

    def removal(contribution: float, place: int) -> dict[str, Any]:
        return {"contribution": contribution, "place": place}

    titles = ["Mug", "Kettle", "Tea, green", "Coat", ""]
    return {
        "row": "distilled",
        "seed": 0,
        "rule": "No model had a say in which sessions are shown.",
        "candidates": 3322,
        "items": {
            f"i{row}": {"title": title, "train count": 7 * row} for row, title in enumerate(titles)
        },
        "sessions": [
            {
                "session": 4,
                "length": 5,
                "past": ["i1", "i2"],
                "next": {"item": "i3", "place": 1},
                "recommended": [
                    why("i3", 1, [removal(1.0, 3), removal(-0.5, 1)]),
                    why("i0", 2, [removal(0.0, 2), removal(7.0, 1203)], id_known=False),
                ],
            },
            {
                "session": 9,
                "length": 2,
                "past": ["i4"],
                "next": {"item": "i0", "place": 1341},
                "recommended": [why("i1", 1, [None])],
            },
        ],
    }


def small_results() -> dict[str, Any]:
    """Return the same with one plot of each sort, which are what takes time."""
    results = make_results()
    results["rows"] = results["rows"][::3]
    for row in results["rows"]:
        row["slices"] = {"target": row["slices"]["target"]}
    results["curves"] = {"student": make_curve(0, 60)}
    return results
