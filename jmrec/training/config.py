"""The settings of a fit, and which of them contradict each other or the task."""

from dataclasses import dataclass, field, replace
from typing import Any

from jmrec.errors import UserError
from jmrec.training.optim import OptimConfig, traced_numbers
from jmrec.types import Task

NOT_PART_OF_A_RUN = ("keep", "log_every", "population", "rules", "updates_per_call")
"""Settings that may change when a run is resumed: they do not change what is computed."""


@dataclass(frozen=True)
class TrainConfig:
    """The static settings of a fit.

    Attributes:
      steps: Updates in all.
      eval_every: Updates between evaluations (one more follows the last update).
      save_every: Updates between checkpoints (one more at every new best and at the end).
      log_every: Updates between lines of the log, each an average over them.
      patience: Evaluations without a new best after which to stop; 0 never stops early.
      accumulate: Microbatches that a batch is cut into; their sums are added, then divided.
      updates_per_call: Updates done in one call of the device, K; divides the intervals.
      optim: The optimiser's settings; its ``steps`` is ``steps`` where it says 0.
      rules: The sharding rules: "dp", "fsdp", "tp" or "fsdp_tp".
      keep: Last checkpoints kept beside the best.
    """

    steps: int
    eval_every: int
    save_every: int
    log_every: int = 20
    patience: int = 0
    accumulate: int = 1
    updates_per_call: int = 1
    optim: OptimConfig = field(default_factory=OptimConfig)
    rules: str = "dp"
    keep: int = 2


def compiled_by(config: TrainConfig) -> tuple[Any, ...]:
    """Return which of the settings decide the compiled step: none that is traced, no interval.

    Example:
      >>> slow = TrainConfig(10, 5, 5, optim=OptimConfig(weight_decay=0.1))
      >>> compiled_by(slow) == compiled_by(TrainConfig(10, 2, 10))
      True
      >>> averaged = [TrainConfig(10, 5, 5, optim=OptimConfig(average=n)) for n in (0, 3, 9)]
      >>> [compiled_by(each) == compiled_by(averaged[1]) for each in averaged]
      [False, True, True]
    """
    optim = replace(config.optim, steps=config.optim.steps or config.steps)
    traced: dict[str, Any] = dict.fromkeys(traced_numbers(optim), 0)
    traced["average"] = min(optim.average, 1)  # whether there is one is no number
    optim = replace(optim, **traced)
    return optim, config.accumulate, config.updates_per_call, config.rules


def without_numbers(config: TrainConfig) -> TrainConfig:
    """Return the settings with everything that is traced as 0: what members of one fit share.

    Example:
      >>> slow = TrainConfig(10, 5, 5, optim=OptimConfig(weight_decay=0.1))
      >>> without_numbers(slow) == without_numbers(TrainConfig(10, 5, 5))
      True
      >>> without_numbers(slow) == without_numbers(TrainConfig(10, 2, 5))
      False
    """
    return replace(config, optim=compiled_by(config)[0])


def check_intervals(config: TrainConfig) -> None:
    """Refuse settings that cannot be trained with, whatever the task.

    Raises:
      UserError: A number is below 1, or the updates of a call do not divide an interval.
    """
    for name in ("steps", "eval_every", "save_every", "log_every", "accumulate"):
        if getattr(config, name) < 1:
            raise UserError(f"train.{name} is {getattr(config, name)}; make it 1 or more.")
    k = config.updates_per_call
    for name in ("steps", "eval_every", "save_every"):
        if k < 1 or getattr(config, name) % k:
            raise UserError(
                f"train.updates_per_call={k} does not divide train.{name}="
                f"{getattr(config, name)}; choose a divisor."
            )


def check_train(task: Task, config: TrainConfig) -> None:
    """Refuse settings that cannot be trained with, or not this task."""
    check_intervals(config)
    if config.accumulate > 1 and task.couples_examples:
        raise UserError(
            f"the loss of {task.name} couples the examples of a batch, so that "
            f"train.accumulate={config.accumulate} would change it; set train.accumulate=1."
        )
