"""Rolling-origin evaluation: the system is trained again before each of several test windows."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jmrec.cluster.member import first
from jmrec.config import ConfigDict
from jmrec.data.prepared import load_prepared
from jmrec.data.schema import Dataset
from jmrec.errors import UserError
from jmrec.evaluation.results import (
    FORMAT,
    RESULTS,
    Results,
    ServedRow,
    make_cost,
    read_results,
    write_results,
)
from jmrec.evaluation.windows import pool, read_units
from jmrec.lock import only_writer
from jmrec.report.page import write_report
from jmrec.report.terminal import print_results
from jmrec.systems import registry
from jmrec.systems.evaluate import UNITS
from jmrec.terminal import say, warn

POOLED = "pooled"


def roll(
    config: ConfigDict,
    workdir: Path,
    origins: int,
    *,
    resume: str,
    stale: str,
    command: Sequence[str],
    data: str = registry.COMPARE,
    parallel: int = 1,
    given: Mapping[str, Any] | None = None,
) -> None:
    """Run an experiment before each test window, then report the windows together.

    Window k ends k test windows before the end of the data; its run is in ``back-k/``, the
    report in ``pooled/``. Started again, it continues where it stopped.

    Args:
      config: From an experiment file.
      workdir: Where everything is written.
      origins: How many windows.
      resume: See `jmrec.systems.registry.run`.
      stale: The same.
      command: The command line, for the report.
      data: See `jmrec.systems.registry.run`.
      parallel: The same.
      given: The same.

    Raises:
      UserError: There are too many windows, or what `run` raises.
    """
    if "data" not in config:
        raise UserError(
            f"the system {config.get('system')!r} has no data that is split by time; leave out "
            "--origins."
        )
    if data == registry.CONTINUE:
        raise UserError("--origins trains anew before each window; leave out --data=continue.")
    registry.check_settings(config)
    shares = config.data.fractions
    most = int(round(shares[0] / shares[2], 6) + 1 - 1e-6)
    if not 2 <= origins <= most:
        raise UserError(
            f"--origins={origins} is not from 2 to {most}: training keeps what is before all "
            "windows; choose fewer or smaller ones."
        )
    with ExitStack() as held:
        first(lambda: held.enter_context(only_writer(workdir, warn)))
        how = {"resume": resume, "stale": stale, "data": data, "parallel": parallel}
        _roll(config, workdir, origins, command, given=given, **how)


def _roll(
    config: ConfigDict, workdir: Path, origins: int, command: Sequence[str], **how: Any
) -> None:
    split = config.evaluate.split
    folders = [workdir / f"back-{back}" for back in reversed(range(origins))]
    for back, folder in zip(reversed(range(origins)), folders):
        own = config.copy_and_resolve_references()
        own.data.back = back
        registry.run(own, folder, command=command, **how)
    first(lambda: _report(config, workdir, folders, split, command))


def _report(
    config: ConfigDict, workdir: Path, folders: Sequence[Path], split: str, command: Sequence[str]
) -> None:
    datasets = [load_prepared(folder / "data" / "prepared") for folder in folders]
    labels = [_label(each, split, number) for number, each in enumerate(datasets, 1)]
    units = [read_units(folder / "evaluate" / UNITS) for folder in folders]
    found = [read_results(folder / "evaluate" / RESULTS) for folder in folders]
    last = datasets[-1]
    served = found[-1]["served"]  # of the newest window, if each has chosen its own
    if served and not all(served["row"] in each.names for each in units):
        # Each window may blend another student with the rules: then the student is what is shown.
        served = {**served, "row": served.get("student", served["row"])}
    parts = pool(units, labels, served["row"] if served else "")
    names = {row["name"] for row in parts["rows"]}
    results: Results = {
        "format": FORMAT,
        "system": found[-1]["system"],
        "primary": found[-1]["primary"],
        "caption": f"{last.name}, {len(folders)} {split} windows, one after the other and none "
        "learned from: everything was trained and every setting chosen anew before each, on what "
        "was there by then. Every session weighs the same. " + found[-1]["caption"],
        "dataset": {**found[-1]["dataset"], "predictions": {}, "sessions": {}},
        "kinds": parts["kinds"],
        "rows": parts["rows"],
        "comparisons": parts["comparisons"],
        "best_rule": parts["best_rule"],
        "over_time": parts["over_time"],
        "served": _among(names, served),
        "test_reads": max(each["test_reads"] for each in found),
        "stages": {},
        "curves": {},
    }
    cost = make_cost(commands={"run": " ".join(command)})
    folder = workdir / POOLED
    write_results(folder, results, cost)
    path = write_report(results, folder / "report.html", cost)
    print_results(results, cost)
    say(f"report: {path}")


def _among(names: set[str], served: ServedRow | None) -> ServedRow | None:
    """Return the served row, with only those rows beside it that every window has."""
    if served is None or not {served["row"], served.get("student", served["row"])} <= names:
        return None
    return {**served, "beside": [name for name in served["beside"] if name in names]}


def _label(dataset: Dataset, split: str, number: int) -> str:
    """Return when a window begins, or its number where the data has no times."""
    if not dataset.has_time:
        return f"window {number}"
    begin = float(dataset.splits[split].begins.min())
    return f"from {datetime.fromtimestamp(begin, UTC):%Y-%m-%d}"
