"""Stages of several runs trained in one program: of the trials of a sweep that differ in numbers.

Each run is taken up to the stages that a program can share. Those are trained at once, up to what
their own runs find when they are started after it: a fit that is done.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.lock import only_writer
from jmrec.systems.fit import Fits, fit_at_once
from jmrec.systems.registry import check_settings, system_class, tracker_of
from jmrec.systems.shared import Shared
from jmrec.systems.stages import Stage, Together, begin_some, walk
from jmrec.systems.work import Work
from jmrec.terminal import warn


@dataclass(frozen=True)
class _Opened:
    """A run that this process writes.

    Attributes:
      work: Its settings, workdir and tracker.
      stages: All of its stages.
    """

    work: Work
    stages: Sequence[Stage]

    @property
    def first(self) -> int:
        """The place of the first stage that can be trained at once with others."""
        able = (n for n, stage in enumerate(self.stages) if stage.together is not None)
        return next(able, len(self.stages))


def train_at_once(runs: Sequence[tuple[ConfigDict, Path]], *, share: bool) -> None:
    """Train what of several runs can be trained at once; each is to be started by itself after it.

    Args:
      runs: Their settings and workdirs, which hold the same runs or nothing yet.
      share: Whether the stages before are shared, see `jmrec.systems.registry.run`.

    Raises:
      UserError: As `jmrec.systems.registry.run`; or nothing of them can be trained at once.
      Preempted, Interrupted: SIGTERM came, or Ctrl-C; the state of each is saved.
    """
    if jax.process_count() > 1:
        raise UserError("several runs are trained at once by one process; leave --population away.")
    with ExitStack() as held:
        opened = [_open(held, config, workdir, share) for config, workdir in runs]
        alike: dict[Any, list[Fits]] = {}
        for run in opened:
            for together in _together(run.stages):
                found = _begun(run, together)
                if found is not None:
                    what, fits = found
                    alike.setdefault(repr((what, fits.program)), []).append(fits)
        for some in alike.values():
            for own, ends in zip(some, fit_at_once(some)):
                for member, end in zip(own.members, ends):
                    if isinstance(end, UserError):  # its own run says so too, and ends
                        warn(f"{member.workdir}: {end}")


def _open(held: ExitStack, config: ConfigDict, workdir: Path, share: bool) -> _Opened:
    """Open a run, and do what comes before the stages that can be trained at once."""
    remarks = check_settings(config)
    held.enter_context(only_writer(workdir, warn))
    tracker = held.enter_context(tracker_of(config, workdir))
    for remark in remarks:
        tracker.warn(remark)
    work = Work(config, workdir, tracker, compares=True)
    run = _Opened(work, system_class(config)(work).stages())
    with ExitStack() as sharing:
        shared = Shared.of(work) if share else None
        if shared is not None:
            sharing.enter_context(shared)
        walk(run.stages[: run.first], workdir, tracker=tracker, sharing=shared)
    return run


def _together(stages: Sequence[Stage]) -> list[Together]:
    found = {id(stage.together): stage.together for stage in stages}
    return [each for each in found.values() if each is not None]


def _begun(run: _Opened, together: Together) -> tuple[Any, Fits] | None:
    """Begin some stages of a run; return what they read and their fits, None where all are done."""
    own, workdir = [each for each in run.stages if each.together is together], run.work.workdir
    begun = begin_some(run.stages, own, workdir, run.work.tracker)
    if not begun:
        return None
    folders = {stage.seed: workdir / stage.name for stage, _ in begun if stage.seed is not None}
    return sorted(begun[0][1].items()), together.fits(folders)
