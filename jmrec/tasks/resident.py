"""Sessions that live on the device: what is read of a batch's events is gathered there.

The host then sends of a batch no more than which events it holds, and its device does not wait for
what the host would gather. A batch is the same, bit for bit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.features import pad_rows, take_rows
from jmrec.sharding import row_axes
from jmrec.types import Array, Batch, HParams, LossResult, Params, State, Task


def read_places(events: Mapping[str, Array], batch: Batch) -> Batch:
    """Return the whole batch of what the host says of it.

    Compatible with jit and vmap.

    Args:
      events: From `jmrec.data.pipeline.flat_events`, [N] or padded.
      batch: ``place`` int32 [B, L]; ``mask`` [B, L], bool, or int32 where several windows share a
        row.

    Returns:
      What `jmrec.data.pipeline.session_batches` gives with ``places``.

    Example:
      >>> events = {"item": jnp.array([7, 8, 9]), "gap": jnp.array([5.0, 1.0, 2.0])}
      >>> batch = {"place": jnp.array([[1, 2, 0]]), "mask": jnp.array([[True, True, False]])}
      >>> read = read_places(events, batch)
      >>> read["item"].tolist(), read["gap"].tolist()
      ([[8, 9, 0]], [[0.0, 2.0, 0.0]])
    """
    mask = batch["mask"]
    real = mask > 0
    found = take_rows(dict(events), batch["place"])
    found = {name: jnp.where(real, x, jnp.zeros((), x.dtype)) for name, x in found.items()}
    # Nobody waited before the first event of a window.
    later = jnp.pad(mask[:, 1:] == mask[:, :-1], ((0, 0), (1, 0)))
    return {**batch, **found, "gap": jnp.where(later, found["gap"], jnp.float32(0))}


class ResidentTask:
    """A task whose batches say which events they hold, and no more; see `jmrec.types.Task`.

    Args:
      task: What is trained, on batches of sessions.
      events: From `jmrec.data.pipeline.flat_events`, or their shapes.
    """

    def __init__(self, task: Task, events: Mapping[str, Any]) -> None:
        self.task = task
        self.name, self.hparams = task.name, task.hparams
        self.couples_examples = task.couples_examples
        self._events = {name: pad_rows(table) for name, table in events.items()}

    def init(self, key: jax.Array) -> tuple[Params, State]:
        """Return the task's parameters and state."""
        return self.task.init(key)

    def logical_axes(self) -> Any:
        """Return the logical axes of the task's parameters."""
        return self.task.logical_axes()

    def state_axes(self) -> Any:
        """Return the logical axes of the task's state."""
        return self.task.state_axes()

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        """Return what the task does not train, and the events, with their logical axes."""
        tree, axes = self.task.frozen(workdir)
        own = row_axes(self._events, "event")
        return {"task": tree, "events": self._events}, {"task": axes, "events": own}

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
        """Return the task's loss of the batch, read from the events."""
        whole = read_places(frozen["events"], batch)
        return self.task.loss(params, state, frozen["task"], whole, key, step, hparams)
