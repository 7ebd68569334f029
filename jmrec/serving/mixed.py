"""The files of a serving artefact that blends rules and a student: those of both, in one folder.

``serve.json`` says what each of the two says of itself, and what the student weighs; see
`jmrec.serving.rules` and `jmrec.serving.artefact`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jmrec.evaluation.policy import Policy
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.results import MIX
from jmrec.files import write_json
from jmrec.serving.artefact import Artefact, parse_student, student_facts, write_student
from jmrec.serving.folder import MIXED, SERVE, Card, read_folder, write_folder, write_items
from jmrec.serving.rules import RuleArtefact, parse_rule, rule_facts, write_tables

FORMAT = 2
WEIGHT = "student weight"


@dataclass(frozen=True)
class MixedArtefact:
    """What is served: a blend of rules and a student, for the same items.

    Attributes:
      rules: Whose rule is a `Blend` of the rules alone, under the row's name.
      student: The student.
      weight: What it weighs beside them.
    """

    rules: RuleArtefact
    student: Artefact
    weight: float

    @property
    def ids(self) -> list[str]:
        """V item ids."""
        return self.rules.ids

    @property
    def titles(self) -> list[str]:
        """V titles."""
        return self.rules.titles

    @property
    def policy(self) -> Policy:
        """Which items may be recommended."""
        return self.rules.policy

    @property
    def provenance(self) -> dict[str, Any]:
        """Which run and stages made it, for people."""
        return self.student.provenance

    @property
    def event_names(self) -> list[str]:
        """The event types of training, which the student may read."""
        return self.student.event_names

    def ranker(self, student: Ranker) -> Blend:
        """Return what answers.

        Args:
          student: The student, prepared.
        """
        rules: Any = self.rules.rule
        members, weights = [*rules.members, student], [*rules.weights, self.weight]
        return Blend(members, weights, rules.n_items, dict(rules.settings), rules.name, MIX)


def split_mixed(blend: Blend, student: str) -> tuple[Blend | None, float]:
    """Return the rules of a blend as one of their own, and what the student weighs in it.

    Returns:
      None where it holds no rule; 0 where it does not hold the student.
    """
    parts = list(zip(blend.members, blend.weights))
    own = next((weight for member, weight in parts if member.name == student), 0.0)
    rules = [(member, weight) for member, weight in parts if member.name != student]
    if not rules:
        return None, own
    members, weights = zip(*rules)
    return Blend([*members], [*weights], blend.n_items, dict(blend.settings), blend.name), own


def write_mixed(artefact: MixedArtefact, out: Path, card: Card | None = None) -> None:
    """Write an artefact, whole or not at all; an older artefact is replaced.

    Raises:
      UserError: Something else than a serving artefact is there, or a rule can not be kept.
    """
    write_folder(out, lambda side: _write_files(artefact, side), card)


def _write_files(artefact: MixedArtefact, folder: Path) -> None:
    parts = {**rule_facts(artefact.rules), **student_facts(artefact.student)}
    facts = {"kind": MIXED, "format": FORMAT, **parts, WEIGHT: artefact.weight}
    write_json(folder / SERVE, facts)
    write_items(folder, artefact.ids, artefact.titles, artefact.policy)
    write_tables(artefact.rules, folder)
    write_student(artefact.student, folder)


def read_mixed(folder: Path) -> MixedArtefact:
    """Read what `write_mixed` wrote.

    Raises:
      UserError: There is none, it is damaged, or a newer jmrec wrote it.
    """
    return read_folder(folder, MIXED, FORMAT, _parse)


def _parse(folder: Path, facts: Mapping[str, Any]) -> MixedArtefact:
    weight = facts[WEIGHT]
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 < weight <= 1e6 or not math.isfinite(weight):
        raise ValueError(f"{SERVE}: {WEIGHT} is no weight")
    rules = parse_rule(folder, facts)
    if not isinstance(rules.rule, Blend):
        raise ValueError(f"{SERVE}: the rules are no blend")
    return MixedArtefact(rules, parse_student(folder, facts), float(weight))
