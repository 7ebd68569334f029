"""The system "gaussians" through the command line: it learns, it can be killed, it refuses."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from jmrec.checkpoint import load_params
from jmrec.data.gaussians import PairBatches
from jmrec.errors import BAD_INPUT, REQUEUE
from jmrec.evaluation.estimates import check, table
from jmrec.main import main
from jmrec.report.page import write_report
from tests.integration.planned import EXPERIMENTS, check_parameters

TINY = "experiments/losses_on_gaussians.py:size=tiny"
# Four dimensions are learned in a few updates; saves are frequent, so that there is what to resume.
SMALL = ["--config.train.steps=60", "--config.train.save_every=8", "--config.train.warmup=5"]
KILLED_AT = 27


def run(workdir: Path, arguments: str, *more: str) -> int:
    config = f"{TINY},dimensions=4,nats=1,{arguments}"
    return main(["run", "--config", config, "--workdir", str(workdir), *SMALL, *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("gaussians") / "run"
    assert run(workdir, "estimators=mine+vclub+club") == 0
    return workdir


def results(workdir: Path) -> dict:
    return json.loads((workdir / "evaluate" / "results.json").read_text())


def estimates(workdir: Path) -> list[dict]:
    """Return each seed's estimate of each row, as the study collects them."""
    return [
        {"name": row["settings"]["estimator"], "kind": row["kind"], **row["settings"], **each}
        for row in results(workdir)["rows"]
        for each in row["estimates"]
    ]


def test_critics_learn_and_bounds_stay_on_their_side(finished: Path) -> None:
    rows = {row["name"]: row for row in estimates(finished)}
    assert list(rows) == ["mine", "vclub", "club"]
    assert all(0 < row["error"] < 0.1 for row in rows.values())
    # An untrained critic is at 0 at best.
    assert 0.4 < rows["mine"]["mean"] < 1 + 2 * rows["mine"]["error"]
    assert abs(rows["mine"]["true"]["mean"] - 1) < 4 * rows["mine"]["true"]["error"]
    closed = 4 * math.expm1(0.5)
    assert results(finished)["study"]["closed_form"] == {"1": pytest.approx(closed, rel=1e-5)}
    assert abs(rows["club"]["mean"] - closed) < 4 * rows["club"]["error"]
    assert rows["club"]["mean"] == rows["club"]["true"]["mean"]
    assert 0.4 < rows["vclub"]["mean"] < closed
    assert {each["name"]: each["holds"] for each in results(finished)["checks"]} == {
        "mine": True,
        "club": True,
    }


