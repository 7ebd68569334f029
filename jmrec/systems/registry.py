"""The systems by name; making one, and opening a finished run of one."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from jmrec.cluster.member import first, is_first
from jmrec.config import ConfigDict, choose, flatten, nearest, resolve_path
from jmrec.config.settings import check_config
from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.lock import LOCK, only_writer, unsettled
from jmrec.systems import beside, grown
from jmrec.systems.gaussians.settings import GAUSSIANS
from jmrec.systems.gaussians.system import GaussianStudy
from jmrec.systems.mmrec.settings import MMREC
from jmrec.systems.mmrec.system import Mmrec
from jmrec.systems.sealed import STAGE
from jmrec.systems.session.settings import SESSION
from jmrec.systems.session.system import SessionSystem
from jmrec.systems.settings import ANY_SYSTEM, Checks
from jmrec.systems.shared import Shared
from jmrec.systems.stages import check_run, run_one, walk
from jmrec.systems.system import System
from jmrec.systems.tpad.settings import TPAD
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
SETTINGS: dict[str, Checks] = {
    "tpad": TPAD,
    "mmrec": MMREC,
    "session": SESSION,
    "gaussians": GAUSSIANS,
}
"""What the settings of each system mean and may be. A system that does not stand here looks at its
own, and only those of every run and of data are checked before."""
CONFIG = "config.json"
"""Where a finished run keeps its settings."""
GIVEN = "given"
"""Its group that is no settings: what was typed."""
COMPARE, AS_PREPARED, CONTINUE = "compare", "as-prepared", "continue"
"""What becomes of a catalogue folder that was prepared before: see `run`."""
NOWHERE = Path("no workdir")
"""Of a system that is made to look at its settings or shapes, and runs nothing."""
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


def check_settings(config: ConfigDict) -> list[str]:
    """Check every setting of an experiment before anything runs; no file is read.

    Each setting is held to its line in `SETTINGS`; then it is looked at what goes together, by the
    system's check and by making the system.

    Returns:
      A sentence for each setting that stands in no line.

    Raises:
      UserError: A setting is not what it may be, or two contradict each other.

    Example:
      >>> from jmrec.config import load_config
      >>> check_settings(load_config("session:size=tiny", ["--config.evaluate.split=tset"]))
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: evaluate.split="tset" is not one of validation, test, did you mean \
    "test"?
    """
    system = system_class(config)
    known = SETTINGS.get(config.system)
    unknown = check_config(config, known.settings if known else ANY_SYSTEM)
    if known is not None:
        known.together(config)
    system(Work(config, NOWHERE, Tracker(NOWHERE, quiet=True, writes=False)))
    said = []
    for name in unknown if known is not None else ():
        near = nearest(name, sorted(flatten(config).keys() - {*unknown}))
        guess = f"; did you mean {near}?" if near else "."
        said.append(f"{name} is no setting that the system {config.system} knows{guess}")
    return said


def run(
    config: ConfigDict,
    workdir: Path,
    *,
    resume: str,
    stale: str,
    command: Sequence[str],
    data: str = COMPARE,
    stop: str = "",
    last: str = "",
    share: bool = False,
    parallel: int = 1,
    console: Console | None = None,
    prints: bool = True,
    given: Mapping[str, Any] | None = None,
) -> None:
    """Run every stage of an experiment, then evaluate and report.

    Args:
      config: From an experiment file.
      workdir: Where everything is written.
      resume: "auto", or "never", which refuses a workdir that holds a run.
      stale: See `jmrec.systems.stages.walk`.
      command: The command line, for the report.
      data: `COMPARE` refuses a folder that has changed since it was prepared; `AS_PREPARED` goes on
        with what was prepared; `CONTINUE` takes what is new and trains on from what was trained.
      stop: A stage that is not run, nor what follows; the workdir then holds no finished run yet.
        Without "evaluate" nothing reads test. "" runs all.
      last: The last stage that is run, the same otherwise.
      share: Whether finished stages are shared, see `jmrec.systems.shared.Shared`.
      parallel: How many stages run at a time, see `jmrec.systems.beside`.
      console: Where progress and warnings go; None is standard error.
      prints: See `jmrec.systems.work.Work`.
      given: What is kept beside the settings in `CONFIG`: the experiment as it was named, and where
        the value of each setting is from that was overridden.

    Raises:
      UserError: If the system is unknown or has no stage ``last``, or the workdir holds another
        run.
    """
    system = system_class(config)
    remarks = check_settings(config)
    beside.check(parallel)

    with ExitStack() as held:

        def claim() -> None:
            held.enter_context(only_writer(workdir, warn))
            if resume == "never" and any(each.name != LOCK for each in workdir.iterdir()):
                raise UserError(
                    f"{workdir} is not empty and --resume=never; name another --workdir."
                )

        first(claim)  # before any process writes into it
        tracker = held.enter_context(
            tracker_of(config, workdir, console=console, quiet=not is_first())
        )
        for remark in remarks:
            tracker.warn(remark)
        work = Work(config, workdir, tracker, compares=data != AS_PREPARED, prints=prints)
        if data == CONTINUE:
            first(lambda: grown.begin(system(work), lambda: open_run(workdir, tracker)))
        stages = system(work).stages(command)
        names = [each.name for each in stages]
        if last and last not in names:
            raise UserError(f"the system {config.system} has no stage {last!r}; run all of it.")
        wanted = names.index(stop) if stop else names.index(last) + 1 if last else len(names)
        sharing = Shared.of(work) if share else None
        if sharing is not None:
            held.enter_context(sharing)
        first(lambda: beside.take_over(workdir, tracker))
        several = beside.SideBySide.of(work, command, parallel)
        walk(
            stages[:wanted], workdir, stale=stale, tracker=tracker, sharing=sharing, beside=several
        )
        if stop or last:
            return
        kept = stored(config) | ({} if given is None else {GIVEN: dict(given)})
        first(lambda: write_json(workdir / CONFIG, kept))
        _say_report(workdir / stages[-1].name / "report.html", tracker)


def run_stage(workdir: Path, name: str) -> None:
    """Run one stage of a run that another process is at: what `run` starts where it is parallel.

    Args:
      workdir: Of the run.
      name: The stage, which is begun.

    Raises:
      UserError: Nobody has begun it.
    """
    config, command = beside.settings_of(workdir)
    with Tracker(workdir, metrics=beside.metrics_of(workdir, name)) as tracker:
        stages = system_class(config)(Work(config, workdir, tracker, prints=False)).stages(command)
        run_one(stages, name, workdir)


def _say_report(report: Path, tracker: Tracker) -> None:
    if report.is_file() or not is_first():
        tracker.say(f"report: {report}")
        return
    tracker.warn(
        f"{report} is not there any more; delete {report.parent / STAGE} and start jmrec run "
        "again: it is written anew."
    )


def tracker_of(
    config: ConfigDict, workdir: Path, *, console: Console | None = None, quiet: bool = False
) -> Tracker:
    """Return the tracker of a run, with the mirrors that its settings name."""
    return Tracker(
        workdir, wandb=config.get("wandb"), mirrors=config.get("tracking"), config=flatten(config),
        console=console, quiet=quiet,
    )  # fmt: skip


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
    if unsettled(workdir):  # a writer was killed; the next one to hold the workdir ends its work
        with only_writer(workdir, warn):
            pass
    config = read_config(workdir)
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


def read_config(workdir: Path) -> ConfigDict:
    """Return the settings that a finished run keeps, without what else stands beside them.

    Raises:
      UserError: The file is damaged.
    """
    kept = read_json(workdir / CONFIG)
    if not isinstance(kept, dict):
        raise UserError(f"{workdir / CONFIG} is damaged; run again in another --workdir.")
    return ConfigDict({name: each for name, each in kept.items() if name != GIVEN})


def is_run(folder: Path) -> bool:
    """Tell whether a folder is the workdir of a finished run."""
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "system" in found
