"""What every stage that trains does: a fit by the experiment's settings, and its files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jmrec.checkpoint import save_params
from jmrec.cluster.member import is_first
from jmrec.config import ConfigDict, flatten
from jmrec.errors import UserError
from jmrec.files import write_json
from jmrec.sharding import process_local
from jmrec.training import NOT_PART_OF_A_RUN, FitResult, Member, OptimConfig, TrainConfig, Trainer
from jmrec.training.optim import traced_numbers
from jmrec.types import HParams


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
        average=train.get("average", 0),
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


@dataclass(frozen=True)
class Fits:
    """Fits that one program can do at once, before any of it is made.

    Attributes:
      trainer: Makes their trainer, with what is never optimised on the devices.
      members: What is each one's own.
      numbers: The traced numbers of all of them, see `traced`.
      program: What decides everything else: fits that are equal in it, and whose stages have the
        same inputs, differ in their numbers, seeds and folders alone.
    """

    trainer: Callable[[], Trainer]
    members: Sequence[Member]
    numbers: HParams
    program: Any


def traced(hparams: HParams, settings: TrainConfig) -> HParams:
    """Return the numbers of a fit as `jmrec.training.Member` takes them.

    Example:
      >>> traced({"dropout": 0.1}, TrainConfig(9, 3, 3, optim=OptimConfig(warmup=2)))
      {'dropout': 0.1, 'optim': {'clip': 1.0, 'warmup': 2, 'weight_decay': 0.0}}
    """
    return {**hparams, "optim": traced_numbers(settings.optim)}


def fit_at_once(fits: Sequence[Fits]) -> list[list[FitResult | UserError]]:
    """Do fits of one program at once.

    Args:
      fits: They are equal in ``program``; what is never optimised is that of the first.

    Returns:
      For each of them what its members ended in, see `jmrec.training.Trainer.fit_members`.
    """
    members = [replace(each, hparams=own.numbers) for own in fits for each in own.members]
    ends = iter(fits[0].trainer().fit_members(members))
    return [[next(ends) for _ in own.members] for own in fits]


class Seeded(NamedTuple):
    """The name of a stage that trains one part of the config with one seed, and its parts."""

    name: str
    group: str
    seed: int
    path: str


def seeded(path: str, seed: int) -> Seeded:
    """Return the name, group, seed and config path of a stage that is one of several seeds.

    Args:
      path: Where its settings are in the config.
      seed: Its seed.

    Example:
      >>> seeded("students.distilled", 0)[:2]
      ('students/distilled-0', 'students/distilled')
    """
    group = path.replace(".", "/", 1)
    return Seeded(f"{group}-{seed}", group, seed, path)


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
