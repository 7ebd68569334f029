"""Which row is served: the best on validation of those that can be, or one that is named."""

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.choice import best_of, check_wanted, choose_row, figure_of, on_validation
from jmrec.evaluation.figures import figures
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.results import PAIRS, RANKING
from jmrec.report.serving import why_served

VALUES = {"popularity": 0.1, "EASE": 0.31, "blend of rules": 0.3, "distilled": 0.2}


def test_the_best_is_the_highest_and_of_equals_the_first() -> None:
    row, choice = choose_row("best", VALUES, RANKING)
    assert row == "EASE"
    assert choice == {"wanted": "best", **RANKING, "validation": VALUES}
    # What differs by less than a hundred-thousandth is equal, and a rule comes first.
    assert choose_row("best", {"EASE": 0.2, "distilled": 0.200001}, RANKING)[0] == "EASE"
    assert choose_row("best", {"EASE": 0.2, "distilled": 0.20002}, RANKING)[0] == "distilled"
    assert best_of({"a": float("nan"), "b": 0.0}) == "b"
    row, choice = choose_row("best", {"a": float("nan"), "b": 0.1}, PAIRS)
    assert (row, choice["validation"]["a"]) == ("b", None)


def test_a_row_that_is_named_is_served_if_it_is_there() -> None:
    assert choose_row("popularity", VALUES, RANKING)[0] == "popularity"
    with pytest.raises(UserError, match=r'"EASY" is not one of popularity, .* did you mean "EASE"'):
        choose_row("EASY", VALUES, RANKING)


@pytest.mark.parametrize("wanted", ["best", "distilled", "EASE"])
def test_what_can_be_served_is_known_before_anything_runs(wanted: str) -> None:
    check_wanted(wanted, ["distilled"], ["EASE", "popularity"])
    with pytest.raises(UserError, match=f'evaluate.serve="{wanted}x" is not one of best, '):
        check_wanted(f"{wanted}x", ["distilled"], ["EASE", "popularity"])


@pytest.mark.parametrize("name", ["best", "EASE"])
def test_no_student_has_the_name_of_a_rule_or_of_the_best(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' is no name for a model"):
        check_wanted("best", [name], ["EASE"])


def test_the_figure_is_that_of_the_table(make_sessions) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 12, size).tolist() for size in (2, 5, 30, 40)]
    asked = make_predictions(make_sessions(lists))
    rules = [StaticRule("a", rng.random(12).astype(np.float32)) for _ in range(3)]
    common = {"n_items": 12, "exclude_seen": False}
    ranks = np.stack([rank(rule, asked, **common).ranks[0] for rule in rules])
    table = figures(ranks, asked)["session"]["MRR@20"]
    assert figure_of(ranks, asked) == pytest.approx(table)
    assert on_validation(rules, asked, **common) == pytest.approx(table)


@pytest.mark.parametrize(
    ("served", "says"),
    [
        ({"row": "distilled", "beside": []}, ""),
        (
            {"row": "EASE", "beside": [], "student": "distilled", "choice": "best"},
            "Served is EASE, the best of 4 rows on validation: MRR@20, session average 31.00 %; "
            "distilled, the best student, has 20.00 %.",
        ),
        (
            {"row": "popularity", "beside": [], "student": "distilled", "choice": "popularity"},
            "Served is popularity, which evaluate.serve names: MRR@20, session average on "
            "validation 10.00 %, and 31.00 % of EASE, the best row there; distilled, the best "
            "student, has 20.00 %.",
        ),
    ],
)
def test_it_is_told_which_row_is_served_and_why(served: dict, says: str) -> None:
    if "choice" in served:
        served = {**served, "choice": choose_row(served["choice"], VALUES, RANKING)[1]}
    assert why_served({"served": served}) == says  # type: ignore[typeddict-item]
