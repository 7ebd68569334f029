"""Seeds of a student by one command: trained at once or one after another, the table is one."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jmrec.checkpoint import load_params, save_params
from jmrec.config import ConfigDict, load_config
from jmrec.main import main
from jmrec.systems.session.system import SessionSystem
from jmrec.systems.work import Work
from jmrec.tracking import Tracker
from jmrec.training.host import Run
from tests.compilations import compiled
from tests.integration.session_runs import ROOT, results, walk_to

SPEC = f"{ROOT / 'experiments/session.py'}:data=toyshop,size=tiny"
SETTINGS = [
    *("seeds=(0,1)", "data.toyshop.n_items=80", "data.toyshop.sessions=200", "data.window=8"),
    *("student.train.steps=12", "student.train.eval_every=4", "student.train.save_every=6"),
    *("student.train.batch_size=16", "student.train.patience=2", "student.stack.width=16"),
    "student.train.learning_rate=0.05",
]  # fmt: skip
CLOSE = 1e-4
"""On a CPU, whose program for several has each member's own inside, no difference was seen."""


def overrides(*more: str) -> list[str]:
    return [f"--config.{each}" for each in (*SETTINGS, *more)]


def run(workdir: Path, *more: str) -> None:
    assert main(["run", f"--config={SPEC}", *overrides(*more), "--workdir", str(workdir)]) == 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    run(workdir)
    return workdir


@pytest.fixture(scope="module")
def at_once(alone: Path) -> Path:
    """Killed while both are trained, and again between the files of one and of the other."""
    workdir = alone.parent / "at once"
    shutil.copytree(alone / "data", workdir / "data")
    config = load_config(SPEC, overrides("student.train.population=8"))
    system = SessionSystem(Work(config, workdir, Tracker(workdir)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jmrec.training.host.Run.save", killed_at(5))
        with pytest.raises(KeyboardInterrupt):
            walk_to(system, "students/student-1")
    kept = [p.name for p in (workdir / "students").glob("*/checkpoints/*") if p.name.isdigit()]
    assert 0 < max(map(int, kept)) < 12
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jmrec.systems.fit.save_params", killed_at(2))
        with pytest.raises(KeyboardInterrupt):
            walk_to(system, "students/student-1")
    done = [json.loads((workdir / f"students/student-{seed}/stage.json").read_text())["done"]
            for seed in (0, 1)]  # fmt: skip
    assert done == [True, False]
    run(workdir, "student.train.population=8")
    return workdir


def killed_at(call: int) -> Any:
    """Return what does as `Run.save` or `save_params` until it is called so often."""
    calls, save = [0], Run.save

    def do(self: Any, *args: Any) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        (save if isinstance(self, Run) else save_params)(self, *args)

    return do


def apart(a: Any, b: Any) -> float:
    """Return the largest difference of two trees of plain values, which agree in all else."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((apart(a[name], b[name]) for name in a), default=0.0)
    if isinstance(a, list):
        assert len(a) == len(b)
        return max(map(apart, a, b), default=0.0)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b)
    assert a == b
    return 0.0


def test_the_table_is_the_same_and_so_are_the_folders(alone: Path, at_once: Path) -> None:
    a, b = results(alone), results(at_once)
    assert next(row for row in a["rows"] if row["name"] == "student")["seeds"] == 2
    assert apart(a, b) < CLOSE
    for seed in (0, 1):
        one, other = (top / f"students/student-{seed}" for top in (alone, at_once))
        assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
        (want, said), (got, same) = load_params(one / "params"), load_params(other / "params")
        assert said == same
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=CLOSE), want, got)
        files = [json.loads((top / "metrics.json").read_text()) for top in (one, other)]
        assert apart(*files) < CLOSE
        assert files[0]["flops"] > 0
        facts = [json.loads((top / "stage.json").read_text()) for top in (one, other)]
        for name in ("hash", "settings", "inputs", "group", "seed", "path"):
            assert facts[0][name] == facts[1][name]


def test_their_curves_are_those_of_each_alone(alone: Path, at_once: Path) -> None:
    curves = []
    for top in (alone, at_once):
        lines = map(json.loads, (top / "metrics.jsonl").read_text().splitlines())
        every = [line for line in lines if line.get("stage", "").startswith("students/")]
        curves.append(sorted(every, key=lambda each: (each["stage"], each["step"], len(each))))
    assert len(curves[0]) >= 8
    assert apart(*curves) < CLOSE


def test_other_commands_open_it_and_a_second_run_skips_all(
    at_once: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in at_once.rglob("stage.json")}
    run(at_once)  # one after another: no part of what a stage is
    assert {path: path.stat().st_mtime_ns for path in before} == before
    capsys.readouterr()
    assert main(["recommend", "--workdir", str(at_once), "--items", "t0001", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) > 0


def test_a_second_seed_and_a_student_alike_compile_nothing(alone: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(alone / "data", workdir / "data")
    config = load_config(SPEC, overrides())
    with config.unlocked():
        config.students.alike = ConfigDict(config.students.student)
        config.students.alike.hparams = ConfigDict({"dropout": 0.4, "id_dropout": 0.1})
        config.students.alike.train = ConfigDict({"weight_decay": 0.3, "learning_rate": 0.01})
    system = SessionSystem(Work(config, workdir, Tracker(workdir, quiet=True)))
    with compiled() as first:
        walk_to(system, "students/alike-0")
    assert "_call" in first
    with compiled() as others:
        walk_to(system, "students/student-1")
    assert others == set()
    trainers = [system.students.trainer(name) for name in system.students.names]
    assert trainers[0].step is trainers[1].step
    assert trainers[0].compilations == 1
    ends = [load_params(workdir / f"students/{name}-{seed}/params")[0]
            for name in ("student", "alike") for seed in (0, 1)]  # fmt: skip
    assert len({np.concatenate([x.ravel() for x in jax.tree.leaves(end)]).tobytes()
                for end in ends}) == 4  # fmt: skip
