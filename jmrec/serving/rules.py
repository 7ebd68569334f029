"""The files of a serving artefact of a rule, which nothing has trained.

=================== ======================================================================
serve.json          format, the rule's row and class, its settings, the policy, provenance
rule.safetensors    its tables: counts, weights, vectors. Those of V-SKNN, and of a blend that
                    holds it, are the training sessions: which items each holds, and of whom
                    they are nothing
items.json          ids, titles, windows of availability
updatable/          where it was asked for, what counting of new sessions needs, see
                    `jmrec.serving.updatable`; with ids of sessions and people
checksums.json      the SHA-256 of each
=================== ======================================================================

There is no time, no path and, but for ``updatable/``, no person in them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from jmrec.evaluation.policy import Policy
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.cooccurrence import SessionNeighbours
from jmrec.files import write_json
from jmrec.serving.folder import (
    RULE,
    SERVE,
    Card,
    policy_facts,
    read_arrays,
    read_folder,
    read_items,
    read_policy,
    texts,
    write_folder,
    write_items,
)
from jmrec.serving.updatable import UPDATABLE, Updatable

FORMAT = 2
TABLES = "rule.safetensors"
FEATURE = "features/"
"""Before the name of a feature table that the rule reads."""
FACTS = "jmrec"
"""Under which name the file of tables holds the checksum of what serve.json says of the rule."""


@dataclass(frozen=True)
class RuleArtefact:
    """What is served.

    Attributes:
      row: The rule's row in the table of results.
      rule: Fitted and prepared.
      features: The feature tables that it reads, name -> float32 [V, D].
      ids: V item ids.
      titles: V titles.
      policy: Which items may be recommended.
      provenance: Which run made it, for people.
      event_names: ``event_names[code]`` of the event types of training, which it does not read.
      updatable: What counting of new sessions needs, if that is to be written; it is not read back
        with the rest.
    """

    row: str
    rule: Ranker
    features: dict[str, np.ndarray]
    ids: list[str]
    titles: list[str]
    policy: Policy
    provenance: dict[str, Any]
    event_names: list[str]
    updatable: Updatable | None = None

    def tables(self) -> dict[str, np.ndarray]:
        """Return all arrays that are kept, by name."""
        return {**codec.encode(self.rule)[1], **self.given()}

    def given(self) -> dict[str, np.ndarray]:
        """Return the feature tables, by their names in the file."""
        return {f"{FEATURE}{name}": table for name, table in self.features.items()}

    def sessions(self) -> int:
        """Return how many training sessions it holds; 0 of all rules but V-SKNN."""
        rules = [self.rule, *getattr(self.rule, codec.MEMBERS, ())]
        return max((r.held.shape[0] for r in rules if isinstance(r, SessionNeighbours)), default=0)


def write_rule(artefact: RuleArtefact, out: Path, card: Card | None = None) -> None:
    """Write an artefact, whole or not at all; an older artefact is replaced.

    Raises:
      UserError: Something else than a serving artefact is there, or the rule can not be kept.
    """
    write_folder(out, lambda side: _write_files(artefact, side), card)


def _write_files(artefact: RuleArtefact, folder: Path) -> None:
    write_json(folder / SERVE, {"kind": RULE, "format": FORMAT, **rule_facts(artefact)})
    write_items(folder, artefact.ids, artefact.titles, artefact.policy)
    write_tables(artefact, folder)


def rule_facts(artefact: RuleArtefact) -> dict[str, Any]:
    """Return what ``serve.json`` says of a rule."""
    return {
        "row": artefact.row,
        "rule": codec.encode(artefact.rule)[0],
        "policy": policy_facts(artefact.policy),
        "provenance": artefact.provenance,
        "event_names": artefact.event_names,
    }


def write_tables(artefact: RuleArtefact, folder: Path) -> None:
    """Write the tables of a rule."""
    facts, arrays = codec.encode(artefact.rule)
    save_file({**arrays, **artefact.given()}, folder / TABLES, metadata={FACTS: _checksum(facts)})
    if artefact.updatable is not None:
        artefact.updatable.write(folder / UPDATABLE)


def _checksum(rule: Any) -> str:
    """Return the SHA-256 of what serve.json says of a rule: another decay is another rule."""
    return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()


def read_rule(folder: Path) -> RuleArtefact:
    """Read what `write_rule` wrote.

    Raises:
      UserError: There is none, it is damaged, or a newer jmrec wrote it.
    """
    return read_folder(folder, RULE, FORMAT, parse_rule)


def parse_rule(folder: Path, facts: Mapping[str, Any]) -> RuleArtefact:
    """Return the rule of a folder, from what ``serve.json`` says; see `read_folder`."""
    ids, titles, window = read_items(folder)
    with safe_open(folder / TABLES, "np") as file:
        if dict(file.metadata() or {}).get(FACTS) != _checksum(facts["rule"]):
            raise ValueError(f"{SERVE} and {TABLES} are not of one rule")
    arrays = read_arrays(folder / TABLES)
    rule = codec.decode(facts["rule"], arrays, len(ids))
    features = {name: arrays[f"{FEATURE}{name}"] for name in codec.feature_names(rule)}
    for name, table in features.items():
        if table.ndim != 2 or len(table) != len(ids) or table.dtype != np.float32:
            raise ValueError(f"{TABLES}: {name} is no row of numbers for each item")
    if facts["row"] != rule.name:
        raise ValueError(f"{SERVE}: {str(facts['row'])[:40]!r} is not the rule's name")
    rule.prepare(features)
    return RuleArtefact(
        row=rule.name,
        rule=rule,
        features=features,
        ids=ids,
        titles=titles,
        policy=read_policy(folder, facts, ids, window),
        provenance=dict(facts["provenance"]),
        event_names=texts(facts, "event_names"),
    )
