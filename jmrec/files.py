"""Files that are whole or not there, and folders that know when they were damaged.

A kill leaves at most side names (``*.tmp``, ``*.old``), which the next start overwrites or removes.
"""

import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path
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


def read_json(path: Path) -> Any:
    """Read JSON; a damaged file is a UserError that names it.

    Raises:
      UserError: If the file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; is this the workdir of a jmrec run?") from None
    except ValueError as error:
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


def write_manifest(folder: Path) -> None:
    """Write the checksum of every file of a folder into it, to a side name first."""
    sums = {
        path.relative_to(folder).as_posix(): _checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    side = folder / f"{MANIFEST}.tmp"
    side.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
    side.replace(folder / MANIFEST)


def manifest_fault(folder: Path, only: Collection[str] | None = None) -> str | None:
    """Return what of a folder is not as `write_manifest` found it.

    Args:
      folder: The folder. One without a manifest is not judged: a kill came before it, or an
        older jmrec wrote it.
      only: The files to look at; None is all.

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
        entries = sorted((n, each) for n, each in sums.items() if only is None or n in only)
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        return f"{MANIFEST} is broken"
    for name, checksum in entries:
        try:
            if _checksum(folder / name) != checksum:
                return f"{name} is not what was written"
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return f"{name} is missing"
    return None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
