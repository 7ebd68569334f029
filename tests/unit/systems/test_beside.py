"""Processes of stages that run side by side, played by short ones."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jmrec.config import ConfigDict
from jmrec.errors import Preempted, UserError
from jmrec.processes import start
from jmrec.systems import beside
from jmrec.systems.beside import BESIDE, SideBySide, metrics_of, settings_of, take_over
from jmrec.tracking import Tracker, read_curves, read_lines
from jmrec.tracking.jsonl import METRICS

WRITES = """
import sys, time
from pathlib import Path
name, log = sys.argv[1:3]
begin = time.monotonic()
Path(log).with_suffix(".begun").touch()
while not (Path(log).parent / "NEEDS.begun").exists() and time.monotonic() - begin < 60:
    time.sleep(0.02)
Path(log).with_suffix(".seen").write_text(f"{begin} {time.monotonic()}")
Path(log).with_suffix(".jsonl").write_text('{"stage": "%s", "step": 5, "loss": 0.5}\\n' % name)
"""
"""A stage that waits until another has begun, or itself, and then writes what it measured."""


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_cores", lambda: [0, 1, 2, 3])


def side_by_side(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str], parallel: int = 2
) -> SideBySide:
    """Return what runs a script for each stage."""

    def begin(self: SideBySide, name: str, slot: int, lock: int) -> Any:
        log = self._file(name, "log")
        return start([sys.executable, "-c", scripts[name], name, str(log)], log, [lock])

    monkeypatch.setattr(SideBySide, "_start", begin)
    config = ConfigDict({"seeds": (0, 1), "data": {"dir": None}})
    return SideBySide(config, workdir, ["jmrec", "run"], Tracker(workdir, quiet=False), parallel)


def always(name: str) -> bool:
    return True


def test_what_they_measured_is_taken_over_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # "b" and "a" begin together; "b" goes on to the end of "a", and until "c" has begun.
    needs = {"b": "c", "a": "b", "c": "c"}
    scripts = {name: WRITES.replace("NEEDS", other) for name, other in needs.items()}
    run = side_by_side(tmp_path, monkeypatch, scripts)
    run.tracker.stage("b").log(5, {"loss": 9.0})  # of a start that was killed after its last save
    run.tracker.stage("b").log(4, {"loss": 8.0})
    seen: dict[str, Any] = {}
    whole = take_over

    def look(*args: Any) -> None:
        for path in (tmp_path / BESIDE).glob("*.seen"):
            seen[path.stem] = [float(each) for each in path.read_text().split()]
        seen["settings"] = settings_of(tmp_path)
        whole(*args)

    monkeypatch.setattr(beside, "take_over", look)
    asked = []
    run(["b", "a", "not", "c"], lambda name: asked.append(name) or name != "not")  # type: ignore[func-returns-value]
    assert asked == ["b", "a", "not", "c"]
    lines = [entry for _, entry in read_lines(tmp_path / METRICS)]
    assert [tuple(each.values()) for each in lines] == [
        ("b", 4, 8.0), ("b", 5, 0.5), ("a", 5, 0.5), ("c", 5, 0.5),
    ]  # fmt: skip
    assert not (tmp_path / BESIDE).exists()
    # Two at a time, never three: "c" began when "a" had ended, and "b" was still at it.
    assert seen["a"][1] < seen["c"][0] < seen["b"][1]
    assert seen["b"][0] < seen["a"][1]
    config, command = seen["settings"]
    assert config.to_dict() == {"seeds": [0, 1], "data": {"dir": None}}
    assert command == ["jmrec", "run"]


def test_one_that_can_not_go_on_keeps_no_other_from_being_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "the loss of update 3 is no number; lower the rate."
    fails = f"print('begun'); print('jmrec: {sentence}'); exit(2)"
    run = side_by_side(
        tmp_path,
        monkeypatch,
        {"a": fails, "b": WRITES.replace("NEEDS", "b"), "c": WRITES.replace("NEEDS", "c")},
    )
    with pytest.raises(UserError, match=rf"^a: {sentence}"):
        run(["a", "b", "c"], always)
    assert (tmp_path / BESIDE / "a.log").read_text().startswith("begun")
    take_over(tmp_path, run.tracker)  # as the next start does
    assert sorted(read_curves(tmp_path)) == ["b", "c"]


def test_a_signal_to_one_stops_all_and_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = "import time; time.sleep(60)"
    run = side_by_side(tmp_path, monkeypatch, {"a": "exit(75)", "b": waits, "c": waits})
    begin = time.monotonic()
    with pytest.raises(Preempted, match="SIGTERM to a; the state is saved"):
        run(["a", "b", "c"], always)
    assert time.monotonic() - begin < 30


def test_a_signal_to_the_run_goes_on_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = "import time; time.sleep(60)"
    run = side_by_side(tmp_path, monkeypatch, {"a": waits, "b": waits})
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Preempted, match="the state is saved"):
        run(["a", "b"], always)


def test_who_starts_again_waits_for_those_of_a_run_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / BESIDE).mkdir()
    log = metrics_of(tmp_path, "students/a-0").with_suffix(".log")
    with (tmp_path / BESIDE / beside.LOCK).open("a") as lock:
        beside.fcntl.flock(lock, beside.fcntl.LOCK_SH)
        slow = f"import time; time.sleep(0.5)\n{WRITES.replace('NEEDS', 'students.a-0')}"
        left = start([sys.executable, "-c", slow, "students/a-0", str(log)], log, [lock.fileno()])
    tracker = Tracker(tmp_path, quiet=False)
    take_over(tmp_path, tracker)
    assert left.poll() is not None or left.wait(5) == 0
    assert read_curves(tmp_path) == {"students/a-0": {"step": [5], "loss": [0.5]}}


@pytest.mark.parametrize(
    ("parallel", "words"),
    [(0, "make it 1 or more"), (5, "there are 4; make it smaller"), (-2, "1 or more")],
)
def test_so_many_can_not_be(parallel: int, words: str, cores: None) -> None:
    with pytest.raises(UserError, match=words):
        beside.check(parallel)


def test_an_accelerator_and_several_processes_have_other_ways(
    cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.check(4)
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="on a CPU alone"):
        beside.check(2)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(UserError, match="where a run is one process"):
        beside.check(2)
    beside.check(1)


def test_a_stage_by_itself_is_refused_in_words(tmp_path: Path) -> None:
    from jmrec.systems.registry import run_stage

    with pytest.raises(UserError, match="has no stages side by side"):
        run_stage(tmp_path, "students/a-0")


@pytest.mark.parametrize(
    ("text", "updates"),
    [('{"stage": "a", "step": 7, "loss": 1}\n', 7), ('{"stage": "a", "st', 0), ("", 0), (None, 0)],
)
def test_how_far_a_stage_is_stands_beside_the_bar(
    text: str | None, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = side_by_side(tmp_path, monkeypatch, {})
    (tmp_path / BESIDE).mkdir()
    if text is not None:
        metrics_of(tmp_path, "a").write_text(text)
    assert run._updates("a") == updates