def test_the_page_shows_every_estimate(finished: Path) -> None:
    page = (finished / "evaluate" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "src=" not in page
    assert "http" not in page.replace("http-equiv", "")
    for row in estimates(finished):
        assert f"{row['mean']:.3f}" in page
    assert "2 of 2 checks hold." in page


def test_a_page_of_two_truths_says_what_does_not_hold(finished: Path, tmp_path: Path) -> None:
    found = results(finished)
    near = estimates(finished)
    far = {"nats": 3.0, "mean": 2e7, "group": "critics/of-no-run"}
    every = near + [{**row, **far} for row in near]
    found["rows"], found["checks"] = table(every), check(every, 64)
    found["study"]["closed_form"]["3"] = 4 * math.expm1(1.5)
    page = write_report(found, tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4  # both truths, each by itself, and one seed's training
    assert "All truths" in page
    assert "2.0e+07" in page
    assert "3 of 4 checks hold." in page
    assert "Not so: MINE at 3 nats, seed 0: at most the truth plus two standard errors" in page


def test_a_killed_run_ends_in_the_same_bits(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, read = tmp_path / "run", PairBatches.__getitem__

    def kill(self: PairBatches, n: int) -> dict:
        if n == KILLED_AT:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, n)

    with monkeypatch.context() as patched:
        patched.setattr(PairBatches, "__getitem__", kill)
        assert run(workdir, "estimators=mine+club") == REQUEUE
    stage = "critics/mine-1-0"
    assert (workdir / stage / "checkpoints").is_dir()
    assert not (workdir / stage / "params").exists()
    assert not (workdir / "evaluate").exists()

    assert run(workdir, "estimators=mine+club") == 0
    both = (finished, workdir)
    whole, resumed = (_leaves(load_params(each / stage / "params")[0]) for each in both)
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    whole, resumed = ((each / stage / "metrics.json").read_text() for each in both)
    assert whole == resumed
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    mine = [line for line in lines if stage in line]
    assert mine == (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in estimates(finished) if row["name"] != "vclub"]
    assert rows == estimates(workdir)


def _leaves(tree: dict) -> list[np.ndarray]:
    return [
        leaf for key in sorted(tree) for leaf in (
            _leaves(tree[key]) if isinstance(tree[key], dict) else [tree[key]]
        )
    ]  # fmt: skip


def test_started_again_it_does_nothing_and_other_settings_are_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "evaluate" / "report.html").stat().st_mtime_ns
    assert run(finished, "estimators=mine+vclub+club") == 0
    assert (finished / "evaluate" / "report.html").stat().st_mtime_ns == before
    assert capsys.readouterr().err.count("done before, skipped") == 3
    assert run(finished, "estimators=mine+vclub+club", "--config.critic.width=8") == BAD_INPUT
    assert "critic.width" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--workdir", "RUN"],
        ["embed", "--workdir", "RUN"],
        ["recommend", "--workdir", "RUN", "--items", "1"],
        ["export", "--workdir", "RUN", "--out", "OUT"],
        ["sweep", "--config", TINY, "--workdir", "OUT"],
        ["run", "--config", TINY, "--workdir", "OUT", "--origins", "2"],
        ["run", "--config", f"{TINY},estimators=infonse", "--workdir", "OUT"],
        ["run", "--config", f"{TINY},critic=deep", "--workdir", "OUT"],
        ["run", "--config", f"{TINY},nats=(1,-2)", "--workdir", "OUT"],
        ["run", "--config", f"{TINY},nats=(1,1)", "--workdir", "OUT"],
        ["run", "--config", f"{TINY},dimensions=0", "--workdir", "OUT"],
        ["run", "--config", TINY, "--config.evaluate.samples=100", "--workdir", "OUT"],
    ],
    ids=lambda words: " ".join(words).replace("experiments/losses_on_gaussians.py", ""),
)
def test_what_makes_no_sense_is_one_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    put = {"RUN": str(finished), "OUT": str(tmp_path / "out")}
    assert main([put.get(word, word) for word in words]) == BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert said.startswith("jmrec: ")
    assert "\n" not in said
    assert said.endswith((".", "?"))


def test_inspect_reads_the_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(finished)]) == 0
    assert "a run of 3 stages" in capsys.readouterr().out
    assert main(["inspect", str(finished / "critics" / "mine-1-0"), "--json"]) == 0
    assert "average" in capsys.readouterr().out


def test_the_plan_counts_what_the_run_keeps(tmp_path: Path) -> None:
    spec = ["run", "--config", f"{TINY},nats=1", "--workdir", str(tmp_path)]
    assert main([*spec, "--config.train.steps=2", "--config.train.warmup=1"]) == 0
    check_parameters(tmp_path, "losses_on_gaussians")


def test_every_experiment_is_held_to_its_plan() -> None:
    files = Path("experiments").glob("[!_]*.py")
    assert {file.stem for file in files} - {"common"} == EXPERIMENTS


def test_a_study_is_planned_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--config", f"{TINY},estimators=nwj+vclub", "--topology", "cpu:1", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["stage"] for each in found["stages"]] == ["critics/nwj", "critics/likelihood"]
    assert all(each["parameters"] > 0 and each["flops"] > 0 for each in found["stages"])
