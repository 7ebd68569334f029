"""The systems by name; making one, and opening a finished run of one."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jmrec.cluster.member import first, is_first
from jmrec.config import ConfigDict, choose, flatten, resolve_path
from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.lock import LOCK, only_writer
from jmrec.systems.gaussians.system import GaussianStudy
from jmrec.systems.mmrec.system import Mmrec
from jmrec.systems.session.system import SessionSystem
from jmrec.systems.settings import check_settings
from jmrec.systems.stages import STAGE, check_run, walk
from jmrec.systems.system import System
from jmrec.systems.tpad.system import Tpad
from jmrec.systems.work import Work
from jmrec.terminal import warn
from jmrec.tracking import Tracker

SYSTEMS: dict[str, type[System]] = {
    "tpad": Tpad,
    "mmrec": Mmrec,
    "session": SessionSystem,
    "gaussians": GaussianStudy,
}
"""What an experiment's ``system`` may be."""
CONFIG = "config.json"
"""Where a finished run keeps its settings."""
COMPARE, AS_PREPARED = "compare", "as-prepared"
"""What becomes of a catalogue folder that was prepared before: see `run`."""
PATHS = (
    "data.dir", "data.toml", "data.verdicts", "backbone.text", "backbone.picture", "features.from",
)  # fmt: skip
"""Settings that are paths, kept absolute for commands that are typed elsewhere."""


def system_class(config: ConfigDict) -> type[System]:
    """Return the class of an experiment's system.

    Raises:
      UserError: There is no such system.
    """
    return SYSTEMS[choose("system", str(config.get("system")), tuple(SYSTEMS))]


def run(
    config: ConfigDict,
    workdir: Path,
    *,
    resume: str,
    stale: str,
    command: Sequence[str],
    data: str = COMPARE,
) -> None:
    """Run every stage of an experiment, then evaluate and report.

    Args:
      config: From an experiment file.
      workdir: Where everything is written.
      resume: "auto", or "never", which refuses a workdir that holds a run.
      stale: See `jmrec.systems.stages.walk`.
      command: The command line, for the report.
      data: `COMPARE` refuses a folder that has changed since it was prepared; `AS_PREPARED` goes on
        with what was prepared.

    Raises:
      UserError: If the system is unknown, or the workdir holds another run.
    """
    system = system_class(config)
    check_settings(config)

    with ExitStack() as held:

        def claim() -> None:
            held.enter_context(only_writer(workdir, warn))
            if resume == "never" and any(each.name != LOCK for each in workdir.iterdir()):
                raise UserError(
                    f"{workdir} is not empty and --resume=never; name another --workdir."
                )

        first(claim)  # before any process writes into it
        tracker = held.enter_context(
            Tracker(workdir, wandb=config.wandb, config=flatten(config), quiet=not is_first())
        )
        work = Work(config, workdir, tracker, compares=data == COMPARE)
        stages = system(work).stages(command)
        walk(stages, workdir, stale=stale, tracker=tracker)
        first(lambda: write_json(workdir / CONFIG, stored(config)))
        report = workdir / stages[-1].name / "report.html"
        if report.is_file() or not is_first():
            tracker.say(f"report: {report}")
        else:
            tracker.warn(
                f"{report} is not there any more; delete {report.parent / STAGE} and start jmrec "
                "run again: it is written anew."
            )


def stored(config: ConfigDict) -> dict[str, Any]:
    """Return what is kept of a config: paths absolute, for commands that run in another folder."""
    kept: dict[str, Any] = config.to_dict()
    for group, name in (path.split(".") for path in PATHS):
        given = kept.get(group, {}).get(name)
        if given and (path := resolve_path(given)).exists():
            kept[group][name] = str(path.absolute())
    return kept


def open_run(workdir: Path, tracker: Tracker) -> System:
    """Open a finished run.

    Raises:
      UserError: If the workdir holds none, one of an older jmrec, or one whose files are not what
        its stages wrote.
    """
    if not (workdir / CONFIG).is_file():
        raise UserError(f"{workdir} holds no finished run; make one with jmrec run.")
    config = ConfigDict(read_json(workdir / CONFIG))
    system = system_class(config)
    known = flatten(config)
    lacks = next((each for each in system.since if each not in known), None)
    if lacks is not None:
        raise UserError(
            f"{workdir} was made by an older jmrec, whose config has no {lacks!r}; run again in "
            "another --workdir."
        )
    opened = system(Work(config, workdir, tracker))
    check_run(opened.stages(), workdir, str(workdir / CONFIG), PATHS)
    return opened


def is_run(folder: Path) -> bool:
    """Tell whether a folder is the workdir of a finished run."""
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "system" in found
