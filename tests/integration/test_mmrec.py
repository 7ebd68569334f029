"""The system "mmrec" from a config to a report: every stage, once; what is done again and when."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.evaluation.results import read_results
from jmrec.main import main
from jmrec.systems.mmrec import evaluate
from jmrec.systems.registry import open_run
from jmrec.systems.work import Work
from jmrec.tracking import Tracker
from tests.integration.planned import check_parameters

CONFIG = Path(__file__).with_name("kill_mmrec.py")
WORDS = ["run", "--config", f"{CONFIG}:size=tiny,arm=all,writer=extract"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("mmrec") / "run"
    assert main([*WORDS, "--workdir", str(workdir)]) == 0
    return workdir


def test_the_results_hold_every_row_and_what_is_asked_of_them(run: Path) -> None:
    results = read_results(run / "evaluate" / "results.json")
    kinds = {row["name"]: row["kind"] for row in results["rows"]}
    assert kinds["oracle"] == "oracle"
    assert {name for name, kind in kinds.items() if kind == "ranker"} == {
        "ids", "text", "picture", "both"
    }  # fmt: skip
    assert {"item mean", "user mean", "item + user mean"} <= kinds.keys()
    assert {"logistic regression", "gradient boosting", "bag of words"} <= kinds.keys()
    assert {name for name, kind in kinds.items() if kind == "control"} == {
        "both, no reviews", "both, half the reviews", "both, reviews shuffled",
        "both, pictures permuted",
    }  # fmt: skip
    assert results["served"] is not None
    assert kinds[results["served"]["row"]] in ("rule", "ranker")
    pairs = results["pairs"]
    parts = {"segments", "help", "reliability", "curve", "costs", "space", "texts", "why"}
    assert parts <= pairs.keys()
    apart = {when: each["own"] - each["other"] for when, each in pairs["space"].items()}
    assert apart["after"] > apart["before"]
    assert [each["writer"] for each in pairs["texts"]] == ["extract"]
    assert pairs["samples"]
    page = (run / "evaluate" / "report.html").read_text()
    assert "When pictures help" in page
    # The best that can be known is above everything else, on any draw.
    best = {row["name"]: row["figures"]["pair"]["PR-AUC"] for row in results["rows"]}
    assert max(best, key=lambda name: best[name] or 0.0) == "oracle"


def test_every_process_reads_the_same_parameters(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them is an act of all processes: one that did it alone would wait for ever."""
    read: dict[int, list[str]] = {0: [], 1: []}
    said: list[Any] = []
    kept = Work.params
    for process in read:
        heard = iter(said)

        def first(work: Callable[[], Any], process: int = process, heard: Any = heard) -> Any:
            if process == 0:
                said.append(json.loads(json.dumps(work())))
                return said[-1]
            return next(heard)

        def params(self: Work, stage: str, model: Any, process: int = process) -> Any:
            read[process].append(stage)
            return kept(self, stage, model)

        with Tracker(run, writes=False) as tracker, monkeypatch.context() as patch:
            patch.setattr(Work, "params", params)
            patch.setattr(evaluate, "first", first)
            patch.setattr(evaluate, "is_first", lambda process=process: process == 0)
            system = open_run(run, tracker)
            evaluate.evaluate(system, tmp_path, "validation")  # type: ignore[arg-type]
    assert read[0] == read[1]
    assert any(stage.startswith("rankers/") for stage in read[0])
    assert json.loads((tmp_path / "results.json").read_text())["pairs"]["why"]["parts"]


def test_a_plan_counts_what_the_run_keeps(run: Path) -> None:
    check_parameters(run, "mmrec")


def test_the_second_time_nothing_is_done_and_a_change_redoes_what_it_touches(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "--workdir", str(run)]) == 0
    said = capsys.readouterr().err
    assert said.count("done before, skipped") == len(list(run.rglob("stage.json")))
    for change, stage in [
        ("describe.writers.extract.sentences=2", "describe/item-extract"),
        ("align.hparams.contrast=0.5", "align"),
        ("protocol.split=time_within_item", "data"),
        ("rank.hparams.dropout=0.2", "rankers/both-0"),
        ("evaluate.recall=0.7", "evaluate"),
    ]:
        assert main([*WORDS, "--workdir", str(run), f"--config.{change}"]) == 2
        assert f"stage {stage} was made with other settings" in capsys.readouterr().err


def test_scores_do_not_depend_on_how_many_are_asked_for(run: Path) -> None:
    with Tracker(run, writes=False) as tracker:
        system = open_run(run, tracker)
        rows = system.data.rows.test  # type: ignore[attr-defined]
        score = system.rankers.logits  # type: ignore[attr-defined]
        np.testing.assert_allclose(
            score("both", rows)[:, :7], score("both", rows[:7]), rtol=1e-5, atol=1e-5
        )
    assert json.loads((run / "config.json").read_text())["system"] == "mmrec"
