"""The system "mmrec": reviews and pictures are described, read and ranked.

Stages: data, describe/..., look (where an encoder of pictures is trained here), read, align,
rankers/NAME-SEED, evaluate.

Paper: Tian, Wang, Zhao, Ding, MMREC: LLM Based Multi-Modal Recommender System,
https://arxiv.org/abs/2408.04211 (the method as built here is jmrec's own reading).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from jmrec.config import ConfigDict
from jmrec.data.forgotten import Left
from jmrec.data.schema import Dataset
from jmrec.lock import Changes
from jmrec.serving import PairArtefact
from jmrec.systems.mmrec.data import RatingData
from jmrec.systems.mmrec.describe import Descriptions
from jmrec.systems.mmrec.evaluate import evaluate, evaluation_stage
from jmrec.systems.mmrec.forget import without
from jmrec.systems.mmrec.plan import planned_rankers
from jmrec.systems.mmrec.rank import DlrmRankers
from jmrec.systems.mmrec.read import Reader
from jmrec.systems.mmrec.serve import pair_artefact
from jmrec.systems.mmrec.space import Space
from jmrec.systems.stages import Stage
from jmrec.systems.system import PlannedStep, Sizes
from jmrec.systems.work import Work


class Mmrec:
    """One run of "mmrec".

    Args:
      work: The run, with a config of experiments/mmrec.py.

    Raises:
      UserError: The settings contradict each other.
    """

    name: ClassVar[str] = "mmrec"
    since: ClassVar[tuple[str, ...]] = ()

    def __init__(self, work: Work) -> None:
        self.work, self.data = work, RatingData(work)
        self.texts = Descriptions(work, self.data)
        self.reader = Reader(work, self.data, self.texts)
        self.space = Space(work, self.data, self.reader)
        self.rankers = DlrmRankers(work, self.data, self.texts, self.space)

    def stages(self, command: Sequence[str] = ()) -> list[Stage]:
        """Return all stages in order; see `jmrec.systems.system.System`."""
        stages = [self.data.stage(self.reader.fit, **self.reader.data_settings)]
        stages += self.texts.stages()
        stages += self.reader.stages()
        stages.append(self.space.stage())
        stages += self.rankers.stages(tuple(each.name for each in stages))
        return [*stages, evaluation_stage(self, stages, command)]

    def evaluate(self, folder: Path, split: str) -> None:
        """Measure every row on a split; see `jmrec.systems.system.RanksPairs`."""
        evaluate(self, folder, split)

    def artefact(
        self, row: str | None = None, policy: Path | None = None, verdicts: Path | None = None
    ) -> PairArtefact:
        """Return what is served; see `jmrec.systems.system.RanksPairs`."""
        return pair_artefact(self, row, policy, verdicts)

    def without(
        self, left: Left, dataset: Dataset, users: Collection[str], changes: Changes
    ) -> None:
        """Write reviews' vectors and texts anew; see `jmrec.systems.system.KeepsPeople`."""
        without(self, left, dataset, users, changes)

    @classmethod
    def plan_steps(
        cls, config: ConfigDict, sizes: Sizes
    ) -> Mapping[str, Callable[[], PlannedStep]]:
        """Return the rankers' steps from shapes alone; see `jmrec.systems.system.System`."""
        return planned_rankers(config, sizes)
