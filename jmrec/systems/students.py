"""Session students of a run: the stages that train them, and each as a Ranker.

A system that serves a session student holds one `Students`, and gives it where item features come
from and which teachers there are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jmrec import losses
from jmrec.checkpoint import load_params
from jmrec.config import ConfigDict, choose, flatten
from jmrec.data.item_arrays import VIEWS
from jmrec.errors import UserError
from jmrec.evaluation.choice import check_wanted
from jmrec.evaluation.rankers.neural import CompiledEncoder, NeuralRanker
from jmrec.evaluation.rankers.rules import rule_names
from jmrec.evaluation.results import mixed_name
from jmrec.models.linen import check_fit
from jmrec.models.sessions.table import id_table_rows, packs, session_config, session_model
from jmrec.systems.data import BEFORE, RunData
from jmrec.systems.fit import Fits, fit, seeded, traced, train_config
from jmrec.systems.sealed import PARAMS, read_stage
from jmrec.systems.stages import Stage, Together
from jmrec.systems.work import Work
from jmrec.tasks.session import (
    DISTILL,
    CachedTeacher,
    StudentTask,
    Teacher,
    id_rows,
    id_table_size,
)
from jmrec.training import Member, TrainConfig, Trainer, TrainStep
from jmrec.training.config import compiled_by, without_numbers
from jmrec.types import Model, Params

GROUP = "students"
NO_FEATURES = "none"


class ItemFeatures(Protocol):
    """Where the item features come from that students read.

    Attributes:
      names: The features that exist.
    """

    names: tuple[str, ...]

    def stages(self, name: str) -> tuple[str, ...]:
        """Return the stages that write the features ``name``."""

    def views(self, name: str) -> tuple[str, ...]:
        """Return the views in which the features ``name`` exist; "both" is all of an item."""

    def table(self, name: str, view: str) -> np.ndarray:
        """Return the features ``name`` of the whole catalogue, float32 [V, F]."""

    def without(
        self, name: str, view: str, rows: np.ndarray
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return what the features of items would be without their text, their picture and so on.

        Args:
          name: Of the features.
          view: Which view a student reads.
          rows: int [R] items.

        Returns:
          Part, such as "text" -> (float32 [R, F], bool [R] whether the item has that part).
        """


