"""The metrics file, its cutting back, the progress lines and the W&B mirror."""

import io
import json
import math
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from jmrec.errors import UserError
from jmrec.tracking import Tracker, progress, read_curves
from jmrec.tracking import wandb as mirror
from jmrec.usage import duration


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def lines(folder: Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_log_writes_plain_json(tmp_path: Path) -> None:
    with Tracker(tmp_path / "new" / "run") as tracker:
        tracker.log(
            np.int64(3),  # type: ignore[arg-type]
            {
                **{"loss": jnp.float32(0.5), "nan": math.nan, "inf": np.float32(-np.inf)},
                **{"n": np.int32(7), "ok": np.bool_(True), "text": "a\nb", "none": None},
                **{"list": np.array([1.0, np.nan]), "half": jnp.bfloat16(1.5)},
            },
        )
    assert lines(tmp_path / "new" / "run") == [
        {
            **{"step": 3, "loss": 0.5, "nan": None, "inf": None, "n": 7, "ok": True},
            **{"text": "a\nb", "none": None, "list": [1.0, None], "half": 1.5},
        }
    ]


def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    for step in range(3):
        tracker.log(step, {"x": step})
        assert len(lines(tmp_path)) == step + 1


def test_stages_share_a_file(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.log(0, {"a": 1})
    tracker.stage("student").stage("seed 0").log(1, {"a": 2})
    Tracker(tmp_path, prefix="knowledge").log(2, {"a": 3})
    assert lines(tmp_path) == [
        {"step": 0, "a": 1},
        {"stage": "student/seed 0", "step": 1, "a": 2},
        {"stage": "knowledge", "step": 2, "a": 3},
    ]


def test_truncate_cuts_one_stage_back_to_the_step(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    one, two = tracker.stage("one"), tracker.stage("two")
    for step in (1, 2, 3):
        one.log(step, {"loss": step})
        two.log(step, {"loss": step})
        tracker.log(step, {"loss": step})
    one.truncate(2)
    assert [e["step"] for e in lines(tmp_path) if e.get("stage") == "one"] == [1, 2]
    assert [e["step"] for e in lines(tmp_path) if e.get("stage") == "two"] == [1, 2, 3]
    tracker.truncate(0)
    assert [e["step"] for e in lines(tmp_path) if "stage" not in e] == []
    one.log(3, {"loss": 3})
    assert [e["step"] for e in lines(tmp_path) if e["stage"] == "one"] == [1, 2, 3]
    Tracker(tmp_path / "other").truncate(5)  # nothing to cut is no error


def test_killed_and_resumed_leaves_the_same_file(tmp_path: Path) -> None:
    def run(folder: Path, start: int, stop: int) -> None:
        with Tracker(folder, prefix="s") as tracker:
            tracker.truncate(start)
            for step in range(start + 1, stop + 1):
                tracker.log(step, {"loss": 1 / step})

    run(tmp_path / "whole", 0, 6)
    run(tmp_path / "killed", 0, 4)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "s", "step": 5, "lo')  # killed while writing
    run(tmp_path / "killed", 2, 6)
    whole = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == whole


def test_a_half_written_line_is_dropped_before_the_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    Tracker(tmp_path).log(2, {"x": 1})
    assert lines(tmp_path) == [{"step": 1}, {"step": 2, "x": 1}]


def test_read_curves_aligns_columns(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}
    tracker = Tracker(tmp_path).stage("a")
    tracker.log(10, {"loss": 1.0})
    tracker.log(5, {"loss": 2.0})
    tracker.log(10, {"MRR@20": 0.5})
    assert read_curves(tmp_path) == {
        "a": {"step": [5, 10], "loss": [2.0, 1.0], "MRR@20": [None, 0.5]}
    }


# --- the terminal ---------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_plain_lines_come_every_ten_seconds(tmp_path: Path, clock: list[float]) -> None:
    out = console()
    with Tracker(tmp_path, console=out).stage("student").progress(100, "train", start=20) as bar:
        for step in range(80):
            clock[0] += 0.5
            bar.update(loss=np.float32(1.23456), step=step)
    said = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(said) == 5  # at 10, 20, 30 and 40 s, and the end
    assert said[0] == "student: train: 40/100 (40 %), 30.0 s left, loss 1.235, step 19"
    assert said[-1] == "student: train: 100/100 in 40.0 s, loss 1.235, step 79"


def test_what_is_left_counts_neither_the_compilation_nor_what_was_done_before(
    tmp_path: Path, clock: list[float]
) -> None:
    out = console()
    with Tracker(tmp_path, console=out).progress(100, "train", start=40) as bar:
        clock[0] = 60.0  # compiled
        bar.update()
        for _ in range(9):
            clock[0] += 2
            bar.update()
        said = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == [
        "train: 41/100 (41 %)",
        "train: 46/100 (46 %), 1 min 48 s left",
    ]


def test_plain_lines_without_a_total(tmp_path: Path, clock: list[float]) -> None:
    out = console()
    with Tracker(tmp_path, console=out, prefix="read").progress(None, "read") as bar:
        clock[0] = 200.0
        bar.update(7)
    assert out.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "read: 7",
        "read: 7 in 3 min 20 s",
    ]


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    out = console(terminal=True)
    with Tracker(tmp_path, console=out).progress(4, "embed [items]") as bar:
        for _ in range(4):
            bar.update(loss=0.25)
        bar.update(0)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "embed [items]" in text
    assert "4/4" in text
    assert "loss 0.25" in text


def test_say_prints_text_as_it_is(tmp_path: Path) -> None:
    out = console()
    Tracker(tmp_path, console=out).say("[bold]" + "x" * 200)
    assert out.file.getvalue() == "[bold]" + "x" * 200 + "\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- W&B ------------------------------------------------------------------------------------


class FakeRun:
    def __init__(self, calls: list, fail: bool) -> None:
        self.calls, self.fail = calls, fail

    def define_metric(self, *args, **kwargs) -> None:
        self.calls.append(("define", args, kwargs))

    def log(self, values: dict, step: int | None = None) -> None:
        if self.fail:
            raise RuntimeError("no network\nlong story")
        self.calls.append(("log", values))

    def finish(self) -> None:
        self.calls.append(("finish",))


def fake_wandb(monkeypatch: pytest.MonkeyPatch, *, fail_init=False, fail_log=False) -> list:
    calls: list = []

    def init(**kwargs):
        calls.append(("init", kwargs))
        if fail_init:
            raise RuntimeError("no key")
        return FakeRun(calls, fail_log)

    fake = types.SimpleNamespace(init=init, Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return calls


def test_wandb_mirrors_and_keeps_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_wandb(monkeypatch)
    settings = ConfigDict({"mode": "online", "project": "p", "name": "n"})
    ids = []
    for step in (1, 2):
        with Tracker(tmp_path, wandb=settings, config={"seed": 1}) as tracker:
            ids.append(tracker.run_id)
            tracker.stage("s").log(step, {"loss": 0.5, "bad": math.nan})
            tracker.stage("s").close()  # a stage's close ends nothing
            tracker.log(step, {"x": 1})
    assert ids[0]
    assert ids[0] == ids[1]
    inits = [call[1] for call in calls if call[0] == "init"]
    assert [each["id"] for each in inits] == ids
    assert inits[0]["project"] == "p"
    assert inits[0]["config"] == {"seed": 1}
    logs = [call[1] for call in calls if call[0] == "log"]
    assert logs[:2] == [{"s/loss": 0.5, "s/step": 1}, {"x": 1, "step": 1}]
    assert [call[0] for call in calls].count("finish") == 2


@pytest.mark.parametrize("where", ["init", "log"])
def test_a_wandb_failure_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    calls = fake_wandb(monkeypatch, fail_init=where == "init", fail_log=where == "log")
    out = console()
    with Tracker(tmp_path, wandb={"mode": "online"}, console=out) as tracker:
        tracker.log(1, {"x": 1})
        tracker.log(2, {"x": 2})
    said = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(said) == 1
    assert "Weights & Biases failed" in said[0]
    assert "long story" not in said[0]
    # Online it may be the network's fault, so offline is tried too.
    assert [call[1]["mode"] for call in calls if call[0] == "init"] == [
        "online",
        *(["offline"] if where == "init" else []),
    ]
    assert [each["x"] for each in lines(tmp_path)] == [1, 2]


def test_a_wandb_that_does_not_answer_stalls_nothing_and_goes_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch)
    answer = threading.Event()
    quick = sys.modules["wandb"].init

    def init(**kwargs):
        if kwargs["mode"] == "online":
            answer.wait()  # for ever, as far as the tracker knows
        return quick(**kwargs)

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    monkeypatch.setattr(mirror, "WANDB_BEGIN", 0.2)
    out = console()
    tracker = Tracker(tmp_path, wandb={"mode": "online"}, console=out)
    for step in range(100):
        tracker.log(step, {"x": step})
    assert len(lines(tmp_path)) == 100
    tracker.close()
    (said,) = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "cannot be reached (TimeoutError: no answer within" in said
    assert "wandb sync" in said
    assert [call[1]["mode"] for call in calls if call[0] == "init"] == ["offline"]
    assert [call[1]["x"] for call in calls if call[0] == "log"] == list(range(100))
    answer.set()


def test_a_wandb_that_does_not_end_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wandb(monkeypatch)
    answer = threading.Event()
    monkeypatch.setattr(FakeRun, "log", lambda self, values: answer.wait())
    out = console()
    tracker = Tracker(tmp_path, wandb={"mode": "online"}, console=out)
    for step in range(100):
        tracker.log(step, {"x": step})
    monkeypatch.setattr(mirror, "WANDB_END", 0.1)
    tracker.close()
    (said,) = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "took more than 0.1 s to end" in said
    assert len(lines(tmp_path)) == 100
    answer.set()


def test_a_quiet_tracker_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_wandb(monkeypatch)
    (tmp_path / "metrics.jsonl").write_text('{"step": 9, "x": 1}\n{"half')
    with Tracker(tmp_path, wandb={"mode": "online"}, quiet=True) as tracker:
        assert tracker.run_id is None
        tracker.stage("s").log(1, {"x": 1})
        tracker.truncate(2)
        with tracker.progress(3, "loop") as bar:
            bar.update(3)
        assert tracker.console.quiet
    assert calls == []
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 9, "x": 1}\n{"half'
    assert not (tmp_path / "wandb_id").exists()


def test_disabled_wandb_is_not_even_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from jmrec.tracking import Tracker\n"
        f"with Tracker({str(tmp_path)!r}, wandb={{'mode': 'disabled'}}) as t:\n"
        "    t.log(1, {'a': 1})\n"
        "assert t.run_id is None; sys.exit('wandb' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_mode_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="disabled, offline, online"):
        Tracker(tmp_path, wandb={"mode": "off"})


def test_offline_wandb_needs_neither_network_nor_key(tmp_path: Path) -> None:
    """The real package, in a process without a key, with the network's way blocked."""
    code = (
        "from jmrec.tracking import Tracker\n"
        f"folder = {str(tmp_path)!r}\n"
        "with Tracker(folder, wandb={'mode': 'offline'}, config={'seed': 1}) as t:\n"
        "    for step in range(3): t.stage('s').log(step, {'loss': step / 2})\n"
        "    print(t.run_id)\n"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    env |= {"HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    (run,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert done.stdout.strip() in run.name
    assert run.stat().st_size > 0
    assert len(lines(tmp_path)) == 3
