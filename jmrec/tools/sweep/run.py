"""Running trials, each in a process of its own, several at a time.

A `Source` says which trial is next, watches it and hears how it ended; this module knows processes
only. Killed at any moment and started again, a sweep goes on: a trial's end is written before its
lock is given back, and a half-done trial resumes by ``jmrec run`` itself.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jmrec.errors import REQUEUE, Preempted
from jmrec.evaluation.results import RESULTS
from jmrec.lock import try_lock
from jmrec.preemption import Sigterm
from jmrec.processes import start, why_failed
from jmrec.tools.sweep.trials import Record, Sweep, Trial


@dataclass
class Job:
    """A trial in the hands of this process.

    Attributes:
      trial: Which.
      lock: The open lock file.
      handle: What the source keeps with it.
      process: Its process, once it runs.
      slot: Which of the places at a time it has.
      pruned: Whether the source ended it early.
      stopped: Whether it was terminated with the sweep.
      begin: When it started.
      log: What its process says, where that is not the trial's own log.
    """

    trial: Trial
    lock: int
    handle: Any = None
    process: subprocess.Popen[bytes] | None = None
    slot: int = 0
    pruned: bool = False
    stopped: bool = False
    begin: float = field(default_factory=time.monotonic)
    log: Path | None = None


class Source(Protocol):
    """Where trials come from."""

    def take(self) -> Job | None:
        """Return the next trial, locked; None where there is none just now."""

    def watch(self, job: Job) -> bool:
        """Look at a running trial; return True to end it early."""

    def ended(self, job: Job, record: Record) -> None:
        """Hear how a trial ended; its record is kept already."""

    def waiting(self) -> bool:
        """Whether other processes run trials that are not ended yet."""


class Grid:
    """Every trial in order, or those asked for; what ended before is skipped.

    A trial that failed in an earlier start is tried again once, one that fails in this start is
    not.

    Args:
      trials: In order.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._open = list(trials)
        self._failures = {t.index: r.failures for t in trials if (r := t.record())}

    def take(self) -> Job | None:
        """Return the first trial that is open and in nobody's hands."""
        for trial in list(self._open):
            if not self._is_open(trial):
                continue
            if (lock := try_lock(trial.folder / "trial.lock")) is not None:
                if self._is_open(trial):  # it may have ended just before the lock was given back
                    self._open.remove(trial)
                    return Job(trial, lock)
                os.close(lock)
        return None

    def _is_open(self, trial: Trial) -> bool:
        record = trial.record()
        failed_before = self._failures.get(trial.index, 0)
        if record is None or (record.state == "failed" and record.failures == failed_before):
            return True
        self._open.remove(trial)
        return False

    def watch(self, job: Job) -> bool:
        """Never end a trial early."""
        return False

    def ended(self, job: Job, record: Record) -> None:
        """Keep nothing besides the record."""

    def waiting(self) -> bool:
        """Whether a trial is open that another process has locked."""
        return bool(self._open)


