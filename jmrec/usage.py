"""How much memory a process held at most; and seconds in words."""

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
STATM = Path("/proc/self/statm")
INTERVAL = 0.05
"""Seconds between two looks at the memory that is held."""


@dataclass
class Peak:
    """What `watch` found.

    Attributes:
      bytes: The most that was resident, None where the system does not tell.
    """

    bytes: int | None = None


@contextmanager
def watch() -> Iterator[Peak]:
    """Note the process's peak of resident memory while the block runs.

    The system keeps the peak of the whole life of a process, exactly. Where the block raised it,
    that is the answer; where an earlier peak was higher, it is the highest of looks taken every
    0.05 s (on Linux), so that a shorter spike may be missed.

    Yields:
      A `Peak`, whose ``bytes`` are set when the block ends.

    Example:
      >>> with watch() as peak:
      ...     kept = bytearray(2_000_000)
      >>> peak.bytes is None or peak.bytes > 2_000_000
      True
    """
    peak, highest, stop = Peak(), _resident(), threading.Event()
    before = peak_bytes()

    def look() -> None:
        nonlocal highest
        while not stop.wait(INTERVAL):
            highest = max(highest, _resident())

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        after = peak_bytes()
        found = after if after > before else max(highest, _resident())
        peak.bytes = found or None


def duration(seconds: float) -> str:
    """Return seconds as "7.0 s", "3 min 20 s" or "2 h 05 min".

    Example:
      >>> duration(7), duration(200), duration(7500)
      ('7.0 s', '3 min 20 s', '2 h 05 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {round(seconds) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


# What a process held before it became another program counts as its peak; so a small one is put
# between, whatever the size of the process that measures.
BETWEEN = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = usage.ru_utime + usage.ru_stime
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss]))
"""


@dataclass(frozen=True)
class Run:
    """What `measured` found of a command.

    Attributes:
      code: Its exit code.
      said: What it wrote to standard error.
      cpu_seconds: Processor time.
      peak_bytes: The most memory that was resident.
    """

    code: int
    said: str
    cpu_seconds: float
    peak_bytes: int


def measured(command: Sequence[str]) -> Run:
    """Run a command in a process of its own and measure it.

    Example:
      >>> run = measured([sys.executable, "-c", "kept = bytearray(300_000_000)"])
      >>> run.code, run.peak_bytes > 3e8
      (0, True)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", BETWEEN, *command], capture_output=True, text=True, check=True
    )
    code, seconds, peak = json.loads(done.stdout)
    return Run(code, done.stderr, seconds, peak * _UNIT)


def peak_bytes() -> int:
    """Return the most memory that this process ever had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def _resident() -> int:
    """Return the bytes that are resident now, 0 where the system has no /proc."""
    try:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
