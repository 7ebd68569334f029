"""Trials of a sweep that differ in numbers alone, trained at once in one process.

That process (`jmrec sweep --at-once`, which a sweep starts by itself) does the trials' work up to
the end of their training; each trial is then run as ever, and finds its training done.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jmrec.config import ConfigDict, flatten, load_config, only_rows
from jmrec.errors import REQUEUE, Preempted
from jmrec.lock import try_lock
from jmrec.preemption import Sigterm
from jmrec.processes import why_failed
from jmrec.tools.sweep.run import Job, start_process
from jmrec.tools.sweep.trials import VALIDATION, Sweep, Trial

NUMBERS = ("learning_rate", "weight_decay", "clip", "warmup", "average")
"""Settings of "train" that are traced: trials that differ in them share one program."""
RUNNER = (sys.executable, "-m", "jmrec", "sweep")
LOG = "population-{:04d}.log"
"""What the process says that trains trials at once; the number is that of the first."""


def groups(sweep: Sweep, most: int) -> list[list[Trial]]:
    """Return the trials, those together that one program may train at once.

    Args:
      sweep: The sweep.
      most: At most so many a group.
    """
    alike: dict[str, list[Trial]] = {}
    for trial in sweep.trials:
        given = {name: x for name, x in trial.overrides.items() if not is_number(name)}
        alike.setdefault(json.dumps(flatten(given), sort_keys=True, default=str), []).append(trial)
    return [some[n : n + most] for some in alike.values() for n in range(0, len(some), most)]


def is_number(name: str) -> bool:
    """Tell whether a setting is a number of session students that is traced.

    Example:
      >>> [is_number(f"student.{each}") for each in ("hparams.dropout", "train.clip", "top")]
      [True, True, False]
      >>> is_number("distill.hparams.dropout")
      False
    """
    parts = name.split(".")
    if parts[0] not in ("student", "students") or len(parts) < 3:
        return False
    return parts[-2] == "hparams" or (parts[-2] == "train" and parts[-1] in NUMBERS)


def train_groups(
    sweep: Sweep,
    most: int,
    *,
    share: bool,
    say: Callable[[str], None],
    show: Callable[[Sequence[Job]], None],
    poll: float,
    runner: Sequence[str] = RUNNER,
) -> None:
    """Train the trials of a sweep in groups, each at once in a process of its own.

    Trials that have ended, or that another process has in its hands, are left out. Where a group
    can not be trained at once, that is said, and its trials are trained by themselves later.

    Args:
      sweep: The sweep.
      most: At most so many trials a group.
      share: Whether trials share finished stages.
      say: Prints one line.
      show: Called at each look with the trials.
      poll: Seconds between two looks at the process.
      runner: The command before ``--config``.

    Raises:
      Preempted: SIGTERM came, here or there; the state of all is saved. Interrupted: so after the
        first Ctrl-C.
    """
    found = [group for group in groups(sweep, most) if len(group) > 1]
    if "system" not in sweep.base:  # else it is not jmrec that runs it
        found = []
    if not found and most > 1:
        say("no two trials differ in numbers of session students alone: each is trained by itself")
    for group in found:
        jobs: list[Job] = []
        log = sweep.workdir / LOG.format(group[0].index)
        try:
            for trial in group:
                lock = None if trial.record() else try_lock(trial.folder / "trial.lock")
                if lock is not None:
                    jobs.append(Job(trial, lock, log=log))
            if len(jobs) > 1:
                _train(
                    sweep, jobs, log, runner if share else [*runner, "--no-share"], say, show, poll
                )
        finally:
            for job in jobs:
                os.close(job.lock)


def _train(
    sweep: Sweep,
    jobs: Sequence[Job],
    log: Path,
    runner: Sequence[str],
    say: Callable[[str], None],
    show: Callable[[Sequence[Job]], None],
    poll: float,
) -> None:
    """Train trials at once in a process of their own."""
    named = ", ".join(job.trial.name for job in jobs)
    say(f"{named}: trained at once")
    where = ["--config", sweep.spec, "--workdir", str(sweep.workdir), *sweep.overrides]
    asked = [f"--at-once={','.join(str(job.trial.index) for job in jobs)}"]
    asked += [] if any(job.trial.only for job in jobs) else ["--every-row"]
    log.unlink(missing_ok=True)  # of an earlier start
    with Sigterm(keyboard=True) as sigterm:
        process = start_process(sweep, [*runner, *where, *asked], log, [job.lock for job in jobs])
        try:
            while process.poll() is None and not sigterm.received:
                show(jobs)
                time.sleep(poll)
        finally:
            if process.poll() is None:
                process.terminate()
            code = process.wait()
    if sigterm.received:
        raise sigterm.saved("")
    if code in (REQUEUE, -signal.SIGTERM):
        raise Preempted(f"SIGTERM to the process of {named}; the state is saved.")
    if code:
        why = why_failed(code, log)
        say(f"{named}: not trained at once ({why}), each is trained by itself; see {log}")


def train_here(sweep: Sweep, indices: Sequence[int], *, share: bool) -> None:
    """Train trials at once in this process; see `jmrec.systems.at_once.train_at_once`."""
    from jmrec.systems.at_once import train_at_once
    from jmrec.xla import set_deterministic

    trials = [sweep.trials[index] for index in indices]
    configs = [_config(sweep, trial) for trial in trials]
    if configs[0].get("deterministic", False):
        set_deterministic()  # before anything starts a device
    runs = [(config, trial.folder) for config, trial in zip(configs, trials)]
    train_at_once(runs, share=share)


def _config(sweep: Sweep, trial: Trial) -> ConfigDict:
    config = load_config(sweep.spec, [*sweep.overrides, *trial.arguments(), VALIDATION])
    return only_rows(config, trial.only) if trial.only else config
