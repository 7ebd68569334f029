"""What evaluation and serving need of a run of "mmrec", so that they need not know its class."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from jmrec.systems.mmrec.data import RatingData
from jmrec.systems.mmrec.describe import Descriptions
from jmrec.systems.mmrec.rank import DlrmRankers
from jmrec.systems.mmrec.space import Space
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work


class Parts(Protocol):
    """The parts of a run, see `jmrec.systems.mmrec.system.Mmrec`."""

    name: ClassVar[str]
    work: Work
    data: RatingData
    texts: Descriptions
    space: Space
    rankers: DlrmRankers

    def stages(self, command: Sequence[str] = ()) -> list[Stage]:
        """Return all stages in order; the last is "evaluate"."""
