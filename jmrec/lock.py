"""One writer of a workdir at a time, and what it changes together: all of it or nothing.

A lock is `flock` on a file, held as long as the process that took it lives. The file itself is
never removed: that would let a third process lock another file of the same name.

Changes are written into a side folder. One rename decides that they count; who takes the lock next
puts in place what a killed process has not.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from jmrec.errors import UserError

LOCK = "workdir.lock"
"""The lock file of a workdir; it says who holds it, or who held it last."""
CHANGES = "changes"
"""The side folder of `Changes`, once they count; before that its name ends in ".tmp"."""
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
        settle(workdir)
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
        settle(workdir)
        yield
    finally:
        os.close(file)


class Changes:
    """New files of a folder that are put in place together: a kill leaves all old or all new ones.

    Only who holds the folder (`only_writer`) may make them. They count from `commit` on.

    Args:
      folder: Whose files are to change.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "old").write_text("1")
      >>> changes = Changes(folder)
      >>> _ = changes.new("a/b").write_text("2")
      >>> changes.remove("old")
      >>> changes.commit()
      >>> [path.name for path in sorted(folder.rglob("*"))]
      ['a', 'b']
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._side = folder / f"{CHANGES}.tmp"
        self._put: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        shutil.rmtree(self._side, ignore_errors=True)

    def new(self, name: str) -> Path:
        """Return where to write a file or a folder that takes the place of ``folder / name``."""
        self._put[name] = None
        path = self._side / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def current(self, name: str) -> Path:
        """Return where a file is now: the new one where there is one, else the old one."""
        return self._side / "new" / name if name in self._put else self.folder / name

    def remove(self, name: str) -> None:
        """Remove ``folder / name``, a file or a folder in which nothing is new."""
        self._gone[name] = None

    @property
    def names(self) -> list[str]:
        """What is put in place, relative to the folder."""
        return list(self._put)

    @property
    def removed(self) -> list[str]:
        """What is removed, relative to the folder."""
        return list(self._gone)

    def commit(self) -> None:
        """Put everything in place."""
        self._side.mkdir(parents=True, exist_ok=True)
        listed = json.dumps({"put": list(self._put), "gone": list(self._gone)})
        (self._side / _LIST).write_text(listed)
        self._side.rename(self.folder / CHANGES)  # from here on they count
        settle(self.folder)


_LIST = "changes.json"


def unsettled(folder: Path) -> bool:
    """Whether changes count that are not all in place."""
    return (folder / CHANGES / _LIST).is_file()


def settle(folder: Path) -> None:
    """Put in place what a killed `Changes.commit` has not, and remove what does not count."""
    ready, side = folder / CHANGES, folder / f"{CHANGES}.tmp"
    if unsettled(folder):
        listed = json.loads((ready / _LIST).read_bytes())
        for name in listed["gone"]:
            _remove(folder / name)
        for name in listed["put"]:
            new = ready / "new" / name
            if new.exists():  # else it is in its place already
                if new.is_dir():
                    _remove(folder / name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                new.replace(folder / name)
        shutil.rmtree(side, ignore_errors=True)
        ready.rename(side)
    shutil.rmtree(side, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
