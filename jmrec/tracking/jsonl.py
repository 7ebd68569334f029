"""The file metrics.jsonl: its lines, and reading it as learning curves.

It holds one line per ``log`` and no clock time, so that a run that was killed and resumed leaves
the same file as one that was not.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def read_curves(workdir: str | Path) -> dict[str, dict[str, list[Any]]]:
    """Read metrics.jsonl as columns, for plots and the report.

    Args:
      workdir: The run's folder.

    Returns:
      Stage ("" where there is none) -> {"step": ascending steps, metric name -> values}; all
      columns of a stage are of one length, with None where a step has no such metric. Lines of
      the same step are merged. Empty where there is no file.

    Example:
      >>> import tempfile
      >>> from jmrec.tracking import Tracker
      >>> folder = tempfile.mkdtemp()
      >>> with Tracker(folder) as tracker:
      ...     for step in (1, 2):
      ...         tracker.stage("student").log(step, {"loss": 1 / step})
      ...     tracker.stage("student").log(2, {"MRR@20": 0.25})
      >>> read_curves(folder)
      {'student': {'step': [1, 2], 'loss': [1.0, 0.5], 'MRR@20': [None, 0.25]}}
    """
    path = Path(workdir) / METRICS
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for _, entry in read_lines(path) if path.exists() else ():
        rows = stages.setdefault(str(entry.pop("stage", "")), {})
        rows.setdefault(int(entry.pop("step", 0)), {}).update(entry)
    curves: dict[str, dict[str, list[Any]]] = {}
    for stage, rows in stages.items():
        steps = sorted(rows)
        names = list(dict.fromkeys(name for step in steps for name in rows[step]))
        curves[stage] = {"step": list(steps)}
        curves[stage].update({name: [rows[step].get(name) for step in steps] for name in names})
    return curves


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (line, entry) of every whole line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield line, entry


def mend_lines(path: Path) -> None:
    """Drop a last line that a kill or a full disk left half written; no file is no harm."""
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def plain(value: Any) -> Any:
    """Return what JSON can hold: arrays as numbers or lists, null for what is not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    return plain(float(value))
