"""One writer of a folder at a time, and a lock that a killed process can not leave behind."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jmrec.errors import UserError
from jmrec.lock import LOCK, only_writer, try_lock

HOLDER = """
import sys, time
from pathlib import Path
from jmrec.lock import only_writer
sys.argv[1:2] = ["run"]
with only_writer(Path(sys.argv[2]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_is_at_work_until_that_one_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "run", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match=rf"jmrec run, process {holder.pid} on .*, since 20"),
        only_writer(tmp_path, print),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(tmp_path, print):
        assert f'"pid": {os.getpid()}' in (tmp_path / LOCK).read_text()


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    with only_writer(tmp_path, said.append):
        pass
    assert len(said) == 1
    assert str(tmp_path) in said[0]


def test_a_lock_file_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = try_lock(path)
    assert first is not None
    path.unlink()
    second = try_lock(path)
    assert second is not None
    assert os.path.samestat(os.fstat(second), path.stat())
    os.close(first)
    assert try_lock(path) is None
    os.close(second)


def test_a_broken_lock_file_still_holds(tmp_path: Path) -> None:
    held = try_lock(tmp_path / LOCK)
    assert held is not None
    os.pwrite(held, b"\xff{", 0)
    with pytest.raises(UserError, match="another process"), only_writer(tmp_path, print):
        pass
    os.close(held)
