"""Trials of a sweep that differ in numbers alone, trained at once in one process.

That process (`jmrec sweep --at-once`, which a sweep starts by itself) does the trials' work up to
the end of their training; each trial is then run as ever, and finds its training done.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jmrec.config import ConfigDict, flatten, load_config, only_rows
from jmrec.errors import REQUEUE, Preempted
from jmrec.lock import try_lock
from jmrec.preemption import Sigterm
from jmrec.tools.sweep.run import Job, child, last_line
from jmrec.tools.sweep.trials import VALIDATION, Sweep, Trial

NUMBERS = ("learning_rate", "weight_decay", "clip", "warmup")
"""Settings of "train" that are traced: trials that differ in them share one program."""
RUNNER = (sys.executable, "-m", "jmrec", "sweep")
LOG = "population.log"
"""What the process says that trains trials at once; in the sweep's workdir."""


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
    """Tell whether a setting is a number that is traced.

    Example:
      >>> [is_number(f"student.{each}") for each in ("hparams.dropout", "train.clip", "top")]
      [True, True, False]
    """
    *_, group, last = ("", *name.split("."))
    return group == "hparams" or (group == "train" and last in NUMBERS)


def train_group(
    sweep: Sweep,
    group: Sequence[Trial],
    *,
    share: bool,
    say: Callable[[str], None],
    show: Callable[[Sequence[Job]], None],
    poll: float,
    runner: Sequence[str] = RUNNER,
) -> None:
    """Train a group of trials at once, in a process of its own.

    Where it can not be done, that is said, and the trials are trained by themselves later.

    Args:
      sweep: The sweep.
      group: Of its trials; those that have ended, or that others run, are left out.
      share: Whether trials share finished stages.
      say: Prints one line.
      show: Called at each look with the trials.
      poll: Seconds between two looks at the process.
      runner: The command before ``--config``.

    Raises:
      Preempted: SIGTERM came, here or there; the state of all is saved. Interrupted: so after the
        first Ctrl-C.
    """
    jobs: list[Job] = []
    log = sweep.workdir / LOG
    try:
        for trial in group:
            lock = None if trial.record() else try_lock(trial.folder / "trial.lock")
            if lock is not None:
                jobs.append(Job(trial, lock, log=log))
        if len(jobs) < 2:
            return
        named = ", ".join(job.trial.name for job in jobs)
        say(f"{named}: trained at once")
        where = ["--config", sweep.spec, "--workdir", str(sweep.workdir), *sweep.overrides]
        command = [*runner, *where]
        command += [f"--at-once={','.join(str(job.trial.index) for job in jobs)}"]
        command += ["--no-share"] if not share else []
        command += ["--every-row"] if not any(trial.only for trial in group) else []
        code, stopped = _wait(command, log, jobs, show, poll)
    finally:
        for job in jobs:
            os.close(job.lock)
    if stopped is not None:
        raise stopped
    if code == REQUEUE:
        raise Preempted(f"SIGTERM to {log.name}'s process; the state is saved.")
    if code:
        why = last_line(log) or f"exit code {code}"
        say(f"{named}: not trained at once ({why}), each is trained by itself; see {log}")


def _wait(
    command: Sequence[str],
    log: Path,
    jobs: Sequence[Job],
    show: Callable[[Sequence[Job]], None],
    poll: float,
) -> tuple[int, BaseException | None]:
    """Run a process to its end; return its exit code, and what stopped it with this one."""
    with Sigterm(keyboard=True) as sigterm, log.open("ab") as out:
        process = subprocess.Popen(
            child(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            pass_fds=[job.lock for job in jobs],  # locked for as long as it lives
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None and not sigterm.received:
                show(jobs)
                time.sleep(poll)
        finally:
            if process.poll() is None:
                process.terminate()
            code = process.wait()
    return code, sigterm.saved("") if sigterm.received else None


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
