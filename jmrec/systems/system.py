"""The contract of a system, and the one place that says what a system does not have.

A system is a list of stages and the methods that a finished run of them answers. Every system can
be run, inspected, compared and reported; a system that can do more has the methods of one of the
protocols below.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np

from jmrec.config import ConfigDict
from jmrec.convert.families import Pretrained
from jmrec.data.forgotten import Left
from jmrec.data.schema import Dataset, Items
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers.neural import NeuralRanker
from jmrec.lock import Changes
from jmrec.serving import PairArtefact
from jmrec.systems.data import RunData
from jmrec.systems.stages import Stage
from jmrec.systems.students import Students
from jmrec.systems.work import Work
from jmrec.types import Batch, Task


@dataclass(frozen=True)
class Sizes:
    """The sizes that the data would decide, for planning.

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
class PlannedStep:
    """What a stage would train, as shapes.

    Attributes:
      task: Its task, on ``jax.ShapeDtypeStruct`` in place of arrays.
      train: "train" of its settings.
      batch: Shapes of its largest batch.
      rows: Every number of rows that its batches have.
      group: Where its settings are in the config, for advice; "" is the top.
      stacks: Where the settings of the transformer stacks are that it trains.
    """

    task: Task
    train: ConfigDict
    batch: Batch
    rows: tuple[int, ...]
    group: str = ""
    stacks: tuple[str, ...] = ()


class System(Protocol):
    """What every system is. It is made from a `Work` and reads no file before a method needs it."""

    name: ClassVar[str]
    since: ClassVar[tuple[str, ...]]
    """Settings without which a workdir is too old to be opened."""
    work: Work

    def __init__(self, work: Work) -> None: ...

    def stages(self, command: Sequence[str] = ()) -> list[Stage]:
        """Return all stages in order; the last is "evaluate", which writes results and report.

        Args:
          command: The command line, for the report.

        Raises:
          UserError: The settings contradict each other.
        """

    @classmethod
    def plan_steps(
        cls, config: ConfigDict, sizes: Sizes
    ) -> Mapping[str, Callable[[], PlannedStep]]:
        """Return stage -> its training step from shapes alone; nothing is read.

        Raises:
          UserError: The settings contradict each other, or can not be planned.
        """


@dataclass(frozen=True)
class Entry:
    """A row of the results table that a system adds to the rules.

    Attributes:
      name: Of the row.
      kind: "student" or "teacher", or "control".
      seeds: It is ranked once with each.
      ranker: ``seed -> Ranker``, prepared.
      shuffled: Whether it ranks sessions whose items are in a random order.
    """

    name: str
    kind: str
    seeds: tuple[int, ...]
    ranker: Callable[[int], Ranker]
    shuffled: bool = False


@runtime_checkable
class Ranks(Protocol):
    """A system that ranks the items of a catalogue for sessions, by rules and by its students."""

    name: ClassVar[str]
    work: Work
    data: RunData
    students: Students

    def stages(self, command: Sequence[str] = ()) -> list[Stage]:
        """See `System`."""

    def rankers(self) -> list[Entry]:
        """Return the rows that evaluation measures besides the rules and the controls."""

    def content(self, added: Mapping[str, np.ndarray] | None = None) -> Mapping[str, np.ndarray]:
        """Return the item features of the content rules, name -> [V, D].

        Args:
          added: Tables of items that were added to the run since, which come last.
        """

    def teacher(self, added: Mapping[str, np.ndarray] | None = None) -> NeuralRanker | None:
        """Return the large model that the students replace, prepared, or None.

        Args:
          added: Tables of items that were added to the run since, see `ReadsItems`.
        """

    def reader_parameters(self) -> int:
        """Return how many numbers the model has that reads items; 0 where there is none."""


@runtime_checkable
class RanksPairs(Protocol):
    """A system that ranks pairs of a user and an item by how probable a label is."""

    name: ClassVar[str]
    work: Work

    def evaluate(self, folder: Path, split: str) -> None:
        """Measure every row of the table on a split, and write results and report into a folder."""

    def artefact(
        self, row: str | None = None, policy: Path | None = None, verdicts: Path | None = None
    ) -> PairArtefact:
        """Return what is served, as it is at the end of the data.

        Args:
          row: A rule or a model of the results table; None is the run's choice.
          policy: A policy file, see `jmrec.evaluation.policy`, or None.
          verdicts: A file of verdicts, see `jmrec.data.verdicts`, or None.

        Raises:
          UserError: There is no such row, or a file does not fit.
        """


@runtime_checkable
class ReadsItems(Ranks, Protocol):
    """A system that reads items, so that new ones can be added to a run without training."""

    def read_new(self, items: Items) -> dict[str, np.ndarray]:
        """Return the tables of new items, name -> float32 [N, D], made as the catalogue's were."""

    def tables_hash(self) -> str:
        """Return the identity of the catalogue's tables: the hash of the stage that made them."""


@runtime_checkable
class Merges(Protocol):
    """A system that may have trained low-rank updates of a pretrained model."""

    def merged(self) -> Pretrained:
        """Return the model with its updates added.

        Raises:
          UserError: The run trained none.
        """


@runtime_checkable
class KeepsPeople(Protocol):
    """A system some of whose stages, besides "data", keep rows of people."""

    def without(
        self, left: Left, dataset: Dataset, users: Collection[str], changes: Changes
    ) -> None:
        """Write the files of those stages anew without people who are taken out.

        Args:
          left: What stays of the run's data set.
          dataset: What stays, as a data set.
          users: Ids of users who go.
          changes: Gets the new files.
        """


@runtime_checkable
class Continues(Protocol):
    """A system whose parameters can be trained on where the data has grown."""

    def carried(self) -> tuple[str, ...]:
        """Return the stages whose parameters are trained on; all others are done anew.

        Raises:
          UserError: The settings leave it nothing to train on from.
        """


@dataclass(frozen=True)
class Lack:
    """What is said of a system that has not the methods of a protocol.

    Attributes:
      says: What it does not do.
      other: An experiment whose system does.
      asks: The option that asks a system which does, where another capability answers alike.
    """

    says: str
    other: str = "experiments/tpad.py"
    asks: str = ""


LACKS: dict[type, Lack] = {
    Ranks: Lack("ranks no items for sessions", asks="--items"),
    RanksPairs: Lack("ranks no items for users", "experiments/mmrec.py", "--user"),
    ReadsItems: Lack("reads no items after training"),
    Continues: Lack(
        "can not be trained on where its data has grown (its readers and spaces are fitted to the "
        "data): read new items with jmrec embed, or start anew with --stale=rerun",
        "experiments/session.py:items=ids",
    ),
    Merges: Lack("trains no low-rank updates of a backbone, so that there is nothing to merge"),
}
"""What is said of a system that has not the methods of a protocol."""
Capability = TypeVar("Capability")


def able(system: System, capability: type[Capability]) -> Capability:
    """Return a system as one that has a capability.

    Args:
      system: Of any run.
      capability: A key of `LACKS`.

    Raises:
      UserError: It has not.
    """
    if not isinstance(system, capability):
        lack = LACKS[capability]
        instead = [each.asks for kind, each in LACKS.items() if isinstance(system, kind)]
        option = next(iter(filter(None, instead if lack.asks else ())), "")
        remedy = f"recommend from it with {option}, or " if option else ""
        raise UserError(
            f"{system.work.workdir} is a run of the system {system.name!r}, which {lack.says}; "
            f"{remedy}name a run of another system, such as {lack.other}."
        )
    return system
