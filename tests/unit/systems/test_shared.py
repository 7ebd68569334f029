"""The store of finished stages: what is equal is made once, what is not is never taken."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jmrec.config import ConfigDict
from jmrec.files import read_json
from jmrec.systems import shared
from jmrec.systems.shared import SHARED, Shared, drop
from jmrec.systems.stages import Stage, walk
from jmrec.systems.work import Work
from jmrec.tracking import Tracker

Log = list[str]


def chain(workdir: Path, log: Log, **changed: Any) -> list[Stage]:
    """Return data -> tower -> student -> evaluate, each of which says that it ran."""
    tracker = Tracker(workdir, quiet=False)

    def run(name: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            log.append(f"{workdir.name} {name}")
            (folder / "out").mkdir(exist_ok=True)
            (folder / "out" / "array").write_text(f"{name} {sorted(changed)}")
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "toyshop").mkdir(exist_ok=True)
            (folder / "toyshop" / "items.csv").write_text("item_id\n")
            for step in (1, 2):
                tracker.stage(name).log(step, {"loss": 1 / (3 * step), "best": None})
            if name == "data":
                (workdir / "index.json").write_text("[1]")

        return write

    return [
        Stage("data", {"rows": 3}, (), run("data"), alone=True, content=lambda _: "d1",
              beside=("index.json",)),
        Stage("tower", {"train": {"rate": 0.1, "log_every": 5}, "seed": 0}, ("data",),
              run("tower")),
        Stage("students/a-0", {"rate": changed.get("rate", 1)}, ("tower",), run("students/a-0"),
              group="students/a", seed=0, path="students.a"),
        Stage("evaluate", {}, ("students/a-0",), run("evaluate"), shared=False),
    ]  # fmt: skip


def do(
    workdir: Path,
    log: Log,
    stages: Sequence[Stage] | None = None,
    config: dict[str, Any] | None = None,
    **changed: Any,
) -> None:
    """Walk the chain of a workdir, sharing with those beside it."""
    workdir.mkdir(parents=True, exist_ok=True)
    work = Work(ConfigDict(config or {}), workdir, Tracker(workdir, quiet=False))
    store = Shared.of(work)
    assert store is not None
    with store:
        walk(stages or chain(workdir, log, **changed), workdir, tracker=work.tracker, sharing=store)


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file of a run but what says when and by whom it was made."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("stage.json", "workdir.lock")
    }


def entries(home: Path) -> list[Path]:
    return sorted(path.parent for path in (home / SHARED).glob("*/key.json"))


ALL = ["data", "tower", "students/a-0", "evaluate"]


def test_what_is_equal_is_made_once_and_is_the_same(tmp_path: Path) -> None:
    log: Log = []
    do(tmp_path / "s" / "one", log)
    do(tmp_path / "s" / "two", log)
    do(tmp_path / "s" / "three", log, rate=2)
    do(tmp_path / "alone" / "two", [], None)
    assert log == [
        *(f"one {name}" for name in ALL), "two evaluate", "three students/a-0", "three evaluate",
    ]  # fmt: skip
    assert tree(tmp_path / "s" / "two") == tree(tmp_path / "alone" / "two")
    facts = read_json(tmp_path / "s" / "two" / "tower" / "stage.json")
    assert facts["made_by"] == "one"
    assert "made_by" not in read_json(tmp_path / "s" / "one" / "tower" / "stage.json")
    # Files are links, but those that people may change in place are not, and are their own.
    one, two = (tmp_path / "s" / name / "tower" for name in ("one", "two"))
    assert (one / "out" / "array").samefile(two / "out" / "array")
    assert not (one / "toyshop" / "items.csv").samefile(two / "toyshop" / "items.csv")
    assert not (two / "checkpoints").exists()
    do(tmp_path / "s" / "two", log)  # a second start skips all
    assert len(log) == 7


@pytest.mark.parametrize(
    "what", ["_source", "_packages", "_processor", "flags", "rules", "deterministic", "on_device",
             "file", "log_every", "seed", "name", "content"],
)  # fmt: skip
def test_what_differs_in_anything_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    log: Log = []
    weights = tmp_path / "weights"
    weights.write_text("1")
    first = chain(tmp_path / "s" / "one", log)
    first[1] = replace(first[1], settings={**first[1].settings, "source": f"hf:{weights}"})
    do(tmp_path / "s" / "one", log, first)
    second = chain(tmp_path / "s" / "two", log)
    settings: dict[str, Any] = {**second[1].settings, "source": f"hf:{weights}"}
    config: dict[str, Any] = {}
    tower = "tower"
    if what.startswith("_"):
        monkeypatch.setattr(shared, what, lambda: "another")
    elif what == "flags":
        monkeypatch.setenv("XLA_FLAGS", "--xla_another=true")
    elif what in ("rules", "deterministic", "on_device"):
        config = {what: True}
    elif what == "file":
        weights.write_text("22")
    elif what == "log_every":  # which stage.json's hash leaves out, and the curves show
        settings["train"] = {"rate": 0.1, "log_every": 6}
    elif what == "seed":
        settings["seed"] = 1
    elif what == "name":
        tower = "tower2"
        second[2] = replace(second[2], inputs=(tower,))
    else:
        second[0] = replace(second[0], content=lambda _: "d2")
    second[1] = replace(second[1], settings=settings, name=tower)
    do(tmp_path / "s" / "two", log, second, config)
    # All that follows is made anew too; the data only where what made it differs.
    same_data = what in ("file", "log_every", "seed", "name", "content")
    assert [line for line in log if line.startswith("two ")] == [
        *([] if same_data else ["two data"]), "two tower", "two students/a-0", "two evaluate",
    ]  # fmt: skip


def test_what_another_program_began_or_read_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: Log = []
    broken = chain(tmp_path / "s" / "one", log)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    broken[1] = replace(broken[1], run=killed)
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "s" / "one", log, broken)
    monkeypatch.setattr(shared, "_source", lambda: "mended")
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "s" / "one", log, broken)
    monkeypatch.undo()  # nor does it become whole where the first one ends it
    do(tmp_path / "s" / "one", log)
    assert [path.name.split("-")[0] for path in entries(tmp_path / "s")] == ["data"]
    do(tmp_path / "s" / "two", log)
    made = [line for line in log if line.startswith("two ")]
    assert made == [f"two {name}" for name in ALL if name != "data"]


@pytest.mark.parametrize("fault", ["flip", "lost", "unsealed", "key"])
def test_a_damaged_entry_is_made_anew(
    tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log: Log = []
    do(tmp_path / "s" / "one", log)
    (entry,) = (each for each in entries(tmp_path / "s") if each.name.startswith("tower"))
    file = entry / "stage" / "out" / "array"
    if fault == "flip":
        file.unlink()  # the run that made it keeps its own
        file.write_text("tower []"[:-1] + "x")
    elif fault == "lost":
        file.unlink()
    elif fault == "unsealed":
        (entry / "checksums.json").unlink()
    else:
        (entry / "key.json").write_text("{}")
    capsys.readouterr()
    do(tmp_path / "s" / "two", log)
    said = capsys.readouterr().err
    assert "is damaged (" in said
    assert "tower is made anew" in said
    assert [line for line in log if line.startswith("two ")] == ["two tower", "two evaluate"]
    do(tmp_path / "s" / "three", log)
    assert log[-1:] == ["three evaluate"]
    assert (tmp_path / "s" / "three" / "tower" / "out" / "array").read_text() == "tower []"


def test_what_is_not_as_it_was_sealed_is_not_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log: Log = []
    do(tmp_path / "s" / "one", log)
    drop(tmp_path / "s" / "one")
    assert not entries(tmp_path / "s")
    params = tmp_path / "s" / "one" / "tower" / "params"
    params.mkdir()
    (params / "checksums.json").write_text('{"w": "00"}')  # which the seal of the stage lacks
    do(tmp_path / "s" / "one", log)
    assert "tower is not what was written: it is not shared" in capsys.readouterr().err
    assert [each.name.split("-")[0] for each in entries(tmp_path / "s")] == ["data", "students.a"]


@pytest.mark.parametrize("fails", [False, True])
def test_two_at_once_make_it_once(tmp_path: Path, monkeypatch: Any, fails: bool) -> None:
    monkeypatch.setattr(shared, "POLL", 0.01)
    log: Log = []
    begun, go_on = threading.Event(), threading.Event()
    first = chain(tmp_path / "s" / "one", log)

    def slowly(folder: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        if fails:
            raise RuntimeError("out of memory")
        chain(tmp_path / "s" / "one", log)[1].run(folder)

    first[1] = replace(first[1], run=slowly)

    def one() -> None:
        try:
            do(tmp_path / "s" / "one", log, first)
        except RuntimeError:
            log.append("one failed")

    threads = [threading.Thread(target=one)]
    threads[0].start()
    assert begun.wait(60)
    threads.append(threading.Thread(target=do, args=(tmp_path / "s" / "two", log)))
    threads[1].start()
    until = tmp_path / "s" / "two" / "data" / "stage.json"
    while not until.exists():
        assert threads[1].is_alive()
    assert not (tmp_path / "s" / "two" / "tower" / "out").exists()
    go_on.set()
    for each in threads:
        each.join(60)
    towers = [line for line in log if line.endswith(" tower")]
    assert towers == (["two tower"] if fails else ["one tower"])
    assert "two evaluate" in log


def test_a_disk_without_links_has_copies_and_one_without_locks_shares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    log: Log = []
    do(tmp_path / "s" / "one", log)
    do(tmp_path / "s" / "two", log)
    assert log[4:] == ["two evaluate"]
    one, two = (tmp_path / "s" / name / "tower" / "out" / "array" for name in ("one", "two"))
    assert not one.samefile(two)
    assert tree(tmp_path / "s" / "two") == tree(tmp_path / "s" / "one")

    def no_locks(path: Path) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(shared, "try_lock", no_locks)
    do(tmp_path / "s" / "three", log)
    assert log[5:] == [f"three {name}" for name in ALL]
    assert "has no locks" in capsys.readouterr().err


def test_a_kill_at_any_moment_leaves_nothing_half(tmp_path: Path) -> None:
    log: Log = []
    do(tmp_path / "s" / "one", log)
    # Killed while it left a stage, and while it took one.
    for entry in entries(tmp_path / "s"):
        (entry.with_name(f"{entry.name}.tmp") / "stage").mkdir(parents=True)
        shutil.rmtree(entry)
    (tmp_path / "s" / "two" / "tower.taken" / "out").mkdir(parents=True)
    (tmp_path / "s" / "two" / "tower.old").mkdir()
    Tracker(tmp_path / "s" / "two").stage("tower").log(1, {"loss": 9.0})  # its lines came first
    do(tmp_path / "s" / "one", log)  # is done, and leaves its stages again
    assert len(log) == 4
    do(tmp_path / "s" / "two", log)
    assert log[4:] == ["two evaluate"]
    two = tmp_path / "s" / "two"
    assert not [*two.glob("*.taken"), *two.glob("*.old")]
    lines = (two / "metrics.jsonl").read_text()
    assert lines == (tmp_path / "s" / "one" / "metrics.jsonl").read_text()
    assert "9.0" not in lines


def test_a_run_with_people_taken_out_shares_nothing(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "forgotten.json").write_text("{}")
    tracker = Tracker(tmp_path / "one", quiet=True)
    assert Shared.of(Work(ConfigDict(), tmp_path / "one", tracker)) is None


def test_only_entries_are_dropped(tmp_path: Path) -> None:
    mine = tmp_path / "s" / SHARED / "data" / "photo.jpg"  # a user's own folder of that name
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    do(tmp_path / "s" / "one", [])
    assert len(entries(tmp_path / "s")) == 3
    drop(tmp_path / "s" / "one")
    assert not entries(tmp_path / "s")
    assert mine.exists()
