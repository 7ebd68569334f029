"""The report's sections: what stands in their tables, tiles and examples."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from jmrec.report import plots
from jmrec.report.examples import example_sessions
from jmrec.report.sections import bias_table, control_table, cost_table, extra_tables
from jmrec.report.sentences import bias_sentence, tiles
from jmrec.report.tables import comparison_table

sample = runpy.run_path(str(Path(__file__).with_name("sample_results.py")))
make_results, make_cost = sample["make_results"], sample["make_cost"]


def test_comparisons_stand_by_pair_with_both_metrics() -> None:
    table = comparison_table(make_results())
    assert table is not None
    assert table.columns == ["MRR@20 by session", "HR@20 by session"]
    assert [(line.kind, line.name) for line in table.lines] == [
        ("distilled against", "blend: V-SKNN, EASE, TF-IDF"),
        ("distilled against", "undistilled"),
        ("Against V-SKNN", "Transfer tower"),
    ]
    first = table.lines[0].cells
    assert (first[0].text, first[0].note) == ("+2.34", "+0.71 to +4.02")
    assert (first[0].word, first[0].best) == ("better", True)
    second, third = (line.cells[0] for line in table.lines[1:])
    assert (second.word, second.best) == ("no difference shown", False)
    # An interval that excludes 0 is no verdict with one seed, and is told from "no difference".
    assert (third.note, third.word, third.best) == ("+1.00 to +5.00", "too few seeds", False)


def test_the_teacher_stands_beside_the_student_and_beside_people() -> None:
    results = make_results()
    for row in results["rows"]:
        if row["kind"] == "teacher":
            row["bias"] = {"coverage@20": 0.62, "mean training count@20": 40.0}
    results["dataset"]["training count"] = {"mean of targets": 22.1}
    table = bias_table(results)
    assert table is not None
    assert [line.name for line in table.lines[:3]] == [
        *("distilled", "Transfer tower", "what people chose next")
    ]
    assert [cell.text for cell in table.lines[1].cells] == ["62.00", "40"]
    assert table.lines[1].cells[0].bar == pytest.approx(0.62)
    assert table.lines[2].cells[1].bar == pytest.approx(22.1 / 55.25)
    assert len({line.name for line in table.lines}) == len(table.lines) == 16
    assert bias_sentence(results) == (
        "distilled puts 31 % of the catalogue into somebody's top 20, its teacher 62 %. What it "
        "recommends was clicked 55 times in training on average, what its teacher recommends 40 "
        "times."
    )


def test_controls_are_held_against_the_student_that_they_are_of() -> None:
    results = make_results()
    rows = {row["name"]: row for row in results["rows"]}
    for each in rows["undistilled"]["figures"]["session"]:
        rows["undistilled"]["figures"]["session"][each] = 0.9  # the best, but nobody serves it
    table = control_table(results)
    assert table is not None
    assert [line.name for line in table.lines] == [
        *("distilled", "distilled, order shuffled"),
        *("distilled, pictures permuted", "distilled, texts permuted"),
    ]
    assert [line.cells[-1].text for line in table.lines] == ["–", "81", "88", "66"]
    sides = bias_table(results)
    assert sides is not None
    assert sides.lines[0].name == "distilled"


def test_cost_adds_up_the_seeds_of_a_student() -> None:
    table = cost_table(make_results(), make_cost())
    assert table is not None
    shown = {line.name: [cell.text for cell in line.cells] for line in table.lines}
    assert table.columns == ["time", "peak memory", "updates", "FLOPs an update", "FLOPs in all"]
    assert shown["students/distilled (3 seeds)"] == [
        *("1 h 10 min", "1.3 GB", "1,350", "1.5 G", "2.02 T")
    ]
    assert shown["read"] == ["33.2 s", "2.4 GB", "–", "–", "–"]
    assert shown["in all"][:2] == ["1 h 24 min", "2.4 GB"]
    old = cost_table({}, {"stages": {"data": {"seconds": 7.0}}})  # an older run knows the time only
    assert old is not None
    assert old.columns == ["time"]


def test_sections_of_others_are_shown_as_tables() -> None:
    stock, returns = extra_tables(make_results())
    assert (stock.title, stock.note) == ("Stock on hand", "On one core.")
    assert [(x.name, x.cells[0].text) for x in stock.lines] == [
        *(("megabytes", "1.9"), ("load, seconds", "0.4"))
    ]
    assert (returns.title, returns.columns) == ("Returns", ["items", "HR@20"])
    assert [cell.text for cell in returns.lines[1].cells] == ["3", "0.21"]
    odd: dict[str, Any] = {
        **{"none": None, "empty": {}, "text": "a <b>", "number": 3, "list": [1, 2]},
        **{"rows": [], "upside_down": [{"month": "May", "MRR@20": 0.5}, {"month": "June"}]},
        "deep": {"a": {"b": [{"c": 1}, {"c": [2, {"d": None}]}]}},
    }
    found = {table.title: table for table in extra_tables(odd)}
    assert set(found) == {"Text", "Number", "List", "Upside down", "Deep"}
    assert found["Upside down"].columns == ["month", "MRR@20"]
    assert [line.name for line in found["Deep"].lines] == [
        "a, b 1, c",
        "a, b 2, c 1",
        "a, b 2, c 2, d",
    ]


def test_tiles_hold_the_figures_of_the_first_sentence() -> None:
    shown = tiles(make_results())
    assert [(value, note) for _, value, note in shown] == [
        ("26.11 %", "distilled, 24.3–27.7"),
        ("23.77 %", "blend: V-SKNN, EASE, TF-IDF, 22.1–25.2"),
        ("+2.34", "better, +0.71 to +4.02"),
        ("39.2 %", "distilled"),
    ]
    assert tiles({}) == []


# --- examples -------------------------------------------------------------------------------


def test_reasons_lie_on_one_scale_and_say_what_is_missing() -> None:
    pictures = {"i1": b"\xff\xd8picture"}
    first, second = example_sessions(make_results(), pictures)
    assert [thing.title for thing in first.clicks] == ["Kettle", "Tea, green"]
    assert first.clicks[0].picture.startswith("data:image/jpeg;base64,")
    assert first.clicks[1].picture == ""
    hit, other = first.recommended
    assert (hit.hit, other.hit) == (True, False)
    names = [(reason.name, reason.of, reason.value, reason.place) for reason in hit.reasons]
    assert names == [
        *(("its text", "", "+3.50", "812"), ("its picture", "", "−0.25", "1")),
        *(("its id", "", "+0.10", "2"), ("click 1", "Kettle", "+1.00", "3")),
        ("click 2", "Tea, green", "−0.50", "1"),
    ]
    # From -0.5 to 7: zero lies at a fifteenth, and +3.5 is 7 / 15 long.
    assert hit.zero == other.zero == pytest.approx(100 / 15)
    assert hit.reasons[0].left == pytest.approx(100 / 15, abs=0.01)
    assert hit.reasons[0].width == pytest.approx(100 * 3.5 / 7.5, abs=0.01)
    assert hit.reasons[1].left == pytest.approx(100 * 0.25 / 7.5, abs=0.01)
    assert other.reasons[2].absent == "a new item, without an id of its own"
    assert second.next.new
    assert second.clicks[0].title == "i4"  # without a title its id says what it is
    assert "only click" in second.recommended[0].reasons[-1].absent
    # Files are read with their keys in any order.
    backwards = make_results()
    for session in backwards["examples"]["sessions"]:
        for found in session["recommended"]:
            found["own"] = dict(reversed(found["own"].items()))
    assert example_sessions(backwards, pictures)[0] == first


def test_words_can_be_read_in_light_and_dark() -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    css = (Path(plots.__file__).with_name("report.css")).read_text()
    light = dict(re.findall(r"--(\w+): (#\w{6})", css.split("@media")[0]))
    dark = dict(re.findall(r"--(\w+): (#\w{6})", css.split("@media")[1]))
    assert len(light) == len(dark) >= 9

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for scheme in (light, dark):
        for ink in ("ink", "soft", "accent", "against", "new"):
            for paper in ("page", "band", "strong"):
                assert contrast(scheme[ink], scheme[paper]) >= 4.5, (ink, paper)
        for colour in plots.COLOURS:
            assert contrast(colour, scheme["page"]) >= 3, colour
