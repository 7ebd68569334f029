"""The blend of rules as a teacher: stage "teach" labels the training sessions, out of fold."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data.forgotten import Left
from jmrec.data.schema import Dataset
from jmrec.evaluation.protocol import ask
from jmrec.evaluation.rankers.known import EASE_ITEMS
from jmrec.evaluation.soft_labels import blend_of, out_of_fold
from jmrec.features import read_features, write_features
from jmrec.lock import Changes
from jmrec.systems.data import RunData, ease_items
from jmrec.systems.stages import Stage
from jmrec.systems.students import TeacherSource
from jmrec.systems.work import Work
from jmrec.tasks.session import CachedTeacher

LABELS = "lessons.safetensors"
"""Named as in runs that are finished."""
STAGE = "teach"


class RuleTeacher:
    """The blend of rules as a teacher of students, by its soft labels of the training sessions.

    Args:
      work: The run; its config's group "teach".
      data: Its data.
      content: Returns the item features of the content rules, name -> [V, D].
      inputs: The stages that write those.
    """

    def __init__(
        self,
        work: Work,
        data: RunData,
        content: Callable[[], Mapping[str, np.ndarray]],
        inputs: tuple[str, ...],
    ) -> None:
        self.work, self.data, self.content, self.inputs = work, data, content, inputs

    @property
    def source(self) -> TeacherSource:
        """This teacher, in the form that `Students` takes."""
        return TeacherSource((STAGE,), self._read, places=True)

    def stage(self) -> Stage:
        """Return the stage "teach"."""
        c = self.work.config
        own: dict[str, Any] = {
            "seed": c.seed, **c.teach, "top": c.student.top, "window": c.data.window,
        }  # fmt: skip
        # Only where another is set, so that a stage which is done stays so.
        own |= {} if (most := ease_items(c)) == EASE_ITEMS else {"ease_items": most}
        return Stage(STAGE, own, self.inputs, self._teach, alone=True)

    def without(self, left: Left, dataset: Dataset, changes: Changes) -> None:
        """Write the soft labels anew without those of events that go.

        Args:
          left: What stays of the run's data set.
          dataset: What stays, as a data set.
          changes: Gets the new file.
        """
        name = f"{STAGE}/{LABELS}"
        table = read_features(changes.folder / name, event_names(self.data.dataset))
        keep = left.events("train", self.data.dataset)
        kept = {each: array[keep] for each, array in table.arrays.items()}
        write_features(changes.new(name), kept, event_names(dataset), table.made_by)

    def _teach(self, folder: Path) -> None:
        config, dataset = self.work.config, self.data.dataset
        folds = config.teach.folds
        validation = ask(dataset, "validation")
        with self.work.tracker.stage(STAGE).progress(folds, STAGE) as bar:
            labels, temperatures = out_of_fold(
                dataset, validation, blend_of(validation, dict(self.content()), ease_items(config)),
                folds=folds, top=config.student.top, seed=config.seed,
                window=config.data.window, progress=lambda _: bar.update(1),
            )  # fmt: skip
        facts = {
            "stage": STAGE, "teacher": "blend of rules", "folds": str(folds),
            "temperatures": ", ".join(f"{each:.4g}" for each in temperatures),
        }  # fmt: skip
        write_features(folder / LABELS, vars(labels), event_names(dataset), facts)

    def _read(self) -> CachedTeacher:
        path = self.work.workdir / STAGE / LABELS
        return CachedTeacher(**read_features(path, event_names(self.data.dataset)).arrays)


def event_names(dataset: Dataset) -> list[str]:
    """Return names of the rows of the soft labels: each training event's session and item."""
    train, ids = dataset.splits["train"], dataset.items.ids
    owner = np.repeat(np.arange(len(train)), train.lengths)
    return [f"{train.ids[s]} {ids[i]}" for s, i in zip(owner, train.items)]
