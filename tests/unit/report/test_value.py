"""What lists are worth, as the report shows it."""

import io
import runpy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jmrec.report.page import write_report
from jmrec.report.sentences import sentences
from jmrec.report.terminal import print_results
from jmrec.report.value import value_sentences, value_table

sample = runpy.run_path(str(Path(__file__).with_name("sample_results.py")))
make_results = sample["make_results"]
RULE, MODEL = "blend: V-SKNN, EASE, TF-IDF", "distilled"


def with_value(share: float = 0.3, gain: str = "", rule: str = RULE) -> dict[str, Any]:
    results = make_results()
    rows = {}
    for place, row in enumerate(results["rows"]):
        own = 100.0 + place
        line: dict[str, Any] = {"sales": 10 * own, "value": own, "interval": [own - 5, own + 5]}
        if row["name"] != rule:
            line["over rule"] = {"difference": 7.25, "interval": [-1.5, 16.0],
                                 "verdict": "not told apart"}  # fmt: skip
        rows[row["name"]] = dict.fromkeys(("session", "prediction", "last"), line)
    results["value"] = {
        "column": "price", "share": share, "gain": gain, "items": {"all": 1200, "without": 17},
        "targets": {"all": 5000, "without": 31}, "rule": rule, "rows": rows,
    }  # fmt: skip
    return results


def test_every_row_has_its_worth_and_its_difference() -> None:
    results = with_value()
    table = value_table(results)
    assert table is not None
    assert table.columns == ["sales", "worth", "over the best rule"] * 3
    assert table.spans == [("session (primary)", 3), ("prediction", 3), ("last click", 3)]
    assert {line.name for line in table.lines} == {row["name"] for row in results["rows"]}
    cells = next(line.cells for line in table.lines if line.name == MODEL)
    assert [(each.text, each.note) for each in cells[:3]] == [
        ("1,130.0", ""), ("113.0", "108.0 to 118.0"), ("+7.2", "−1.5 to +16.0"),
    ]  # fmt: skip
    own = next(line.cells for line in table.lines if line.name == RULE)
    assert (own[2].text, own[2].note) == ("–", "")
    whole = value_table(with_value(share=1.0))
    assert whole is not None
    assert whole.columns == ["worth", "over the best rule"] * 3


@pytest.mark.parametrize(
    ("share", "gain", "brings"),
    [(0.3, "", "30 % of its price"), (1.0, "", "brings its price"), (1.0, "margin", "its margin")],
)
def test_what_is_assumed_stands_in_a_sentence(share: float, gain: str, brings: str) -> None:
    results = with_value(share, gain)
    said, assumed = value_sentences(results)
    assert said == (
        f"1,000 lists of 20 by {MODEL} are worth 113.0, by {RULE} 108.0: a paired difference of "
        "+7.2 (95 % interval −1.5 to +16.0; not told apart), session average."
    )
    for words in (
        brings, "also where the person would have gone there without a list", "nothing else is",
        "17 of 1,200 items", "31 of 5,000 targets", "the currency is that of the column 'price'",
    ):  # fmt: skip
        assert words in assumed
    assert assumed.count(". ") == 0
    table = value_table(results)
    assert table is not None
    assert assumed in table.note


def test_page_and_terminal_show_it_only_where_items_have_a_value(tmp_path: Path) -> None:
    plain, worth = make_results(), with_value()
    assert value_table(plain) is None
    assert value_sentences(plain) == []
    page = write_report(worth, tmp_path / "worth.html").read_text()
    assert "Worth of 1,000 recommendation lists" in page
    assert "113.0" in page
    assert "Worth of" not in write_report(plain, tmp_path / "plain.html").read_text()
    console = Console(file=io.StringIO(), width=200)
    print_results(worth, console=console)  # type: ignore[arg-type]
    assert "are worth 113.0" in console.file.getvalue()  # type: ignore[attr-defined]
    assert [each for each in sentences(worth) if "worth" in each or "assumes" in each] == (
        value_sentences(worth)
    )


def test_too_few_seeds_and_no_model_claim_nothing() -> None:
    results = with_value()
    over = results["value"]["rows"][MODEL]["session"]["over rule"]
    over |= {"interval": [1.0, 9.0], "reason": "fewer than 3 seeds: distilled"}
    assert "not told apart, for there are fewer than 3 seeds" in value_sentences(results)[0]
    results = with_value()
    results["rows"] = [row for row in results["rows"] if row["kind"] in ("rule", "blend")]
    assert value_sentences(results)[0] == f"1,000 lists of 20 by {RULE} are worth 108.0."
