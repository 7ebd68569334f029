"""The files of a serving artefact of a student; that of a rule is in `jmrec.serving.rules`.

=================== ======================================================================
serve.json          format, the student's name, its encoder and size, the policy, provenance
student.safetensors the student's parameters, named by their path in the tree
items.safetensors   the feature table [V, F] and each item's row of the id table
items.json          ids, titles, windows of availability
index.safetensors   optional: the cells of `jmrec.serving.index`
README.md           the model card, for people
student.stablehlo   optional: the scores as a program, see `jmrec.serving.stablehlo`
checksums.json      the SHA-256 of each
=================== ======================================================================

There is no time and no path in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jmrec.errors import UserError
from jmrec.evaluation.policy import Policy
from jmrec.features import read_features, write_features
from jmrec.files import write_json
from jmrec.models import codec
from jmrec.models.sessions.table import id_table_rows
from jmrec.serving.folder import (
    SERVE,
    SESSIONS,
    Card,
    check_sizes,
    flatten_params,
    policy_facts,
    read_arrays,
    read_folder,
    read_items,
    read_policy,
    texts,
    unflatten_params,
    write_folder,
    write_items,
)
from jmrec.serving.index import Index
from jmrec.types import Params

KIND = SESSIONS
FORMAT = 2
STUDENT, TABLE, STABLEHLO = "student.safetensors", "items.safetensors", "student.stablehlo"
INDEX = "index.safetensors"
ID_ROW = "id_row"


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
      index: Which items an answer looks at; None is all.
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
    index: Index | None = None


def write(
    artefact: Artefact, out: Path, program: bytes | None = None, card: Card | None = None
) -> None:
    """Write an artefact, whole or not at all; an older artefact is replaced.

    Args:
      artefact: What is served.
      out: The folder.
      program: From `jmrec.serving.stablehlo.export_scores`, or None.
      card: See `jmrec.serving.folder.write_folder`.

    Raises:
      UserError: Something else than a serving artefact is there.
    """
    write_folder(out, lambda side: _write_files(artefact, side, program), card)


def _write_files(artefact: Artefact, folder: Path, program: bytes | None) -> None:
    facts = {"kind": KIND, "format": FORMAT, **student_facts(artefact)}
    write_json(folder / SERVE, facts)
    write_items(folder, artefact.ids, artefact.titles, artefact.policy)
    write_student(artefact, folder)
    if program is not None:
        (folder / STABLEHLO).write_bytes(program)


def student_facts(artefact: Artefact) -> dict[str, Any]:
    """Return what ``serve.json`` says of a student."""
    return {
        "student": artefact.student,
        **codec.encode(artefact.config),
        "policy": policy_facts(artefact.policy),
        "provenance": artefact.provenance,
        "event_names": artefact.event_names,
        **({} if artefact.index is None else {"index": artefact.index.facts}),
    }


def write_student(artefact: Artefact, folder: Path) -> None:
    """Write a student's parameters, and what it reads of the items."""
    save_file(flatten_params(artefact.params), folder / STUDENT)
    tables = {**artefact.features, ID_ROW: artefact.id_rows}
    write_features(folder / TABLE, tables, artefact.ids, {"stage": "export"})
    if (index := artefact.index) is not None:
        save_file({"centres": index.centres, "cell": index.cell}, folder / INDEX)


def read(folder: Path) -> Artefact:
    """Read what `write` wrote.

    Raises:
      UserError: There is none, it is damaged, or a newer jmrec wrote it.
    """
    return read_folder(folder, KIND, FORMAT, parse_student)


def parse_student(folder: Path, facts: Mapping[str, Any]) -> Artefact:
    """Return the student of a folder, from what ``serve.json`` says; see `read_folder`."""
    ids, titles, window = read_items(folder)
    table = read_features(folder / TABLE, ids).arrays
    flat = read_arrays(folder / STUDENT)
    check_sizes(facts.get("config", {}), flat, STUDENT)
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
    return Artefact(
        student=str(facts["student"]),
        config=config,
        params=unflatten_params(flat),
        features={name: array for name, array in table.items() if name != ID_ROW},
        id_rows=rows,
        ids=ids,
        titles=titles,
        policy=read_policy(folder, facts, ids, window),
        provenance=dict(facts["provenance"]),
        event_names=texts(facts, "event_names"),
        index=_read_index(folder, facts["index"], len(ids)) if "index" in facts else None,
    )


def _read_index(folder: Path, facts: Mapping[str, Any], count: int) -> Index:
    """Return the index of a folder.

    Raises:
      ValueError: It is something else.
    """
    tables = read_arrays(folder / INDEX)
    centres, cell = tables["centres"], tables["cell"]
    look, recall, sessions = (facts[name] for name in ("look", "recall", "sessions"))
    whole = all(type(each) is int for each in (look, sessions)) and isinstance(recall, float | int)
    fits = centres.ndim == 2 and cell.shape == (count,) and cell.dtype == np.int32
    if not whole or not fits or not np.isfinite(centres).all():
        raise ValueError(f"{INDEX} is not what {SERVE} says")
    if not 1 <= look <= len(centres) or cell.min() < 0 or cell.max() >= len(centres):
        raise ValueError(f"{INDEX}: a cell that does not exist")
    return Index(centres.astype(np.float32), cell, look, float(recall), sessions)