def run_trials(
    sweep: Sweep,
    source: Source,
    *,
    parallel: int,
    runner: Sequence[str],
    say: Callable[[str], None],
    show: Callable[[Sequence[Job]], None] = lambda jobs: None,
    poll: float = 0.5,
) -> None:
    """Run trials until the source has no more and nobody runs any.

    Args:
      sweep: What is swept.
      source: Which trial is next.
      parallel: How many at a time.
      runner: The command before ``--config``; ``jmrec run``.
      say: Prints one line.
      show: Called at each look with the trials that run here.
      poll: Seconds between two looks.

    Raises:
      Preempted: SIGTERM came, here or to a trial; what ran has saved its state. Interrupted: so
        after the first Ctrl-C.
    """
    jobs: list[Job] = []
    stopped: list[str] = []
    waited = False
    shares = device_shares(os.environ, parallel)

    def reap(job: Job) -> None:
        record = _outcome(job)
        if record is None:
            stopped.append(job.trial.name)
            say(f"{job.trial.name}: stopped, its state is saved")
        else:
            _finish(source, job, record, say)
        os.close(job.lock)
        jobs.remove(job)

    with Sigterm(keyboard=True) as sigterm:
        try:
            while not sigterm.received:
                for job in list(jobs):
                    assert job.process is not None
                    if job.process.poll() is not None:
                        reap(job)
                    elif not job.pruned and source.watch(job):
                        job.pruned = True
                        job.process.terminate()
                while len(jobs) < parallel and (new := source.take()):
                    if (known := new.trial.record()) is not None and known.state != "failed":
                        source.ended(new, known)  # its worker was killed before it could say so
                        os.close(new.lock)
                        continue
                    new.slot = min(set(range(parallel)) - {job.slot for job in jobs})
                    jobs.append(new)
                    _start(sweep, new, runner, shares)
                    say(f"{new.trial.name}: started, {', '.join(new.trial.arguments()) or 'as is'}")
                if not jobs:
                    if not source.waiting():
                        break
                    if not waited:
                        say("waiting for trials that other processes run")
                    waited = True
                show(jobs)
                time.sleep(poll)
        finally:
            for job in jobs:
                if job.process is not None and job.process.poll() is None:
                    job.stopped = True
                    job.process.terminate()
            for job in list(jobs):
                if job.process is not None:
                    job.process.wait()
                    reap(job)
    if sigterm.received:
        raise sigterm.saved("")
    if stopped:
        raise Preempted("SIGTERM to a trial; the state is saved.")


def device_shares(environment: Mapping[str, str], parallel: int) -> list[dict[str, str]]:
    """Deal the GPUs that CUDA_VISIBLE_DEVICES names to the trials that run at a time.

    Args:
      environment: Of this process.
      parallel: How many trials run at a time.

    Returns:
      For each of them what its environment changes; nothing where there is none to deal, or
      fewer than trials.

    Example:
      >>> device_shares({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 2)
      [{'CUDA_VISIBLE_DEVICES': '0,1'}, {'CUDA_VISIBLE_DEVICES': '2,3'}]
      >>> device_shares({}, 2)
      [{}, {}]
    """
    devices = [each for each in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    share = len(devices) // parallel
    if parallel == 1 or not share:
        return [{} for _ in range(parallel)]
    dealt = (devices[slot * share : (slot + 1) * share] for slot in range(parallel))
    return [{"CUDA_VISIBLE_DEVICES": ",".join(each)} for each in dealt]


def start_process(
    sweep: Sweep,
    command: Sequence[str],
    log: Path,
    locks: Sequence[int],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process of a sweep; see `jmrec.processes.start`."""
    group = os.environ.get("WANDB_RUN_GROUP", sweep.workdir.name)
    return start(command, log, locks, {"WANDB_RUN_GROUP": group, **(environment or {})})


def _start(sweep: Sweep, job: Job, runner: Sequence[str], shares: list[dict[str, str]]) -> None:
    job.begin = time.monotonic()
    command = sweep.command(job.trial, runner)
    job.process = start_process(sweep, command, job.trial.log, [job.lock], shares[job.slot])


def _outcome(job: Job) -> Record | None:
    """Return how a process ended, None where it is to be started again."""
    assert job.process is not None
    code, trial = job.process.returncode, job.trial
    seconds = round(time.monotonic() - job.begin, 1)
    before = trial.record()
    failures = (before.failures if before else 0) + 1
    if code == 0:  # even where it was asked to end: it was faster
        score = trial.score()
        if score is not None:
            return Record("done", score, seconds)
        why = f"it wrote no row {' or '.join(trial.rows)} into evaluate/{RESULTS}"
    elif job.pruned:
        curve = trial.curve()
        return Record("pruned", curve[max(curve)] if curve else None, seconds)
    elif job.stopped or code in (REQUEUE, -signal.SIGTERM):
        return None  # whatever it said: it was asked to stop and resumes at the next start
    else:
        why = why_failed(code, job.trial.log)
    return Record("failed", None, seconds, failures, why)


def _finish(source: Source, job: Job, record: Record, say: Callable[[str], None]) -> None:
    # In this order: a kill in between leaves a record and a lock, never an end without a record.
    job.trial.end(record)
    source.ended(job, record)
    score = "" if record.score is None else f", {100 * record.score:.2f} %"
    say(f"{job.trial.name}: {record.state}{score}{record.message and f': {record.message}'}")
