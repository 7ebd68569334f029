"""The checksums of a finished stage's files: what its stage.json keeps of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jmrec.errors import UserError
from jmrec.files import MANIFEST, checksums, checksums_fault

STAGE = "stage.json"
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
