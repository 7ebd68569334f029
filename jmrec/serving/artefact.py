"""The files of a serving artefact.

=================== ======================================================================
serve.json          format, the student's name, its encoder and size, the policy, provenance
student.safetensors the student's parameters, named by their path in the tree
items.safetensors   the feature table [V, F] and each item's row of the id table
items.json          ids, titles, windows of availability
student.stablehlo   optional: the scores as a program, see `jmrec.serving.stablehlo`
checksums.json      the SHA-256 of each
=================== ======================================================================

There is no time and no path in them.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from jmrec.errors import UserError, refusal
from jmrec.evaluation.policy import (
    Availability,
    Policy,
    make_policy,
    parse_correction,
)
from jmrec.features import read_features, write_features
from jmrec.files import MANIFEST, manifest_fault, write_json, write_manifest
from jmrec.models import codec
from jmrec.models.sessions.table import id_table_rows
from jmrec.types import Params

FORMAT = 2
KIND = "jmrec serving artefact"
SERVE, ITEMS = "serve.json", "items.json"
STUDENT, TABLE, STABLEHLO = "student.safetensors", "items.safetensors", "student.stablehlo"
ID_ROW = "id_row"
SIZE = 100_000
"""The largest number that a setting may be where no array is larger."""


@dataclass(frozen=True)
class Artefact:
    """What is served.

    Attributes:
      student: Its name in the run.
      config: Its size: the config of a session encoder.
      params: Its parameters, numpy arrays.
      features: What it reads of the catalogue, name -> [V, ...]; {} where it has only ids.
      id_rows: int32 [V], each item's row of the id table.
      ids: V item ids.
      titles: V titles.
      policy: Which items may be recommended.
      provenance: Which run and stages made it, for people.
      event_names: ``event_names[code]`` of the event types of training.
    """

    student: str
    config: Any
    params: Params
    features: dict[str, np.ndarray]
    id_rows: np.ndarray
    ids: list[str]
    titles: list[str]
    policy: Policy
    provenance: dict[str, Any]
    event_names: list[str]


def check_target(out: Path) -> Path:
    """Return the folder to write, absolute.

    Raises:
      UserError: Something else than a serving artefact is there.
    """
    out = out.resolve()
    if out.is_dir() and (not any(out.iterdir()) or _is_artefact(out)):
        return out
    if out.exists():
        raise UserError(f"{out} is there and is no serving artefact; name another --out.")
    return out


def write(artefact: Artefact, out: Path, program: bytes | None = None) -> None:
    """Write an artefact, whole or not at all; an older artefact is replaced.

    Args:
      artefact: What is served.
      out: The folder.
      program: From `jmrec.serving.stablehlo.export_scores`, or None.

    Raises:
      UserError: Something else than a serving artefact is there.
    """
    out = check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Side names of its own: what people keep beside it under "serve.tmp" or "serve.old" is theirs.
    side = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        side.chmod(0o755)
        _write_files(artefact, side, program)
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


def _write_files(artefact: Artefact, folder: Path, program: bytes | None) -> None:
    lists = artefact.policy.correction
    facts = {
        "kind": KIND,
        "format": FORMAT,
        "student": artefact.student,
        **codec.encode(artefact.config),
        "policy": {
            "exclude_seen": artefact.policy.exclude_seen,
            "allow": None if lists.allow is None else list(lists.allow),
            "block": list(lists.block),
            "pin": list(lists.pin),
        },
        "provenance": artefact.provenance,
        "event_names": artefact.event_names,
    }
    window = artefact.policy.availability
    items = {
        "ids": artefact.ids,
        "titles": artefact.titles,
        **({} if window is None else window.to_json()),
    }
    write_json(folder / SERVE, facts)
    write_json(folder / ITEMS, items)
    save_file(flatten_params(artefact.params), folder / STUDENT)
    tables = {**artefact.features, ID_ROW: artefact.id_rows}
    write_features(folder / TABLE, tables, artefact.ids, {"stage": "export"})
    if program is not None:
        (folder / STABLEHLO).write_bytes(program)
    write_manifest(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors lets nobody else read what it writes


def read(folder: Path) -> Artefact:
    """Read what `write` wrote.

    Raises:
      UserError: There is none, it is damaged, or a newer jmrec wrote it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} holds no serving artefact; make one with jmrec export.")
    try:
        facts = _facts(folder)
        if facts["format"] > FORMAT:
            raise UserError(
                f"{folder}: format {facts['format']} is of a newer jmrec, this one reads format "
                f"{FORMAT}; use the version that wrote it, or export again."
            )
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{MANIFEST} is missing")
        if fault := manifest_fault(folder):
            raise ValueError(fault)
        return _parse(folder, facts)
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
    if not isinstance(facts, dict) or facts.get("kind") != KIND:
        raise ValueError(f"{SERVE} does not say that it is one")
    return facts


