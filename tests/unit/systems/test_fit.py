"""What an experiment's settings of a fit become."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jmrec.config import flatten, load_config
from jmrec.data.gaussians import Gaussians, PairBatches
from jmrec.errors import UserError
from jmrec.models.parts.transformer import StackConfig, remat_policy
from jmrec.models.readers.critics import CriticConfig
from jmrec.systems.fit import fit, own_metadata, train_config
from jmrec.systems.stages import identity
from jmrec.tasks.gaussians import CriticTask
from jmrec.tracking import Tracker
from jmrec.training import Member, Trainer
from jmrec.types import Batch, Params

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
SPEC = f"{EXPERIMENTS / 'tpad.py'}:size=tiny"
GAUSSIANS = EXPERIMENTS / "losses_on_gaussians.py"


def test_accumulation_is_an_argument() -> None:
    train = load_config(SPEC, ["--config.transition.train.accumulate=4"]).transition.train
    assert train_config(train, "dp").accumulate == 4
    assert train_config(load_config(SPEC).transition.train, "dp").accumulate == 1


def test_updates_per_call_is_an_argument_and_no_part_of_a_stage() -> None:
    config = load_config(SPEC, ["--config.student.train.updates_per_call=10"])
    assert train_config(config.student.train, "dp").updates_per_call == 10
    plain = load_config(SPEC)
    assert train_config(plain.student.train, "dp").updates_per_call == 1
    assert identity({"student": config.student}) == identity({"student": plain.student})
    with plain.unlocked():
        for name in ("updates_per_call", "population"):  # a config of a jmrec without them
            del plain.student.train[name]
    assert train_config(plain.student.train, "dp").updates_per_call == 1
    assert identity({"student": config.student}) == flatten({"student": plain.student})


def test_a_fit_goes_on_with_other_updates_per_call(tmp_path: Path) -> None:
    """Killed with five updates a call, gone on with one and with five: the same parameters."""
    ends = {}
    for first, then in ((5, 5), (5, 1), (1, 1)):
        folder = tmp_path / f"{first}-{then}"
        with pytest.raises(RuntimeError, match="killed"):
            fit_critic(folder, first, kill=14)
        assert (folder / "checkpoints" / "10").is_dir()
        ends[first, then] = fit_critic(folder, then)
    whole = fit_critic(tmp_path / "whole", 5)
    jax.tree.map(np.testing.assert_array_equal, ends[5, 5], whole)
    for each in ends.values():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), each, whole)
    with pytest.raises(UserError, match=r"config\.weight_decay \(was 0\.0, now 0\.1\)"):
        fit_critic(tmp_path / "whole", 5, weight_decay=0.1)


def fit_critic(folder: Path, k: int, kill: int = -1, **changes: float) -> Params:
    """Train a critic of two Gaussians for 20 updates; perhaps die at a batch."""

    class Dying(PairBatches):
        def __getitem__(self, n: int) -> Batch:
            if n == kill:
                raise RuntimeError("killed")
            return super().__getitem__(n)

    settings = load_config(f"{GAUSSIANS}:size=tiny").train
    settings.update({"steps": 20, "eval_every": 10, "save_every": 10, **changes})
    settings.updates_per_call = k
    task = CriticTask("infonce", CriticConfig(x=2, y=2, hidden=8, width=4), (), {})
    trainer = Trainer(task, train_config(settings, "dp"))
    with Tracker(folder, quiet=True) as tracker:
        batches, metadata = Dying(Gaussians(2, 1.0), 16, 0), own_metadata(settings)
        return fit(trainer, Member(folder, batches, 0, tracker=tracker, metadata=metadata)).params


@pytest.mark.parametrize(("word", "recomputes"), [("none", False), ("true", True),
                                                  ("dots_saveable", True)])  # fmt: skip
def test_what_is_recomputed_is_an_argument(word: str, recomputes: bool) -> None:
    stack = load_config(SPEC, [f"--config.knowledge.stack.remat={word}"]).knowledge.stack
    assert remat_policy(StackConfig(**stack).remat)[0] is recomputes
