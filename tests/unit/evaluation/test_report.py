"""The report: what it says must follow from the numbers, and the page must stand alone."""

import copy
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from rich.console import Console

from jmrec.evaluation import report_plots
from jmrec.evaluation.report import print_results, write_report
from jmrec.evaluation.report_tables import (
    best_model,
    best_rule,
    cold_table,
    main_table,
    slice_tables,
)
from jmrec.evaluation.report_words import sentences

BUCKETS = {
    "train count": {"0": 337, "1-4": 702, "5-19": 1040, "20+": 1075},
    "position": {"1": 320, "2-5": 1011, "6-10": 802, "11-20": 1021, "21-50": 1965},
    "session length": {"2": 12, "3-5": 140, "6-10": 411, "11-20": 803, "21+": 1788},
    "target": {"warm": 2817, "cold": 337},
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
        "commands": {
            "run": "jmrec run --config experiments/tpad.py:data=folder,size=small --workdir RUN",
            "recommend": "jmrec recommend --workdir RUN --items 12,57,3 --top 10",
        },
        "cost": {
            **{"knowledge": {"seconds": 512.4}, "transition": {"seconds": 201.0}},
            **{"distill": {"seconds": 33.2}, "student": {"seconds": 4210.0}},
        },
        "curves": {
            stage: make_curve(i) for i, stage in enumerate(["knowledge", "transition", "student/0"])
        },
    }


def small_results() -> dict[str, Any]:
    """Return the same with one plot of each sort, which are what takes time."""
    results = make_results()
    results["rows"] = results["rows"][::3]
    for row in results["rows"]:
        row["slices"] = {"target": row["slices"]["target"]}
    results["curves"] = {"student": make_curve(0, 60)}
    return results


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that the tags nest."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def page_of(results: dict, folder: Path) -> tuple[str, Page]:
    text = write_report(results, folder / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def printed(results: dict, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_results(results, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


# --- what is said ---------------------------------------------------------------------------


def test_best_rows() -> None:
    results = make_results()
    assert best_rule(results) == "blend: V-SKNN, EASE, TF-IDF"
    assert best_model(results) == "distilled"  # neither the oracle nor a control
    del results["best_rule"]
    assert best_rule(results) == "blend: V-SKNN, EASE, TF-IDF"
    results["rows"] = [row for row in results["rows"] if row["kind"] != "student"]
    assert best_model(results) == "Transfer tower"


def test_above_is_said_with_its_interval() -> None:
    said = sentences(make_results())
    assert said[0] == (
        "The best model, distilled, is above the best rule, blend: V-SKNN, EASE, TF-IDF: MRR@20 "
        "26.11 % against 23.77 %, a paired difference of +2.34 points (95 % interval +0.71 to "
        "+4.02)."
    )
    assert "distilled reaches 64 % of that" in " ".join(said)
    assert "finds 39.2 % in its top 20; the best rule there, blend: V-SKNN" in " ".join(said)
    assert said[-1] == "The test split was read once in this workdir."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "not told apart", "interval": [-0.01, 0.03]}, "cannot be told apart"),
        ({"verdict": "below", "interval": [-0.03, -0.01]}, "is below it"),
        ({"interval": None}, "no paired comparison"),
        ({"metric": "HR@20"}, "no paired comparison"),
        ({"figure": "last"}, "no paired comparison"),
        ({"verdict": "not told apart", "reason": "fewer than 3 seeds: x"}, "Nothing is claimed"),
    ],
)
def test_no_more_is_claimed_than_the_comparison_carries(change: dict, said: str) -> None:
    results = make_results()
    results["comparisons"] = [{**results["comparisons"][0], **change}]
    text = " ".join(sentences(results))
    assert said in text
    assert "is above" not in text
    if "no paired" not in said:
        assert "does not beat" in text


def test_a_comparison_the_other_way_round_is_turned() -> None:
    results = make_results()
    results["comparisons"] = [
        {
            **{"a": results["best_rule"], "b": "distilled", "figure": "session"},
            **{"metric": "MRR@20", "difference": -0.02, "interval": [-0.03, -0.01]},
            "verdict": "below",
        }
    ]
    assert "is above" in sentences(results)[0]
    assert "+2.00 points (95 % interval +1.00 to +3.00)" in sentences(results)[0]


def test_few_seeds_are_named() -> None:
    results = make_results()
    next(row for row in results["rows"] if row["name"] == "distilled")["seeds"] = 1
    assert 'This rests on 1 seed; "above" needs at least three.' in sentences(results)


def test_validation_figures_are_called_that() -> None:
    results = make_results()
    results["dataset"]["split"] = "validation"
    assert "validation split" in sentences(results)[-1]


# --- the tables -----------------------------------------------------------------------------


def test_main_table_holds_the_very_numbers() -> None:
    results = make_results()
    table = main_table(results)
    assert len(table.lines) == len(ROWS)
    line = next(each for each in table.lines if each.name == "distilled")
    row = next(each for each in results["rows"] if each["name"] == "distilled")
    shown = [cell.text for cell in line.cells]
    assert shown == [
        f"{100 * row['figures'][averaged][metric]:.2f}"
        for averaged in ("session", "prediction", "last")
        for metric in ("HR@20", "MRR@20", "NDCG@20")
    ]
    assert line.cells[1].note == "24.3–27.7"
    assert {each.name for each in table.lines if each.strong} == {
        "distilled",
        "blend: V-SKNN, EASE, TF-IDF",
    }
    rules = [each.name for each in table.lines if each.kind == "rule"]
    assert rules == ["V-SKNN", "EASE, recency decay", "first-order Markov", "popularity"]


