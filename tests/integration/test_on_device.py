"""A run whose training sessions live on the device ends as one that is sent each batch."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jmrec.checkpoint import load_params
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.systems.session.system import SessionSystem
from tests.integration.session_runs import ROOT, TINY, made, walk_to

# The first packs sessions into rows, the second wants those of about one length; both follow the
# rules, whose soft labels are rows of clicks too.
SPEC = f"{ROOT / 'experiments/session.py'}:data=folder,size=tiny,teacher=rules"
SPEC += ",encoder=student+srgnn"
STUDENTS = ("student", "srgnn")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SessionSystem]:
    folder = tmp_path_factory.mktemp("device")
    write_toyshop(folder / "shop", ToyShopConfig(seed=3, items=60, sessions=200))
    done: dict[str, SessionSystem] = {}
    for where in ("never", "always"):
        words = [*TINY, "--config.context.gap=True", f"--config.data.dir={folder / 'shop'}"]
        words += [f"--config.on_device={where}"]
        workdir = folder / where
        if done:  # what both begin with
            for stage in ("data", "teach"):
                shutil.copytree(folder / "never" / stage, workdir / stage)
        system = made(SPEC, words, workdir)
        assert isinstance(system, SessionSystem)
        walk_to(system, "students/student-0")
        done[where] = system
    return done


def folder_of(system: SessionSystem, name: str) -> Path:
    return system.work.workdir / "students" / f"{name}-0"


@pytest.mark.parametrize("name", STUDENTS)
def test_parameters_and_curves_are_those_of_streamed_batches(
    runs: dict[str, SessionSystem], name: str
) -> None:
    (a, _), (b, _) = (load_params(folder_of(each, name) / "params") for each in runs.values())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    streamed, resident = (
        json.loads((folder_of(each, name) / "metrics.json").read_text()) for each in runs.values()
    )
    assert resident["flops"] == streamed["flops"]
    assert [row["step"] for row in resident["history"]] == [4, 8]


@pytest.mark.parametrize("name", STUDENTS)
def test_the_host_says_which_clicks_and_each_shape_is_compiled_once(
    runs: dict[str, SessionSystem], name: str
) -> None:
    counts = []
    for where, system in runs.items():
        data, packed = system.data, name == "student"
        assert data.on_device is (where == "always")
        train = system.work.config.student.train
        read = data.sessions(train, packed=packed, seed=0, places=True)
        assert (set(read[0]) == {"place", "mask"}) is (where == "always")
        shapes = {read[n]["mask"].shape for n in range(8)}
        counts.append((system.students.trainer(name).compilations, len(shapes)))
    assert counts[0] == counts[1]
    assert counts[0][0] == counts[0][1]


def test_a_finished_stage_is_not_made_anew_elsewhere(runs: dict[str, SessionSystem]) -> None:
    before = runs["never"].stages()
    after = runs["always"].stages()
    assert [each.settings for each in before] == [each.settings for each in after]
