"""The label of dataset.toml, read: any column, sign and number, and what is no rule."""

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jmrec.data.rule import SIGNS, Rule, read_rule

columns = st.text(min_size=1, max_size=20).filter(lambda text: text == text.strip())
numbers = st.floats(allow_nan=False, allow_infinity=False)
spaces = st.sampled_from(["", " ", "  ", "\t"])


@given(columns.filter(lambda c: c[-1] not in "<>="), st.sampled_from(list(SIGNS)), numbers, spaces)
def test_a_rule_is_read_as_it_was_written(column: str, sign: str, bound: float, space: str) -> None:
    assert read_rule(f"{column}{space}{sign}{space}{bound!r}") == Rule(column, sign, bound)


@given(st.text(max_size=30))
def test_any_text_is_a_rule_or_a_column(text: str) -> None:
    rule = read_rule(text)
    if rule.sign:
        assert rule.sign in SIGNS
        assert math.isfinite(rule.bound)
        before, sign, after = text.rpartition(rule.sign)
        assert before.strip() == rule.column
        assert (sign, float(after)) == (rule.sign, rule.bound)
    else:
        assert rule == Rule(text)


@given(st.sampled_from(list(SIGNS)), numbers, st.lists(st.floats(allow_infinity=False)))
def test_it_holds_where_python_says_so(sign: str, bound: float, values: list[float]) -> None:
    compare = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt}
    truth = [compare.get(sign, operator.gt)(value, bound) for value in values]
    assert read_rule(f"x {sign} {bound!r}").holds(np.array(values, float)).tolist() == truth


@pytest.mark.parametrize(
    "text",
    ["score", "score <= ", "score <= x", "score <= 0,25", "score <= 1e999", "score <= nan", "<= 3",
     "0.2 >= score", "score = 3", "score <= 1 2", "score <= ٣", "score <= 0x10"],
)  # fmt: skip
def test_what_is_no_rule_is_taken_for_a_column(text: str) -> None:
    assert read_rule(text) == Rule(text)


def test_the_last_sign_counts() -> None:
    assert read_rule("a <= 3 > 5") == Rule("a <= 3", ">", 5.0)
    assert read_rule("x<-1") == Rule("x", "<", -1.0)
    assert read_rule("x == .5e1") == Rule("x", "==", 5.0)
