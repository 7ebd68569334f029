"""The tasks of TPAD's own stages, from settings and arrays (or, for planning, their shapes)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jmrec.config import ConfigDict
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.alignment import AlignmentConfig
from jmrec.models.sessions.transfer import ItemTokens, TransferConfig
from jmrec.systems.work import numbers
from jmrec.tasks.distill import DistillTask
from jmrec.tasks.transition import TransitionTask
from jmrec.types import Model, Params


def transfer_config(
    config: ConfigDict, features: int, context: Mapping[str, Any], tokens: ItemTokens | None
) -> TransferConfig:
    """Return the Transfer tower's size.

    Args:
      config: Of the experiment.
      features: Width of e.
      context: From `jmrec.systems.data.RunData.context`.
      tokens: What an item's tokens are, where the tower reads those.
    """
    c = config.transition
    return TransferConfig(
        features=features, stack=StackConfig(**c.stack), out=c.out, tokens=tokens, **context
    )


def transition_task(
    config: ConfigDict,
    size: TransferConfig,
    e: Any,
    train_items: np.ndarray,
    tokens: Mapping[str, Any] | None = None,
    token_vectors: Any = None,
) -> TransitionTask:
    """Return what stage "transition" trains.

    Args:
      config: Of the experiment.
      size: The Transfer tower's.
      e: float32 [V, D].
      train_items: bool [V].
      tokens: The items' tokens, where the tower reads those.
      token_vectors: To begin with; None for fresh ones.
    """
    hparams = numbers(config.transition)
    return TransitionTask(size, e, train_items, hparams, tokens, token_vectors)


def alignment_config(config: ConfigDict, features: int) -> AlignmentConfig:
    """Return the sizes of heads and critics, on features e of a width."""
    c = config.distill
    return AlignmentConfig(
        features=features, states=config.transition.out, k=c.k, t=c.t, critic=c.critic
    )


def distill_task(
    config: ConfigDict,
    size: AlignmentConfig,
    teacher: tuple[Model, Params],
    e: Any,
    train_items: np.ndarray,
    tokens: Mapping[str, Any] | None = None,
) -> DistillTask:
    """Return what stage "distill" trains.

    Args:
      config: Of the experiment.
      size: Of heads and critics.
      teacher: The Transfer tower and its parameters.
      e: float32 [V, D].
      train_items: bool [V].
      tokens: The items' tokens, where the Transfer tower reads those.
    """
    c = config.distill
    return DistillTask(
        size, *teacher, e, train_items, lower=c.lower, upper=c.upper, schedules=c.schedules,
        hparams=numbers(c), tokens=tokens,
    )  # fmt: skip
