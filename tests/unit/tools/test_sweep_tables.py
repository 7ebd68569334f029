"""The tables of a sweep: figures and costs as CSV, and all trials on the terminal as they run."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from jmrec.evaluation.results import RANKING, kinds_of, make_cost, write_results
from jmrec.terminal import console as clean_console
from jmrec.tools.sweep.live import Board
from jmrec.tools.sweep.report import write
from jmrec.tools.sweep.run import Job
from jmrec.tools.sweep.trials import Record
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
        **{"session MRR@20": "0.25", "session HR@20": "0.5", "last MRR@20": ""},
        **{"stage seconds": "25.2", "own stage seconds": "5.0", "stages taken": "1"},
        **{"peak memory, bytes": "900", "updates": "12", "flops": "3000000.0"},
    }
    assert rows[0]["session MRR@20"] == rows[0]["updates"] == ""


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
