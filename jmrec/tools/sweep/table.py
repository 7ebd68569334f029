"""The table of a sweep: a row a trial, a column a setting."""

import json
from collections.abc import Sequence
from typing import Any

from jmrec.tools.sweep.trials import Sweep

OPEN = "not ended"


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """Return one row a trial, in order: trial, state, score, seconds, overrides, message."""
    found = []
    for trial in sweep.trials:
        record = trial.record()
        found.append(
            {
                "trial": trial.name,
                "state": record.state if record else OPEN,
                "score": record.score if record else None,
                "seconds": record.seconds if record else None,
                "overrides": trial.overrides,
                "message": record.message if record else "",
            }
        )
    return found


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
