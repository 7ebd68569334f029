"""Rules counted anew every Monday against `jmrec remember`, week by week, of a run that ended."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.schema import Dataset
from jmrec.evaluation.protocol import ask, at_target
from jmrec.evaluation.rankers.anew import Chosen, count_anew
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.past import Past
from jmrec.evaluation.rankers.rules import RULES, fit_rules
from jmrec.evaluation.rankers.weekly import Mondays, weekly
from jmrec.evaluation.results import MIX
from tests.unit.data.test_remembered import BEGIN, ITEMS, Row, add, made_rows, start, write
from tests.unit.evaluation.test_live import dataset_of, draw
from tests.unit.evaluation.test_live_mixed import Student

WEEK = 7 * 86400
MONDAY = 1_699_833_600
"""Before `BEGIN`: 13 November 2023, 00:00 UTC."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Return the events of 21 weeks, with some at the very moment of a Monday."""
    found = [[*row[:3], BEGIN + (row[3] - BEGIN) * 800, row[4]] for row in made_rows(2)]
    for n, row in enumerate(found):
        if n % 9 == 0:
            row[3] = MONDAY + round((row[3] - MONDAY) / WEEK) * WEEK
    return sorted((row for row in found if row[3] >= BEGIN), key=lambda row: row[3])


def test_each_week_answers_as_a_run_that_remembers_every_monday(
    rows: list[Row], tmp_path: Path
) -> None:
    whole, _ = start(tmp_path / "whole", rows, "history")
    ended = float(whole.splits["train"].times.max())
    known = [row for row in rows if row[3] <= ended]
    dataset_then, remembered = start(tmp_path / "then", known, "history")
    assert dataset_then.items.ids == whole.items.ids

    validation = at_target(ask(whole, "validation"))
    asked = at_target(ask(whole, "test"))
    fitted = fit_rules(whole, ask(whole, "validation"))
    student = Student(pairs=np.random.default_rng(7).random((2, ITEMS, ITEMS)))
    members = [rule for rule in fitted if rule.name != "blend of rules"]
    blend = Blend([*members, student], [0.5 + n for n in range(len(members) + 1)], ITEMS,
                  kind=MIX, name="blend of rules and student")  # fmt: skip
    past = Past(whole, float(validation.prefixes.time.min()))
    mondays = Mondays(whole, past, fitted)
    every = [*members, blend]
    assert {"EASE", "V-SKNN", "newest first", *RULES} >= {rule.name for rule in members}
    forms = [weekly(rule, mondays) for rule in every]
    assert [form.name for form in forms] == [f"{rule.name}, weekly" for rule in every]
    found = {form.name: form.scores(asked.prefixes, slice(0, ITEMS)) for form in forms}

    settings = {rule.name: dict(getattr(rule, "settings", {})) for rule in members}
    settings[blend.name] = {
        rule.name: weight for rule, weight in zip(blend.members, blend.weights, strict=True)
    }
    ease = next(rule for rule in members if rule.name == "EASE")
    week = (asked.prefixes.time - MONDAY) // WEEK
    first, checked = int((ended - MONDAY) // WEEK) + 1, 0
    for one in range(first, int(week.max()) + 1):
        # The shop remembers what came since the last Monday, then answers for a week.
        begin = max(ended + 1, MONDAY + (one - 1) * WEEK)
        new = [row for row in rows if begin <= row[3] < MONDAY + one * WEEK]
        if new:
            path = write(tmp_path / f"{one}.csv", new)
            remembered, _ = add(remembered, dataset_then, path)
        mine = np.flatnonzero(week == one)
        checked += len(mine)
        for rule in every if len(mine) else ():
            chosen = Chosen(rule.name, settings, 20_000)
            mixed = student if rule is blend else None
            kept = ease if chosen.reads_ease else None
            anew = count_anew(chosen, dataset_then, remembered, {}, kept, mixed)
            wanted = anew.scores(asked.prefixes.take(mine), slice(0, ITEMS))
            np.testing.assert_allclose(found[f"{rule.name}, weekly"][mine], wanted, atol=2e-5)
    assert checked == len(asked) > 20
    assert len(np.unique(week)) > 2

    for form in forms:  # in parts of the catalogue it is the same
        parts = [form.scores(asked.prefixes, slice(a, min(a + 5, ITEMS))) for a in (0, 5, 10)]
        np.testing.assert_allclose(np.concatenate(parts, 1), found[form.name], atol=2e-5)


def test_before_the_first_monday_it_is_what_training_left(
    make_dataset: Callable[..., Dataset],
) -> None:
    dataset = dataset_of(draw(3, hours=40), make_dataset, True)
    validation, asked = (at_target(ask(dataset, each)) for each in ("validation", "test"))
    past = Past(dataset, float(validation.prefixes.time.min()))
    rules = fit_rules(dataset, ask(dataset, "validation"))
    mondays = Mondays(dataset, past, rules)
    for rule in rules:
        same = weekly(rule, mondays).scores(asked.prefixes, slice(0, 14))
        np.testing.assert_array_equal(same, rule.scores(asked.prefixes, slice(0, 14)))
