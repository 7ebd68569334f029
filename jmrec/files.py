"""Files that are whole or not there, and folders that know when they were damaged.

A kill leaves at most side names (``*.tmp``, ``*.old``), which the next start overwrites or removes.
"""

import ctypes
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from jmrec.errors import UserError

MANIFEST = "checksums.json"
"""In a folder that `write_manifest` sealed: relative path -> SHA-256."""


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a side name, then rename it, so that nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(path.name + ".tmp")
    side.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    side.replace(path)


def plain(value: Any) -> Any:
    """Return what JSON can hold: None for a number that is not finite, Python's own numbers.

    JSON has no NaN; what Python writes for one is an error to other programs.

    Example:
      >>> import numpy as np
      >>> plain({"share": float("nan"), "counts": np.array([1, 2]), "ok": (True, np.float32(0.5))})
      {'share': None, 'counts': [1, 2], 'ok': [True, 0.5]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # an array or a number of numpy, which is not imported for it
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(path: Path) -> Any:
    """Read JSON; a damaged file is a UserError that names it.

    Raises:
      UserError: If the file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; is this the workdir of a jmrec run?") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again.") from None


def csv_cell(value: Any) -> Any:
    """Return a cell for a CSV that people open in a spreadsheet: text never starts a formula.

    Example:
      >>> csv_cell("=cmd|' /C calc'!A0"), csv_cell("-0.5"), csv_cell(-0.5)
      ("'=cmd|' /C calc'!A0", '-0.5', -0.5)
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
        return value
    except ValueError:
        return f"'{value}"


def replace_folder(side: Path, target: Path) -> None:
    """Put a finished folder in the place of an older one, or of none.

    Args:
      side: The new folder, on the same disk.
      target: Its name from now on. An older folder stays whole until the new one is complete; a
        kill between the two renames leaves it as ``<target>.old``.
    """
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    side.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders of one disk in one step, so that each name always means a whole one.

    Returns:
      Whether it was done; False where the system or the disk has no such step.

    Example:
      >>> import tempfile
      >>> a, b = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
      >>> _ = (a / "x").write_text("1")
      >>> not exchange(a, b) or (b / "x").read_text()
      '1'
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(call(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left under side names in a folder, not below it.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "metrics.json.tmp").write_text("{")
      >>> remove_leftovers(folder)
      >>> list(folder.iterdir())
      []
    """
    for pattern in ("*.tmp", "*.old", "*.partial", "*.orbax-checkpoint-tmp*", ".*.????????"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def checksums(folder: Path, leave_out: Collection[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder, by its relative name.

    Args:
      folder: The folder.
      leave_out: Relative names of files and folders that do not count.
    """
    found = {}
    for above, folders, files in os.walk(folder):
        inside = Path(above).relative_to(folder)
        folders[:] = sorted(each for each in folders if (inside / each).as_posix() not in leave_out)
        for name in sorted(files):
            relative = (inside / name).as_posix()
            if relative not in leave_out and (Path(above) / name).is_file():
                found[relative] = _checksum(folder / relative)
    return found


def write_manifest(folder: Path) -> None:
    """Write the checksum of every file of a folder into it, to a side name first."""
    side = folder / f"{MANIFEST}.tmp"
    side.write_text(json.dumps(checksums(folder, [MANIFEST, side.name]), indent=1) + "\n")
    side.replace(folder / MANIFEST)


def manifest_fault(folder: Path, only: Collection[str] | None = None) -> str | None:
    """Return what of a folder is not as `write_manifest` found it.

    Args:
      folder: The folder. One without a manifest is not judged: a kill came before it, or an
        older jmrec wrote it.
      only: The files to look at; None is all that there are.

    Returns:
      The first fault in words, or None.

    Raises:
      OSError: A file is there and may not be read, which is no damage.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "a").write_text("red")
      >>> write_manifest(folder)
      >>> manifest_fault(folder) is None
      True
      >>> _ = (folder / "a").write_text("rod")
      >>> manifest_fault(folder)
      'a is not what was written'
    """
    try:
        sums = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return f"{MANIFEST} is broken"
    if not isinstance(sums, dict):
        return f"{MANIFEST} is broken"
    if only is not None:
        return checksums_fault(folder, {name: sums[name] for name in only if name in sums})
    there = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in there]
    if unknown := [name for name in names if name not in sums and name != MANIFEST]:
        return f"{unknown[0]} is not in {MANIFEST}"
    return checksums_fault(folder, sums)


def checksums_fault(folder: Path, sums: Mapping[str, str]) -> str | None:
    """Return what of a folder is not as `checksums` found it, in words, or None.

    Args:
      folder: The folder.
      sums: Relative name -> SHA-256. A name that leads out of the folder, or to anything but a
        plain file, is a fault: nothing there is read.

    Raises:
      OSError: A file is there and may not be read, which is no damage.
    """
    for name, checksum in sorted(sums.items()):
        try:
            path = plain_file(folder, name)
            if path is None:
                return f"{name!r} names no plain file inside"
            if _checksum(path) != checksum:
                return f"{name} is not what was written"
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return f"{name} is missing"
    return None


def plain_file(folder: Path, name: str) -> Path | None:
    """Return the file that a relative name means, None where it leads anywhere else.

    Args:
      folder: The folder that the name is relative to.
      name: Such as "a/b.json". Absolute names, "..", links and whatever is no plain file (a
        device, a pipe, a folder) are refused.

    Raises:
      FileNotFoundError: There is nothing.

    Example:
      >>> plain_file(Path("/"), "dev/null") is None, plain_file(Path("/tmp"), "../etc") is None
      (True, True)
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\0" in name or {"..", "."} & set(name.split("/")):
        return None
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            return None
    return path if stat.S_ISREG(path.stat().st_mode) else None


def check_regular(path: Path, most: int | None = None) -> None:
    """Check a file that a user named, before it is opened: opening a pipe would never end.

    Args:
      path: Of the file itself or of a link to it.
      most: The most bytes that it may have.

    Raises:
      UserError: It is no regular file, or too large.
      OSError: It is missing, or may not be read.

    Example:
      >>> check_regular(Path("/dev/zero"))
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: /dev/zero can not be read: it is no regular file; name the file
      itself.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} can not be read: it is no regular file; name the file itself.")
    if most is not None and status.st_size > most:
        raise UserError(f"{path} has more than {most:,} bytes; give a smaller file.")


def member(folder: Path, name: str, most: int | None = None) -> Path | None:
    """Return a file of a folder that somebody else made, checked before it is opened.

    A link that leaves the folder is refused: what it means here is not what its maker had. But in
    Hugging Face's cache every file of ``models--X/snapshots/REVISION`` is a link to a file of
    ``../../blobs``, and these are followed.

    Args:
      folder: As the user named it; may be a link itself.
      name: A plain relative name.
      most: The most bytes that it may have.

    Returns:
      The file, or None where the folder has none of that name.

    Raises:
      UserError: The name leads out of the folder, or to no regular file, or to one too large.

    Example:
      >>> member(Path("/"), "no such file") is None
      True
      >>> member(Path("/dev"), "zero")
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: /dev/zero can not be read: it is no regular file; name the file
      itself.
    """
    path = folder / name
    try:
        if plain_file(folder, name) is None:
            home, real = folder.resolve(), path.resolve(strict=True)
            blobs = home.parent.parent / "blobs"
            cached = home.parent.name == "snapshots" and real.parent == blobs
            if not (cached or real.is_relative_to(home)) or {"", "..", "."} & set(name.split("/")):
                raise UserError(f"{path} leads out of its folder; put the file itself there.")
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(f"{path} is a link to nothing; put the file itself there.") from None
        return None
    except (ValueError, RuntimeError):  # a NUL in the name, a loop of links
        raise UserError(f"{str(path)!r} is no plain file; put the file itself there.") from None
    check_regular(path, most)
    return path


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
