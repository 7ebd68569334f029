"""A signal and a broken update at once: nobody may say that the state is saved."""

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from jmrec.errors import UserError
from jmrec.training import TrainConfig, Trainer
from tests.unit.training.test_loop import Batches, Log, Quadratic


class Signalled(Log):
    """A SIGTERM comes when the update before the bad one is logged: the bad one is under way."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        super().log(step, metrics)
        if step == 6:
            signal.raise_signal(signal.SIGTERM)


def test_a_broken_state_is_not_said_to_be_saved(tmp_path: Path) -> None:
    config = TrainConfig(steps=12, eval_every=100, save_every=4, log_every=1)
    with pytest.raises(UserError, match="the loss of update 6 is nan"):
        Trainer(Quadratic(), config).fit(tmp_path, Batches(bad=6), seed=0, tracker=Signalled())
    steps = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    assert max(steps) == 4
