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
from jmrec.evaluation.policy import (
    Availability,
    Correction,
    Policy,
    make_policy,
    parse_correction,
)
from jmrec.files import (
    MANIFEST,
    exchange,
    manifest_fault,
    member,
    write_json,
    write_manifest,
)
from jmrec.types import Params

SERVE, ITEMS, CARD = "serve.json", "items.json", "README.md"
Card = Callable[[Path], str]
"""Returns the text of `CARD`, given the folder with all other files but the checksums."""
SESSIONS, PAIRS = "jmrec serving artefact", "jmrec serving artefact of pairs"
RULE = "jmrec serving artefact of a rule"
MIXED = "jmrec serving artefact of rules and a student"
"""The kinds: students, rules and blends of them rank items for sessions, pairs are ranked for
users."""
ANSWERS = {
    SESSIONS: "sessions of items", RULE: "sessions of items", MIXED: "sessions of items",
    PAIRS: "users",
}  # fmt: skip
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


def write_folder(out: Path, fill: Callable[[Path], None], card: Card | None = None) -> None:
    """Write an artefact, whole or not at all; an older one is replaced.

    Args:
      out: The folder.
      fill: Writes all files but the checksums into the folder that it is given.
      card: For people; None writes none.

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
        if card is not None:
            (side / CARD).write_text(card(side), encoding="utf-8")
        write_manifest(side)
        for path in side.rglob("*"):  # safetensors lets nobody else read what it writes
            path.chmod(0o755 if path.is_dir() else 0o644)
        if not out.exists():
            side.replace(out)
        elif not exchange(side, out):
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            try:
                out.replace(old)
                side.replace(out)
            finally:
                if not out.exists():
                    old.replace(out)
                shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def kept_card(folder: Path) -> Card | None:
    """Return the card that an artefact has, for one that takes its place; None where it has none.

    Raises:
      UserError: It is no regular file, or too large.
    """
    path = member(folder, CARD, SIZE)
    if path is None:
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    return lambda _: text


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
    except Exception as error:  # damage shows in many ways
        raise _said(folder, error) from None


def _said(folder: Path, error: Exception) -> UserError:
    """Return what is said of an artefact that can not be read."""
    if isinstance(error, UserError):
        return error
    if reason := refusal(error):
        return UserError(f"{folder} can not be read ({reason}); mend that.")
    why = str(error) or type(error).__name__
    return UserError(f"{folder} is damaged ({why}); make it again with jmrec export.")


def _facts(folder: Path) -> dict[str, Any]:
    if not (folder / SERVE).is_file():
        raise UserError(f"{folder} holds no serving artefact; make one with jmrec export.")
    facts = json.loads((folder / SERVE).read_bytes())
    if not isinstance(facts, dict) or facts.get("kind") not in ANSWERS:
        raise ValueError(f"{SERVE} does not say that it is one")
    return facts


def kind_of(folder: Path) -> str:
    """Return of which kind an artefact is: `SESSIONS`, `RULE`, `MIXED` or `PAIRS`.

    Raises:
      UserError: There is none, or it is damaged.
    """
    try:
        return str(_facts(folder)["kind"])
    except Exception as error:  # damage shows in many ways
        raise _said(folder, error) from None


def _is_artefact(folder: Path) -> bool:
    try:
        return bool(_facts(folder))
    except (UserError, ValueError):
        return False


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a safetensors file."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write_items(folder: Path, ids: list[str], titles: list[str], policy: Policy) -> None:
    """Write what is known of the items of a catalogue: ids, titles, windows of availability."""
    window = policy.availability
    names = {"ids": ids, "titles": titles, **({} if window is None else window.to_json())}
    write_json(folder / ITEMS, names)


def read_items(folder: Path) -> tuple[list[str], list[str], Availability | None]:
    """Return what `write_items` wrote: ids, titles, windows of availability.

    Raises:
      ValueError: It is something else.
    """
    items = json.loads((folder / ITEMS).read_bytes())
    ids, titles = texts(items, "ids"), texts(items, "titles")
    if len(titles) != len(ids) or len(set(ids)) != len(ids) or not ids:
        raise ValueError(f"{ITEMS}: {len(ids)} ids and {len(titles)} titles, or an id twice")
    window = Availability.from_json(items)
    if window is not None and not len(window.start) == len(window.stop) == len(ids):
        raise ValueError(f"{ITEMS}: not one window of availability for each of {len(ids)} items")
    return ids, titles, window


def policy_facts(policy: Policy) -> dict[str, Any]:
    """Return what ``serve.json`` says of a policy for sessions."""
    return {"exclude_seen": policy.exclude_seen, **lists_of(policy.correction)}


def read_policy(
    folder: Path, facts: Mapping[str, Any], ids: list[str], window: Availability | None
) -> Policy:
    """Return a policy of `policy_facts`, for the items of a folder.

    Raises:
      ValueError: It is something else.
      UserError: Its lists do not fit the items.
    """
    lists, where = dict(facts["policy"]), str(folder / SERVE)
    exclude_seen = lists.pop("exclude_seen")
    if not isinstance(exclude_seen, bool):
        raise ValueError(f"{SERVE}: exclude_seen is neither true nor false")
    correction = parse_correction({k: v for k, v in lists.items() if v is not None}, where)
    return make_policy(ids, exclude_seen, correction, window, where)


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