def test_slices_mark_the_best_of_a_column() -> None:
    table = slice_tables(make_results())[0]
    marked = {line.name for line in table.lines for cell in line.cells if cell.best}
    assert marked == {"distilled"}  # neither the oracle nor a control
    assert [name for name, _ in table.spans] == [
        *("0 (n=337)", "1-4 (n=702)", "5-19 (n=1,040)", "20+ (n=1,075)")
    ]


def test_cold_panel_knows_what_is_no_percentage() -> None:
    table = cold_table(make_results())
    assert table is not None
    assert table.lines[0].cells[table.columns.index("offset")].text == "1.25"
    assert table.lines[0].cells[table.columns.index("cold in top 20")].text == "2.00"


# --- the terminal ---------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_terminal_table_fits_and_is_whole(width: int) -> None:
    text = printed(make_results(), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "are no candidates" in " ".join(text.split())
    for number in ("26.11", "24.3–27.7", "44.39", "20.89", "23.50"):
        assert number in text, number
    assert "…" not in text
    assert "is above the best rule" in " ".join(text.split())
    if width >= 140:
        assert all(row[0] in text for row in ROWS)


def test_markup_in_names_is_text() -> None:
    results = make_results()
    results["rows"][1]["name"] = "[red]x[/red]"
    assert "[red]x[/red]" in printed(results)


# --- the page -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return page_of(make_results(), tmp_path_factory.mktemp("page"))


def test_page_is_whole_and_stands_alone(whole: tuple[str, Page]) -> None:
    results = make_results()
    text, page = whole
    words = " ".join(" ".join(page.text).split())
    assert sentences(results)[0] in words
    for heading in (
        *("Results", "Controls", "Paired comparisons", "Cold targets", "Bias"),
        *("All cut-offs, by session", "All cut-offs, by prediction", "All cut-offs, last click"),
        *("Settings", "Cost", "Data", "Learning curves", "Commands"),
        *("Slices by how often", "Slices by position", "Slices by length", "Slices by whether"),
    ):
        assert heading in words, heading
    assert "jmrec run --config experiments/tpad.py" in words
    assert "1 h 10 min" in words
    assert "fewer than 3 seeds" in words
    # No script, and nothing is asked of anybody.
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base"}
    for tag, attributes in page.tags:
        for key in ("src", "href", "action", "data"):
            assert (attributes.get(key) or "#").startswith("#"), (tag, attributes)
        assert not any(key.startswith("on") for key in attributes)
    assert "http" not in text
    assert "@import" not in text
    assert all(each.startswith(("#", "'#", '"#')) for each in re.findall(r"url\(([^)]*)\)", text))


def test_page_is_sound(whole: tuple[str, Page]) -> None:
    text, page = whole
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")}
    assert links <= set(ids)
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 1 + 4 + 3  # the ranking, four slices, three stages
    assert all(a.get("role") == "img" and len(a.get("aria-label", "")) > 20 for a in plots)
    assert "#000000" not in text.split("</style>")[1]  # black ink cannot be read on a dark page
    assert "NaN" not in text
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", " ".join(page.text))


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(small_results(), tmp_path / "a" / "report.html").read_bytes()
    second = write_report(small_results(), tmp_path / "b" / "report.html").read_bytes()
    assert first == second
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.html"]


def test_names_are_escaped(tmp_path: Path) -> None:
    results = small_results()
    nasty = '<script>alert("x")</script> & $y$'
    results["rows"][1]["name"] = nasty
    results["caption"] = nasty
    results["commands"] = {nasty: nasty}
    results["curves"] = {nasty: make_curve(0, 20)}
    text, page = page_of(results, tmp_path)
    assert "<script" not in text
    assert nasty in "".join(page.text)


@pytest.fixture
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the plots but do not draw them, which is what takes time."""
    monkeypatch.setattr(report_plots, "_svg", lambda drawing, name, words: Markup("<svg></svg>"))


@pytest.mark.usefixtures("quick_plots")
@pytest.mark.parametrize("key", sorted(make_results()))
def test_any_key_may_be_missing(tmp_path: Path, key: str) -> None:
    results = small_results()
    results[key] = None
    printed(results)
    del results[key]
    printed(results)
    page_of(results, tmp_path)


@pytest.mark.usefixtures("quick_plots")
@pytest.mark.parametrize(
    "key", ["seeds", "settings", "figures", "interval", "slices", "cold", "bias", "kind"]
)
def test_any_key_of_a_row_may_be_missing_or_empty(tmp_path: Path, key: str) -> None:
    results = small_results()
    for row, value in zip(results["rows"], [None, {}, "absent"] * 6):
        row[key] = value
        if value == "absent" or key in ("seeds", "kind"):
            del row[key]
    page_of(results, tmp_path)
    printed(results)


def test_numbers_that_are_none_are_dashes(tmp_path: Path) -> None:
    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: emptied(each) for name, each in value.items()}
        if isinstance(value, list):
            return [emptied(each) for each in value]
        return None if isinstance(value, float) else value

    results = emptied(copy.deepcopy(small_results()))
    _, page = page_of(results, tmp_path)
    assert "–" in "".join(page.text)
    assert "–" in printed(results)


def test_nothing_at_all(tmp_path: Path) -> None:
    page_of({}, tmp_path)
    assert printed({}).strip() == ""
