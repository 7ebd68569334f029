"""The page and the terminal's table of ranking pairs: whole, escaped, and no more than is known."""

import copy
import io
import json
import runpy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from rich.console import Console

from jmrec.report import pairs, pairs_tables
from jmrec.report.page import write_report
from jmrec.report.terminal import print_results

HERE = Path(__file__).parent
browser = runpy.run_path(str(HERE / "browser.py"))


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Results of made-up pairs, as the evaluation writes them."""
    truth = runpy.run_path(str(HERE.parent / "evaluation" / "test_pairs.py"))
    data, scored = truth["make"](n=500)
    sample = {"item": "Film", "cut": 16, "sources": ["Dull & long"], "summary": "It is dull."}
    samples = (sample, {**sample, "flags": ["1999"]})
    how = replace(truth["SETTINGS"], draws=40, samples=samples)
    head = {"format": 2, "system": "mmrec", "served": None, "test_reads": 2}
    found = {**head, "stages": {}, "curves": {}, **truth["measure"](data, scored, how)}
    return json.loads(json.dumps(found))


@pytest.fixture
def results(made: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(made)


class Page(HTMLParser):
    """What a page holds: its tags, its headings, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attrs)
        self.ids += [str(known["id"])] if "id" in known else []
        self.links += [str(known["href"])] if "href" in known else []

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(results: Any, folder: Path) -> Page:
    return Page(write_report(results, folder / "report.html").read_text())


