"""The training steps of TPAD from shapes alone: the stages' own tasks, given no data."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.models.sessions.table import session_model
from jmrec.systems.planned import (
    planned_context,
    planned_student,
    rule_teacher,
    session_shapes,
    shape,
)
from jmrec.systems.readers.table import reader_name
from jmrec.systems.readers.trained import (
    item_tokens,
    knowledge_config,
    knowledge_task,
    vision_task,
)
from jmrec.systems.students import NO_FEATURES
from jmrec.systems.system import PlannedStep, Sizes
from jmrec.systems.tpad.tasks import (
    alignment_config,
    distill_task,
    transfer_config,
    transition_task,
)
from jmrec.tasks.session import CachedTeacher, Teacher
from jmrec.types import Batch


def planned_steps(config: ConfigDict, sizes: Sizes) -> dict[str, Callable[[], PlannedStep]]:
    """Return stage -> its training step; see `jmrec.systems.system.System`.

    Raises:
      UserError: A pretrained backbone is read with, or sizes do not go together.
    """
    if (mode := reader_name(config)) != "trained":
        raise UserError(
            f"backbone={config.backbone.name} with backbone.mode={mode}: there is no training of "
            "it to plan here; leave it out to plan transition, distill and the students."
        )
    plan = _Plan(config, sizes)
    steps: dict[str, Callable[[], PlannedStep]] = {
        "vision": plan.vision,
        "knowledge": plan.knowledge,
        "transition": plan.transition,
        "distill": plan.distill,
    }
    for name in config.students:
        steps[f"students/{name}"] = partial(plan.student, name)
    return steps


class _Plan:
    """What the stages would hand to each other, as shapes."""

    def __init__(self, config: ConfigDict, sizes: Sizes) -> None:
        self.config, self.sizes = config, sizes
        try:
            self.tower = knowledge_config(config, sizes.vocab, sizes.fields)
            self.e = shape((sizes.items, self.tower.features))
        except ValueError as error:  # sizes that do not go together
            raise UserError(f"knowledge: {error}; mend that setting.") from error
        self.train_items = np.ones(sizes.items, bool)
        reads_tokens = config.transition.prompt == "tokens"
        self.item_tokens = item_tokens(self.tower) if reads_tokens else None

    def vision(self) -> PlannedStep:
        words = shape((self.sizes.vocab,))
        task, train = vision_task(self.config, self.tower, (words, words)), self.config.vision.train
        return PlannedStep(task, train, *self._items(train), "vision", ("knowledge.vision.stack",))

    def knowledge(self) -> PlannedStep:
        task, train = knowledge_task(self.config, self.tower, None), self.config.knowledge.train
        stacks = ("knowledge.stack", "knowledge.vision.stack")
        return PlannedStep(task, train, *self._items(train), "knowledge", stacks)

    def transition(self) -> PlannedStep:
        train = self.config.transition.train
        # That the token vectors begin as others have ended changes no shape.
        task = transition_task(
            self.config, self._transfer_config, self.e, self.train_items, self._tokens
        )
        batch, rows = session_shapes(self.config, train, packed=True)
        return PlannedStep(task, train, batch, rows, "transition", ("transition.stack",))

    def distill(self) -> PlannedStep:
        train, teacher = self.config.distill.train, self._teacher
        size = alignment_config(self.config, self.tower.features)
        task = distill_task(
            self.config, size, (teacher.model, teacher.params), self.e, self.train_items,
            self._tokens,
        )  # fmt: skip
        batch, rows = session_shapes(self.config, train, packed=True)
        return PlannedStep(task, train, batch, rows, "distill")

    def student(self, name: str) -> PlannedStep:
        variant = self.config.students[name]
        widths = {"e": self.tower.features, "k": self.config.distill.k, "t": self.config.distill.t}
        width = 0
        if variant.features != NO_FEATURES:
            width = sum(widths[head] for head in variant.features.split("+"))
        teacher: Teacher | CachedTeacher | None = None
        if variant.logit > 0:
            by_rules = variant.get("teacher", "transfer") == "rules"
            teacher = rule_teacher(self.config, self.sizes) if by_rules else self._teacher
        return planned_student(self.config, name, self.sizes, width, teacher)

    @property
    def _transfer_config(self) -> Any:
        context = planned_context(self.config)
        return transfer_config(self.config, self.tower.features, context, self.item_tokens)

    @property
    def _teacher(self) -> Teacher:
        model = session_model(self._transfer_config)
        params = jax.eval_shape(model.init, jax.random.key(0))
        e: Any = self.e
        return Teacher(model, params, e, self._tokens)

    @property
    def _tokens(self) -> dict[str, Any] | None:
        tokens, items = self.item_tokens, self.sizes.items
        if tokens is None:
            return None
        return {
            "text": shape((items, tokens.text), np.int32),
            "seen": shape((items, tokens.seen, tokens.width)),
            "picture_ok": shape((items,), bool),
        }

    def _items(self, train: ConfigDict) -> tuple[Batch, tuple[int, ...]]:
        rows, size = train.batch_size, self.config.data.picture_size
        batch = {
            "row": shape((rows,), np.int32),
            "text": shape((rows, sum(self.sizes.fields)), np.int32),
            "picture": shape((rows, size, size, 3), np.uint8),
            "picture_ok": shape((rows,), bool),
        }
        return batch, (rows,)
