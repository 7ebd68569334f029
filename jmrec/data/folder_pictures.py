"""The files under images/ of a catalogue folder."""

import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jmrec.data.findings import EMPTIED, Findings, shown
from jmrec.data.pictures import picture_files, picture_path, picture_problem
from jmrec.data.tables import Table

MAX_PICTURE = 50_000_000
"""Bytes of a picture file."""


def pictures_by_id(folder: Path, ids: Sequence[str], findings: Findings) -> list[str]:
    """Return the file under images/ that bears each item's id, "" where none does."""
    files = picture_files(folder)
    found = [files.get(item, "") for item in ids]
    if files and not any(found):
        findings.note(
            f"images/ holds {len(files):,} pictures and no item names one; name the column of "
            'their files as [items] picture = "..." in dataset.toml, give them the names of the '
            'ids, or write picture = ""'
        )
    return found


def read_pictures(folder: Path, table: Table, names: list[str], findings: Findings) -> list[bytes]:
    """Return the files that the picture column names, b"" where there is none to be used."""
    out, problems = [], []
    for name in names:
        data, problem = picture_bytes(folder, name)
        out.append(data)
        problems.append(problem)
    report_pictures(table, names, problems, findings)
    return out


def picture_bytes(folder: Path, name: str) -> tuple[bytes, str]:
    """Return the file that a cell names and, where it can not be had, why; b"" of an empty cell."""
    if not name:
        return b"", ""
    return _picture(folder.resolve(), (folder / "images").resolve(), picture_path(name))


def _picture(root: Path, images: Path, name: str) -> tuple[bytes, str]:
    """Return a picture's bytes and, where they can not be had, why."""
    try:
        path = (images / name).resolve()
        if not (path.is_relative_to(images) and images.is_relative_to(root)):
            return b"", "lies outside images/; give a path under images/"
        if ".." in Path(name).parts:
            return b"", "has '..' in it; give a plain path under images/"
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            return b"", "can not be read from images/; put the file there or empty the cell"
        if status.st_size > MAX_PICTURE:
            return b"", f"has more than {MAX_PICTURE:,} bytes; make it smaller or empty the cell"
        data = path.read_bytes()
    except (OSError, ValueError, RuntimeError):  # missing, a name no system allows, a loop
        return b"", "can not be read from images/; put the file there or empty the cell"
    return data, "" if data else "is an empty file; mend it or empty the cell"


def whole_pictures(
    table: Table, pictures: list[bytes], names: list[str], findings: Findings
) -> list[bytes]:
    """Decode every picture once; return them with b"" for those that do not decode."""
    with ThreadPoolExecutor() as pool:
        there = iter(list(pool.map(picture_problem, filter(None, pictures))))
    problems = [undecoded(next(there) if data else "") for data in pictures]
    report_pictures(table, names, problems, findings)
    return [b"" if problem else data for data, problem in zip(pictures, problems)]


def undecoded(problem: str) -> str:
    """Return what is wrong with a picture, in the words of a finding."""
    return f"{problem}; mend the file or empty the cell" if problem else ""


def report_pictures(
    table: Table, names: list[str], problems: Sequence[str], findings: Findings
) -> None:
    """Report pictures that are taken as missing, one kind of problem after the other.

    Args:
      table: The items.
      names: The cells that name their pictures.
      problems: What is wrong with each, "" where nothing is.
      findings: Gets them.
    """
    for kind in dict.fromkeys(filter(None, problems)):
        findings.add(
            table,
            [i for i, problem in enumerate(problems) if problem == kind],
            lambda i: f"the picture {shown(names[i], 80)} {problems[i]}",
            EMPTIED,
        )
