"""The training steps of an experiment from shapes alone, on devices that need not be here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.sharding import DATA_AXES, abstract_arrays, batch_sharding, make_mesh, shardings
from jmrec.systems.fit import train_config
from jmrec.systems.planned import as_trained
from jmrec.systems.registry import NOWHERE, system_class
from jmrec.systems.system import PlannedStep, Sizes
from jmrec.training import Trainer
from jmrec.types import Batch

SERVED = "student"
"""Stands for the stage of the student that the run would serve."""


@dataclass(frozen=True)
class Step:
    """A training step that is ready to be traced, if its batch divides over the devices.

    Attributes:
      planned: The step, from its system.
      trainer: The stage's own.
      frozen: Shapes, with shardings, of what is never optimised.
      batch: The same of a global batch.
    """

    planned: PlannedStep
    trainer: Trainer
    frozen: Any
    batch: Batch

    @property
    def parameters(self) -> int:
        """How many numbers the stage trains and keeps."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.trainer.abstract.params))

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
        odd = [rows for rows in self.planned.rows if rows % self.parts]
        if not odd:
            return ""
        return (
            f"a batch of {odd[0]} does not divide over {self.parts} devices; choose a "
            f"train.batch_size that gives multiples of {self.parts}."
        )

    def trace(self) -> jax.stages.Traced:
        """Trace the step."""
        return self.trainer.trace(self.frozen, self.batch)


class Planner:
    """The steps of an experiment on some devices.

    Args:
      config: From an experiment file.
      sizes: What data would decide.
      devices: The devices to plan for.
      kind: Of the hardware that they stand for, such as "h100".

    Raises:
      UserError: The experiment can not be planned.
    """

    def __init__(
        self,
        config: ConfigDict,
        sizes: Sizes,
        devices: Sequence[Any] | None,
        kind: str = "cpu",
    ) -> None:
        self.config, self.sizes, self.kind = config, sizes, kind
        self.steps = system_class(config).plan_steps(config, sizes)
        self.mesh: Mesh = make_mesh(config.rules, devices)

    @property
    def stages(self) -> list[str]:
        """What is planned where nothing is named: of several students the one that is served."""
        names = [name for name in self.steps if not name.startswith("students/")]
        return names if len(names) == len(self.steps) else [*names, SERVED]

    @property
    def _served(self) -> str:
        """The stage of the student that is served.

        Where that is not known before a run, because the best row is or a rule, the last student
        stands for all: they differ in what they read.
        """
        students = [name for name in self.steps if name.startswith("students/")]
        evaluate = self.config.get("evaluate", {})
        named = f"students/{evaluate.get('serve')}"
        return named if named in students or not students else students[-1]

    def step(self, stage: str) -> Step:
        """Return a stage's training step.

        Args:
          stage: A stage of the system, or `SERVED`.

        Raises:
          UserError: There is no such stage, or its settings contradict each other.
        """
        name = self._served if stage == SERVED else stage
        if name not in self.steps:
            raise UserError(f"there is no stage {name!r}; there are {', '.join(self.steps)}.")
        try:
            planned = self.steps[name]()
        except ValueError as error:  # sizes that do not go together
            raise UserError(f"{stage}: {error}; mend that setting.") from error
        planned = as_trained(planned, self.config, self.sizes, self.kind)
        settings = train_config(planned.train, self.config.rules)
        trainer = Trainer(planned.task, settings, mesh=self.mesh)
        placed = batch_sharding(self.mesh)
        batch = {name: shape.update(sharding=placed) for name, shape in planned.batch.items()}
        tree, axes = planned.task.frozen(NOWHERE)
        placement = shardings(axes, tree, self.mesh, self.config.rules)
        return Step(planned, trainer, abstract_arrays(tree, placement), batch)
