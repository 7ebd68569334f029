"""The base of tasks that train one model: each adds its model and its loss."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax

from jmrec.types import Batch, HParams, LossResult, Model, Params, State


@dataclass(frozen=True)
class StepInputs:
    """What a loss may read beside the parameters and the batch; see `jmrec.types.Task.loss`."""

    state: State
    frozen: Any
    key: jax.Array
    step: jax.Array
    hparams: HParams


class ModelTask(ABC):
    """A `jmrec.types.Task` that trains one model.

    A subclass states ``name`` and ``defaults``, sets ``couples_examples`` where an example's loss
    depends on the others of its batch, and defines ``batch_loss``.

    Args:
      model: What is trained.
      hparams: Traced numbers in place of the class's ``defaults``.
      frozen: Teachers, backbones and feature tables by name, which are not trained.
      axes: Logical axes of those that are sharded; the others are replicated.
      known: Parameters to start from, in place of random ones of that name.
      state: What is learned without a gradient, as it begins.
    """

    name: str
    defaults: ClassVar[HParams]
    couples_examples: bool = False

    def __init__(
        self,
        model: Model,
        hparams: HParams,
        *,
        frozen: Mapping[str, Any] | None = None,
        axes: Mapping[str, Any] | None = None,
        known: Params | None = None,
        state: State | None = None,
    ) -> None:
        self.model = model
        self.hparams = {**self.defaults, **hparams}
        self.frozen_inputs = dict(frozen or {})
        self._axes, self._known, self._state = axes or {}, known or {}, state or {}

    def init(self, key: jax.Array) -> tuple[Params, State]:
        """Return random parameters, except those to start from, and the state."""
        return {**self.model.init(key), **self._known}, dict(self._state)

    def logical_axes(self) -> Any:
        """Return the parameters' logical axes."""
        return self.model.logical_axes(None)

    def state_axes(self) -> Any:
        """Return None: every device has the whole state."""
        return None

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        """Return what is not trained, and its logical axes."""
        axes = {
            name: self._axes[name]
            if name in self._axes
            else jax.tree.map(lambda array: (None,) * array.ndim, table)
            for name, table in self.frozen_inputs.items()
        }
        return self.frozen_inputs, axes

    def loss(
        self,
        params: Params,
        state: State,
        frozen: Any,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        hparams: HParams,
    ) -> LossResult:
        """Return what ``batch_loss`` does; see `jmrec.types.Task.loss`."""
        return self.batch_loss(params, batch, StepInputs(state, frozen, key, step, hparams))

    @abstractmethod
    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return (loss sum, count, new state, metrics as (sum, count)) of a batch."""
