"""The table of a sweep: a row a trial, a column a setting."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jmrec.errors import UserError
from jmrec.evaluation.results import SESSION, ResultRow, Results, read_cost
from jmrec.report.decision import apart
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
    done row (of its results: the one that the score is of), seeds and interval (of its score),
    figures (of that row, "FIGURE METRIC") and costs (see `COSTS`). "rule" is the score less that of
    the best rule of its own run, "best" that of the best trial less its own; both have difference,
    interval (paired, 95 %) and verdict, and are None where nothing is known.
    """
    found, rows_of = [], dict[str, tuple[Results, ResultRow]]()
    for trial in sweep.trials:
        record = trial.record()
        done = record is not None and record.state == "done"
        results = trial.results() if done else None
        row = None if results is None else trial.judged(results)
        if results is not None and row is not None:
            rows_of[trial.name] = results, row
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
                "seeds": row["seeds"] if row else None,
                "interval": _interval(results, row) if results and row else None,
                "rule": _against_rule(results, row) if results and row else None,
                "best": None,
                "costs": _costs(trial) if row else {},
            }
        )
    _against_best(sweep, found, rows_of)
    return found


def _interval(results: Results, row: ResultRow) -> list[float] | None:
    primary = results["primary"]
    return row["interval"].get(primary["figure"], {}).get(primary["metric"])


def _against_rule(results: Results, row: ResultRow) -> dict[str, Any] | None:
    """Return a row less the best rule of its run, as its evaluation compared them."""
    rule = results["best_rule"]
    found = apart(results, row["name"], rule)
    return (
        None
        if found is None
        else {"name": rule, **_told(found.difference, found.ends, found.verdict)}
    )


def _told(difference: float, ends: Sequence[float], verdict: str) -> dict[str, Any]:
    return {"difference": difference, "interval": list(ends), "verdict": verdict}


def _against_best(
    sweep: Sweep, table: Sequence[dict[str, Any]], rows_of: dict[str, tuple[Results, ResultRow]]
) -> None:
    """Put in how far each finished trial is behind the best, session by session."""
    winner = best(table)
    if winner is None or winner["trial"] not in rows_of:
        return
    from jmrec.evaluation.windows import NAMES, read_units  # which load jax
    from jmrec.metrics.bootstrap import paired
    from jmrec.systems.evaluate import UNITS

    primary = rows_of[winner["trial"]][0]["primary"]
    if primary["figure"] != SESSION or primary["metric"] not in NAMES:
        return
    at, folders = NAMES.index(primary["metric"]), {t.name: t.folder for t in sweep.trials}

    def sessions(trial: str) -> Any:
        try:
            kept = read_units(folders[trial] / "evaluate" / UNITS)
            return kept.cluster, kept.values[kept.names.index(rows_of[trial][1]["name"]), at]
        except (UserError, ValueError):  # an older run, or one that people were taken out of
            return None

    first = sessions(winner["trial"])
    for row in table:
        own = sessions(row["trial"]) if row is not winner and row["trial"] in rows_of else None
        # Trials may have data of their own: then their sessions are not the same.
        if first is not None and own is not None and np.array_equal(first[0], own[0]):
            found = paired(first[1], own[1], first[0])
            row["best"] = _told(found.difference, (found.low, found.high), found.verdict)


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