def _is_artefact(folder: Path) -> bool:
    try:
        return bool(_facts(folder))
    except (UserError, ValueError):
        return False


def _parse(folder: Path, facts: Mapping[str, Any]) -> Artefact:
    items = json.loads((folder / ITEMS).read_bytes())
    ids, titles = texts(items, "ids"), texts(items, "titles")
    if len(titles) != len(ids) or len(set(ids)) != len(ids) or not ids:
        raise ValueError(f"{ITEMS}: {len(ids)} ids and {len(titles)} titles, or an id twice")
    window = Availability.from_json(items)
    if window is not None and not len(window.start) == len(window.stop) == len(ids):
        raise ValueError(f"{ITEMS}: not one window of availability for each of {len(ids)} items")
    table = read_features(folder / TABLE, ids).arrays
    with safe_open(folder / STUDENT, "np") as file:
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_sizes(facts.get("config", {}), flat)
    # Format 1 knew one encoder and did not name it.
    try:
        config = codec.decode({"model": "student", **facts})
    except UserError as error:
        raise UserError(f"{folder / SERVE}: {error}") from None
    rows = table[ID_ROW]
    known = id_table_rows(config)  # an encoder without such a table reads none of them
    fits = rows.shape == (len(ids),) and rows.dtype == np.int32
    if not fits or rows.min() < 0 or (known and rows.max() >= known):
        raise ValueError(f"{TABLE}: {ID_ROW} does not name a row of the id table for each item")
    lists = dict(facts["policy"])
    exclude_seen = bool(lists.pop("exclude_seen"))
    where = str(folder / SERVE)
    correction = parse_correction({k: v for k, v in lists.items() if v is not None}, where)
    return Artefact(
        student=str(facts["student"]),
        config=config,
        params=unflatten_params(flat),
        features={name: array for name, array in table.items() if name != ID_ROW},
        id_rows=rows,
        ids=ids,
        titles=titles,
        policy=make_policy(ids, exclude_seen, correction, window, where),
        provenance=dict(facts["provenance"]),
        event_names=texts(facts, "event_names"),
    )


def texts(facts: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of texts that a file holds under a name.

    Raises:
      ValueError: It holds anything else there.
    """
    found = facts.get(name)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"{name} is not a list of texts")
    return found


def _check_sizes(config: Any, flat: Mapping[str, np.ndarray]) -> None:
    """Refuse sizes that the parameters can not have, before a model of that size is made.

    Raises:
      ValueError: Naming the setting.
    """
    largest = max([SIZE, *(size for array in flat.values() for size in array.shape)])

    def check(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for each, inner in value.items():
                check(each, inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            # Every layer has a tensor of its own.
            most = len(flat) if name == "layers" else largest
            fits = 0 <= value <= most if isinstance(value, int) else math.isfinite(value)
            if not fits:
                raise ValueError(f"{SERVE}: {name}={str(value)[:20]} does not fit {STUDENT}")

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
