"""The tables of a sweep: figures and costs as CSV, and all trials on the terminal as they run."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jmrec.evaluation.results import RANKING, kinds_of, make_cost, write_results
from jmrec.evaluation.windows import Units, write_units
from jmrec.metrics.bootstrap import paired
from jmrec.terminal import console as clean_console
from jmrec.tools.sweep.live import Board
from jmrec.tools.sweep.report import JUDGED, conclusion, print_table, write
from jmrec.tools.sweep.run import Job
from jmrec.tools.sweep.trials import Record, Trial, keep
from tests.unit.tools.test_sweep import ended, expanded


def test_the_table_has_every_figure_and_what_it_cost(tmp_path: Path) -> None:
    found = expanded(tmp_path)
    figures = {"session": {"MRR@20": 0.25, "HR@20": 0.5}, "last": {"MRR@20": None}}
    row = {"name": "s", "kind": "student", "seeds": 1, "interval": {}, "figures": figures}
    results: Any = {
        **{"format": 2, "system": "tpad", "primary": RANKING, "caption": "", "served": None},
        **{"dataset": {"name": "x", "split": "validation"}, "kinds": kinds_of(["student"])},
        **{"rows": [row], "comparisons": [], "best_rule": None, "test_reads": 0},
        **{"stages": {}, "curves": {}},
    }
    cost = make_cost(
        {
            "tower": {"seconds": 20.25, "peak_memory": 900, "updates": 8, "flops": 1e6,
                      "made_by": "trial-0000"},
            "read": {"seconds": 1.0, "peak_memory": None},
            "students/s-0": {"seconds": 4.0, "peak_memory": 700, "updates": 4, "flops": 2e6},
        }
    )  # fmt: skip
    write_results(found.trials[1].folder / "evaluate", results, cost)
    found.trials[1].end(Record("done", 0.25, 9.0))
    write(found)
    with (found.workdir / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        **{"trial": "trial-0001", "state": "done", "score": "0.25", "seconds": "9.0"},
        **{"rate": "0.1", "decay": "1.0", "row": "s", "message": ""},
        **dict.fromkeys(JUDGED, ""),
        "seeds": "1",
        **{"session MRR@20": "0.25", "session HR@20": "0.5", "last MRR@20": ""},
        **{"stage seconds": "25.2", "own stage seconds": "5.0", "stages taken": "1"},
        **{"peak memory, bytes": "900", "updates": "12", "flops": "3000000.0"},
    }
    assert rows[0]["session MRR@20"] == rows[0]["updates"] == ""


def write_run(trial: Trial, values: np.ndarray, seeds: int, clusters: np.ndarray) -> None:
    """Write what a finished trial leaves: a student, a rule, and the figures of each session."""
    rule = np.full(values.shape, 0.2)
    found = {"s": values, "counts": rule}
    results: Any = {
        **{"format": 2, "system": "session", "primary": RANKING, "caption": "", "served": None},
        **{"dataset": {"name": "x", "split": "validation"}, "test_reads": 0, "stages": {}},
        **{"kinds": kinds_of(["student", "rule"]), "curves": {}, "best_rule": "counts"},
    }
    apart = paired(values, rule, clusters)
    results["comparisons"] = [
        {"a": "s", "b": "counts", **RANKING, "difference": apart.difference,
         "interval": [apart.low, apart.high], "verdict": apart.verdict}
    ]  # fmt: skip
    results["rows"] = [
        {"name": name, "kind": kind, "seeds": seeds if kind == "student" else 1,
         "figures": {"session": {"MRR@20": float(found[name].mean())}},
         "interval": {"session": {"MRR@20": [0.1, 0.3]}}}
        for name, kind in (("s", "student"), ("counts", "rule"))
    ]  # fmt: skip
    folder = trial.folder / "evaluate"
    write_results(folder, results, make_cost())
    both = np.stack([np.stack([each, each]) for each in found.values()])
    units = Units(list(found), ["student", "rule"], np.array([seeds, 1]), clusters, both)
    write_units(folder / "units.npz", units)
    trial.end(Record("done", float(values.mean()), 1.0))


def test_the_end_says_what_may_be_said_of_the_best_trial(tmp_path: Path) -> None:
    found = expanded(tmp_path)
    keep(found)
    rng, clusters = np.random.default_rng(0), np.arange(400)
    low = rng.uniform(0, 0.4, 400)
    # The third is nearly the second, which is far above the first; the fourth is the third.
    noise = rng.normal(0, 0.05, 400)
    runs = [low, low + 0.1, low + 0.1005 + noise - noise.mean(), low + 0.1]
    for trial, values in zip(found.trials, runs):
        write_run(trial, values, 3, clusters)
    table = write(found)
    apart = paired(runs[2], low, clusters)
    assert table[0]["best"]["interval"] == [apart.low, apart.high]
    assert table[0]["best"]["difference"] == pytest.approx(0.1005)
    assert [row["best"] and row["best"]["verdict"] for row in table[:4]] == [
        "above", "not told apart", None, "not told apart",
    ]  # fmt: skip
    assert table[2]["rule"]["name"] == "counts"
    said = conclusion(table)
    assert said[0].startswith("trial-0002 is above the best rule of its run, counts (+")
    assert said[1] == (
        "trial-0002 is not told apart from 2 of 3 other trials on the same sessions: trial-0001, "
        "trial-0003."
    )
    assert said[2].startswith("trial-0001 and trial-0003 have the same figures to the last digit")
    assert len(said) == 3
    lines = io.StringIO()
    print_table(table, ["rate", "decay"], Console(width=160, file=lines))
    shown = next(line for line in lines.getvalue().splitlines() if "trial-0000" in line)
    assert f"+10.05 [{100 * apart.low:.1f}, {100 * apart.high:.1f}]" in shown
    assert "10.0–30.0" in shown
    with (found.workdir / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["best less it low"]) == apart.low
    assert rows[2]["best less it"] == rows[4]["less rule"] == ""


def test_of_too_few_seeds_and_of_other_sessions_nothing_is_said(tmp_path: Path) -> None:
    found = expanded(tmp_path)
    keep(found)
    for number, trial in enumerate(found.trials[:3]):
        size = 300 if number == 0 else 200  # as where a setting of the data is swept
        write_run(trial, np.full(size, 0.1 + 0.1 * number), 1, np.arange(size))
    table = write(found)
    assert [row["best"] is None for row in table] == [True, False, True, True, True, True]
    assert conclusion(table) == [
        "1 seed: nothing is claimed of trial-0002; with --config.seeds=(0,1,2) this table says "
        "what can be told apart."
    ]
    assert conclusion(table[3:]) == []


def test_the_live_table_has_every_trial(tmp_path: Path) -> None:
    found = ended(tmp_path)
    job = Job(found.trials[5], 0, begin=time.monotonic() - 61)
    job.trial.folder.mkdir()
    (job.trial.folder / "log.txt").write_text("a\ntower: 3/8 (38 %), loss [red]2.5\x1b[2J\n\n")
    lines = [{"stage": found.trials[5].stages[0], "step": n, "eval/score": n / 8} for n in (1, 3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (job.trial.folder / "metrics.jsonl").write_text(text)
    out = io.StringIO()
    terminal = clean_console(file=out, force_terminal=True, width=120, height=40)
    with Board(found, terminal) as board:
        board.show([job])
        board.say("trial-0000: [bold]done")
    shown = out.getvalue()
    rows = {line.split()[1]: line for line in shown.splitlines() if "│ trial-" in line}
    assert len(rows) == 6
    for each in ("0.2", "1.0", "running", "37.50", "1 min", "tower: 3/8 (38 %), loss [red]2.5"):
        assert each in rows["trial-0005"]
    assert "no luck, mend it." in rows["trial-0001"]
    assert "10.00" in rows["trial-0000"]
    assert "3 done, 1 failed, 1 pruned, 1 running" in shown
    assert "trial-0000: [bold]done" in shown
    assert "\x1b[2J" not in shown  # what a log says steers no terminal
    low = clean_console(file=io.StringIO(), force_terminal=True, width=120, height=10)
    assert Board(found, low).table([job]).row_count == 1
    # No terminal, no table: lines are said as ever.
    plain = io.StringIO()
    with Board(found, Console(file=plain)) as board:
        board.show([job])
    assert plain.getvalue() == ""
