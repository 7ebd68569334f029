"""What every stage that trains does: a fit by the experiment's settings, and its files."""

from pathlib import Path
from typing import Any

import jax

from jmrec.checkpoint import save_params
from jmrec.cluster.member import is_first
from jmrec.config import ConfigDict, flatten
from jmrec.errors import UserError
from jmrec.files import write_json
from jmrec.sharding import process_local
from jmrec.training import NOT_PART_OF_A_RUN, FitResult, Member, OptimConfig, TrainConfig, Trainer


def train_config(train: ConfigDict, rules: str) -> TrainConfig:
    """Return the loop's settings.

    Args:
      train: "train" of an experiment's stage, see experiments/tpad.py.
      rules: The sharding rules.
    """
    optim = OptimConfig(
        clip=train.clip,
        weight_decay=train.weight_decay,
        muon=train.muon,
        schedule=train.schedule,
        warmup=min(train.warmup, train.steps // 10),
    )
    return TrainConfig(
        steps=train.steps,
        eval_every=train.eval_every,
        save_every=train.save_every,
        patience=train.patience,
        accumulate=train.get("accumulate", 1),
        updates_per_call=train.get("updates_per_call", 1),
        optim=optim,
        rules=rules,
    )


def fit(trainer: Trainer, member: Member) -> FitResult:
    """Fit, then write ``params`` and ``metrics.json`` into the stage's folder.

    Args:
      trainer: What is trained, and how.
      member: What is the fit's own; ``workdir`` is the stage's folder. Its metadata are kept with
        the parameters too; see `own_metadata`.

    Raises:
      UserError, Preempted, Interrupted: See `jmrec.training.Trainer.fit`.
    """
    (result,) = trainer.fit_members([member])
    if isinstance(result, UserError):
        raise result
    folder = Path(member.workdir)
    params = jax.device_get(process_local(result.params, trainer.mesh))
    save_params(folder / "params", params, member.metadata)
    if is_first():
        write_json(
            folder / "metrics.json",
            {"best": result.best if member.evaluate else None, "best_step": result.best_step,
             "step": result.step, "flops": result.flops, "history": result.history},
        )  # fmt: skip
    return result


def own_metadata(train: ConfigDict, **more: Any) -> dict[str, Any]:
    """Return the metadata of a fit: of its settings only what changes the parameters.

    Args:
      train: "train" of the stage's settings.
      **more: Further ones, see `jmrec.training.Trainer.fit`.

    Example:
      >>> own_metadata(ConfigDict({"steps": 4, "updates_per_call": 2}), stage="distill")
      {'stage': 'distill', 'config': {'steps': 4}}
    """
    config = {k: v for k, v in flatten(train).items() if k not in NOT_PART_OF_A_RUN}
    return {**more, "config": config}
