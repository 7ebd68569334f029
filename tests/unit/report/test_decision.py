"""What the report says to do: made-up results of each case, and words that must follow."""

import copy
import shlex
from typing import Any

import pytest

from jmrec.evaluation.results import RANKING, kinds_of
from jmrec.report import decision
from jmrec.report.decision import apart, decide

ROWS = {"Markov": "rule", "blend of rules": "blend", "gru": "student", "sasrec": "student"}
MIXED = "blend of rules and gru"


def shop(
    served: str,
    *found: tuple[str, str, float, float, float],
    seeds: int = 3,
    wanted: str | None = "best",
    validation: dict[str, float] | None = None,
    split: str = "test",
    values: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Return results in which some pairs were compared: (a, b, difference, low, high), in points.

    The verdict follows as in an evaluation: above or below where the interval excludes 0, and only
    with three seeds of what was trained.
    """
    kinds = ROWS | {MIXED: "mix"}
    values = {"Markov": 0.2, "blend of rules": 0.3, "gru": 0.31, "sasrec": 0.3, MIXED: 0.32} | (
        values or {}
    )
    rows = [
        {"name": name, "kind": kind, "seeds": 1 if kind in ("rule", "blend") else seeds,
         "figures": {"session": {"MRR@20": values[name]}}, "interval": {}}
        for name, kind in kinds.items()
    ]  # fmt: skip
    comparisons = []
    for a, b, difference, low, high in found:
        verdict = "above" if low > 0 else "below" if high < 0 else "not told apart"
        entry = {"a": a, "b": b, "figure": "session", "metric": "MRR@20", "verdict": verdict,
                 "difference": difference / 100, "interval": [low / 100, high / 100]}  # fmt: skip
        few = [x for x in (a, b) if kinds[x] in ("student", "mix") and seeds < 3]
        if few and verdict != "not told apart":
            entry |= {"verdict": "not told apart", "reason": f"fewer than 3 seeds: {few[0]}"}
        comparisons.append(entry)
    chosen: dict[str, Any] = {"row": served, "beside": []}
    if served in ("Markov", "blend of rules", MIXED):
        chosen["student"] = "gru"
    if wanted is not None:
        known = validation or {"Markov": 0.21, "blend of rules": 0.29, "gru": 0.33, "sasrec": 0.3}
        chosen["choice"] = {**RANKING, "wanted": wanted, "validation": known}
    return {
        "primary": dict(RANKING), "kinds": kinds_of(list(kinds.values())), "rows": rows,
        "comparisons": comparisons, "best_rule": "blend of rules", "served": chosen,
        "dataset": {"name": "shoes", "split": split},
    }  # fmt: skip


RULE = "blend of rules"
CASES: dict[str, tuple[dict[str, Any], str, str | None, list[str]]] = {
    "the student wins": (
        shop("gru", ("gru", RULE, 7.8, 6.1, 9.52)),
        decision.WINS, "gru",
        ["On shoes gru wins by 7.80 points [6.10, 9.52] of MRR@20 (31.00 % against 30.00 %) over "
         "the best rule, blend of rules: serve it."],
    ),
    "it wins where the pair stands the other way round": (
        shop("gru", (RULE, "gru", -7.8, -9.52, -6.1)),
        decision.WINS, "gru", ["gru wins by 7.80 points [6.10, 9.52]"],
    ),
    "a mix wins, and a student that wins too can not be told from it": (
        shop(MIXED, (MIXED, RULE, 1.2, 0.4, 2.0), ("sasrec", RULE, 0.9, 0.1, 1.7),
             ("sasrec", MIXED, -0.3, -0.8, 0.2), ("gru", RULE, 0.1, -1, 1),
             ("gru", MIXED, -0.2, -1, 1)),
        decision.WINS, MIXED,
        ["blend of rules and gru wins by 1.20 points [0.40, 2.00]",
         "serve it, or sasrec, which can not be told from it (−0.30 points [−0.80, 0.20])."],
    ),
    "a rule wins": (
        shop(RULE, ("gru", RULE, -7.8, -9.5, -6.1), (MIXED, RULE, 0.1, -0.2, 0.3)),
        decision.RULE_WINS, RULE,
        ["On shoes blend of rules wins by 7.80 points [6.10, 9.50] of MRR@20",
         "over the best model on validation, gru: serve it, or blend of rules and gru, which can "
         "not be told from it"],
    ),
    "a named student loses to the rule": (
        shop("gru", ("gru", RULE, -2, -3, -1), wanted=None),
        decision.RULE_WINS, RULE,
        ["On shoes the best rule, blend of rules, is 2.00 points [1.00, 3.00] of MRR@20",
         "above gru: serve blend of rules, which needs no training."],
    ),
    "nothing differs": (
        shop("gru", ("gru", RULE, 0.3, -0.5, 1.1)),
        decision.NO_DIFFERENCE, RULE,
        ["No difference is shown on shoes between gru and the best rule, blend of rules (+0.30 "
         "points [−0.50, 1.10] of MRR@20): serve blend of rules, which needs no training"],
    ),
    "nothing differs, and a rule is served": (
        shop(RULE, ("gru", RULE, 0.3, -0.5, 1.1)),
        decision.NO_DIFFERENCE, RULE,
        ["No difference is shown on shoes between blend of rules and gru (−0.30 points [−1.10, "
         "0.50] of MRR@20): serve blend of rules"],
    ),
    "one seed is no difference that is not shown": (
        shop("gru", ("gru", RULE, 2.4, 0.4, 4.4), seeds=1),
        decision.FEW_SEEDS, RULE,
        ["One seed so far, so nothing is claimed: on shoes gru is 2.40 points [0.40, 4.40] of "
         "MRR@20 ahead of the best rule, blend of rules. Train 3 seeds", "until then serve blend"],
    ),
    "two seeds, and the rule is ahead": (
        shop("gru", ("gru", RULE, -2.4, -4.4, -0.4), seeds=2),
        decision.FEW_SEEDS, RULE,
        ["Two seeds so far", "the best rule, blend of rules, is 2.40 points [0.40, 4.40]"],
    ),
    "one seed, and an interval around 0": (
        shop("gru", ("gru", RULE, 0.3, -0.5, 1.1), seeds=1),
        decision.NO_DIFFERENCE, RULE,
        ["No difference is shown", "gru has one seed; 3 may show one"],
    ),
    "one seed beside a rule": (
        shop(RULE, ("gru", RULE, 2.4, 0.4, 4.4), seeds=1),
        decision.FEW_SEEDS, RULE,
        ["One seed of gru so far", "gru is 2.40 points [0.40, 4.40] of MRR@20 ahead of blend"],
    ),
    "test does not confirm the student": (
        shop("gru", ("gru", RULE, -2, -3, -1)),
        decision.NOT_CONFIRMED, RULE,
        ["Validation chose gru, and test does not confirm it: on shoes the best rule, blend of "
         "rules, is 2.00 points", "Serve blend of rules, which needs no training, and is the best "
         "rule on validation."],
    ),
    "test prefers the student to the rule that validation chose": (
        shop(RULE, ("gru", RULE, 2, 1, 3)),
        decision.NOT_CONFIRMED, RULE,
        ["Validation chose blend of rules, and test does not confirm it: on shoes gru is 2.00 "
         "points [1.00, 3.00]", "confirm and not to choose: serve blend of rules", "--origins=3"],
    ),
    "the rule is the one of validation, not of test": (
        shop("gru", ("gru", RULE, -2, -3, -1), validation={"Markov": 0.4, RULE: 0.3, "gru": 0.41}),
        decision.NOT_CONFIRMED, "Markov", ["Serve Markov, which needs no training"],
    ),
    "above the rule of validation, not told from the rule of test": (
        shop("gru", ("gru", RULE, -0.2, -1, 1), ("gru", "Markov", 2, 1, 3),
             validation={"Markov": 0.4, RULE: 0.3, "gru": 0.41}),
        decision.WINS, "gru",
        ["gru wins by 2.00 points [1.00, 3.00] of MRR@20 over Markov, the best rule on validation",
         "The best rule of test, blend of rules, can not be told from it (−0.20"],
    ),
    "above the rule of validation, below the rule of test": (
        shop("gru", ("gru", RULE, -2, -3, -1), ("gru", "Markov", 2, 1, 3),
             validation={"Markov": 0.4, RULE: 0.3, "gru": 0.41}),
        decision.NOT_CONFIRMED, "gru",
        ["But of test the best rule is blend of rules, 2.00 points [1.00, 3.00] above it: serve "
         "gru", "--origins=3"],
    ),
    "nobody compared the two": (
        shop("gru"), decision.NOT_COMPARED, "gru", ["were not compared", "nothing is decided"],
    ),
    "validation alone": (
        shop("gru", ("gru", RULE, 7.8, 6.1, 9.5), split="validation"),
        decision.VALIDATION, None,
        ["Validation chooses gru on shoes, with MRR@20 31.00 %", "confirm it on test before"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_said_follows_from_the_numbers(name: str) -> None:
    results, case, row, words = CASES[name]
    before = copy.deepcopy(results)
    found = decide(results)
    assert found is not None
    assert (found.case, found.row) == (case, row)
    for each in words:
        assert each in found.headline, found.headline
    if case != decision.WINS:
        assert f"over the best rule, {RULE}" not in found.headline
    assert results == before


def test_no_claim_without_enough_seeds_whatever_the_interval() -> None:
    """A verdict is given exactly where the interval excludes 0 and there are three seeds."""
    for seeds in (1, 2, 3, 5):
        for low, high in ((-3, -1), (-1, 1), (1, 3)):
            found = decide(shop("gru", ("gru", RULE, (low + high) / 2, low, high), seeds=seeds))
            assert found is not None
            claimed = found.case in (decision.WINS, decision.NOT_CONFIRMED)
            assert claimed == (seeds >= 3 and low * high > 0)
            assert (found.case == decision.FEW_SEEDS) == (seeds < 3 and low * high > 0)


def test_the_command_serves_the_very_row() -> None:
    results = shop("gru", ("gru", RULE, 0.3, -0.5, 1.1))
    cost: Any = {"commands": {"run": "jmrec run --config 'a b.py' --workdir 'my runs/shop'"}}
    found = decide(results, cost)
    assert found is not None
    assert shlex.split(found.command) == [
        *("jmrec", "export", "--workdir", "my runs/shop", "--out", "served", "--row", RULE)
    ]
    assert found.does == "To serve blend of rules (without --row it is gru)"
    won = decide(shop("gru", ("gru", RULE, 7.8, 6.1, 9.5)))
    assert won is not None
    assert won.command == "jmrec export --workdir RUN --out served"
    first = decide(shop("gru", split="validation"), {"commands": {"run": "x --workdir=r/1"}})  # type: ignore[typeddict-item]
    assert first is not None
    assert first.command == "jmrec evaluate --workdir r/1 --split=test"


def test_a_rule_that_never_shows_new_items_is_said_to_be_one() -> None:
    """Counting gives a new item no place, whatever the table says of all the others."""
    results = shop("gru", ("gru", RULE, 0.3, -0.5, 1.1))
    before = decide(results)
    assert before is not None
    rates = {"Markov": 0.0, RULE: 0.0, "gru": 0.05, "sasrec": 0.1, MIXED: 0.01}
    for row in results["rows"]:
        row["cold"] = {"HR@20": rates[row["name"]], "n": 1541}
    found = decide(results)
    assert found is not None
    assert (found.row, found.case) == (before.row, before.case)
    # gru is the better one on validation, of those that show new items at all.
    assert found.headline == before.headline + (
        " But blend of rules hardly ever shows an item that training has not seen: of 1,541 clicks "
        "on such items its first 20 hold 0.0 %, those of gru 5.0 %. Where new items matter, serve "
        "that (--row gru)."
    )
    # A rule of no worth that shows new items alone is not what is named: gru is served.
    unknown = copy.deepcopy(results)
    del unknown["served"]["choice"]
    for row in unknown["rows"]:
        row["cold"]["HR@20"] = {"gru": 0.03, "Markov": 0.9}.get(row["name"], 0.0)
    said = decide(unknown)
    assert said is not None
    assert "those of gru 3.0 %" in said.headline
    for row in unknown["rows"]:
        row["cold"]["HR@20"] = {"Markov": 0.9}.get(row["name"], 0.0)
    assert "hardly ever" not in decide(unknown).headline  # type: ignore[union-attr]
    for row in results["rows"]:
        row["cold"]["HR@20"] = {RULE: 0.02}.get(row["name"], 0.5)
    assert decide(results) == before  # it shows some
    for row in results["rows"]:
        row["cold"]["HR@20"] = 0.001
    assert decide(results) == before  # nothing else does


@pytest.mark.parametrize("broken", ["x 'y", "", "jmrec run --workdir"])
def test_a_command_that_names_no_folder_is_no_harm(broken: str) -> None:
    found = decide(shop("gru", ("gru", RULE, 7.8, 6.1, 9.5)), {"commands": {"run": broken}})  # type: ignore[typeddict-item]
    assert found is not None
    assert "--workdir RUN" in found.command


def test_windows_are_served_by_the_newest_run() -> None:
    results = shop("gru", ("gru", RULE, 7.8, 6.1, 9.5))
    results["over_time"] = {"periods": ["a"], "by": "window"}
    found = decide(results, {"commands": {"run": "jmrec run --origins 3 --workdir w"}})  # type: ignore[typeddict-item]
    assert found is not None
    assert "--workdir w/back-0" in found.command


def test_only_rules_only_a_model_or_nothing() -> None:
    results = shop("blend of rules")
    results["served"].pop("student")
    results["served"]["choice"]["validation"] = {"Markov": 0.2, RULE: 0.3}
    results["rows"] = results["rows"][:2]
    found = decide(results)
    assert found is not None
    assert (found.case, found.row) == (decision.ONLY_RULES, RULE)
    alone = shop("gru")
    alone |= {"rows": alone["rows"][2:3], "best_rule": None}
    found = decide(alone)
    assert found is not None
    assert found.case == decision.NO_RULES
    assert decide({}) is None  # type: ignore[typeddict-item]


def test_a_pair_is_found_either_way_round() -> None:
    results = shop("gru", ("gru", RULE, 2, 1, 3))
    one, other = apart(results, "gru", RULE), apart(results, RULE, "gru")
    assert one is not None
    assert other is not None
    assert (other.difference, other.ends, other.verdict) == (-0.02, (-0.03, -0.01), "below")
    assert one.turned() == other
    assert one.size == other.size == "2.00 points [1.00, 3.00]"
    assert apart(results, "gru", "sasrec") is None