def joined(name: str, tables: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the tables that a name such as "k+t" lists, side by side.

    Args:
      name: Of the features.
      tables: Name -> float32 [R, D].

    Example:
      >>> joined("k+t", {"k": np.zeros((2, 3)), "t": np.ones((2, 1))}).shape
      (2, 4)
    """
    return np.concatenate([tables[part] for part in name.split("+")], 1)


@dataclass(frozen=True)
class TeacherSource:
    """Where a student's teacher comes from.

    Attributes:
      stages: The stages that must be done before.
      get: Returns the teacher.
      places: Whether batches must say the place of an event among all training events.
    """

    stages: tuple[str, ...]
    get: Callable[[], Teacher | CachedTeacher]
    places: bool = False


class Students:
    """The session students of one run.

    Args:
      work: The run; its config's groups "student", "students", "seeds" and "context".
      data: Its data.
      features: Item features.
      teachers: Name -> where it comes from; a student that names none learns from the first.
      content: Names of the feature tables that the content rules read.

    Raises:
      UserError: A student's settings name something that does not exist.
    """

    def __init__(
        self,
        work: Work,
        data: RunData,
        features: ItemFeatures,
        teachers: Mapping[str, TeacherSource],
        content: Sequence[str] = (),
    ) -> None:
        self.work, self.data, self.features, self.teachers = work, data, features, teachers
        self._trainers: dict[str, Trainer] = {}
        self._steps: dict[Any, TrainStep] = {}
        self._encoders: dict[str, CompiledEncoder] = {}
        config = work.config
        choose("student.distill", config.student.distill, tuple(DISTILL))
        choose("student.loss", config.student.get("loss", "full_softmax"), losses.NEXT_ITEM)
        if not config.students or not config.seeds:
            raise UserError("students and seeds must name one or more each; change that setting.")
        if len({*config.seeds}) < len(config.seeds):
            raise UserError(f"seeds={tuple(config.seeds)} names one twice; name each once.")
        blends = [mixed_name(name) for name in self.names]
        check_wanted(self.wanted, self.names, [*rule_names(content), *blends])
        for name, variant in config.students.items():
            named, reads = encoder_name(config, name), int(variant.features != NO_FEATURES)
            session_config(
                named, config.student, features=reads, ids=int(variant.ids), gaps=False, events=0
            )
            if variant.logit > 0:
                choose(f"students.{name}.teacher", self.teacher_name(name), tuple(teachers))
            known = (NO_FEATURES, *features.names)
            if choose(f"students.{name}.features", variant.features, known) != NO_FEATURES:
                choose(f"students.{name}.view", variant.view, VIEWS)

    @property
    def names(self) -> list[str]:
        """The students' names."""
        return list(self.work.config.students)

    @property
    def wanted(self) -> str:
        """Which row is to be served: that of a student, of a rule, or the best on validation."""
        return str(self.work.config.evaluate.serve)

    def seeds(self, name: str) -> tuple[int, ...]:
        """Return the seeds that a student is trained with: its own, or those of all."""
        return tuple(self.variant(name).get("seeds", self.work.config.seeds))

    def variant(self, name: str) -> ConfigDict:
        """Return the settings in which a student differs from the others.

        Raises:
          UserError: There is no such student.
        """
        if name not in self.work.config.students:
            raise UserError(f"there is no student {name!r}; choose one of {', '.join(self.names)}.")
        return self.work.config.students[name]

    def teacher_name(self, name: str) -> str:
        """Return the name of a student's teacher, if it has one."""
        first = next(iter(self.teachers), "")
        return str(self.variant(name).get("teacher", first))

    def follows(self, teacher: str) -> bool:
        """Return whether any student has this teacher."""
        return any(
            self.variant(name).logit > 0 and self.teacher_name(name) == teacher
            for name in self.names
        )

    # ---- stages -----------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """Return a stage for each student and seed; each names the inputs that it reads."""
        config = self.work.config
        stages = []
        for name in self.names:
            variant = {k: v for k, v in self.variant(name).items() if k != "seeds"}
            seeds, most = self.seeds(name), self._most(name)
            groups = [seeds[n : n + most] for n in range(0, len(seeds), most)]
            for group in groups:
                together = Together(partial(self._helps, name), partial(self._fits, name))
                for seed in group:
                    own: dict[str, Any] = {
                        "student": config.student,
                        "variant": variant,
                        "context": config.context,
                        "seed": seed,
                    }
                    if (begins := self.begins(name, seed)) is not None:
                        own["begins"] = begins
                    known = seeded(f"{GROUP}.{name}", seed)
                    stages.append(
                        Stage(
                            known.name, own, self._inputs(name), partial(self._train, name, seed),
                            group=known.group, seed=seed, path=known.path, together=together,
                        )
                    )  # fmt: skip
        return stages

    def _most(self, name: str) -> int:
        """Return how many seeds of a student may be trained at once."""
        wanted = int(self._settings(name, "train").get("population", 0))
        return wanted or len(self.seeds(name))

    def _helps(self, name: str) -> bool:
        """Return whether seeds of a student are to be trained at once: not by several processes."""
        wanted = int(self._settings(name, "train").get("population", 0))
        asked = wanted > 1 or (wanted == 0 and jax.default_backend() != "cpu")
        return asked and jax.process_count() == 1

    def _inputs(self, name: str) -> tuple[str, ...]:
        variant = self.variant(name)
        inputs = ["data"]
        if variant.features != NO_FEATURES:
            inputs += self.features.stages(variant.features)
        if variant.logit > 0:
            inputs += self.teachers[self.teacher_name(name)].stages
        return tuple(dict.fromkeys(inputs))

    def _train(self, name: str, seed: int, folder: Path) -> None:
        """Train one student with one seed."""
        (member,) = self._members(name, {seed: folder})
        fit(self.trainer(name), member)

    def _fits(self, name: str, folders: Mapping[int, Path]) -> Fits:
        """Return what one student trains with several seeds."""
        task, settings = self._task(name), self._train_config(name)
        members = self._members(name, folders)
        # What is never optimised is the first's: all that it is made of must be equal.
        reads = {each: x for each, x in flatten(self.variant(name)).items()
                 if each.split(".")[0] not in ("hparams", "train", "seeds")}  # fmt: skip
        batches = (
            members[0].metadata["fingerprint"], self._settings(name, "train").batch_size,
            self.data.on_device,
        )  # fmt: skip
        return Fits(
            partial(self.trainer, name, task), members, traced(task.hparams, settings),
            (name, reads, batches, task.program, without_numbers(settings)),
        )  # fmt: skip

    def _members(self, name: str, folders: Mapping[int, Path]) -> list[Member]:
        variant, train = self.variant(name), self._settings(name, "train")
        source = self.teachers[self.teacher_name(name)] if variant.logit > 0 else None
        places = source is not None and source.places
        # A teacher that reads along is the Transfer tower, which packs.
        packed = packs(self.encoder(name).model.config)
        evaluate = self.data.validate(self.encoder(name), self.table(name))
        return [
            self.work.member(
                folder, stage_name(name, seed), train,
                self.data.sessions(train, packed=packed, seed=seed, places=places),
                fingerprint=self.data.batches_fingerprint(train, packed=packed), seed=seed,
                evaluate=evaluate, begin=self._begin(name, seed),
            )
            for seed, folder in folders.items()
        ]  # fmt: skip

    def begins(self, name: str, seed: int) -> dict[str, str] | None:
        """Return whose parameters a student begins with; None where it begins with drawn ones."""
        folder = self.work.workdir / BEFORE / stage_name(name, seed)
        facts = read_stage(folder)
        if facts is None:
            return None
        return {
            "stage": facts["hash"],
            "data": facts["contents"].get("data", ""),
            "params": facts["files"].get(PARAMS, ""),
        }

    def _begin(self, name: str, seed: int) -> tuple[Params, dict[str, str]] | None:
        """Return the parameters that a student begins with: old rows as they were."""
        source, before = self.begins(name, seed), self.data.before
        if source is None or before is None:
            return None
        params, _ = load_params(self.work.workdir / BEFORE / stage_name(name, seed) / "params")
        model = self.encoder(name).model
        return grown_params(model, params, len(before.id_items)), source

    def _settings(self, name: str, kind: str) -> ConfigDict:
        return student_settings(self.work.config, name, kind)

    def trainer(self, name: str, task: StudentTask | None = None) -> Trainer:
        """Return the trainer of a student, shared by its seeds; alike ones share the step.

        Args:
          name: The student.
          task: What it trains, where that is made already.
        """
        if name not in self._trainers:
            task, train = task or self._task(name), self._settings(name, "train")
            alike = (task.program, compiled_by(self._train_config(name)))
            trainer = self.work.trainer(self.data.task(task), train, self._steps.get(alike))
            self._steps[alike], self._trainers[name] = trainer.step, trainer
        return self._trainers[name]

    def _task(self, name: str) -> StudentTask:
        teacher = None
        if self.variant(name).logit > 0:
            teacher = self.teachers[self.teacher_name(name)].get()
        return student_task(
            self.work.config, name, self.table(name).get("features"), self.data.train_items,
            teacher, self.data.context, self.data.dataset.id_items,
        )  # fmt: skip

    def _train_config(self, name: str) -> TrainConfig:
        return train_config(self._settings(name, "train"), self.work.config.rules)

    # ---- rankers ----------------------------------------------------------------------------

    def encoder(self, name: str) -> CompiledEncoder:
        """Return the compiled functions of a student, shared by its seeds and by alike ones."""
        features, owners = self.table(name).get("features"), self.data.dataset.id_items
        config = encoder_config(self.work.config, name, features, len(owners), self.data.context)
        if (alike := repr(config)) not in self._encoders:
            ids = id_rows(self.data.train_items, max(id_table_rows(config), 1), owners)
            self._encoders[alike] = CompiledEncoder(
                session_model(config), ids, self.work.config.rules
            )
        return self._encoders[alike]

    def table(self, name: str, view: str | None = None) -> dict[str, np.ndarray]:
        """Return {"features": [V, F]} of a student, or {} where it has none.

        Args:
          name: The student.
          view: Another view than the student's own, for the controls.
        """
        variant = self.variant(name)
        if variant.features == NO_FEATURES:
            return {}
        return {"features": self.features.table(variant.features, view or variant.view)}

    def ranker(self, name: str, seed: int, view: str | None = None) -> NeuralRanker:
        """Return a trained student as a Ranker, prepared with a view of the catalogue."""
        encoder = self.encoder(name)
        params = self.work.params(stage_name(name, seed), encoder.model)
        ranker = encoder.ranker(name, params)
        ranker.prepare(self.table(name, view))
        return ranker


def grown_params(model: Model, params: Params, owned: int) -> Params:
    """Return parameters for more items: in tables of ids a new row is as that of an unknown item.

    Args:
      model: Of the size that is wanted.
      params: Numpy arrays of a model of as many items or fewer; the last row of its tables of ids
        is that of an unknown item.
      owned: How many rows of those are of an item each.

    Raises:
      UserError: They differ in more than their items.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rows = jax.tree.map(
        lambda axes: axes[:1] == ("item",), model.logical_axes(shapes),
        is_leaf=lambda axes: isinstance(axes, tuple),
    )  # fmt: skip

    def grow(array: Any, shape: Any, table: bool) -> np.ndarray:
        if not table:
            return np.asarray(array)
        made = np.repeat(array[-1:], shape.shape[0], 0)
        made[:owned] = array[:owned]
        return made

    try:
        grown = jax.tree.map(grow, params, shapes, rows)
    except ValueError:  # another structure
        grown = params
    check_fit(grown, shapes, "what is continued")
    return grown


def stage_name(student: str, seed: int) -> str:
    """Return the stage that trains a student with a seed.

    Example:
      >>> stage_name("distilled", 0)
      'students/distilled-0'
    """
    return seeded(f"{GROUP}.{student}", seed).name


def student_settings(config: ConfigDict, name: str, kind: str) -> ConfigDict:
    """Return "train" or "hparams" of all students, with what this one changes."""
    own = config.students[name].get(kind, {})
    return ConfigDict({**config.student[kind], **own})


def encoder_name(config: ConfigDict, name: str) -> str:
    """Return the name of a student's session encoder; see `jmrec.models.sessions.table`."""
    every = config.student.get("encoder", "student")
    return str(config.students[name].get("encoder", every))


def encoder_config(
    config: ConfigDict,
    name: str,
    features: Any,
    owners: int,
    context: Mapping[str, Any],
) -> Any:
    """Return the size of a student's session encoder, with ids of ``owners`` items."""
    return session_config(
        encoder_name(config, name), config.student,
        features=0 if features is None else features.shape[1],
        ids=id_table_size(owners) if config.students[name].ids else 0,
        **context,
    )  # fmt: skip


def student_task(
    config: ConfigDict,
    name: str,
    features: Any,
    train_items: np.ndarray,
    teacher: Teacher | CachedTeacher | None,
    context: Mapping[str, Any],
    owners: np.ndarray | None = None,
) -> StudentTask:
    """Return what a student's stage trains.

    Args:
      config: Of the experiment.
      name: The student.
      features: float32 [V, F] or its shape, None where the student reads none.
      train_items: bool [V], items that occur in training.
      teacher: Its teacher, or None.
      context: From `RunData.context`.
      owners: int [K], items in the order of their rows of the table of ids, see
        `jmrec.data.schema.Dataset`; None is those of training.
    """
    c, variant = config.student, config.students[name]
    count = int(train_items.sum()) if owners is None else len(owners)
    size = encoder_config(config, name, features, count, context)
    train, hparams = (student_settings(config, name, kind) for kind in ("train", "hparams"))
    numbers = {"learning_rate": train.learning_rate, "logit": variant.logit}
    return StudentTask(
        size, features, train_items, teacher, {**hparams, **numbers},
        variant.get("distill", c.distill), c.top, c.schedules,
        c.get("loss", "full_softmax"), c.get("negatives", 128), owners,
    )  # fmt: skip
