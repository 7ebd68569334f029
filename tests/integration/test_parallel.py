"""Stages side by side: what a run leaves whose students are trained several at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jmrec.checkpoint import load_params
from jmrec.errors import REQUEUE
from jmrec.systems.beside import BESIDE, RUN
from tests.integration.session_runs import ROOT, results

SPEC = f"{ROOT / 'experiments/session.py'}:data=toyshop,size=tiny,encoder=student+sasrec"
SETTINGS = [
    *("seeds=(0,)", "data.toyshop.n_items=80", "data.toyshop.sessions=200", "data.window=8"),
    *("student.train.steps=80", "student.train.eval_every=40", "student.train.save_every=8"),
    *("student.train.batch_size=16", "student.stack.width=16", "evaluate.serve=student"),
]  # fmt: skip
STUDENTS = ["sasrec-0", "student-0"]
CORES = sorted(getattr(os, "sched_getaffinity", lambda _: [0])(0))
HALF = set(CORES[::2])
ENTRY = """
import os, sys
os.sched_setaffinity(0, eval(sys.argv.pop(1)))
from jmrec.main import entry
entry()
"""
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs Linux and two cores")


def started(workdir: Path, *more: str, cores: set[int] | None = None) -> subprocess.Popen[str]:
    words = ["run", f"--config={SPEC}", *(f"--config.{each}" for each in SETTINGS), *more]
    command = [sys.executable, "-c", ENTRY, str(cores or set(CORES)), *words]
    return subprocess.Popen(
        [*command, "--workdir", str(workdir)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=workdir.parent,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "parallel"
    said = ended(started(workdir, "--parallel=2"))
    assert [said.count(f"students/{each}: done in") for each in STUDENTS] == [1, 1]
    return workdir


def trained(workdir: Path) -> tuple[list[dict[str, np.ndarray]], str]:
    """Return the parameters of each student, and all that was measured."""
    params = [load_params(workdir / f"students/{each}/params")[0] for each in STUDENTS]
    flat = [{"/".join(name): x for name, x in flatten_dict(each).items()} for each in params]
    return flat, (workdir / "metrics.jsonl").read_text()


def assert_same(found: Path, wanted: Path) -> None:
    (params, lines), (others, known) = trained(found), trained(wanted)
    assert len(known.splitlines()) >= 4
    assert lines == known
    for mine, theirs in zip(params, others, strict=True):
        assert len(theirs) > 4
        assert mine.keys() == theirs.keys()
        for name, x in theirs.items():
            np.testing.assert_array_equal(mine[name], x, err_msg=name)


def test_it_is_a_run_that_trains_one_after_the_other_on_as_many_cores(
    parallel: Path, tmp_path: Path
) -> None:
    ended(started(tmp_path / "one", cores=HALF))
    assert_same(parallel, tmp_path / "one")
    assert not (parallel / BESIDE).exists()
    # Each students' stage was trained in a process that said so, and nothing of it is lost.
    for name in STUDENTS:
        facts = json.loads((parallel / f"students/{name}/stage.json").read_text())
        assert facts["done"]
        assert facts["peak_memory"] > 0
    figures = [{r["name"]: r["figures"] for r in results(each)["rows"]}
               for each in (parallel, tmp_path / "one")]  # fmt: skip
    assert figures[0].keys() == figures[1].keys()
    assert figures[0]["sasrec"]["session"]["MRR@20"] == pytest.approx(
        figures[1]["sasrec"]["session"]["MRR@20"], abs=1e-4
    )


def half_way(workdir: Path, process: subprocess.Popen[str]) -> None:
    """Wait until two students have saved something and none is done."""
    until = time.monotonic() + 300
    while len({path.parts[-3] for path in workdir.glob("students/*/checkpoints/[0-9]*")}) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def at_work(workdir: Path) -> list[int]:
    """Return the processes of stages of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--stage" in words and str(workdir).encode() in words:
            found.append(int(path.parent.name))
    return found


def begun(workdir: Path, before: int) -> bool:
    """Tell whether a later start has begun stages side by side."""
    path = workdir / BESIDE / RUN
    return path.exists() and path.stat().st_mtime_ns > before


def test_killed_and_told_to_stop_it_ends_the_same(parallel: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "killed"
    process = started(workdir, "--parallel=2")
    half_way(workdir, process)
    assert len(at_work(workdir)) == 2
    process.kill()
    ended(process, -signal.SIGKILL)
    # Its stages save and end by themselves; who starts it again waits for that.
    before = (workdir / BESIDE / RUN).stat().st_mtime_ns
    process = started(workdir, "--parallel=2")
    until = time.monotonic() + 300
    while not (begun(workdir, before) and len(at_work(workdir)) == 2):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.terminate()
    said = ended(process, REQUEUE)
    assert "the state is saved" in said.splitlines()[-1]
    assert at_work(workdir) == []
    # One after the other, on as many cores.
    said = ended(started(workdir, cores=HALF))
    assert "resumed" in said
    assert_same(workdir, parallel)
    assert not (workdir / BESIDE).exists()
