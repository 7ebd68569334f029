"""The one training loop: a new idea is a new `jmrec.types.Task`, never a fork of it."""

from jmrec.training.config import NOT_PART_OF_A_RUN, TrainConfig
from jmrec.training.host import Member, Silent
from jmrec.training.loop import FitResult, Trainer
from jmrec.training.optim import OptimConfig
from jmrec.training.step import TrainStep

__all__ = [
    "NOT_PART_OF_A_RUN",
    "FitResult",
    "Member",
    "OptimConfig",
    "Silent",
    "TrainConfig",
    "TrainStep",
    "Trainer",
]
