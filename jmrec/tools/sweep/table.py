"""The table of a sweep: a row a trial, a column a setting."""

import json
from collections.abc import Sequence
from typing import Any

from jmrec.evaluation.results import read_cost
from jmrec.report.tables import figures_of
from jmrec.tools.sweep.trials import Sweep, Trial

OPEN = "not ended"
COSTS = (
    "stage seconds", "own stage seconds", "stages taken", "peak memory, bytes", "updates", "flops",
)  # fmt: skip
"""What a finished trial cost up to its evaluation: all its stages, as they would cost a run alone;
those of them that it made itself; how many it took from other trials; the highest peak of memory;
updates and floating-point operations of all."""


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """Return one row a trial, in order.

    Each has trial, state, score, seconds (of the last start), overrides, message, and where it is
    done row (of its results: the one that the score is of), figures (of that row, "FIGURE METRIC")
    and costs (see `COSTS`).
    """
    found = []
    for trial in sweep.trials:
        record = trial.record()
        done = record is not None and record.state == "done"
        results = trial.results() if done else None
        row = None if results is None else trial.judged(results)
        found.append(
            {
                "trial": trial.name,
                "state": record.state if record else OPEN,
                "score": record.score if record else None,
                "seconds": record.seconds if record else None,
                "overrides": trial.overrides,
                "message": record.message if record else "",
                "row": row["name"] if row else "",
                "figures": figures_of(row) if row else {},
                "costs": _costs(trial) if row else {},
            }
        )
    return found


def _costs(trial: Trial) -> dict[str, Any]:
    """Return what the stages before the evaluation of a finished trial cost."""
    stages: list[dict[str, Any]] = [
        dict(x) for x in read_cost(trial.folder / "evaluate")["stages"].values()
    ]
    own = [each for each in stages if "made_by" not in each]

    def total(entries: Sequence[dict[str, Any]], name: str) -> float:
        return sum(float(each.get(name) or 0) for each in entries)

    peaks = [each.get("peak_memory") or 0 for each in stages]
    return {
        "stage seconds": round(total(stages, "seconds"), 1),
        "own stage seconds": round(total(own, "seconds"), 1),
        "stages taken": len(stages) - len(own),
        "peak memory, bytes": max(peaks, default=0) or None,
        "updates": int(total(stages, "updates")),
        "flops": total(stages, "flops"),
    }


def settings(sweep: Sweep) -> list[str]:
    """Return the names of all settings that a trial sets, in order of appearance."""
    return list(dict.fromkeys(name for trial in sweep.trials for name in trial.overrides))


def best(table: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the row of the best finished trial, the first of equals."""
    done = [row for row in table if row["state"] == "done"]
    return max(done, key=lambda row: row["score"], default=None)


def cell(overrides: dict[str, Any], name: str) -> str:
    """Return the text of a setting, empty where the trial does not set it."""
    if name not in overrides:
        return ""
    value = overrides[name]
    return value if isinstance(value, str) else json.dumps(value)


def short_names(names: Sequence[str]) -> list[str]:
    """Return the names without the part that all have in common.

    Example:
      >>> short_names(["student.train.learning_rate", "student.train.weight_decay"])
      ['learning_rate', 'weight_decay']
    """
    parts = [name.split(".") for name in names]
    same = 0
    while all(len(each) > same + 1 and each[same] == parts[0][same] for each in parts):
        if not parts:
            break
        same += 1
    return [".".join(each[same:]) for each in parts]
