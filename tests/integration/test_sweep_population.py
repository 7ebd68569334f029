"""Trials of a sweep trained at once: each ends as it would by itself, killed or not."""

import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jmrec.checkpoint import load_params
from jmrec.config import ConfigDict, load_config
from jmrec.errors import Preempted, UserError
from jmrec.main import main
from jmrec.systems.at_once import train_at_once
from jmrec.systems.fit import Fits
from jmrec.tools.sweep.population import groups, train_groups
from jmrec.tools.sweep.sweep import sweep
from jmrec.tools.sweep.trials import VALIDATION, Sweep, expand
from jmrec.training.host import Run
from tests.integration.session_runs import ROOT, results

SPEC = f"{ROOT / 'experiments/session.py'}:data=toyshop,size=tiny"
SETTINGS = [
    *("data.toyshop.n_items=80", "data.toyshop.sessions=200", "data.window=8"),
    *("student.train.steps=12", "student.train.eval_every=4", "student.train.save_every=6"),
    *("student.train.batch_size=16", "student.stack.width=16", "student.train.patience=0"),
]  # fmt: skip
GIVEN = [f"--config.{each}" for each in SETTINGS]
HYPER: list[dict[str, Any]] = [
    {"student.train.learning_rate": 0.05, "student.hparams.dropout": 0.1},
    {"student.loss": "sampled_softmax", "student.hparams.dropout": 0.1},
    {"student.train.learning_rate": 0.01, "student.hparams.dropout": 0.4,
     "students.student.train.weight_decay": 0.3, "student.train.warmup": 1},
]  # fmt: skip
"""The second is of another program."""


@pytest.fixture(autouse=True)
def _hyper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jmrec.tools.sweep.trials.load_hyper", lambda spec: HYPER)


def trials_of(workdir: Path) -> Sweep:
    return expand(SPEC, GIVEN, workdir)


def train(found: Sweep, *trials: int) -> None:
    """Do what the process of a population does."""
    asked = ["sweep", f"--config={SPEC}", *GIVEN, f"--workdir={found.workdir}"]
    assert main([*asked, f"--at-once={','.join(map(str, trials))}"]) == 0


def test_each_trial_ends_as_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, at_once = trials_of(tmp_path / "alone"), trials_of(tmp_path / "at-once")
    for trial in alone.trials:
        assert main([*alone.command(trial, ["run"]), "--share"]) == 0
    saves, save = [0], Run.save

    def killed(self: Run, *args: Any) -> None:
        saves[0] += 1
        if saves[0] == 3:  # at the second of the times that the two are saved
            raise KeyboardInterrupt
        save(self, *args)

    members: list[int] = []
    advance = "jmrec.training.population.PopulationStep.advance"
    from jmrec.training.population import PopulationStep

    real = PopulationStep.advance

    def counted(self: PopulationStep, *args: Any) -> Any:
        members.append(self.members)
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr("jmrec.training.host.Run.save", killed)
        asked = ["sweep", f"--config={SPEC}", *GIVEN, f"--workdir={at_once.workdir}"]
        assert main([*asked, "--at-once=0,1,2"]) == 130
    with monkeypatch.context() as patch:
        patch.setattr(advance, counted)
        train(at_once, 0, 1, 2)
    assert 0 < len(members) < 12, "it went on where it was killed"
    assert {*members} == {2}, "the one of another program is trained by itself"
    for trial in at_once.trials:
        stage = trial.folder / "students/student-0"
        assert (stage / "checkpoints/12").is_dir()
        facts = json.loads((stage / "stage.json").read_text())
        assert not facts["done"]
        assert facts["seconds"] > 0
        assert facts["shared"] is None
    with monkeypatch.context() as patch:  # its own run finds all of it done
        patch.setattr("jmrec.training.step.TrainStep.advance", None)
        for trial in at_once.trials:
            assert main([*at_once.command(trial, ["run"]), "--share"]) == 0
    for one, other in zip(alone.trials, at_once.trials):
        (want, said), (got, same) = (
            load_params(each.folder / "students/student-0/params") for each in (one, other)
        )
        assert said == same
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), want, got)
        rows = [{row["name"]: row["figures"] for row in results(each.folder)["rows"]}
                for each in (one, other)]  # fmt: skip
        assert rows[0].keys() == rows[1].keys()
        cost = json.loads((other.folder / "evaluate/cost.json").read_text())
        assert cost["stages"]["students/student-0"]["seconds"] > 0
        assert one.score() == pytest.approx(other.score(), abs=1e-4)
    scores = {trial.score() for trial in at_once.trials}
    assert len(scores) == 3, "no trial was trained with the numbers of another"


