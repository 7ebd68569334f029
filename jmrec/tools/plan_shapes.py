"""The training steps of an experiment from shapes alone: no data is read, no parameter is made.

The system's own stage methods build the tasks; only what they would read of a workdir is replaced
by its shape, and the fit by a record of what would be fitted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.sharding import DATA_AXES, abstract_arrays, batch_sharding, make_mesh, shardings
from jmrec.systems.catalogue import Reader
from jmrec.systems.fits import train_config
from jmrec.systems.tpad import Tpad
from jmrec.tasks.session import CachedTeacher, Teacher
from jmrec.tools.plan_verdict import STAGES
from jmrec.training import Trainer
from jmrec.types import Batch, Model, Params, Task


@dataclass(frozen=True)
class Sizes:
    """What data would decide.

    Attributes:
      items: Items of the catalogue, all of which occur in training.
      vocab: Tokens of the tokenizer.
      fields: Tokens of each text field.
      events: Events of the training sessions; a student that the rules teach holds a row for each.
    """

    items: int
    vocab: int
    fields: tuple[int, ...]
    events: int = 1_000_000


@dataclass(frozen=True)
class Step:
    """A training step that is ready to be traced, if its batch divides over the devices.

    Attributes:
      trainer: The stage's own.
      frozen: Shapes, with shardings, of what is never optimised.
      batch: The same of a global batch.
      rows: Every number of rows that the stage's batches have.
    """

    trainer: Trainer
    frozen: Any
    batch: Batch
    rows: tuple[int, ...]

    @property
    def parts(self) -> int:
        """Over how many devices a batch is spread."""
        mesh = self.trainer.mesh
        return math.prod(mesh.shape[axis] for axis in DATA_AXES)

    @property
    def divides(self) -> bool:
        """Whether ``batch`` divides over the devices."""
        return all(shape.shape[0] % self.parts == 0 for shape in self.batch.values())

    @property
    def misfit(self) -> str:
        """What is wrong with the stage's numbers of rows, or ""."""
        odd = [rows for rows in self.rows if rows % self.parts]
        if not odd:
            return ""
        return (
            f"a batch of {odd[0]} does not divide over {self.parts} devices; choose a "
            f"train.batch_size that gives multiples of {self.parts}."
        )

    def trace(self) -> jax.stages.Traced:
        """Trace the step."""
        return self.trainer.trace(self.frozen, self.batch)


class _Silent:
    """The tracker of a run that does not run."""

    def say(self, text: str) -> None:
        """Say nothing."""


