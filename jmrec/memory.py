"""How much memory the process held at most while something ran."""

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    before = _lifetime_peak()

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
        after = _lifetime_peak()
        found = after if after > before else max(highest, _resident())
        peak.bytes = found or None


def _lifetime_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _resident() -> int:
    """Return the bytes that are resident now, 0 where the system has no /proc."""
    try:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
