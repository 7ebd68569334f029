"""Sweeps that are killed: every trial runs once to its end, one table, one plot.

The trials are a stand-in for ``jmrec run`` (stand_in_run.py); the sweep, its processes, locks,
study and files are the real ones.
"""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from jmrec.errors import REQUEUE, UserError
from jmrec.tools.sweep.sweep import sweep

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in_run.py"))]
EXPERIMENT = """
from jmrec.config import ConfigDict, product, sweep

def get_config(arg=None):
    return ConfigDict({
        "seeds": (0,), "rate": 0.0, "decay": 0.0, "fail": False, "hang": False,
        "evaluate": {"split": "test", "serve": "s"}, "students": {"s": {"logit": 0.0}},
    })

def get_hyper():
    return HYPER
"""
SIX = 'product(sweep("rate", (0.1, 0.3, 0.2)), sweep("decay", (0.0, 1.0)))'
WORKER = """
import sys
from pathlib import Path
from jmrec import main
from jmrec.tools.sweep import sweep as tool
runner, words = sys.argv[1:3], sys.argv[3:]
old = tool.sweep
tool.sweep = lambda *args, **more: old(*args, **more, runner=runner, poll=0.02)
sys.exit(main.main(words))
"""


def experiment(tmp_path: Path, hyper: str = SIX) -> str:
    path = tmp_path / "x.py"
    path.write_text(EXPERIMENT.replace("HYPER", hyper))
    return str(path)


def worker(spec: str, workdir: Path, *words: str) -> subprocess.Popen[str]:
    """Start ``jmrec sweep`` with the stand-in."""
    asked = ["sweep", "--config", spec, "--workdir", str(workdir), *words]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *STAND_IN, *asked],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], *workers: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 600
    while not condition():
        for each in workers:
            assert each.poll() is None, each.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def counts(workdir: Path, name: str) -> list[int]:
    """Return the lines of each trial's file."""
    found = [workdir / f"trial-{i:04d}" / name for i in range(6)]
    return [len(path.read_text().splitlines()) if path.exists() else 0 for path in found]


def half_done(workdir: Path) -> int:
    """Return how many trials wait half-way."""
    return sum(path.read_text() == "3" for path in workdir.glob("trial-*/step.txt"))


def killed_twice(spec: str, workdir: Path, workers: int, *words: str) -> list[str]:
    """Kill a sweep with -9, then by SIGTERM, and let it end; return what the last ones printed."""

    def start() -> list[subprocess.Popen[str]]:
        return [worker(spec, workdir, *words) for _ in range(workers)]

    running = start()
    wait_for(lambda: sum(counts(workdir, "ends.txt")) == 2 and half_done(workdir) == 2, *running)
    for each in running:
        each.kill()
        each.communicate()
    running = start()
    wait_for(lambda: sorted(counts(workdir, "starts.txt"))[-2:] == [2, 2], *running)
    for each in running:
        each.send_signal(signal.SIGTERM)
    for each in running:
        _, said = each.communicate(timeout=600)
        assert each.returncode == REQUEUE, said
        assert "again" in said.splitlines()[-1]
    assert sum(counts(workdir, "ends.txt")) == 2
    assert len(list(workdir.glob("trial-*/trial.json"))) == 2  # who was stopped has not failed
    (workdir / "open").touch()
    printed = []
    running = start()
    for each in running:
        out, said = each.communicate(timeout=600)
        assert each.returncode == 0, said
        assert "Traceback" not in said
        printed.append(out)
    return printed


def check_ended(workdir: Path, printed: list[str]) -> None:
    assert counts(workdir, "ends.txt") == [1] * 6
    # Two were killed half-way and started three times; the others never began twice.
    assert sorted(counts(workdir, "starts.txt")) == [1, 1, 1, 1, 3, 3]
    assert not list(workdir.glob("trial-*/clash"))
    # A resumed trial went on where it was.
    assert counts(workdir, "metrics.jsonl") == [6] * 6
    with (workdir / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [f"trial-{i:04d}" for i in range(6)]
    assert [(row["state"], row["rate"], row["decay"], row["score"]) for row in rows] == [
        ("done", rate, decay, rate) for rate in ("0.1", "0.3", "0.2") for decay in ("0.0", "1.0")
    ]
    found = json.loads((workdir / "sweep.json").read_text())
    assert found["best"]["trial"] == "trial-0002"
    assert len(list(workdir.glob("*.png"))) == 1
    assert (workdir / "sweep.png").read_bytes().startswith(b"\x89PNG")
    for text in printed:
        assert sum(line.startswith("│ trial-000") for line in text.splitlines()) == 6
        assert "best: trial-0002, 30.00 %" in text
        # The decay is read by nothing, and that is said.
        assert "trial-0000 and trial-0001 have the same figures to the last digit" in text


def test_killed_twice_every_trial_runs_once_to_its_end(tmp_path: Path) -> None:
    spec, workdir = experiment(tmp_path), tmp_path / "sweep"
    printed = killed_twice(spec, workdir, 1, "--parallel", "2")
    check_ended(workdir, printed)
    before = (workdir / "trial-0000" / "starts.txt").stat().st_mtime_ns
    again = worker(spec, workdir)
    out, said = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert "best: trial-0002" in out
    assert (workdir / "trial-0000" / "starts.txt").stat().st_mtime_ns == before


def study_of(workdir: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    path = workdir / f"optuna-{name}.journal"
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))
    return study.get_trials()