class ShapeSystem(Tpad):
    """TPAD on a workdir that is not there.

    Args:
      config: From an experiment file.
      sizes: What data would decide.
      devices: The devices to plan for, which need not be here.
    """

    def __init__(self, config: ConfigDict, sizes: Sizes, devices: Any) -> None:
        if config.backbone.name != "tiny":
            raise UserError(
                f"backbone={config.backbone.name} is pretrained, and there is no training of it to "
                "plan here; leave it out to plan transition, distill and the students."
            )
        tracker: Any = _Silent()
        super().__init__(config, Path("no workdir"), tracker)
        self.sizes = sizes
        self.mesh: Mesh = make_mesh(config.rules, devices)
        self._step: Step | None = None
        # Bool a catalogue row: the one table that the tasks compute with.
        self.train_items = np.ones(sizes.items, bool)
        names = {f"field{i}": length for i, length in enumerate(sizes.fields)}
        self.reader = Reader(self.workdir, names, config.data.picture_size, sizes.vocab)
        try:
            self.e = {"both": self._table(self.knowledge_config.features)}
        except ValueError as error:  # sizes that do not go together
            raise UserError(f"knowledge: {error}; mend that setting.") from error

    def step(self, stage: str) -> Step:
        """Return a stage's training step.

        Args:
          stage: One of `STAGES`, or ``students/NAME``.

        Raises:
          UserError: There is no such stage, or its settings contradict each other.
        """
        name = f"students/{self.config.evaluate.serve}" if stage == "student" else stage
        kind, _, student = name.partition("/")
        if kind == "students":
            if student not in self.config.students:
                known = ", ".join(f"students/{each}" for each in self.config.students)
                raise UserError(f"there is no stage {stage!r}; there are {known}.")
            run = self._student(student, self.config.seeds[0])
        elif kind in STAGES:
            run = getattr(self, kind)
        else:
            raise UserError(f"there is no stage {stage!r}; choose of {', '.join(STAGES)}.")
        try:
            run(self.workdir)
        except ValueError as error:  # sizes that do not go together
            raise UserError(f"{stage}: {error}; mend that setting.") from error
        assert self._step is not None
        return self._step

    # ---- in place of what reads a workdir ---------------------------------------------------

    @cached_property
    def context(self) -> dict[str, Any]:
        """Time gaps as configured, and no event types, which only data could tell."""
        return {"gaps": bool(self.config.context.gap), "events": 0}

    @cached_property
    def tokens(self) -> Any:
        """The shapes of the items' tokens, where the Transfer tower reads those."""
        tokens, items = self.transfer_config.tokens, self.sizes.items
        if tokens is None:
            return None
        return {
            "text": self._shape((items, tokens.text), np.int32),
            "seen": self._shape((items, tokens.seen, tokens.width), np.float32),
            "picture_ok": self._shape((items,), bool),
        }

    def vision(self, folder: Path) -> None:
        """Stage "vision" without words and pictures."""
        words = self._shape((self.sizes.vocab,), np.float32)
        train = self.config.vision.train
        batch = self._items(train.batch_size)
        self._fit(folder, "vision", self.vision_task((words, words)), train, batch, 0)

    def knowledge(self, folder: Path) -> None:
        """Stage "knowledge" without items."""
        train = self.config.knowledge.train
        batch = self._items(train.batch_size)
        self._fit(folder, "knowledge", self.knowledge_task(None), train, batch, 0)

    def params(self, stage: str, model: Model) -> Params:
        """Return the shapes of a finished stage's parameters."""
        shapes: Params = jax.eval_shape(model.init, jax.random.key(0))
        return shapes

    def student_features(self, name: str, shown: str | None = None) -> dict[str, Any]:
        """Return the shape of a student's feature table."""
        features = self.config.students[name].features
        if features == "none":
            return {}
        if features == "e":
            return {"features": self.e["both"]}
        heads = self.config.distill
        return {"features": self._table(sum(heads[head] for head in features.split("+")))}

    def sessions(self, batch_size: int, seed: int | None = None, places: bool = False) -> Any:
        """Return the shapes of a batch of the longest sessions, and all numbers of rows.

        Batches of shorter sessions have no more positions, so that they need no more memory.
        """
        buckets = self.session_buckets(batch_size)
        length, size = max(buckets)
        shape = (size, length)
        kinds = {"item": np.int32, "mask": bool, "target": np.int32, "target_ok": bool,
                 "gap": np.float32, "event": np.int32}  # fmt: skip
        kinds |= {"place": np.int32} if places else {}
        batch = {name: self._shape(shape, kind) for name, kind in kinds.items()}
        return batch, tuple(rows for _, rows in buckets)

    def _teacher_of(self, name: str) -> Teacher | CachedTeacher:
        """Return whom a student follows, as shapes."""
        if not self._taught_by_rules(name):
            return super()._teacher_of(name)
        shape = (self.sizes.events, self.config.student.top)
        lessons: Any = {
            "rows": self._shape(shape, np.int32),
            "logits": self._shape(shape, np.float32),
            "tail": self._shape(shape[:1], np.float32),
        }
        return CachedTeacher(**lessons)

    def _validate(self, tower: Any, features: Mapping[str, Any]) -> Any:
        return None

    def _trainer(self, task: Task, train: ConfigDict) -> Trainer:
        return Trainer(task, train_config(train, self.config.rules), mesh=self.mesh)

    def _fit(
        self,
        folder: Path,
        name: str,
        task: Task | Trainer,
        train: ConfigDict,
        batches: Any,
        seed: int,
        evaluate: Any = None,
    ) -> Any:
        trainer = task if isinstance(task, Trainer) else self._trainer(task, train)
        batch, rows = batches
        lies = batch_sharding(self.mesh)
        batch = {name: shape.update(sharding=lies) for name, shape in batch.items()}
        tree, axes = trainer.task.frozen(self.workdir)
        placement = shardings(axes, tree, self.mesh, trainer.config.rules)
        self._step = Step(trainer, abstract_arrays(tree, placement), batch, rows)

    def _items(self, batch_size: int) -> tuple[Batch, tuple[int, ...]]:
        size = self.config.data.picture_size
        batch = {
            "row": self._shape((batch_size,), np.int32),
            "text": self._shape((batch_size, sum(self.sizes.fields)), np.int32),
            "picture": self._shape((batch_size, size, size, 3), np.uint8),
            "picture_ok": self._shape((batch_size,), bool),
        }
        return batch, (batch_size,)

    def _table(self, width: int) -> Any:
        return self._shape((self.sizes.items, width), np.float32)

    @staticmethod
    def _shape(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)
