"""Shapes in place of data, for planning: what the steps of more than one system share."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jmrec.config import ConfigDict
from jmrec.models.sessions.table import packs
from jmrec.systems.data import live_on_device, rows_unit
from jmrec.systems.students import NO_FEATURES, student_settings, student_task
from jmrec.systems.system import PlannedStep, Sizes
from jmrec.tasks.resident import ResidentTask
from jmrec.tasks.session import CachedTeacher, Teacher
from jmrec.types import Batch


def shape(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """Return an array's shape and type in place of the array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def planned_context(config: ConfigDict) -> dict[str, Any]:
    """Return time gaps as configured, and no event types, which only data could show."""
    return {"gaps": bool(config.context.gap), "events": 0}


def session_shapes(
    config: ConfigDict, train: ConfigDict, *, packed: bool, places: bool = False
) -> tuple[Batch, tuple[int, ...]]:
    """Return the shapes of a batch of the longest sessions, and what divides the rows of all.

    Batches of shorter sessions have no more positions, so that they need no more memory.
    """
    length, size = config.data.window, train.batch_size
    mask = np.int32 if packed else bool
    kinds = {"item": np.int32, "mask": mask, "target": np.int32, "target_ok": bool,
             "gap": np.float32, "event": np.int32}  # fmt: skip
    kinds |= {"place": np.int32} if places else {}
    batch = {name: shape((size, length), kind) for name, kind in kinds.items()}
    return batch, (size,) if packed else (size, rows_unit(size, train.accumulate))


def rule_teacher(config: ConfigDict, sizes: Sizes) -> CachedTeacher:
    """Return the shapes of the soft labels of all training events, by the blend of rules."""
    rows: Any = shape((sizes.events, config.student.top), np.int32)
    logits: Any = shape((sizes.events, config.student.top))
    tail: Any = shape((sizes.events,))
    return CachedTeacher(rows, logits, tail)


def planned_student(
    config: ConfigDict,
    name: str,
    sizes: Sizes,
    width: int,
    teacher: Teacher | CachedTeacher | None,
) -> PlannedStep:
    """Return the step of a student.

    Args:
      config: Of the experiment.
      name: The student.
      sizes: What data would decide.
      width: Of its features.
      teacher: Its teacher, as shapes, or None.
    """
    features = None
    if config.students[name].features != NO_FEATURES:
        features = shape((sizes.items, width))
    train = student_settings(config, name, "train")
    task = student_task(
        config, name, features, np.ones(sizes.items, bool), teacher, planned_context(config)
    )
    batch, rows = session_shapes(
        config, train, packed=packs(task.model.config), places=isinstance(teacher, CachedTeacher)
    )
    return PlannedStep(task, train, batch, rows, "student", ("student.stack",))


def as_trained(planned: PlannedStep, config: ConfigDict, sizes: Sizes, kind: str) -> PlannedStep:
    """Return a step as a run trains it: where sessions live on the device, its events with it.

    Args:
      planned: Any step.
      config: Of the experiment.
      sizes: What data would decide.
      kind: Of the devices, such as "cpu" or "h100".
    """
    batch = planned.batch
    if "target_ok" not in batch or not live_on_device(config, sizes.events, kind):
        return planned
    kinds = {name: batch[name].dtype for name in ("item", "target", "target_ok", "gap", "event")}
    events = {name: shape((sizes.events,), kind) for name, kind in kinds.items()}
    said = {"place": shape(batch["item"].shape, np.int32), "mask": batch["mask"]}
    return replace(planned, task=ResidentTask(planned.task, events), batch=said)
