"""Stages side by side, each in a process of its own, on its share of the cores.

On a CPU a light model keeps about one core busy. Where a run has several stages left that need not
wait for each other, such as its students, the process of the run starts one for each, so many at a
time, and trains none itself. A stage's process writes the stage's folder, and what it measures into
a file of `BESIDE`; the run takes that over when all are done, in the order of the stages. The
numbers are those of a machine with so many cores: with another number of them XLA adds in another
order.

Killed at any moment, nothing is lost and nothing runs twice: a process whose run is gone saves and
ends, and who starts the run again waits for that.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from jmrec.config import ConfigDict
from jmrec.errors import REQUEUE, Preempted, UserError
from jmrec.files import read_json, write_json
from jmrec.preemption import Sigterm
from jmrec.processes import last_line, start, why_failed
from jmrec.systems.work import Work
from jmrec.tracking import Tracker, read_lines
from jmrec.usage import duration

BESIDE = "beside"
"""The folder of a workdir in which stages that run side by side leave what the run takes over."""
RUN = "run.json"
"""In it: the settings of the run, and its command."""
LOCK = "lock"
"""In it: held by the stages' processes together."""
POLL = 0.2
"""Seconds between two looks at the processes."""


def check(parallel: int) -> None:
    """Refuse so many stages at a time where that can not be.

    Args:
      parallel: How many.

    Raises:
      UserError: There are not so many cores, the run is one of several processes, or it has an
        accelerator, which one process fills.
    """
    if parallel < 1:
        raise UserError(f"--parallel={parallel} is not possible; make it 1 or more.")
    if parallel == 1:
        return
    cores = len(_cores())
    if parallel > cores:
        raise UserError(
            f"--parallel={parallel} needs as many cores, and there are {cores}; make it smaller."
        )
    import jax

    if jax.process_count() > 1:
        raise UserError("stages run side by side where a run is one process; leave --parallel out.")
    if jax.default_backend() != "cpu":
        raise UserError(
            "stages run side by side on a CPU alone; leave --parallel out: an accelerator trains "
            "the seeds of a student at once (see student.train.population)."
        )


