"""The report: what it says must follow from the numbers, and the page must stand alone."""

import base64
import copy
import hashlib
import html
import io
import itertools
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
from jmrec.report.colours import COLOURS, GREY, colours
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
    assert (
        "On movies distilled wins by 2.34 points [0.71, 4.02] of MRR@20 (26.11 % against" in words
    )
    assert "To serve distilled: jmrec export --workdir RUN --out served" in words
    assert "Of 320 sessions, distilled ranks what came next better than blend: V-SKNN" in words
    assert "in 45.0 %, worse in 30.0 % and the same in 25.0 %" in words
    assert "place 2.3" in words
    assert "Evaluated 2026-11-29 17:08 UTC at commit b2c7eec43100 on NVIDIA H200" in words
    for heading in (
        *("Results", "Controls", "Paired comparisons", "Cold targets", "Bias"),
        *("All cut-offs, by session", "All cut-offs, by prediction", "All cut-offs, last click"),
        *("Settings", "Cost", "Data", "Learning curves", "Commands", "Examples, and why"),
        *("Stock on hand", "Returns", "Helped and harmed", "Better with distilled"),
        *("How it was made", "Cost of each row", "Slices by genre of the target"),
        *("Slices by how often", "Slices by position", "Slices by length", "Slices by whether"),
    ):
        assert heading in words, heading
    assert "jmrec run --config experiments/tpad.py" in words
    assert "1 h 24 min" in words  # the seconds of stages and evaluation added up
    assert "too few seeds" in words
    # One script, the page's own, and nothing is asked of anybody.
    names = [tag for tag, _ in page.tags]
    assert not set(names) & {"link", "iframe", "object", "base"}
    assert names.count("script") == 1
    for tag, attributes in page.tags:
        for key in ("src", "href", "action", "data"):
            own = "data:image/jpeg;base64," if tag == "img" else "#"
            assert (attributes.get(key) or own).startswith(own), (tag, attributes)
        assert not any(key.startswith("on") for key in attributes)
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert all(each.startswith(("#", "'#", '"#')) for each in re.findall(r"url\(([^)]*)\)", text))


def test_page_is_sound(whole: tuple[str, Page]) -> None:
    text, page = whole
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")}
    assert links <= set(ids)
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawn) == 1 + 1 + 5 + 1 + 3  # ranking, comparisons, slices, cold targets, stages
    assert all(a.get("role") == "img" and len(a.get("aria-label", "")) > 20 for a in drawn)
    assert "#000000" not in text.split("</style>")[1]  # black ink cannot be read on a dark page
    assert "NaN" not in text
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", " ".join(page.text))


def test_only_the_script_of_the_page_may_run(whole: tuple[str, Page]) -> None:
    """The policy names the script's hash, taken here from the page's own bytes."""
    text, page = whole
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    rules = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"
    # Before anything that it is to stop.
    assert text.index("Content-Security-Policy") < text.index("<title>")


def test_where_the_pointer_rests_a_number_is_told(whole: tuple[str, Page]) -> None:
    text, _ = whole
    tips = [html.unescape(each) for each in re.findall("<title>(.*?)</title>", text)][1:]
    assert "distilled: MRR@20 26.11 % (24.3–27.7)" in tips
    assert "distilled: +2.34 (+0.71 to +4.02), better" in tips
    assert "undistilled: +1.13 (−0.21 to +2.52), no difference shown" in tips
    assert any("Comedy & <b>Crime</b>" in each for each in tips)
    assert "<b>Crime" not in text
    assert "tip: " not in text


def test_a_row_has_one_colour(whole: tuple[str, Page]) -> None:
    """Each plot draws a row in its colour: the ticks' order is that of the tips and the strokes."""
    own = colours(make_results())
    assert own["distilled"] != own["blend: V-SKNN, EASE, TF-IDF"]
    text, _ = whole
    for svg in re.findall("<svg.*?</svg>", text, flags=re.DOTALL):
        for title, path in re.findall(r"<title>(.*?)</title>(.*?)</g>", svg, flags=re.DOTALL):
            name = next((n for n in own if html.unescape(title).startswith(f"{n}, ")), None)
            if name and "fill: #" in path:  # a bar
                assert f"fill: {own[name]}" in path, title


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2: 21 of black on white."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def schemes() -> list[dict[str, str]]:
    """Return the colours of the page: light, dark and print."""
    css = (Path(plots.__file__).parent / "report.css").read_text()
    found = []
    for block in re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL):
        pairs = re.findall(r"--(\w+): (#[0-9a-f]+)", block)
        found.append(
            {n: "#" + "".join(2 * c for c in v[1:]) if len(v) == 4 else v for n, v in pairs}
        )
    return found


def test_words_and_dots_can_be_told_from_the_page() -> None:
    """WCAG 2: 4.5 for text, 3 for what is drawn."""
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    light, dark, paper = schemes()
    for each in (light, {**light, **dark}, {**light, **paper}):
        for ink in ("ink", "soft", "accent", "against", "new"):
            for ground in ("page", "band"):
                assert contrast(each[ink], each[ground]) >= 4.5, (ink, ground, each)
        assert contrast(each["ink"], each["strong"]) >= 4.5
        assert contrast(each["soft"], each["strong"]) >= 4.5
        for colour in (*COLOURS, GREY):
            assert contrast(colour, each["page"]) >= 3, (colour, each["page"])


def test_the_page_can_be_heard(whole: tuple[str, Page]) -> None:
    """A language, headings in order, tables with headings on two sides, words for pictures."""
    _, page = whole
    assert ("html", {"lang": "en"}) in page.tags
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for tag, attributes in page.tags:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row", "colgroup", "rowgroup"), attributes
        if tag == "img":
            assert "alt" in attributes
        if attributes.get("role") in ("img", "region") or tag == "nav":
            assert attributes.get("aria-label"), (tag, attributes)
    names = [tag for tag, _ in page.tags]
    assert names.count("main") == 1
    assert names.count("caption") == names.count("table")


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
    assert text.count("<script") == 1
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
    del results["helped"]
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
    results["helped"]["items"]["i3"]["title"] = nasty + "helped"
    text = json.dumps(results["examples"]).replace('"i4"', json.dumps(nasty + "id"))
    results["examples"] = json.loads(text)
    page, parsed = page_of(results, tmp_path, {"i1": b"\xff\xd8"})
    assert page.count("<script") == 1
    assert "onerror=" not in page.replace("onerror=&#34;", "")
    assert nasty in "".join(parsed.text)
    assert nasty + "id" in "".join(parsed.text)
    assert nasty + "helped" in "".join(parsed.text)
    assert page.count("<img") == sum(tag == "img" for tag, _ in parsed.tags) == 2 + 3
    alts = [attributes["alt"] for tag, attributes in parsed.tags if tag == "img"]
    assert sum(nasty in alt for alt in alts) == 2
    assert alts.count("picture of Mug") == 3
