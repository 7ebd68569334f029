"""What every stage that trains does: a fit by the experiment's settings, and its files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jmrec.checkpoint import save_params
from jmrec.cluster.member import is_first
from jmrec.config import ConfigDict
from jmrec.files import write_json
from jmrec.sharding import Batches, process_local
from jmrec.tracking import Tracker
from jmrec.training import NOT_PART_OF_A_RUN, FitResult, OptimConfig, TrainConfig, Trainer
from jmrec.types import Params, State


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


def fit(
    trainer: Trainer,
    folder: Path,
    batches: Batches,
    *,
    seed: int,
    tracker: Tracker,
    metadata: Mapping[str, Any],
    evaluate: Callable[[Params, State], Mapping[str, float]] | None = None,
    begin: Params | None = None,
) -> FitResult:
    """Fit, then write ``params`` and ``metrics.json`` into the stage's folder.

    Args:
      trainer: See `jmrec.training.Trainer.fit` for this and what follows.
      folder: The stage's.
      batches: See there.
      seed: See there.
      tracker: The stage's.
      metadata: See there; it is kept with the parameters too. Its "config" is the stage's flat
        "train", of which only what changes the parameters is kept.
      evaluate: See there.
      begin: See there.
    """
    config = {k: v for k, v in metadata["config"].items() if k not in NOT_PART_OF_A_RUN}
    metadata = {**metadata, "config": config}
    result = trainer.fit(
        folder, batches, seed=seed, evaluate=evaluate, tracker=tracker, metadata=metadata,
        begin=begin,
    )  # fmt: skip
    params = jax.device_get(process_local(result.params, trainer.mesh))
    save_params(folder / "params", params, metadata)
    if is_first():
        write_json(
            folder / "metrics.json",
            {"best": result.best if evaluate else None, "best_step": result.best_step,
             "step": result.step, "flops": result.flops, "history": result.history},
        )  # fmt: skip
    return result
