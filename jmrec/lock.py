"""Locks that a killed process can not leave behind: one writer of a workdir at a time.

A lock is `flock` on a file, held as long as the process that took it lives. The file itself is
never removed: that would let a third process lock another file of the same name.
"""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from jmrec.errors import UserError

LOCK = "workdir.lock"
"""The lock file of a workdir; it says who holds it, or who held it last."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What a file system says that has no locks."""


def try_lock(path: Path) -> int | None:
    """Take a lock that ends with the last process that holds it.

    Args:
      path: The lock file; made where it is missing, never removed.

    Returns:
      An open file to close (or to hand to a child, which then holds it too), or None where
      another holds it.

    Raises:
      OSError: The file system has no locks, or the file may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # somebody removed the file between the two


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, after waiting for it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def only_writer(workdir: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold a workdir, so that nobody else writes into it; readers are not held up.

    Args:
      workdir: The folder; made where it is missing.
      warn: Called with a sentence where its file system has no locks.

    Raises:
      UserError: Another process holds it.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> with only_writer(folder, print), only_writer(folder, print):
      ...     pass
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: ...
    """
    path = workdir / LOCK
    try:
        file = try_lock(path)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warn(
            f"the file system of {workdir} has no locks ({os.strerror(error.errno or 0)}): see to "
            "it that no second command writes there at once."
        )
        yield
        return
    if file is None:
        raise UserError(
            f"{workdir} is in use: {_holder(path)}; wait until it has ended, or name another "
            "workdir."
        )
    try:
        me = {
            "command": " ".join(["jmrec", *sys.argv[1:2]]),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(file, 0)
        os.pwrite(file, (json.dumps(me) + "\n").encode(), 0)
        yield
    finally:
        os.close(file)


def _holder(path: Path) -> str:
    """Return who holds a lock, in words."""
    try:
        known = json.loads(path.read_bytes())
        return (
            f"{known['command']}, process {known['pid']:d} on {known['host']}, since "
            f"{known['since']}"
        )
    except (OSError, ValueError, TypeError, KeyError):
        return "another process has just taken it"
