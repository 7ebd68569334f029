"""The folder of a serving artefact, of whatever kind: written whole, read with suspicion.

``serve.json`` says what the folder is, in ``kind`` and ``format``; ``checksums.json`` holds the
SHA-256 of every file. There is no time and no path in them.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from safetensors import safe_open

from jmrec.errors import UserError, refusal
from jmrec.evaluation.policy import Correction
from jmrec.files import MANIFEST, manifest_fault, write_manifest
from jmrec.types import Params

SERVE = "serve.json"
SESSIONS, PAIRS = "jmrec serving artefact", "jmrec serving artefact of pairs"
"""The kinds: what ranks items for sessions, and what ranks them for users."""
ANSWERS = {SESSIONS: "sessions of items", PAIRS: "users"}
"""For what each kind recommends."""
SIZE = 100_000
"""The largest number that a setting may be where no array is larger."""
Artefact = TypeVar("Artefact")


def check_target(out: Path) -> Path:
    """Return the folder to write, absolute.

    Raises:
      UserError: Something else than a serving artefact is there.
    """
    out = out.resolve()
    if out.is_dir() and (not any(out.iterdir()) or _is_artefact(out)):
        return out
    if out.exists():
        raise UserError(f"{out} is there and is no serving artefact; name another folder.")
    return out


def write_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """Write an artefact, whole or not at all; an older one is replaced.

    Args:
      out: The folder.
      fill: Writes all files but the checksums into the folder that it is given.

    Raises:
      UserError: Something else than a serving artefact is there.
    """
    out = check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Side names of its own: what people keep beside it under "serve.tmp" or "serve.old" is theirs.
    side = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        side.chmod(0o755)
        fill(side)
        write_manifest(side)
        for path in side.iterdir():
            path.chmod(0o644)  # safetensors lets nobody else read what it writes
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            try:
                out.replace(old)
                side.replace(out)
            finally:
                if not out.exists():
                    old.replace(out)
                shutil.rmtree(old, ignore_errors=True)
        else:
            side.replace(out)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def read_folder(
    folder: Path, kind: str, newest: int, parse: Callable[[Path, Mapping[str, Any]], Artefact]
) -> Artefact:
    """Read an artefact.

    Args:
      folder: What `write_folder` wrote.
      kind: Which kind it has to be.
      newest: The newest format that can be read.
      parse: Makes it from the folder and what ``serve.json`` says; whatever it raises but a
        `UserError` is damage.

    Raises:
      UserError: There is none, it is of another kind, damaged, or a newer jmrec wrote it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} holds no serving artefact; make one with jmrec export.")
    try:
        facts = _facts(folder)
        if facts["kind"] != kind:
            raise UserError(
                f"{folder} is a {facts['kind']}: it answers for {ANSWERS[facts['kind']]}, not for "
                f"{ANSWERS[kind]}; ask it for those."
            )
        if facts["format"] > newest:
            raise UserError(
                f"{folder}: format {facts['format']} is of a newer jmrec, this one reads format "
                f"{newest}; use the version that wrote it, or export again."
            )
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{MANIFEST} is missing")
        if fault := manifest_fault(folder):
            raise ValueError(fault)
        return parse(folder, facts)
    except UserError:
        raise
    except Exception as error:  # damage shows in many ways
        if reason := refusal(error):
            raise UserError(f"{folder} can not be read ({reason}); mend that.") from None
        raise UserError(
            f"{folder} is damaged ({str(error) or type(error).__name__}); make it again with jmrec "
            "export."
        ) from None


def _facts(folder: Path) -> dict[str, Any]:
    if not (folder / SERVE).is_file():
        raise UserError(f"{folder} holds no serving artefact; make one with jmrec export.")
    facts = json.loads((folder / SERVE).read_bytes())
    if not isinstance(facts, dict) or facts.get("kind") not in ANSWERS:
        raise ValueError(f"{SERVE} does not say that it is one")
    return facts


def kind_of(folder: Path) -> str:
    """Return of which kind an artefact is: `SESSIONS` or `PAIRS`.

    Raises:
      UserError: There is none, or it is damaged.
    """
    try:
        return str(_facts(folder)["kind"])
    except (ValueError, OSError):
        raise UserError(f"{folder} is damaged; make it again with jmrec export.") from None


def _is_artefact(folder: Path) -> bool:
    try:
        return bool(_facts(folder))
    except (UserError, ValueError):
        return False


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a safetensors file."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def lists_of(correction: Correction) -> dict[str, list[str] | None]:
    """Return the lists of a correction as JSON holds them."""
    return {
        "allow": None if correction.allow is None else list(correction.allow),
        "block": list(correction.block),
        "pin": list(correction.pin),
    }


def texts(facts: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of texts that a file holds under a name.

    Raises:
      ValueError: It holds anything else there.
    """
    found = facts.get(name)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"{name} is not a list of texts")
    return found


def check_sizes(config: Any, flat: Mapping[str, np.ndarray], file: str) -> None:
    """Refuse sizes that the parameters can not have, before a model of that size is made.

    Args:
      config: Plain values of a model's config.
      flat: Its parameters, by their path.
      file: Of the parameters, for the message.

    Raises:
      ValueError: Naming the setting.
    """
    largest = max([SIZE, *(size for array in flat.values() for size in array.shape)])

    def check(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for each, inner in value.items():
                check(each, inner)
        elif isinstance(value, list):
            # A layer, or a part that is read, has a tensor of its own.
            if len(value) > len(flat):
                raise ValueError(f"{SERVE}: {name} has more entries than {file} has arrays")
            for inner in value:
                check(name, inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            most = len(flat) if name.endswith("layers") else largest
            # Only what is no size may be below 0.
            fits = 0 <= value <= most if isinstance(value, int) else math.isfinite(value)
            if not fits:
                raise ValueError(f"{SERVE}: {name}={str(value)[:20]} does not fit {file}")

    check("config", config)


def flatten_params(params: Params) -> dict[str, np.ndarray]:
    """Return path -> array.

    Example:
      >>> tree = {"a": {"b": np.zeros(2)}}
      >>> flatten_params(tree).keys(), unflatten_params(flatten_params(tree)).keys()
      (dict_keys(['a/b']), dict_keys(['a']))
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.ascontiguousarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }


def unflatten_params(flat: Mapping[str, np.ndarray]) -> Params:
    """Return the nested dict that `flatten_params` was given."""
    tree: Params = {}
    for path, array in flat.items():
        *above, name = path.split("/")
        branch = tree
        for each in above:
            branch = branch.setdefault(each, {})
        branch[name] = array
    return tree
