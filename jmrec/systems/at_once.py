"""Stages of several runs trained in one program: of the trials of a sweep that differ in numbers.

Each run is taken up to the stages that a program can share. Those are trained at once, up to what
their own runs find when they are started after it: a fit that is done.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.lock import only_writer
from jmrec.systems.fit import Fits, fit_at_once
from jmrec.systems.registry import check_settings, system_class, tracker_of
from jmrec.systems.sealed import STAGE
from jmrec.systems.shared import MADE_AS, Shared
from jmrec.systems.stages import begin_some, walk
from jmrec.systems.work import Work
from jmrec.terminal import warn
from jmrec.usage import watch


@dataclass(frozen=True)
class _Begun:
    """Stages of a run that are trained at once with others.

    Attributes:
      folders: Theirs.
      reads: Inputs and contents of their stage.json.
      fits: What they train.
    """

    folders: Sequence[Path]
    reads: Any
    fits: Fits


def train_at_once(runs: Sequence[tuple[ConfigDict, Path]], *, share: bool) -> None:
    """Train what of several runs can be trained at once; each is to be started by itself after it.

    Args:
      runs: Their settings and workdirs, which hold the same runs or nothing yet.
      share: Whether the stages before are shared, see `jmrec.systems.registry.run`.

    Raises:
      UserError: As `jmrec.systems.registry.run`; or a run has nothing that can be trained so.
      Preempted, Interrupted: SIGTERM came, or Ctrl-C; the state of each is saved.
    """
    if jax.process_count() > 1:
        raise UserError("several runs are trained at once by one process; leave --population away.")
    with ExitStack() as held:
        alike: dict[str, list[_Begun]] = {}
        for config, workdir in runs:
            for begun in _begin(held, config, workdir, share):
                alike.setdefault(repr((begun.reads, begun.fits.program)), []).append(begun)
        for some in alike.values():
            _train(some)


def _begin(held: ExitStack, config: ConfigDict, workdir: Path, share: bool) -> list[_Begun]:
    """Open a run, do what comes before the stages that can be trained at once, and begin those."""
    remarks = check_settings(config)
    held.enter_context(only_writer(workdir, warn))
    tracker = held.enter_context(tracker_of(config, workdir))
    for remark in remarks:
        tracker.warn(remark)
    work = Work(config, workdir, tracker, compares=True)
    stages = system_class(config)(work).stages()
    able = [stage for stage in stages if stage.together is not None]
    if not able:
        raise UserError(f"the system {config.system} has nothing that is trained at once.")
    shared = Shared.of(work) if share else None
    with shared or nullcontext():
        walk(stages[: stages.index(able[0])], workdir, tracker=tracker, sharing=shared)
    found = []
    for together in dict.fromkeys(stage.together for stage in able):
        own = [stage for stage in able if stage.together is together]
        begun = begin_some(stages, own, workdir, tracker)
        if together is not None and begun:
            folders = {s.seed: workdir / s.name for s, _ in begun if s.seed is not None}
            reads = sorted(begun[0][1].items())
            found.append(_Begun([*folders.values()], reads, together.fits(folders)))
    return found


def _train(some: Sequence[_Begun]) -> None:
    """Train stages of several runs; what it took is shared out over their stage.json."""
    started = time.monotonic()
    with watch() as peak:
        ends = fit_at_once([begun.fits for begun in some])
    folders = [folder for begun in some for folder in begun.folders]
    seconds = (time.monotonic() - started) / len(folders)
    for folder, end in zip(folders, (each for own in ends for each in own), strict=True):
        facts = read_json(folder / STAGE)
        facts |= {"seconds": round(facts["seconds"] + seconds, 1), "peak_memory": peak.bytes}
        # Equal within rounding to what the run would make alone: it is given to no other run.
        write_json(folder / STAGE, {**facts, MADE_AS: None})
        if isinstance(end, UserError):  # its own run says so too, and ends
            warn(f"{folder}: {end}")
