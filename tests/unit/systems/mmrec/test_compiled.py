"""Seeds of a ranker, its controls and removals are one program."""

from pathlib import Path

import numpy as np

from jmrec.systems.mmrec.system import Mmrec
from jmrec.systems.stages import walk
from jmrec.systems.work import Work
from jmrec.tracking import Tracker
from tests.compilations import compiled
from tests.unit.systems.mmrec.small import small_config, write_folder


def test_a_second_seed_and_a_removal_compile_nothing(tmp_path: Path) -> None:
    config = small_config(write_folder(tmp_path / "shop"), "arm=ids", seeds=(0, 1))
    tracker = Tracker(tmp_path / "run", quiet=True)
    system = Mmrec(Work(config, tmp_path / "run", tracker))

    def walk_to(name: str) -> None:
        stages = system.stages()
        place = [stage.name for stage in stages].index(name)
        walk(stages[: place + 1], tmp_path / "run", tracker=tracker)

    name = system.rankers.names[-1]
    with compiled() as first:
        walk_to(f"rankers/{name}-0")
    assert "_call" in first
    with compiled() as second:
        walk_to(f"rankers/{name}-1")
    assert second == set()
    rows = system.data.rows.test
    plain = system.rankers.logits(name, rows)
    assert plain.shape == (2, len(rows))
    assert not np.array_equal(*plain)
    with compiled() as more:
        without = system.rankers.logits(name, rows, without="history")
    assert more <= {"init"}  # the shapes of its parameters
    assert not np.array_equal(plain, without)
