"""What a ranker says without one thing is what its model says where that thing is taken by hand."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score

from jmrec.systems.mmrec.system import Mmrec
from jmrec.systems.mmrec.why import explain
from jmrec.systems.stages import walk
from jmrec.systems.work import Work
from jmrec.tasks.rank import gather
from jmrec.tracking import Tracker

from .small import small_config, write_folder

LINE = {"scale": [0.5], "shift": [0.1], "threshold": [0.27]}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Mmrec:
    top = tmp_path_factory.mktemp("why")
    config = small_config(write_folder(top / "folder"), "arm=text,writer=extract")
    with Tracker(top / "run", quiet=True) as tracker:
        system = Mmrec(Work(config, top / "run", tracker))
        walk(system.stages()[:-1], top / "run", tracker=tracker)
        return system


def by_hand(system: Mmrec, rows: np.ndarray, without: str) -> np.ndarray:
    """Return the logits of the model, asked with pairs from which one thing was taken."""
    rankers = system.rankers
    parts = rankers.parts("text")
    task, arrays = rankers.task("text", parts), rankers.arrays("text", parts)
    pairs = gather(task.frozen_inputs, {name: each[rows] for name, each in arrays.items()})
    if without == "text":
        pairs = replace(pairs, parts_ok=jnp.zeros_like(pairs.parts_ok))
    if without == "ids":
        nobody = jnp.zeros(len(rows), jnp.int32)
        pairs = replace(pairs, item=nobody, user=nobody)
    if without == "history":
        # All numbers but the price are of earlier rows.
        names = rankers.pair_numbers.names
        price = np.array([name == "price" for name in names])
        assert price.sum() == 1
        numbers = rankers.pair_numbers
        nothing = np.where(numbers.of["item"], numbers.empty["item"], numbers.empty["user"])
        pairs = replace(
            pairs, numbers=jnp.where(price, pairs.numbers, nothing),
            past_mask=jnp.zeros_like(pairs.past_mask),
        )  # fmt: skip
    params = system.work.params("rankers/text-0", task.model)
    return np.asarray(task.model.fns["score"](params, pairs)[0]) + task.balance.shift


@pytest.mark.parametrize("without", ["", "text", "history", "ids"])
def test_without_a_thing_is_as_by_hand(system: Mmrec, without: str) -> None:
    rows = system.data.rows.test
    found = system.rankers.logits("text", rows, without=without)[0]
    np.testing.assert_allclose(found, by_hand(system, rows, without), rtol=1e-5, atol=1e-5)
    if without:
        assert np.abs(found - system.rankers.logits("text", rows)[0]).max() > 1e-4


def test_only_what_is_read_can_be_removed(system: Mmrec) -> None:
    assert system.rankers.removals("text") == ["text", "history", "ids"]


def test_the_section_says_what_the_logits_say(system: Mmrec) -> None:
    rows = system.data.rows.test
    truth = system.data.ratings.labels[rows] == 1
    found = explain(system, "text", rows, LINE)
    whole = 0.5 * by_hand(system, rows, "") + 0.1
    assert found["rows"] == len(rows)
    assert [each["part"] for each in found["parts"]] == ["text", "history", "ids"]
    for each in found["parts"]:
        left = 0.5 * by_hand(system, rows, each["part"]) + 0.1
        assert each["change"] == pytest.approx(np.abs(whole - left).mean(), rel=1e-4, abs=1e-5)
        apart = average_precision_score(truth, left) - average_precision_score(truth, whole)
        assert each["PR-AUC"] == pytest.approx(apart, rel=1e-4, abs=1e-5)
        changed = (expit(whole) >= 0.27) != (expit(left) >= 0.27)
        assert each["decisions"] == pytest.approx(changed.mean(), abs=1.5 / len(rows))
    called = expit(whole) >= 0.27
    wanted = {"found": called & truth, "false": called & ~truth, "missed": ~called & truth}
    assert any(each.any() for each in wanted.values())
    for kind, where in wanted.items():
        shown = [each for each in found["examples"] if each["kind"] == kind]
        assert len(shown) == min(4, where.sum())
        p = np.sort(expit(whole)[where])
        p = p[::-1] if kind != "missed" else p
        np.testing.assert_allclose([each["p"] for each in shown], p[: len(shown)], atol=1e-5)
