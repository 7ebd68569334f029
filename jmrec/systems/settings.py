"""What a setting may be at all, looked at before anything runs."""

import math
from collections.abc import Mapping

from jmrec.config import ConfigDict, flatten
from jmrec.errors import UserError

LEAST: Mapping[str, float] = {
    **{"train.steps": 0, "train.batch_size": 1, "train.accumulate": 1, "train.updates_per_call": 1},
    **{"train.eval_every": 0, "train.save_every": 0, "train.patience": 0, "train.warmup": 0},
    **{"train.learning_rate": 0, "train.weight_decay": 0, "train.clip": 0, "train.muon": 0},
    **{"data.window": 2, "data.picture_size": 1, "data.vocab": 1},
}
"""The last two parts of a setting's name -> the least that it may be."""


def check_settings(config: ConfigDict) -> None:
    """Check that every number of a config is one, and not below what it may be.

    Raises:
      UserError: Naming the setting.

    Example:
      >>> check_settings(ConfigDict({"student": {"train": {"batch_size": 0}}}))
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: student.train.batch_size=0 is below 1; raise it.
    """
    for name, value in flatten(config).items():
        least = LEAST.get(".".join(name.split(".")[-2:]))
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}={value} is no finite number; give one.")
        if least is not None and isinstance(value, int | float) and value < least:
            raise UserError(f"{name}={value} is below {least}; raise it.")
