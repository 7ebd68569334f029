"""What every stage needs: the run's settings, workdir and tracker, and how to fit and load."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jmrec.checkpoint import load_params
from jmrec.config import ConfigDict
from jmrec.models.linen import check_fit
from jmrec.sharding import Batches
from jmrec.systems.fit import fit, own_metadata, train_config
from jmrec.tracking import Tracker
from jmrec.training import FitResult, Member, Trainer, TrainStep
from jmrec.types import Model, Params, Task


@dataclass(frozen=True)
class Work:
    """One run.

    Attributes:
      config: From an experiment file.
      workdir: The run's folder.
      tracker: Metrics and messages.
      compares: Whether the folder of the data is compared with what was prepared of it; else what
        was prepared is taken, whatever the folder holds now.
      prints: Whether an evaluation prints its table on standard output, as a command does.
    """

    config: ConfigDict
    workdir: Path
    tracker: Tracker
    compares: bool = False
    prints: bool = True

    def params(self, stage: str, model: Model) -> Params:
        """Return the parameters of a finished stage, numpy arrays.

        Raises:
          UserError: They are not the model's: another version of jmrec made them.
        """
        params, _ = load_params(self.workdir / stage / "params")
        check_fit(params, jax.eval_shape(model.init, jax.random.key(0)), str(self.workdir / stage))
        return params

    def trainer(self, task: Task, train: ConfigDict, step: TrainStep | None = None) -> Trainer:
        """Return a task's trainer, its frozen arrays placed; see there for ``step``."""
        settings = train_config(train, self.config.rules)
        return Trainer(task, settings, frozen=task.frozen(self.workdir), step=step)

    def member(
        self,
        folder: Path,
        name: str,
        train: ConfigDict,
        batches: Batches,
        *,
        fingerprint: str,
        seed: int | None = None,
        evaluate: Callable[[Params, Any], Mapping[str, float]] | None = None,
        begin: tuple[Params, Mapping[str, str]] | None = None,
    ) -> Member:
        """Return what a stage trains, as one of the fits that are done at once; see `fit`."""
        params, source = (None, {}) if begin is None else begin
        begins = {"begins": dict(source)} if source else {}
        return Member(
            folder, batches, self.config.seed if seed is None else seed,
            evaluate=evaluate, tracker=self.tracker.stage(name), begin=params,
            metadata=own_metadata(train, stage=name, fingerprint=fingerprint, **begins),
        )  # fmt: skip

    def fit(
        self,
        folder: Path,
        name: str,
        task: Task | Trainer,
        train: ConfigDict,
        batches: Batches,
        **more: Any,
    ) -> FitResult:
        """Train what a stage trains.

        Args:
          folder: The stage's.
          name: The stage's, for the tracker.
          task: What is trained, or its trainer where several stages share one.
          train: "train" of the stage's settings.
          batches: Training batches, this process's share.
          **more: ``fingerprint`` of the data; ``seed`` of parameters and updates, the run's where
            it is not given; ``evaluate``, see `jmrec.training.Trainer.fit`; ``begin``, parameters
            to begin with, and where they are from.
        """
        trainer = task if isinstance(task, Trainer) else self.trainer(task, train)
        return fit(trainer, self.member(folder, name, train, batches, **more))


def numbers(settings: ConfigDict) -> dict[str, Any]:
    """Return the traced numbers of a stage: its "hparams" and the learning rate of "train"."""
    return {**settings.hparams, "learning_rate": settings.train.learning_rate}
