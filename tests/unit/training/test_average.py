"""The moving average of parameters, against its formula over the parameters of a plain fit."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.training import OptimConfig, Trainer
from tests.unit.training.test_loop import CONFIG, DIM, Batches, Evaluate, Quadratic, same


class Kept(Evaluate):
    """What was judged, too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def __call__(self, params: Any, state: Any) -> dict[str, float]:
        self.seen.append(np.array(params["w"], np.float64))
        return super().__call__(params, state)


def test_a_moving_average_is_judged_and_kept(tmp_path: Path) -> None:
    """Against the formula in float64 over a plain fit's parameters; one program for all lengths."""
    steps = dataclasses.replace(CONFIG, steps=40, eval_every=1, save_every=7)
    plain, found = Kept(), {}
    last = Trainer(Quadratic(), steps).fit(tmp_path / "0", Batches(), seed=5, evaluate=plain)
    trainer = Trainer(Quadratic(), dataclasses.replace(steps, optim=OptimConfig(average=30)))
    for length in (30, 2, 1):
        given = {"optim": {"average": length}}
        own, folder = Kept(), tmp_path / str(length)
        found[length] = trainer.fit(folder, Batches(), seed=5, evaluate=own, hparams=given)
        average = np.zeros(DIM)
        for n, (w, judged) in enumerate(zip(plain.seen, own.seen, strict=True)):
            average += max(1 / length, 10 / (10 + n)) * (w - average)
            np.testing.assert_allclose(judged, average, rtol=0, atol=1e-6)
        at_best = own.seen[found[length].best_step - 1]
        np.testing.assert_array_equal(np.float32(at_best), found[length].params["w"])
        # Killed and resumed, it goes on from the average that was saved.
        folder = tmp_path / f"killed {length}"
        with pytest.raises(RuntimeError, match="killed"):
            trainer.fit(folder, Batches(raises=17), seed=5, evaluate=Kept(), hparams=given)
        same(found[length], trainer.fit(folder, Batches(), seed=5, evaluate=Kept(), hparams=given))
    assert trainer.compilations == 1
    assert found[30].best_step != last.best_step or found[30].best != last.best
    np.testing.assert_allclose(found[1].params["w"], last.params["w"], rtol=0, atol=1e-6)
    begin = {"w": np.array([3.0, 2.0, 1.0], np.float32)}
    begun = trainer.step.begin(trainer.step.initialise(0), begin)
    np.testing.assert_array_equal(begun.average["w"], begin["w"])
    none = {"optim": {"average": 0}}
    with pytest.raises(UserError, match=r"average=0 averages nothing.* give 1 or more"):
        trainer.fit(tmp_path / "none", Batches(), seed=5, hparams=none)
    with pytest.raises(UserError, match=r"no hparams\.optim\.average; it has clip, warmup"):
        Trainer(Quadratic(), CONFIG).fit(tmp_path / "no", Batches(), seed=5, hparams=given)