def test_rows_of_a_run_are_trained_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may read other features by the same program; a row goes with that of another run."""
    runs = []
    for name, rate in (("one", 0.1), ("two", 0.2), ("three", 0.3)):
        config = load_config(SPEC, [*GIVEN, VALIDATION])
        with config.unlocked():
            config.students.alike = ConfigDict(config.students.student)
            config.student.hparams.dropout = rate
            if name == "three":
                config.students.alike.view = "text"
        runs.append((config, tmp_path / "runs" / name))
    trained: list[list[str]] = []

    def noted(fits: list[Fits]) -> list[list[None]]:
        members = [member for own in fits for member in own.members]
        trained.append([str(Path(m.workdir).relative_to(tmp_path / "runs")) for m in members])
        return [[None for _ in own.members] for own in fits]

    monkeypatch.setattr("jmrec.systems.at_once.fit_at_once", noted)
    train_at_once(runs, share=True)
    assert sorted(trained) == [
        ["one/students/alike-0", "two/students/alike-0"],
        [f"{run}/students/student-0" for run in ("one", "two", "three")],
        ["three/students/alike-0"],
    ]


def test_only_those_that_differ_in_numbers_are_put_together(tmp_path: Path) -> None:
    found = trials_of(tmp_path)
    named = [[trial.index for trial in group] for group in groups(found, 8)]
    assert named == [[0, 2], [1]]
    assert [len(group) for group in groups(found, 1)] == [1, 1, 1]


STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
where = Path(sys.argv[sys.argv.index("--workdir") + 1])
(where / "asked.json").write_text(json.dumps(sys.argv[2:]))
code = int(sys.argv[1])
if code < 0:
    os.kill(os.getpid(), -code)
if code == 75:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (where / "waits").touch()
    time.sleep(600)
print("jmrec: it is too warm here")
sys.exit(code)
"""


def stand_in(code: int) -> list[str]:
    return [sys.executable, "-c", STAND_IN, str(code)]


def put_together(found: Sweep, code: int, *, share: bool = True) -> list[str]:
    said: list[str] = []
    train_groups(
        found, 8, share=share, say=said.append, show=lambda jobs: None, poll=0.02,
        runner=stand_in(code),
    )  # fmt: skip
    return said


@pytest.fixture
def found(tmp_path: Path) -> Sweep:
    for n in range(3):
        (tmp_path / f"trial-000{n}").mkdir()
    return trials_of(tmp_path)


def test_a_process_is_asked_for_them(found: Sweep) -> None:
    assert put_together(found, 0, share=False) == ["trial-0000, trial-0002: trained at once"]
    asked = json.loads((found.workdir / "asked.json").read_text())
    where = ["--config", SPEC, "--workdir", str(found.workdir)]
    assert asked == ["--no-share", *where, *GIVEN, "--at-once=0,2", "--every-row"]


def test_what_can_not_be_trained_at_once_is_trained_by_itself(found: Sweep) -> None:
    _, said = put_together(found, 2)
    assert "not trained at once (jmrec: it is too warm here), each is trained by itself" in said


def test_a_trial_that_another_process_runs_is_left_to_it(found: Sweep) -> None:
    from jmrec.lock import try_lock

    lock = try_lock(found.trials[2].folder / "trial.lock")
    assert lock is not None
    assert put_together(found, 2) == [], "one alone is no group"
    os.close(lock)
    assert len(put_together(found, 0)) == 1


def test_sigterm_ends_the_process_too(found: Sweep) -> None:
    def later() -> None:
        while not (found.workdir / "waits").exists():
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=later)
    thread.start()
    with pytest.raises(Preempted):
        put_together(found, 75)
    thread.join()


def test_a_process_that_is_killed_is_said_by_its_signal(found: Sweep) -> None:
    _, said = put_together(found, -9)
    assert "not trained at once (killed by signal 9 (9 is often a lack of memory))" in said


def test_trials_that_differ_in_more_are_each_trained_by_themselves(
    found: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(found, trials=found.trials[:2])
    assert put_together(few, 2) == [
        "no two trials differ in numbers of session students alone: each is trained by itself"
    ]
    base = {name: value for name, value in found.base.items() if name != "system"}
    assert "each is trained by itself" in put_together(replace(found, base=base), 2)[0]


def test_groups_are_trained_before_any_trial_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[Any] = []
    monkeypatch.setattr(
        "jmrec.tools.sweep.sweep.run_trials",
        lambda found, source, **how: order.append([trial.index for trial in source._open]),
    )
    monkeypatch.setattr(
        "jmrec.tools.sweep.sweep.train_groups", lambda found, most, **how: order.append(most)
    )
    sweep(SPEC, GIVEN, tmp_path, population=2)
    assert order == [2, [0, 1, 2]]


@pytest.mark.parametrize("other", [{"study": "x"}, {"index": 0}])
def test_what_goes_without_a_population(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--population trains several trials at once"):
        sweep(SPEC, GIVEN, tmp_path, population=2, **other)
