"""The system "session": its stages are data, features and teach (where needed), students, evaluate.

It trains session encoders over ids, over item features that come from elsewhere, or over both, and
has no tower.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from jmrec.config import ConfigDict
from jmrec.data.forgotten import Left
from jmrec.data.schema import Dataset
from jmrec.errors import UserError
from jmrec.evaluation.rankers.neural import NeuralRanker
from jmrec.lock import Changes
from jmrec.systems.data import RunData
from jmrec.systems.evaluate import evaluation_stage, student_entries
from jmrec.systems.planned import planned_student, rule_teacher
from jmrec.systems.rule_teacher import RuleTeacher
from jmrec.systems.session.features import BOTH, GIVEN, STAGE, GivenFeatures
from jmrec.systems.stages import Stage
from jmrec.systems.students import NO_FEATURES, Students
from jmrec.systems.system import Entry, PlannedStep, Sizes
from jmrec.systems.work import Work

RULES = "rules"
CONTENT = "item features"


class SessionSystem:
    """Session encoders on one workdir.

    Args:
      work: The run, with a config of experiments/session.py.

    Raises:
      UserError: The settings contradict each other.
    """

    name: ClassVar[str] = "session"
    since: ClassVar[tuple[str, ...]] = ()

    def __init__(self, work: Work) -> None:
        self.work, self.data = work, RunData(work)
        self.features = GivenFeatures(work, self.data)
        inputs = (STAGE,) if self._reads_features else ("data",)
        self.rules = RuleTeacher(work, self.data, self.content, inputs)
        content = (CONTENT,) if self._reads_features else ()
        self.students = Students(
            work, self.data, self.features, {RULES: self.rules.source}, content
        )

    @property
    def _reads_features(self) -> bool:
        variants = self.work.config.students.values()
        return any(variant.features != NO_FEATURES for variant in variants)

    def stages(self, command: Sequence[str] = ()) -> list[Stage]:
        """Return all stages in order; see `jmrec.systems.system.System`."""
        stages = [self.data.stage()]
        if self._reads_features:
            stages.append(self.features.stage())
        if self.students.follows(RULES):
            stages.append(self.rules.stage())
        stages += self.students.stages()
        return [*stages, evaluation_stage(self, stages, command)]

    def carried(self) -> tuple[str, ...]:
        """Return the students; see `jmrec.systems.system.Continues`."""
        if self._reads_features:
            raise UserError(
                "--data=continue is for students over ids (items=ids): given features are made for "
                "the items and the split of before; make them anew and use another --workdir."
            )
        return tuple(each.name for each in self.students.stages())

    def content(self, added: Mapping[str, np.ndarray] | None = None) -> Mapping[str, np.ndarray]:
        """Return the given features, for the content rules."""
        if not self._reads_features:
            return {}
        return {CONTENT: self.features.table(GIVEN, BOTH)}

    def without(
        self, left: Left, dataset: Dataset, users: Collection[str], changes: Changes
    ) -> None:
        """Write the soft labels anew; see `jmrec.systems.system.KeepsPeople`."""
        if self.students.follows(RULES):
            self.rules.without(left, dataset, changes)

    def rankers(self) -> list[Entry]:
        """Return the students."""
        return student_entries(self.students)

    def teacher(self, added: Mapping[str, np.ndarray] | None = None) -> NeuralRanker | None:
        """Return None: no large model stands behind the students."""
        return None

    def reader_parameters(self) -> int:
        """Return 0: no model reads items."""
        return 0

    @classmethod
    def plan_steps(
        cls, config: ConfigDict, sizes: Sizes
    ) -> Mapping[str, Callable[[], PlannedStep]]:
        """Return the students' steps from shapes alone; see `jmrec.systems.system.System`."""
        width = int(config.features.width)
        reads = [name for name, each in config.students.items() if each.features != NO_FEATURES]
        if reads and width < 1:
            raise UserError(
                f"{reads[0]} reads item features, whose width only their source knows; say it: "
                "--config.features.width=N."
            )

        def step(name: str) -> PlannedStep:
            teacher = rule_teacher(config, sizes) if config.students[name].logit > 0 else None
            return planned_student(config, name, sizes, width, teacher)

        return {f"students/{name}": partial(step, name) for name in config.students}