def test_the_page_is_whole_and_stands_alone(results: Any, tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    assert page.tags.count("script") == 1  # the page's own
    assert all(link.startswith("#") for link in page.links)
    assert len(set(page.ids)) == len(page.ids)
    for anchor in (
        *("results", "comparisons", "positives", "calibration", "help", "segments", "worth"),
        *("drift", "details", "samples"),
    ):
        assert anchor in page.ids
    assert page.tags.count("svg") == 8
    for row in results["rows"]:
        assert f"{100 * row['figures']['pair']['PR-AUC']:.2f}" in page.text
        assert f"{row['figures']['pair']['log loss']:.4f}" in page.text
    for said in ("Dull & long", "It is dull.", "Not in the sources: 1999", "after 16 earlier"):
        assert said in page.text
    assert results["caption"] in page.text


def test_the_same_results_give_the_same_bytes(results: Any, tmp_path: Path) -> None:
    once = write_report(results, tmp_path / "a.html").read_bytes()
    assert once == write_report(copy.deepcopy(results), tmp_path / "b.html").read_bytes()


def test_names_and_texts_are_escaped(results: Any, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    text = json.dumps(results).replace("both, focal", evil).replace("It is dull.", evil)
    page = page_of(json.loads(text), tmp_path)
    assert page.tags.count("script") == 1  # the page's own
    assert page.text.count(evil) > 5


def set_verdict(results: Any, verdict: str, pair: list[float], **more: Any) -> list[str]:
    """Set what the comparison of the model with the best rule says, and return the sentences."""
    names = (results["pairs"]["chosen"]["model"], results["best_rule"])
    for each in results["comparisons"]:
        if (each["a"], each["b"]) == names:
            each.update(verdict=verdict, interval=pair, difference=sum(pair) / 2, **more)
    return pairs.sentences(results)


def test_the_verdict_is_that_of_the_paired_comparison(results: Any) -> None:
    model, rule = results["pairs"]["chosen"]["model"], results["best_rule"]
    first = set_verdict(results, "above", [0.01, 0.03])[0]
    assert first.startswith(f"The best model, {model}, is above the best rule, {rule}: PR-AUC")
    assert "+2.00 points (95 % interval +1.00 to +3.00)" in first
    first = set_verdict(results, "not told apart", [-0.01, 0.03])[0]
    assert "does not beat the best rule" in first
    assert "cannot be told apart" in first
    assert "below it" in set_verdict(results, "below", [-0.03, -0.01])[0]
    few = set_verdict(results, "not told apart", [0.01, 0.03], reason="fewer than 3 seeds: x")
    assert few[0].startswith("Nothing is claimed")


def test_the_served_row_is_spoken_of(results: Any) -> None:
    results["served"] = {"row": "text", "beside": []}
    assert pairs_tables.spoken_of(results) == "text"
    assert "The best model, text," in pairs.sentences(results)[0]
    results["served"] = None
    assert pairs_tables.spoken_of(results) == results["pairs"]["chosen"]["model"]
    # A served rule is no model: then the best one on validation is spoken of.
    results["served"] = {"row": results["best_rule"], "beside": []}
    assert pairs_tables.spoken_of(results) == results["pairs"]["chosen"]["model"]


def test_sentences_follow_the_intervals(results: Any) -> None:
    model = results["pairs"]["chosen"]["model"]
    for each in results["pairs"]["false_positives"]:
        if each["a"] == model:
            pair = [0.5, 0.9] if each["recall"] == 0.5 else [0.8, 1.2]
            each.update(share=0.75, interval=pair)
    for each in results["pairs"]["help"]:
        if each["by"] == "all":
            verdict = "below" if each["part"] == "text" else "not told apart"
            each["PR-AUC"] |= {"verdict": verdict}
    said = " ".join(pairs.sentences(results))
    assert "Where 50 % of the positives are found" in said
    assert "0.75 times the false positives" in said
    assert "(95 % interval 0.50 to 0.90): fewer." in said
    assert "(95 % interval 0.80 to 1.20): a difference not told apart." in said
    assert "Texts harm: both less picture" in said
    assert "Pictures make no difference that can be told: both less text" in said
    assert "The test split was read 2 times" in said
    results["dataset"]["split"] = "validation"
    assert "figures of the validation split" in pairs.sentences(results)[-1]


def test_less_is_better_where_it_is(results: Any) -> None:
    table = pairs_tables.comparison_table(results)
    assert table is not None
    a, b = results["pairs"]["chosen"]["model"], results["best_rule"]
    line = next(x for x in table.lines if (x.kind, x.name) in {
        (f"{a} against", b), (f"Against {b}", a)
    })  # fmt: skip
    metrics = table.columns
    entries = {x["metric"]: x for x in results["comparisons"] if (x["a"], x["b"]) == (a, b)}
    for place, metric in enumerate(metrics):
        cell = line.cells[place]
        fewer = metric.startswith("FPR")
        expected = {
            "above": "worse" if fewer else "better",
            "below": "better" if fewer else "worse",
            "not told apart": "no difference shown",
        }
        if "reason" in entries[metric]:
            assert cell.word == "too few seeds"
        else:
            assert cell.word == expected[entries[metric]["verdict"]]
        assert cell.best == (cell.word == "better")
    assert "better" in [cell.word for cell in line.cells]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_terminal_shows_every_row(results: Any, width: int) -> None:
    out = io.StringIO()
    print_results(results, console=Console(file=out, width=width))
    text = out.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    for row in results["rows"]:
        assert f"{100 * row['figures']['pair']['PR-AUC']:.2f}" in text
    assert ("log loss" in text) == (width >= 92)
    assert "best rule" in text


def broken(results: Any) -> list[tuple[str, Any]]:
    """Return results of which one part is missing, empty or no number."""
    found = []
    for key in results:
        if key != "primary":
            found.append((key, {n: each for n, each in results.items() if n != key}))
    found.append(("pairs, all", {**results, "pairs": dict.fromkeys(results["pairs"])}))
    for key in results["rows"][0].keys() - {"name"}:
        rows = [{n: x for n, x in row.items() if n != key} for row in results["rows"]]
        found.append((f"row, {key}", {**results, "rows": rows}))
    found.append(("nothing", {"primary": results["primary"]}))
    return found


def test_anything_may_be_missing(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawn, but not turned into SVG, which takes most of the time.
    monkeypatch.setattr("jmrec.report.plots.svg", lambda drawing, name, words: Markup(words))
    for _, part in broken(results):
        assert "main" in page_of(part, tmp_path).tags
        print_results(part, console=Console(file=io.StringIO(), width=100))


def test_a_part_of_another_type_is_none(results: Any) -> None:
    for key in results["pairs"]:
        few = {**results, "pairs": {**results["pairs"], key: None}}
        assert pairs.sentences(few)
    results["pairs"] = {"costs": [], "help": {}, "calibration": 3}
    assert pairs_tables.worth_table(results) is None
    assert pairs_tables.help_table(results) is None
    assert pairs_tables.calibration_table(results) is None
    assert pairs.sentences(results)


def without_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_numbers(each) for each in value]
    return None if isinstance(value, float) else value


def test_numbers_that_are_none_are_dashes(results: Any, tmp_path: Path) -> None:
    page = page_of(without_numbers(results), tmp_path)
    assert "–" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.split()
    out = io.StringIO()
    print_results(without_numbers(results), console=Console(file=out, width=100))
    assert "None" not in out.getvalue()


def test_what_the_page_does_not_know_is_shown(results: Any, tmp_path: Path) -> None:
    results["pairs"]["removals"] = {"text": {"PR-AUC": 0.25}, "picture": {"PR-AUC": 0.5}}
    page = page_of(results, tmp_path)
    assert "Removals" in page.text
    assert "0.25" in page.text


def test_it_fits_every_width(results: Any, tmp_path: Path) -> None:
    program = browser["find_chromium"]()
    results["rows"][4]["name"] = "w" * 300
    results["pairs"]["samples"][0]["summary"] = "v" * 4000
    path = write_report(results, tmp_path / "report.html")
    with browser["Browser"](program, tmp_path / "profile") as opened:
        opened.open(path.as_uri())
        for width in (390, 703, 1280):
            opened.show(width)
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.complaints == []
        assert opened.requests == [path.as_uri()]


WHY = {
    "row": "both",
    "rows": 1234,
    "parts": [
        {"part": "text", "change": 1.5, "PR-AUC": -0.125, "decisions": 0.05},
        {"part": "ids", "change": 0.25, "PR-AUC": 0.01, "decisions": 0.0},
    ],
    "examples": [
        {"kind": "false", "item": "A <b>film</b>", "p": 0.75, "without": {"text": -2.0, "ids": 0.5}}
    ],
}


def test_why_shows_what_is_lost_without_each_thing(results: dict[str, Any], tmp_path: Path) -> None:
    assert pairs_tables.why_tables(results) == []
    results["pairs"]["why"] = WHY
    over_all, single = pairs_tables.why_tables(results)
    cells = [[cell.text for cell in line.cells] for line in over_all.lines]
    assert [line.name for line in over_all.lines] == ["text", "ids"]
    assert cells == [["1.50", "−12.50", "5.00 %"], ["0.25", "+1.00", "0.00 %"]]
    assert "1,234 rows" in over_all.note
    assert [cell.text for cell in single.lines[0].cells] == ["75.00 %", "−2.00", "+0.50"]
    page = page_of(results, tmp_path)
    assert "A <b>film</b>" in page.text
    assert "Called positive, and negative" in page.text
    assert "why" in page.ids
