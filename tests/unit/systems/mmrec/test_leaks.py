"""What a row's own review says, or a later one, changes no score: bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jmrec.config import ConfigDict
from jmrec.systems.mmrec.system import Mmrec
from jmrec.systems.stages import walk
from jmrec.systems.work import Work
from jmrec.tracking import Tracker

from .small import small_config, write_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    top = tmp_path_factory.mktemp("leaks")
    config = small_config(write_folder(top / "folder"), "arm=text,writer=extract")
    with Tracker(top / "run", quiet=True) as tracker:
        system = Mmrec(Work(config, top / "run", tracker))
        walk(system.stages()[:-1], top / "run", tracker=tracker)
    return config, top / "run"


def scores(
    config: ConfigDict, workdir: Path, planted: np.ndarray | None = None
) -> tuple[np.ndarray, Mmrec]:
    """Return the logits of all rows, with other reviews of some rows and the same parameters."""
    with Tracker(workdir, quiet=True) as tracker:
        system = Mmrec(Work(config, workdir, tracker))
        if planted is not None:
            ratings = system.data.ratings
            word = {0: "splendid splendid splendid", 1: "horrible horrible horrible", -1: ""}
            said = [
                word[int(ratings.labels[row])] if text and row in set(planted) else text
                for row, text in enumerate(ratings.reviews)
            ]
            # Words that the reader knows: else it would not see them.
            said = [text.replace("splendid", "bright").replace("horrible", "dull") for text in said]
            system.data.__dict__["ratings"] = replace(ratings, reviews=said)
            for stage in system.stages()[:-1]:
                if stage.name.startswith("describe/") or stage.name == "read":
                    stage.run(workdir / stage.name)
        every = np.arange(len(system.data.ratings))
        return system.rankers.logits("text", every), system


def test_reviews_of_a_row_and_of_later_ones_change_nothing(
    run: tuple[ConfigDict, Path], tmp_path: Path
) -> None:
    config, workdir = run
    before, system = scores(config, workdir)
    splits = system.data.known.splits
    assert system.data.ratings.labels[splits.test].max() == 1
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    after, _ = scores(config, copy, splits.test)
    # No row may know a row of test, its own included.
    np.testing.assert_array_equal(before, after)


def test_reviews_of_validation_are_known_to_later_rows_of_test_alone(
    run: tuple[ConfigDict, Path], tmp_path: Path
) -> None:
    config, workdir = run
    before, system = scores(config, workdir)
    splits = system.data.known.splits
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    after, _ = scores(config, copy, splits.validation)
    moved = np.flatnonzero((before != after).any(0))
    # A test that can fail: earlier reviews do count.
    assert len(moved)
    assert np.isin(moved, splits.test).all()
    cuts = system.data.cuts
    read = {by: cuts[by].of_row for by in cuts}
    for row in moved:
        known = np.concatenate([cuts[by].rows[read[by][row]] for by in cuts])
        assert np.isin(known, splits.validation).any()
        assert (system.data.known.day[known] < system.data.known.day[row]).all()
