"""Holm's correction against values worked out by hand, and against its definition."""

import itertools

import numpy as np
import pytest

from jmrec.metrics.significance import holm


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        # 4 x .005, 3 x .01, then 2 x .03 = .06 and 1 x .04, which may not be below it.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        # Holm's own kind of case: 3 x .02 = .06 holds for the two after it.
        ([0.02, 0.025, 0.03], [0.06, 0.06, 0.06]),
        # No more than 1: 2 x .7, and the .9 behind it.
        ([0.9, 0.7], [1.0, 1.0]),
        ([0.2], [0.2]),
        # Equal ones stay equal.
        ([0.01, 0.5, 0.01], [0.03, 0.5, 0.03]),
        ([], []),
    ],
)
def test_values_by_hand(p: list[float], corrected: list[float]) -> None:
    assert holm(p).tolist() == pytest.approx(corrected)


def test_it_rejects_what_the_step_down_procedure_rejects_in_any_order() -> None:
    p = [0.001, 0.013, 0.014, 0.2, 0.04]
    for level in (0.005, 0.05, 0.06, 0.2):
        rejected = set()
        for place, index in enumerate(np.argsort(p).tolist()):
            if p[index] > level / (len(p) - place):
                break
            rejected.add(p[index])
        for order in itertools.permutations(p):
            found = {each for each, q in zip(order, holm(order)) if q <= level}
            assert found == rejected
