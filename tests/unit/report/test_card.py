"""The model card: its numbers are those of results.json, and names can be nothing but names."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from jmrec.report.card import About, Weights, escaped, model_card, weights_in

sample = runpy.run_path(str(Path(__file__).with_name("sample_results.py")))
make_results = sample["make_results"]
NASTY = (
    "](http://evil.test) <img src=x onerror=1> # | `a` **b**\n# Heading\n\u202e\x1b[2J "
    "![p](q) www.evil.test"
)


def about(row: str = "distilled", **more: Any) -> About:
    facts: dict[str, Any] = {
        "provenance": {"jmrec": "0.1.0", "dataset": "movies", "fingerprint": "ab12", "seed": 0,
                       "added": 0, "why": f"Served is {row}: evaluate.serve names it."},
        "policy": {"allow": None, "block": [], "pin": []},
        "files": {"serve.json": "what this is"}, "answers": "sessions of items",
    }  # fmt: skip
    return About(row, **{**facts, **more})


def test_its_numbers_are_those_of_the_results() -> None:
    card = model_card(make_results(), about())
    assert card == model_card(make_results(), about())
    assert card.startswith("# distilled, trained and judged on movies\n")
    assert "| Sessions | 2,552 train, 319 validation, 320 test |" in card
    assert "| in %, with 95 % intervals | distilled | blend: V-SKNN, EASE, TF-IDF |" in card
    mean = "mean over sessions of the mean over positions 1-20"
    assert f"| MRR@20, {mean} | 26.11 (24.3–27.7) | 23.77 (22.1–25.2) |" in card
    assert "paired: +2.34 points (0.71, 4.02): better." in card
    assert "On movies distilled wins by 2.34 points" in card
    assert "every target ranked among all 3,322 items" in card
    assert "means over 3 seeds of training. This artefact holds one of them, seed 0." in card
    assert "Of 337 targets that training never saw, its first 20 hold 2.9 %." in card
    assert "No pretrained weights had a part in it." in card
    assert card.count("\n# ") == 0
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        *("## Data", "## Protocol", "## Figures", "## Limits", "## Pretrained weights", "## Files")
    ]


def test_a_rule_stands_beside_the_best_model() -> None:
    card = model_card(make_results(), about("blend: V-SKNN, EASE, TF-IDF"))
    assert "| blend: V-SKNN, EASE, TF-IDF | distilled |" in card
    assert "paired: −2.34 points (−4.02, −0.71): worse." in card
    assert "wins by" not in card  # that is said of the row that the run serves
    assert "seeds" not in card
    assert "jmrec remember" in card


def test_what_flatters_and_what_is_not_known_is_said() -> None:
    results = make_results()
    results["dataset"]["split"] = "validation"
    next(row for row in results["rows"] if row["name"] == "distilled")["seeds"] = 1
    policy = {"allow": ["a", "b"], "block": ["c"], "pin": []}
    card = model_card(results, about(policy=policy))
    assert "they flatter" in card
    assert "The figures are of one seed of training." in card
    assert "With fewer than three seeds nothing is claimed" in card
    assert "People have corrected it: 2 items allowed, 1 blocked, 0 pinned." in card
    assert "nothing is known of its quality" in model_card(None, about())
    assert "nobody is no row" in model_card(results, about("nobody"))
    assert "made elsewhere" in model_card(results, about(foreign=True))
    for key in list(results):
        model_card({name: each for name, each in results.items() if name != key}, about())  # type: ignore[arg-type]


def test_a_log_loss_is_no_share() -> None:
    results = make_results()
    results["primary"] = {"figure": "pair", "metric": "PR-AUC"}
    for row in results["rows"]:
        row["figures"] = {"pair": {"PR-AUC": 0.5, "log loss": 0.68661}}
        row["interval"] = {"pair": {"log loss": [0.55, 0.8174]}}
    card = model_card(results, about(answers="users"))
    line = "over rows of a user and an item"
    assert f"| log loss, {line} | 0.6866 nats (0.550–0.817) | 0.6866 nats" in card
    assert f"| PR-AUC, {line} | 50.00 | 50.00 |" in card
    assert "jmrec recommend --serve FOLDER --user USER" in card


def test_names_of_the_data_are_names() -> None:
    results = make_results()
    text = json.dumps(results).replace('"distilled"', json.dumps(NASTY))
    results = json.loads(text)
    results["dataset"]["name"] = results["caption"] = NASTY
    weights = [Weights("text", NASTY, NASTY, {NASTY: "ab"})]
    provenance = {"dataset": NASTY, "why": NASTY, "fingerprint": NASTY, "jmrec": NASTY}
    card = model_card(results, about(NASTY, provenance=provenance, weights=weights))
    bare = re.sub(r"\\.", "", card)  # what a backslash stands before is a letter
    assert "<" not in bare
    assert "](" not in bare
    assert "![" not in bare
    assert "http://" not in bare
    assert "www." not in bare
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert [line for line in card.splitlines() if line.startswith("#")][1:] == [
        *("## Data", "## Protocol", "## Figures", "## Limits", "## Pretrained weights", "## Files")
    ]
    # Each line of a table has the columns of its head.
    table: list[str] = []
    for line in [*bare.splitlines(), ""]:
        if line.startswith("|"):
            table.append(line)
        else:
            assert len({each.count("|") for each in table}) <= 1, table
            table = []
    assert bare.count("`") == 2 * 3 + 2  # the block of commands, and one file


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *(("MRR@20, k=3", "MRR@20, k=3"), ("a|b", r"a\|b"), (" a\n\tb ", "a b")),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_weights_are_found_however_deep() -> None:
    one = {"source": "wheel:a", "licence": "apache-2.0", "sha256": {"w.bin": "ff00"}, "format": "x"}
    other = {"source": "minilm", "licence": None}
    inner = {"text": json.dumps(other), "settings": json.dumps({"dtype": "float32"})}
    read = json.dumps({"text": "lsa", "picture": "backbone", "backbone": inner})
    assert list(weights_in({"text": json.dumps(one), "settings": "{"})) == [
        Weights("text", "wheel:a", "apache-2.0", {"w.bin": "ff00"})
    ]
    assert list(weights_in(read)) == [Weights("text", "minilm")]
    assert list(weights_in(None)) == list(weights_in({})) == list(weights_in("lsa")) == []
    card = model_card(None, about(weights=[*weights_in({"text": one}), *weights_in(read)]))
    assert "| text | wheel:a | apache-2.0 | w.bin ff00 |" in card
    assert "| text | minilm | none stated: ask its makers before you use it | – |" in card
