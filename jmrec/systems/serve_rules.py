"""Which row of a finished run is served, and a rule of it as it is served; see `serve`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jmrec import __version__
from jmrec.config import choose
from jmrec.data.schema import Dataset, Items, take_items
from jmrec.errors import UserError
from jmrec.evaluation.choice import named_rows
from jmrec.evaluation.policy import Availability
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.anew import Chosen, count_anew, solved_ease, with_rows
from jmrec.evaluation.rankers.rules import fit_again
from jmrec.evaluation.results import BEST, RESULTS, Results, mixed_name, read_results
from jmrec.features import hash_ids
from jmrec.report.serving import why_served
from jmrec.serving.rules import RuleArtefact
from jmrec.serving.updatable import Updatable
from jmrec.systems.added import Added, whole_catalogue
from jmrec.systems.data import ease_items
from jmrec.systems.remembered import nothing_yet, remembered_of
from jmrec.systems.sealed import check_seal, read_stage
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
    most = ease_items(system.work.config)
    return fit_again(
        system.data.dataset, row.name, row.rules or {}, system.content(), ease_items=most,
        student=_student_of(system, row),
    )  # fmt: skip


def _student_of(system: Ranks, row: ServedRow) -> Ranker | None:
    """Return the student that a row blends with rules, of the first seed; None for none."""
    students, name = system.students, row.student
    return students.ranker(name, students.seeds(name)[0]) if name else None


def remembered_items(system: Ranks) -> Items | None:
    """Return the items that came with what a run remembers; None where it remembers nothing."""
    found = remembered_of(system)
    return found.items if found is not None and found.batches else None


def rule_artefact(
    system: Ranks,
    row: ServedRow,
    policy: Path | None,
    *,
    with_added: bool = True,
    updatable: bool = False,
) -> RuleArtefact:
    """Make the artefact of a rule in memory, new items and all that was remembered included.

    No rule has seen items that `embed` read in a session. One that reads texts or features knows
    them by these; to the others they are items without a click, which only "newest first" puts
    forward.

    Args:
      system: A finished run.
      row: Which rule.
      policy: A policy file, or None.
      with_added: Whether items that `embed` read are in it.
      updatable: Whether it gets what counting of new sessions needs.

    Raises:
      UserError: The towers were trained again since `embed`, or the policy does not fit.
    """
    remembered, more = remembered_of(system), remembered_items(system)
    catalogue = whole_catalogue(system, policy, with_added=with_added, more=more)
    dataset, content = system.data.dataset, system.content(catalogue.added.features or None)
    if catalogue.added.ids:
        dataset = replace(dataset, items=items_with(dataset.items, catalogue.added))
    chosen = Chosen(row.name, row.rules or {}, ease_items(system.work.config))
    student = _student_of(system, row)
    about = provenance(system, row, catalogue.ids, len(catalogue.added.ids))
    if remembered is not None and more is not None:
        content = {name: with_rows(table, len(dataset.items)) for name, table in content.items()}
        ease = solved_ease(chosen, dataset, remembered) if chosen.reads_ease else None
        rule = count_anew(chosen, dataset, remembered, content, ease, student)
        about["remembered"] = sum(len(each.events.items) for each in remembered.batches)
    else:
        rule = fit_again(
            dataset, chosen.name, chosen.settings, content, ease_items=chosen.ease_items,
            student=student,
        )  # fmt: skip
    made = None
    if updatable:
        own = len(whole_catalogue(system, None).ids)
        made = Updatable(
            replace(dataset, items=take_items(dataset.items, range(own))),
            remembered or nothing_yet(system),
            chosen.ease_items,
        )
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
        provenance=about,
        event_names=list(system.data.dataset.event_names),
        updatable=made,
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


def items_with(items: Items, added: Added) -> Items:
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
        value=None,  # nothing that serves reads prices
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
