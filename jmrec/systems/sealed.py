"""stage.json: what a stage was made of, and the checksums of what it wrote."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jmrec.errors import UserError
from jmrec.files import MANIFEST, checksums, checksums_fault, read_json

STAGE = "stage.json"
FORMAT = 2
"""The version of stage.json and of the folders beside it; none given is 1. Since 2 a stage names
exactly the inputs that it reads."""
UNSEALED = (STAGE, "checkpoints", "parts", "params", "toyshop", "cost.json", "report.html")
"""What of a stage's folder has no checksum in stage.json: what others write later, the catalogue
folder that items may be added to, and parameters, which have a list of their own, itself sealed."""
PARAMS = f"params/{MANIFEST}"


def seal(folder: Path) -> dict[str, str]:
    """Return the checksums of what a finished stage wrote, see `UNSEALED`."""
    sums = checksums(folder, UNSEALED)
    if (folder / PARAMS).is_file():
        sums |= {f"params/{name}": each for name, each in checksums(folder / "params").items()
                 if name == MANIFEST}  # fmt: skip
    return sums


def check_seal(folder: Path, known: Mapping[str, Any]) -> None:
    """Check that a finished stage's files are what it wrote.

    Args:
      folder: The stage's.
      known: Its stage.json. One of an older jmrec has no checksums, and is not judged.

    Raises:
      UserError: Naming the file.
    """
    sums = known.get("files", {})
    if (fault := checksums_fault(folder, sums)) is not None:
        wrong = next(name for name in sorted(sums) if checksums_fault(folder, {name: sums[name]}))
        top = folder / wrong.split("/")[0]
        raise UserError(
            f"{folder} is damaged ({fault}); delete {top} and {folder / STAGE} and start jmrec "
            "run again: the stage makes it anew."
        )


_KINDS: dict[str, tuple[type | tuple[type, ...], Any]] = {
    **{"format": (int, 1), "hash": (str, None), "settings": (dict, None), "inputs": (dict, None)},
    **{"done": (bool, None), "seconds": ((int, float), 0), "contents": (dict, {})},
    **{"files": (dict, {}), "group": (str, ""), "path": (str, "")},
}
"""What the fields of stage.json are, and what stands for one that is not there; None for needed."""


def read_stage(folder: Path) -> dict[str, Any] | None:
    """Return a stage's stage.json, None where there is none.

    Raises:
      UserError: It is damaged, or a newer jmrec wrote it.
    """
    path = folder / STAGE
    if not path.exists():
        return None
    facts = read_json(path)
    if not isinstance(facts, dict) or any(
        not isinstance(facts.get(name, default), kind) for name, (kind, default) in _KINDS.items()
    ):
        raise UserError(f"{path} is damaged (it lacks its fields); delete it and run again.")
    if facts.get("format", 1) > FORMAT:
        raise UserError(
            f"{path}: format {facts['format']} is of a newer jmrec, this one reads format "
            f"{FORMAT}; use the version that wrote it, or another --workdir."
        )
    return {**_group_of_old(folder), **facts}


def _group_of_old(folder: Path) -> dict[str, Any]:
    """Return group, seed and path from the name of a stage of an older jmrec, which wrote none."""
    seeds = re.fullmatch(r"(.+)-(\d+)", folder.name)
    if folder.parent.name not in ("students", "critics") or seeds is None:
        return {"group": "", "seed": None, "path": ""}
    group = f"{folder.parent.name}/{seeds[1]}"
    path = group.replace("/", ".") if folder.parent.name == "students" else ""
    return {"group": group, "seed": int(seeds[2]), "path": path}
