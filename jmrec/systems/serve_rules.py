"""Which row of a finished run is served, and a rule of it as it is served; see `serve`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jmrec import __version__
from jmrec.config import choose
from jmrec.data.schema import Dataset, Items
from jmrec.errors import UserError
from jmrec.evaluation.choice import named_rows
from jmrec.evaluation.policy import Availability
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.blend import mixed_name
from jmrec.evaluation.rankers.rules import fit_again
from jmrec.evaluation.results import BEST, RESULTS, Results, read_results
from jmrec.features import hash_ids
from jmrec.report.serving import why_served
from jmrec.serving.rules import RuleArtefact
from jmrec.systems.added import Added, whole_catalogue
from jmrec.systems.data import ease_items
from jmrec.systems.stages import check_seal, read_stage
from jmrec.systems.system import Ranks


@dataclass(frozen=True)
class ServedRow:
    """The row that is served.

    Attributes:
      name: Of the row.
      why: In words.
      rules: Row -> settings of every row that was evaluated, where it is or holds a rule; None of
        a student.
      student: The student that it blends with rules, "" for none.
    """

    name: str
    why: str
    rules: Mapping[str, Mapping[str, Any]] | None = None
    student: str = ""


def results_of(workdir: Path) -> Results:
    """Return the results of a run's own evaluation.

    Raises:
      UserError: They are missing or damaged.
    """
    folder = workdir / "evaluate"
    if not (folder / RESULTS).is_file():
        raise UserError(
            f"{workdir} is not evaluated yet, which says what is best and how rules are set; start "
            "jmrec run again."
        )
    check_seal(folder, read_stage(folder) or {})
    return read_results(folder / RESULTS)


def served_row(system: Ranks, asked: str | None = None) -> ServedRow:
    """Return the row of a finished run that is served.

    Args:
      system: The run.
      asked: Its name; None is the run's choice, ``evaluate.serve``.

    Raises:
      UserError: There is no such row, or the run is not evaluated yet.
    """
    students, by = system.students, "--row" if asked else "evaluate.serve"
    wanted, why = asked or students.wanted, f"{by} names it"
    if wanted in students.names:
        return ServedRow(wanted, f"Served is {wanted}: {why}.")
    results = results_of(system.work.workdir)
    served, rows = results["served"], named_rows(results)
    if wanted == BEST and served and served.get("choice", {}).get("wanted") == BEST:
        wanted, why = served["row"], ""
    name = choose(by, wanted, tuple(dict.fromkeys([*students.names, *rows])))
    why = f"Served is {name}: {why}." if why else why_served(results)
    if name in students.names:
        return ServedRow(name, why)
    settings = {row["name"]: row.get("settings", {}) for row in results["rows"]}
    mixed = {mixed_name(student): student for student in students.names}
    return ServedRow(name, why, settings, mixed.get(name, ""))


def evaluated_rule(system: Ranks, row: ServedRow) -> Ranker:
    """Return a rule as it was evaluated."""
    return _fitted(system, row, system.data.dataset, system.content())


def _fitted(
    system: Ranks, row: ServedRow, dataset: Dataset, content: Mapping[str, np.ndarray]
) -> Ranker:
    most, students = ease_items(system.work.config), system.students
    student = students.ranker(row.student, students.seeds(row.student)[0]) if row.student else None
    return fit_again(dataset, row.name, row.rules or {}, content, most, student)


def rule_artefact(
    system: Ranks, row: ServedRow, policy: Path | None, with_added: bool = True
) -> RuleArtefact:
    """Make the artefact of a rule in memory, items that `embed` read included.

    No rule has seen those in a session. One that reads texts or features knows them by these; to
    the others they are items without a click, which only "newest first" puts forward.

    Args:
      system: A finished run.
      row: Which rule.
      policy: A policy file, or None.
      with_added: Whether items that `embed` read are in it.

    Raises:
      UserError: The towers were trained again since `embed`, or the policy does not fit.
    """
    catalogue = whole_catalogue(system, policy, with_added=with_added)
    dataset, content = system.data.dataset, system.content(catalogue.added.features or None)
    if catalogue.added.ids:
        dataset = replace(dataset, items=grown(dataset.items, catalogue.added))
    rule = _fitted(system, row, dataset, content)
    return RuleArtefact(
        row=row.name,
        rule=rule,
        features={
            name: np.ascontiguousarray(content[name], np.float32)
            for name in codec.feature_names(rule)
        },
        ids=catalogue.ids,
        titles=catalogue.titles,
        policy=catalogue.policy,
        provenance=provenance(system, row, catalogue.ids, len(catalogue.added.ids)),
        event_names=list(dataset.event_names),
    )


def provenance(system: Ranks, row: ServedRow, ids: list[str], added: int) -> dict[str, Any]:
    """Return which run a served row is of, and why that row, for people."""
    dataset: Dataset = system.data.dataset
    return {
        "jmrec": __version__,
        "run": system.work.workdir.resolve().name,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "items": hash_ids(ids),
        "added": added,
        "why": row.why,
    }


def grown(items: Items, added: Added) -> Items:
    """Return a catalogue with the items that `embed` read at its end.

    What is known of those are ids, titles, texts and windows.
    """
    count = len(added.ids)
    first, *others = items.text
    text = {first: [*items.text[first], *added.texts]}
    text |= {name: [*items.text[name], *[""] * count] for name in others}
    none = np.full(count, np.inf)
    windows = added.windows or Availability(-none, none)
    return replace(
        items,
        ids=[*items.ids, *added.ids],
        titles=[*items.titles, *added.titles],
        text=text,
        pictures=[*items.pictures, *[b""] * count],
        category={
            name: np.concatenate([codes, np.zeros(count, codes.dtype)])
            for name, codes in items.category.items()
        },
        number={
            name: np.concatenate([column, np.full(count, np.nan, column.dtype)])
            for name, column in items.number.items()
        },
        available_from=np.concatenate([items.available_from, windows.start]),
        available_until=np.concatenate([items.available_until, windows.stop]),
    )
