"""The types that every layer shares: arrays, batches, metric pairs, models and training state.

A *batch* is a plain ``dict`` of arrays with static shapes. The names in use:

========== =============== =========================================================
name       shape, dtype    meaning
========== =============== =========================================================
row        [B] int32       catalogue row of an item (item batches)
text       [B, T] int32    tokens of the text fields one after the other, 0 is padding
picture    [B, H, W, 3]    uint8 pixels
picture_ok [B] bool        False where the item has no picture
numbers    [B, N] float32  declared numeric columns, 0 where missing
numbers_ok [B, N] bool     False where missing
category   [B, C] int32    declared categorical columns, 0 is missing
item       [B, L] int32    catalogue rows of a session, 0 where masked (session batches)
mask       [B, L] bool     True at real positions
target     [B, L] int32    the next item's row at each position, 0 where masked
target_ok  [B, L] bool     True where the position has a target
gap        [B, L] float32  log(1 + seconds since the previous event), 0 at the first
event      [B, L] int32    event type, 0 where the data has none
place      [B, L] int32    the event's index among all events of the training sessions, 0 where
                           masked; only where a student reads a teacher's soft labels
========== =============== =========================================================
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jmrec.xla import warn_without_flags

warn_without_flags()  # here, because everything of jmrec that computes imports this file

Array = jax.Array | np.ndarray
Params = dict[str, Any]
"""A nested dict of arrays with stable names."""
State = dict[str, Any]
"""What a task learns without a gradient (moving averages, banks); ``{}`` for most."""
Batch = dict[str, Any]
HParams = dict[str, Any]
"""Traced numbers: learning_rate, temperature, loss weights, dropout."""
SumCount = tuple[Any, Any]
"""A metric or loss as (sum, count); only the reducer divides."""
LossResult = tuple[jax.Array, jax.Array, State, dict[str, SumCount]]
"""What a task's loss returns: (loss sum, count, new state, metrics as (sum, count))."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model: pure named functions over one parameter tree; equal to itself alone.

    Attributes:
      config: The frozen dataclass that the model was built from.
      init: ``key -> params``.
      logical_axes: ``params (or their shapes) -> tree`` of the same structure whose leaves are
        tuples with one logical axis name, or None, per array axis.
      fns: Named pure functions ``(params, inputs, *, key=None, train=False, taps=()) ->
        (out, tapped)``; ``tapped`` holds the intermediates named in ``taps``.
    """

    config: Any
    init: Callable[[jax.Array], Params]
    logical_axes: Callable[[Any], Any]
    fns: Mapping[str, Callable[..., Any]]


class Task(Protocol):
    """What the training loop trains: pure functions and numbers, nothing else.

    `jmrec.tasks.task.ModelTask` is the base of those that train one model.

    Attributes:
      name: What it is called in messages.
      hparams: The task's own numbers, traced; "learning_rate" is one. The trainer adds "optim",
        the numbers of the optimiser.
      couples_examples: Whether an example's loss depends on the others of its batch; accumulation
        is refused then.
    """

    name: str
    hparams: HParams
    couples_examples: bool

    def init(self, key: jax.Array) -> tuple[Params, State]:
        """Return fresh parameters and task state."""

    def logical_axes(self) -> Any:
        """Return the logical axes of the parameters, a tree of tuples."""

    def state_axes(self) -> Any:
        """Return the logical axes of the task state; None replicates all of it."""

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        """Return (tree, logical axes) of teachers and feature tables, never optimised."""

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
        """Return (loss sum, count, new state, metrics as (sum, count))."""


class ProgressBar(Protocol):
    """What shows how far a fit is."""

    def update(self, n: int) -> None:
        """Say that n more updates are done."""


class TrainingLog(Protocol):
    """Where the training loop says what it does; `jmrec.tracking.Tracker` is one.

    Attributes:
      prefix: The stage's name, "" for none.
    """

    prefix: str

    def say(self, text: str) -> None:
        """Print one line."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keep the metrics of a step."""

    def truncate(self, step: int) -> None:
        """Drop what was kept of later steps."""

    def progress(
        self, total: int, description: str, start: int = 0
    ) -> AbstractContextManager[ProgressBar]:
        """Show how far the fit is, from ``start`` of ``total`` updates on."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint must hold for a run to go on in the same bits.

    Attributes:
      step: int32 scalar, the number of updates done.
      params: The task's parameters.
      average: Their moving average, ``{}`` where there is none.
      opt_state: The optax state.
      task_state: The task's own state.
      key: The run's typed PRNG key; update n uses ``fold_in(key, n)``.
      best: float32 scalar, the best validation metric so far (-inf before the first).
      best_step: int32 scalar, the step of ``best``.
      stale: int32 scalar, evaluations since ``best``.
    """

    step: Any
    params: Any
    average: Any
    opt_state: Any
    task_state: Any
    key: Any
    best: Any
    best_step: Any
    stale: Any

    @property
    def judged(self) -> Params:
        """The parameters that are judged and kept: their average, where there is one."""
        own: Params = self.average or self.params
        return own
