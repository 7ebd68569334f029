"""Child processes that are stopped gently, and what one said last."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CHILD = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit(75)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command; where who started it is killed, it gets SIGTERM (on Linux)."""


def start(
    command: Sequence[str],
    log: Path,
    files: Sequence[int],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process.

    Args:
      command: What it does.
      log: What it says is written to the end of this file.
      files: Open files, such as locks, which it holds for as long as it lives.
      environment: What it changes of this process's.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            pass_fds=files,
            start_new_session=True,  # Ctrl-C comes to who started it, which stops it gently
        )


def why_failed(code: int, log: Path) -> str:
    """Return why a process failed, in words: by its exit code and what it said last."""
    if code < 0:
        return f"killed by signal {-code} (9 is often a lack of memory)"
    return last_line(log) or f"exit code {code}"


def last_line(path: Path) -> str:
    """Return the last line of a log that says anything, "" for none."""
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(size - 10_000, 0))
        lines = log.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
