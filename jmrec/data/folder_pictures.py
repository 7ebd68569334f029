"""The files under images/ of a catalogue folder."""

import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jmrec.data.findings import EMPTIED, Findings, shown
from jmrec.data.pictures import IMAGES, picture_files, picture_path, picture_problem
from jmrec.data.tables import Table

MAX_PICTURE = 50_000_000
"""Bytes of a picture file."""


def pictures_by_id(
    folder: Path, ids: Sequence[str], findings: Findings, under: str = IMAGES
) -> list[str]:
    """Return the file under images/ that bears each item's id, "" where none does."""
    files = picture_files(folder, under)
    found = [files.get(item, "") for item in ids]
    if files and not any(found):
        findings.note(
            f"{under}/ holds {len(files):,} pictures and no item names one; name the column of "
            'their files as [items] picture = "..." in dataset.toml, give them the names of the '
            'ids, or write picture = ""'
        )
    return found


def read_pictures(
    folder: Path, table: Table, names: list[str], findings: Findings, under: str = IMAGES
) -> list[bytes]:
    """Return the files that the picture column names, b"" where there is none to be used.

    Args:
      folder: The catalogue folder.
      table: The items.
      names: The cells of the column.
      findings: Gets what can not be used.
      under: The folder of the pictures, inside the catalogue folder.
    """
    out, problems = [], []
    for name in names:
        data, problem = picture_bytes(folder, name, under)
        out.append(data)
        problems.append(problem)
    report_pictures(table, names, elsewhere(folder, names, problems, under), findings)
    return out


def picture_bytes(folder: Path, name: str, under: str = IMAGES) -> tuple[bytes, str]:
    """Return the file that a cell names and, where it can not be had, why; b"" of an empty cell.

    Args:
      folder: The catalogue folder.
      name: The cell.
      under: The folder of the pictures, inside the catalogue folder.
    """
    if not name:
        return b"", ""
    images = (folder / under).resolve()
    return _picture(folder.resolve(), images, picture_path(name, under), under)


def elsewhere(folder: Path, names: list[str], problems: list[str], under: str) -> list[str]:
    """Return problems that say, of pictures which another folder holds, which one that is.

    Args:
      folder: The catalogue folder.
      names: The cells that name the pictures.
      problems: What is wrong with each, "" where nothing is; see `picture_bytes`.
      under: The folder in which they were looked for.
    """
    lost = [i for i, problem in enumerate(problems) if problem == _lost(under)]
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir()) if lost else []
    for other in folders:
        if _stands(folder / other / picture_path(names[lost[0]], other)):
            says = (
                f'is not in {under}/ but in {other}/; write pictures = "{other}" under [items] in '
                f"dataset.toml, or rename that folder to {under}/"
            )
            there = {i for i in lost if _stands(folder / other / picture_path(names[i], other))}
            return [says if i in there else problem for i, problem in enumerate(problems)]
    return problems


def _stands(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no system allows
        return False


def _lost(under: str) -> str:
    return f"can not be read from {under}/; put the file there or empty the cell"


def _picture(root: Path, images: Path, name: str, under: str) -> tuple[bytes, str]:
    """Return a picture's bytes and, where they can not be had, why."""
    try:
        path = (images / name).resolve()
        if not (path.is_relative_to(images) and images.is_relative_to(root)):
            return b"", f"lies outside {under}/; give a path under {under}/"
        if ".." in Path(name).parts:
            return b"", f"has '..' in it; give a plain path under {under}/"
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            return b"", _lost(under)
        if status.st_size > MAX_PICTURE:
            return b"", f"has more than {MAX_PICTURE:,} bytes; make it smaller or empty the cell"
        data = path.read_bytes()
    except (OSError, ValueError, RuntimeError):  # missing, a name no system allows, a loop
        return b"", _lost(under)
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
