"""The report: what it says must follow from the numbers, and the page must stand alone."""

import copy
import io
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from rich.console import Console

from jmrec.evaluation.results import kinds_of
from jmrec.report import plots
from jmrec.report.page import write_report
from jmrec.report.sections import cold_table
from jmrec.report.sentences import sentences
from jmrec.report.tables import (
    best_model,
    best_rule,
    main_table,
    slice_tables,
)
from jmrec.report.terminal import print_results

sample = runpy.run_path(str(Path(__file__).with_name("sample_results.py")))
ROWS, make_curve = sample["ROWS"], sample["make_curve"]
make_results, small_results = sample["make_results"], sample["small_results"]
make_cost = sample["make_cost"]


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that the tags nest."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr", "col"})

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


def page_of(results: dict, folder: Path, pictures: dict | None = None) -> tuple[str, Page]:
    path = write_report(results, folder / "report.html", make_cost(), pictures)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def printed(results: dict, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_results(results, make_cost(), console)
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
    if "reason" in change:
        assert "told apart" not in text  # an interval that excludes 0 may stand beside it
    elif "no paired" not in said:
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
        *("Settings", "Cost", "Data", "Learning curves", "Commands", "Examples, and why"),
        *("Stock on hand", "Returns"),
        *("Slices by how often", "Slices by position", "Slices by length", "Slices by whether"),
    ):
        assert heading in words, heading
    assert "jmrec run --config experiments/tpad.py" in words
    assert "1 h 22 min" in words  # the stages' seconds added up
    assert "fewer than 3 seeds" in words
    # No script, and nothing is asked of anybody.
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "base"}
    for tag, attributes in page.tags:
        for key in ("src", "href", "action", "data"):
            own = "data:image/jpeg;base64," if tag == "img" else "#"
            assert (attributes.get(key) or own).startswith(own), (tag, attributes)
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
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawn) == 1 + 4 + 1 + 3  # the ranking, slices, cold targets, stages
    assert all(a.get("role") == "img" and len(a.get("aria-label", "")) > 20 for a in drawn)
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
    results["curves"] = {nasty: make_curve(0, 20)}
    text, page = page_of(results, tmp_path)
    assert "<script" not in text
    assert nasty in "".join(page.text)


@pytest.fixture
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the plots but do not draw them, which is what takes time."""
    monkeypatch.setattr(plots, "svg", lambda drawing, name, words: Markup("<svg></svg>"))


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


def test_a_run_of_encoders_without_a_teacher_is_reported_as_it_is(tmp_path: Path) -> None:
    """A system of other kinds: nobody asks for a student, a teacher or a row by its name."""
    results = make_results()
    renamed = {"distilled": "sasrec", "undistilled": "gru"}
    rows = [row for row in results["rows"] if row["kind"] in ("rule", "blend")]
    for row in results["rows"]:
        if row["name"] in renamed:
            rows.append({**row, "name": renamed[row["name"]], "kind": "encoder"})
    results |= {"system": "session", "rows": rows, "examples": {}}
    results["kinds"] = kinds_of(["rule", "blend", "encoder"])
    results["served"] = {"row": "sasrec", "beside": []}
    results["comparisons"] = [{**results["comparisons"][0], "a": "sasrec"}]
    results |= {"stages": {}, "curves": {}}
    path = write_report(results, tmp_path / "report.html")
    words = " ".join(" ".join(Page(path.read_text()).text).split())
    assert "The best model, sasrec, is above the best rule, blend: V-SKNN" in words
    assert "Session encoders" in words
    for absent in ("teacher", "student", "oracle", "distilled", "Controls"):
        assert absent not in words, absent
    assert "sasrec" in printed(results)
    assert "Session encoders" in printed(results)


def test_nothing_at_all(tmp_path: Path) -> None:
    write_report({}, tmp_path / "report.html")
    assert printed({}).strip() == ""


@pytest.mark.usefixtures("quick_plots")
def test_titles_and_ids_of_the_data_are_escaped(tmp_path: Path) -> None:
    results = small_results()
    nasty = '<script>x</script><img src=x onerror="alert(1)"> {{ 7 * 7 }} \u202e&amp;'
    results["examples"]["items"]["i1"]["title"] = nasty
    results["examples"]["items"]["i4"] = {"title": ""}
    text = json.dumps(results["examples"]).replace('"i4"', json.dumps(nasty + "id"))
    results["examples"] = json.loads(text)
    page, parsed = page_of(results, tmp_path, {"i1": b"\xff\xd8"})
    assert "<script" not in page
    assert "onerror=" not in page.replace("onerror=&#34;", "")
    assert nasty in "".join(parsed.text)
    assert nasty + "id" in "".join(parsed.text)
    assert page.count("<img") == sum(tag == "img" for tag, _ in parsed.tags) == 2
    assert all(nasty in attributes["alt"] for tag, attributes in parsed.tags if tag == "img")