def test_the_same_through_optuna_with_two_workers(tmp_path: Path) -> None:
    spec, workdir = experiment(tmp_path), tmp_path / "sweep"
    printed = killed_twice(spec, workdir, 2, "--optuna", "rates", "--no-prune")
    check_ended(workdir, printed)
    trials = study_of(workdir, "rates")
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
    assert sorted(trial.user_attrs["trial"] for trial in trials) == [
        f"trial-{i:04d}" for i in range(6)
    ]
    for trial in trials:
        assert trial.value == trial.user_attrs["rate"]
        assert sorted(trial.intermediate_values) == list(range(6))


def run(tmp_path: Path, hyper: str, *overrides: str, **more: object) -> Path:
    """Sweep in this process, with no gates."""
    workdir = tmp_path / "sweep"
    workdir.mkdir(exist_ok=True)
    (workdir / "no-gates").touch()
    spec = experiment(tmp_path, hyper)
    sweep(spec, overrides, workdir, runner=STAND_IN, poll=0.02, **more)  # type: ignore[arg-type]
    return workdir


def states(workdir: Path) -> list[str]:
    return [each["state"] for each in json.loads((workdir / "sweep.json").read_text())["trials"]]


def test_a_poor_trial_is_pruned_and_stays_so(tmp_path: Path) -> None:
    hyper = 'sweep("rate", (0.5, 0.6)) + [{"rate": 0.01, "hang": True}]'
    pruner = optuna.pruners.ThresholdPruner(lower=0.02, n_warmup_steps=3)
    workdir = run(tmp_path, hyper, study="p", pruner=pruner, parallel=2)
    assert states(workdir) == ["done", "done", "pruned"]
    found = {trial.user_attrs["trial"]: trial for trial in study_of(workdir, "p")}
    assert found["trial-0002"].state == optuna.trial.TrialState.PRUNED
    assert found["trial-0000"].value == 0.5
    run(tmp_path, hyper, study="p", pruner=pruner)
    assert counts(workdir, "starts.txt")[:3] == [1, 1, 1]


def test_a_small_study_learns_and_prunes_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    median, tpe = optuna.pruners.MedianPruner, optuna.samplers.TPESampler.__init__

    def pruner(n_startup_trials: int) -> Any:
        made.append(n_startup_trials)
        return median(n_startup_trials=n_startup_trials)

    def sampler(self: Any, **more: Any) -> None:
        made.append(more["n_startup_trials"])
        tpe(self, **more)

    monkeypatch.setattr(optuna.pruners, "MedianPruner", pruner)
    monkeypatch.setattr(optuna.samplers.TPESampler, "__init__", sampler)
    run(tmp_path, SIX, study="small")
    assert made == [2, 2]  # of six: two at random, unpruned


def test_a_study_of_some_trials_runs_as_many(tmp_path: Path) -> None:
    workdir = run(tmp_path, SIX, study="some", count=4, parallel=2, prune=False)
    assert sorted(states(workdir)) == ["done"] * 4 + ["not ended"] * 2
    run(tmp_path, SIX, study="some", count=6, prune=False)
    assert states(workdir) == ["done"] * 6
    assert counts(workdir, "starts.txt") == [1] * 6


@pytest.mark.parametrize("study", [None, "s"])
def test_a_failed_trial_stops_no_other_and_is_tried_again(
    tmp_path: Path, study: str | None
) -> None:
    hyper = 'sweep("rate", (0.5, 0.6)) + [{"fail": True}] + sweep("rate", (0.7,))'
    for attempt in (1, 2):
        with pytest.raises(UserError, match="1 of 4 trials failed") as caught:
            # Unpruned: the sampler's order is random, and a late poor trial would be stopped.
            run(tmp_path, hyper, study=study, prune=study is None)
        assert "trial-0002: rate is broken; mend it." in str(caught.value)
        workdir = tmp_path / "sweep"
        assert states(workdir) == ["done", "done", "failed", "done"]
        assert counts(workdir, "starts.txt")[:4] == [1, 1, attempt, 1]


def test_array_tasks_run_one_trial_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    workdir = run(tmp_path, SIX)
    assert counts(workdir, "starts.txt") == [0, 0, 0, 0, 1, 0]
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    run(tmp_path, SIX)
    run(tmp_path, SIX, index=0)
    assert counts(workdir, "starts.txt") == [1, 1, 0, 0, 1, 0]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "6")
    with pytest.raises(UserError, match="no trial 6; the sweep has 0 to 5"):
        run(tmp_path, SIX)
    run(tmp_path, SIX, parallel=2)
    assert counts(workdir, "starts.txt") == [1] * 6
    assert states(workdir) == ["done"] * 6
