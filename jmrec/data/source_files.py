"""Which files of a catalogue folder a data set was made of, and whether they are still the same."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jmrec.data.description import describe
from jmrec.data.pictures import IMAGES
from jmrec.errors import UserError, refusal

FileState = Sequence[int | str]
"""Size in bytes, time of the last change in nanoseconds, SHA-256."""


def source_files(
    folder: str | Path,
    toml: str | Path | None = None,
    known: Mapping[str, FileState] | None = None,
) -> dict[str, list[int | str]]:
    """Return the state of every file that a catalogue folder is read from.

    Args:
      folder: The catalogue folder.
      toml: A description to use instead of ``folder/dataset.toml``, or None.
      known: What this returned before: files of the same size and time are not read again.

    Returns:
      Name (relative to the folder; a description that lies elsewhere by its file name) -> size,
      time, SHA-256.

    Raises:
      UserError: The folder can not be read, or its description is not valid.
    """
    folder, known = Path(folder), known or {}
    found = {}
    for name, path in _files(folder, toml):
        try:
            facts = path.stat()
            size, changed, checksum = known.get(name, (-1, -1, ""))
            if (size, changed) != (facts.st_size, facts.st_mtime_ns):
                with path.open("rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path} can not be read ({refusal(error)}); mend that.") from None
        found[name] = [facts.st_size, facts.st_mtime_ns, checksum]
    return found


def _files(folder: Path, toml: str | Path | None) -> Iterator[tuple[str, Path]]:
    description = describe(folder, toml)
    own = folder / "dataset.toml" if toml is None else Path(toml)
    if own.is_file():
        yield own.name, own
    tables = (*description.files("items"), *description.files("interactions"))
    for name in filter(None, (*tables, description.test_file)):
        yield name, folder / name
    pictures = folder / description.items.pictures
    inside = pictures.resolve().is_relative_to(folder.resolve())
    if not inside and description.items.pictures != IMAGES:  # a link; older fingerprints follow one
        return
    for above, folders, files in os.walk(pictures):
        folders.sort()
        for name in sorted(files):
            path = Path(above) / name
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def source_checksum(files: Mapping[str, FileState]) -> str:
    """Return the identity of the files' names and contents; times do not count.

    Example:
      >>> source_checksum({"a": [1, 5, "x"]}) == source_checksum({"a": [1, 9, "x"]})
      True
    """
    kept = sorted((name, checksum) for name, (_, _, checksum) in files.items())
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def source_changes(before: Mapping[str, FileState], now: Mapping[str, FileState]) -> str:
    """Say in words which files differ, at most three of them.

    Example:
      >>> source_changes({"a.csv": [10, 0, "x"], "b.csv": [1, 0, "y"]}, {"a.csv": [1200, 5, "z"]})
      'a.csv has 1,200 bytes and had 10; b.csv is gone'
    """
    said = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old is None:
            said.append(f"{name} is new")
        elif new is None:
            said.append(f"{name} is gone")
        elif old[2] != new[2]:
            same = old[0] == new[0]
            said.append(
                f"{name} was edited" if same else f"{name} has {new[0]:,} bytes and had {old[0]:,}"
            )
    more = f"; and {len(said) - 3:,} more" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more
