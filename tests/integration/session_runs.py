"""What the tests of the system `session` ask of its runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.config import load_config
from jmrec.errors import BAD_INPUT
from jmrec.main import main
from jmrec.systems.registry import system_class
from jmrec.systems.session.system import SessionSystem
from jmrec.systems.stages import walk
from jmrec.systems.system import System
from jmrec.systems.work import Work
from jmrec.tracking import Tracker
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = f"{ROOT / 'experiments/session.py'}:data=folder,size=tiny"
TINY = [
    "--config.student.train.steps=8",
    "--config.student.train.eval_every=4",
    "--config.student.train.batch_size=16",
    "--config.data.window=12",
    "--config.evaluate.serve=student",  # most tests are of what is trained, and a rule is best
]
SESSION = ["--items", "t0001,t0002", "--json", "--top", "20"]
SOURCE = "--config.features.from="
TOWERS = [*tiny.SHAPES, *tiny.updates(2)]
VIEWS = {"both", "text", "picture", "pictures permuted", "texts permuted"}


def spec(items: str) -> str:
    """Return the experiment; what follows the items may name another encoder than "student"."""
    return f"{EXPERIMENT},items={items}{'' if 'encoder=' in items else ',encoder=student'}"


def words(shop: Path, workdir: Path, items: str, *more: str) -> list[str]:
    config = [f"--config={spec(items)}", *TINY, f"--config.data.dir={shop}"]
    return ["run", *config, *more, "--workdir", str(workdir)]


def made(spec: str, overrides: list[str], workdir: Path) -> System:
    config = load_config(spec, overrides)
    workdir.mkdir(exist_ok=True)
    return system_class(config)(Work(config, workdir, Tracker(workdir, quiet=True)))


def walk_to(system: System, last: str, stale: str = "stop") -> None:
    """Do the stages up to one of them."""
    stages = system.stages()
    place = next(n for n, stage in enumerate(stages) if stage.name == last)
    walk(stages[: place + 1], system.work.workdir, stale=stale, tracker=system.work.tracker)


def features_of(
    shop: Path, workdir: Path, *more: str, items: str = "features", stale: str = "stop"
) -> SessionSystem:
    """Do the stages "data" and "features" alone."""
    overrides = [*TINY, f"--config.data.dir={shop}", *more]
    system = made(spec(items), overrides, workdir)
    assert isinstance(system, SessionSystem)
    walk_to(system, "features", stale)
    return system


def read(system: SessionSystem) -> np.ndarray:
    """Return what the student reads of the items."""
    return system.students.table("student")["features"]


def results(workdir: Path, name: str = "evaluate") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workdir / name / "results.json").read_text())
    return found


def rows(workdir: Path) -> dict[str, str]:
    """Return name -> kind of the rows that were trained."""
    every = {row["name"]: row["kind"] for row in results(workdir)["rows"]}
    return {name: kind for name, kind in every.items() if kind in ("student", "control", "teacher")}


def own_parts(workdir: Path) -> set[str]:
    """Return what the examples take away from recommended items."""
    shown = results(workdir)["examples"]["sessions"]
    assert shown
    return {part for each in shown for found in each["recommended"] for part in found["own"]}


def check_live(folder: Path, plain: dict[str, Any], said: str) -> None:
    """Hold an evaluation with live counts to the same one without; ``said`` on the terminal."""
    found = results(folder.parent, folder.name)
    before = {row["name"]: row for row in plain["rows"]}
    live = {row["name"] for row in found["rows"] if row.get("counts") == "live"}
    counted = {name for name, row in before.items() if row["kind"] == "rule"}
    counted -= {"EASE", "newest first"}
    assert live == {f"{name}, live" for name in (*counted, "blend of rules")}
    # The frozen rows, and what is served by them, are what they were without live ones.
    assert {row["name"]: row for row in found["rows"] if row["name"] not in live} == before
    assert (found["best_rule"], found["served"]) == (plain["best_rule"], plain["served"])
    assert found["best_live_rule"] in live
    assert found["over_time"]["rows"].keys() == before.keys() | live
    words = " ".join(said.split())
    assert f"the best is {found['best_live_rule']}" in words
    assert "students too, is frozen" in words
    assert ("student", found["best_live_rule"]) in {(c["a"], c["b"]) for c in found["comparisons"]}
    assert found["best_live_rule"] in (folder / "report.html").read_text()


def stages_of(workdir: Path) -> set[str]:
    return {str(path.parent.relative_to(workdir)) for path in workdir.rglob("stage.json")}


def recommended(capsys: pytest.CaptureFixture[str], *where: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["recommend", *where, *SESSION]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def refusal(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    """Return the one sentence by which a command is refused."""
    capsys.readouterr()
    assert main(command) == BAD_INPUT
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jmrec: ")]
    said = [line for line in said if not line.startswith("jmrec: warning: ")]
    assert len(said) == 1
    return said[0]
