"""One writer of a folder at a time, and a lock that a killed process can not leave behind."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jmrec.errors import UserError
from jmrec.lock import LOCK, Changes, only_writer, try_lock, unsettled

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


class Kill(BaseException):
    """Ends everything at once, as a signal would."""


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def change(folder: Path) -> None:
    changes = Changes(folder)
    changes.new("a/one").write_text("new")
    (changes.new("folder") / "x").parent.mkdir()
    (changes.current("folder") / "x").write_text("new")
    changes.new("fresh/deep").write_text("new")
    changes.remove("away")
    changes.commit()


def test_changes_are_all_there_or_none_wherever_they_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"a/one": "old", "folder/y": "old", "away/z": "old", "stays": "old"}
    new = {"a/one": "new", "folder/x": "new", "fresh/deep": "new", "stays": "old"}
    seen = []
    for kill in range(40):
        folder = tmp_path / str(kill)
        for name, text in old.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        calls = iter(range(100))

        def trapped(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **how: object) -> object:
                if next(calls) == kill:  # noqa: B023
                    raise Kill
                return real(*args, **how)

            return call

        with monkeypatch.context() as patch:
            for name in ("rename", "replace", "unlink", "mkdir", "rmdir", "write_text"):
                patch.setattr(Path, name, trapped(getattr(Path, name)))
            patch.setattr(os, "unlink", trapped(os.unlink))
            patch.setattr(os, "rmdir", trapped(os.rmdir))
            try:
                change(folder)
                done = True
            except Kill:
                done = False
        counted = unsettled(folder)
        with only_writer(folder, print):
            after = tree(folder)
        assert after in (old, new)
        assert after == new or not (done or counted)
        assert not unsettled(folder)
        seen.append((done, after == new))
        change(folder)
        assert tree(folder) == new
    # Some were killed before it counted, some after, and some not at all.
    assert {(False, False), (False, True), (True, True)} <= set(seen)