@dataclass(frozen=True)
class SideBySide:
    """Runs several stages of a run at a time.

    Attributes:
      config: Of the run.
      workdir: Its folder.
      command: Its command, which the stages are made with.
      tracker: Its own.
      parallel: How many stages at a time.
    """

    config: ConfigDict
    workdir: Path
    command: Sequence[str]
    tracker: Tracker
    parallel: int

    @classmethod
    def of(cls, work: Work, command: Sequence[str], parallel: int) -> "SideBySide | None":
        """Return it for a run, None where stages run one after the other."""
        if parallel == 1:
            return None
        return cls(work.config, work.workdir, command, work.tracker, parallel)

    def __call__(self, names: Sequence[str], begin: Callable[[str], bool]) -> None:
        """Run stages that need not wait for each other.

        Args:
          names: Theirs, in the order in which they are started.
          begin: Makes the folder of one ready; returns whether there is anything to run.

        Raises:
          UserError: A stage can not go on; the others are done.
          Preempted, Interrupted: A signal came; what ran has saved its state.
        """
        folder = self.workdir / BESIDE
        folder.mkdir(exist_ok=True)
        settings = {"config": self.config.to_dict(), "command": list(self.command)}
        write_json(folder / RUN, settings)
        with (folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            faults = self._run(names, begin, lock.fileno())
        if faults:
            raise UserError("; ".join(faults))
        take_over(self.workdir, self.tracker, names)

    def _run(self, names: Sequence[str], begin: Callable[[str], bool], lock: int) -> list[str]:
        """Run them; return what kept any from being done, in words."""
        waiting, faults, stopped = list(names), list[str](), list[str]()
        running: dict[str, tuple[Popen[bytes], int, float]] = {}
        with (
            self.tracker.progress(len(names), "stages side by side") as bar,
            Sigterm(keyboard=True) as sigterm,
        ):

            def ended(name: str) -> None:
                process, _, began = running.pop(name)
                code, log = process.wait(), self._file(name, "log")
                if code == 0:
                    self.tracker.say(f"{name}: done in {duration(time.monotonic() - began)}")
                    bar.update(1)
                elif code in (REQUEUE, -signal.SIGTERM):
                    stopped.append(name)
                else:
                    why = why_failed(code, log).removeprefix("jmrec: ")
                    faults.append(f"{name}: {why} (all that it said is in {log})")

            try:
                while (waiting or running) and not sigterm.received and not stopped:
                    while waiting and len(running) < self.parallel:
                        name = waiting.pop(0)
                        if begin(name):
                            taken = {slot for _, slot, _ in running.values()}
                            slot = min(set(range(self.parallel)) - taken)
                            process = self._start(name, slot, lock)
                            running[name] = process, slot, time.monotonic()
                        else:
                            bar.update(1)
                    time.sleep(POLL)
                    bar.update(0, **{name: self._updates(name) for name in running})
                    for name in [n for n, (p, *_) in running.items() if p.poll() is not None]:
                        ended(name)
            finally:
                for process, *_ in running.values():
                    process.terminate()
                for name in list(running):
                    ended(name)
            if sigterm.received:
                raise sigterm.saved("")
        if stopped:
            raise Preempted(f"SIGTERM to {stopped[0]}; the state is saved.")
        return faults

    def _file(self, name: str, ending: str) -> Path:
        return self.workdir / BESIDE / f"{name.replace('/', '.')}.{ending}"

    def _updates(self, name: str) -> int:
        """Return how many updates a stage has noted."""
        path = metrics_of(self.workdir, name)
        try:
            return int(json.loads(last_line(path))["step"])
        except (OSError, ValueError, KeyError):  # none yet, or it is at it
            return 0

    def _start(self, name: str, slot: int, lock: int) -> "Popen[bytes]":
        command = [sys.executable, "-P", "-m", "jmrec", "run", "--stage", name]
        where = ["--config", BESIDE, "--workdir", str(self.workdir)]
        process = start([*command, *where], self._file(name, "log"), [lock])
        if hasattr(os, "sched_setaffinity"):
            # XLA has a thread for each core: those of several would wait for one another. It is
            # early enough, because Python has not started. Of a process that is gone already, its
            # exit code says more.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, set(_cores()[slot :: self.parallel]))
        return process


def _cores() -> list[int]:
    """Return the cores that this process may use."""
    ours = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return sorted(ours)


def settings_of(workdir: Path) -> tuple[ConfigDict, list[str]]:
    """Return the settings and the command of the run whose stages run side by side.

    Raises:
      UserError: None does.
    """
    path = workdir / BESIDE / RUN
    if not path.is_file():
        raise UserError(f"{workdir} has no stages side by side; start jmrec run with --parallel.")
    found: dict[str, Any] = read_json(path)
    return ConfigDict(found["config"]), list(found["command"])


def metrics_of(workdir: Path, name: str) -> Path:
    """Return where a stage that runs beside others writes what it measures."""
    return workdir / BESIDE / f"{name.replace('/', '.')}.jsonl"


def take_over(workdir: Path, tracker: Tracker, names: Sequence[str] = ()) -> None:
    """Take over what stages have measured that ran side by side, after waiting for those that run.

    Args:
      workdir: Of the run; one without such stages is left as it is.
      tracker: The run's own.
      names: The stages whose lines come first, in this order.
    """
    folder = workdir / BESIDE
    if not folder.is_dir():
        return
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tracker.say("waiting until the stages of a run that was killed have saved their state")
            fcntl.flock(lock, fcntl.LOCK_EX)
        first = [metrics_of(workdir, name) for name in names]
        for path in dict.fromkeys([*first, *sorted(folder.glob("*.jsonl"))]):
            if not path.is_file():
                continue
            entries = [entry for _, entry in read_lines(path)]
            if entries:
                # What a run that was killed before has written of later updates is done again.
                begin = min(entry["step"] for entry in entries)
                tracker.stage(entries[0]["stage"]).truncate(begin - 1)
            for entry in entries:
                tracker.stage(entry.pop("stage")).log(entry.pop("step"), entry)
            path.unlink()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
