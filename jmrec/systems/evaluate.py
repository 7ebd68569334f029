"""The last stage of a system that ranks: every row on a split, then the report.

Rules choose their settings on validation, rankers their cold offset, and there is decided which row
is served; the split is read once, and a reading of test is noted in ``test_reads.jsonl``.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jmrec.cluster.member import first, is_first
from jmrec.config import ConfigDict, choose
from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.evaluation.choice import best_of
from jmrec.evaluation.drift import over_time
from jmrec.evaluation.effect import correction_effect
from jmrec.evaluation.helped import helped, two_rows
from jmrec.evaluation.policy import Policy
from jmrec.evaluation.protocol import Predictions, ask
from jmrec.evaluation.results import (
    CONTROL,
    FROZEN,
    LIVE,
    MODEL,
    RULE,
    TEACHER,
    WEEKLY,
    Results,
    ServedRow,
    role_of,
    write_results,
)
from jmrec.evaluation.summary import Row, summarise
from jmrec.evaluation.value import worth_of_lists
from jmrec.evaluation.windows import units_of, write_units
from jmrec.files import read_json
from jmrec.systems.costs import cost_of, evaluation_cost, facts_by_stage
from jmrec.systems.examples import examples, pictures_of
from jmrec.systems.measured import Later, measure_all
from jmrec.systems.outcome import show
from jmrec.systems.stages import Stage
from jmrec.systems.students import NO_FEATURES, Students
from jmrec.systems.system import Entry, Ranks
from jmrec.tracking import mend_lines, read_curves

UNITS = "units.npz"
"""The file beside results.json from which several test windows are pooled."""


def evaluation_stage(system: Ranks, before: Sequence[Stage], command: Sequence[str] = ()) -> Stage:
    """Return the stage "evaluate", the last of a system that ranks.

    Args:
      system: The system.
      before: All stages before it.
      command: The command line, for the report.
    """
    config = system.work.config
    choose("evaluate.split", str(config.evaluate.split), ("validation", "test"))

    def run(folder: Path) -> None:
        own = read_json(folder / "stage.json")["hash"]
        evaluate(system, folder, config.evaluate.split, command=command, stage=own)

    settings = {"evaluate": config.evaluate, "students": list(config.students)}
    return Stage("evaluate", settings, tuple(each.name for each in before), run, shared=False)


def student_entries(students: Students) -> list[Entry]:
    """Return a row for each student."""
    return [
        Entry(name, "student", students.seeds(name), partial(students.ranker, name))
        for name in students.names
    ]


def evaluate(
    system: Ranks,
    folder: Path,
    split: str,
    *,
    dump: Path | None = None,
    policy: Policy | None = None,
    by: str | None = None,
    counts: str = FROZEN,
    parts: bool = False,
    command: Sequence[str] = (),
    stage: str = "",
) -> None:
    """Rank every rule and every row of a system on a split; write results and report.

    Args:
      system: A run whose training stages are done.
      folder: Where ``results.json``, ``cost.json`` and ``report.html`` go.
      split: "validation" or "test".
      dump: A folder for every row's recommendations, see `jmrec.evaluation.dump`.
      policy: Whose correction's effect on the served row is reported, or None.
      by: "day", "week" or "month": report every row by calendar period too. None does not.
      counts: LIVE adds a row for every rule that can count what came before each prediction, and
        for their blend with a student; WEEKLY one for the served row and for the best rule, counted
        anew every Monday; "all" adds both; FROZEN none.
      parts: Whether a blend that is served is ranked without each of its members too.
      command: The command line, for the report.
      stage: The hash of the stage "evaluate", "" for none. A stage that was killed and is
        started again gives the same numbers: it counts as one reading of test.
    """
    work, dataset = system.work, system.data.dataset
    config = work.config
    if by is not None and not dataset.has_time:
        raise UserError(f"{dataset.name} has no times, so there is no --by={by}; leave it out.")
    validation, predictions = ask(dataset, "validation"), ask(dataset, split)
    later = None if counts == FROZEN else Later.of(counts, dataset, validation, predictions)
    reads = first(lambda: note_reading(work.workdir, split, stage))
    with evaluation_cost() as spent:
        table = measure_all(system, split, validation, predictions, dump, later, parts)
    rows, served = table.rows, table.served
    effect = None
    if policy is not None:
        plain, students = next(row for row in rows if row.name == served["row"]), system.students
        own = table.rankers or [
            students.ranker(plain.name, seed) for seed in students.seeds(plain.name)
        ]  # fmt: skip
        effect = correction_effect(plain, own, predictions, policy)
    # All processes read parameters together, so this comes before the others return.
    why = examples(system, predictions, served["row"], next(iter(table.rankers), None))
    if not is_first():  # every process ranks its part, the first writes what came out
        return
    student = served.get("student", served["row"])
    pairs, beside = _compared(config, rows, served["row"], student, table.parts)
    pairs += _safe(served, rows)
    stages = system.stages()[:-1]
    names = [each.name for each in stages]
    shown = {each.name for each in stages if not each.group or each.path.split(".")[-1] == student}
    curves = read_curves(work.workdir)
    results = summarise(
        rows,
        predictions,
        dataset,
        split,
        system=system.name,
        served={**served, "beside": beside},
        pairs=[*pairs, *_counted(rows)],
        warm_loss=config.evaluate.get("warm_loss"),
        test_reads=reads,
        stages=facts_by_stage(work.workdir, names),
        curves={name: curve for name, curve in curves.items() if name in shown},
        policy=effect,
    )
    results["examples"] = why
    _add_sections(results, rows, predictions, dataset.items, by, config.seed)
    cost = cost_of(work.workdir, names, command)
    cost["rows"] = {row.name: table.cost[row.name] for row in rows}
    cost["evaluation"] = spent
    write_results(folder, results, cost)
    write_units(folder / UNITS, units_of(rows, predictions))
    show(work, folder, results, cost, pictures_of(dataset.items, results))


def _compared(
    config: ConfigDict, rows: Sequence[Row], served: str, student: str, parts: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the pairs of rows to compare, and the rows that the summary names beside the served.

    The student is compared with every other, its teacher and its controls, and with the rule that
    is served, if one is; every other student with a teacher is compared with the one that has none;
    the served row with each of ``parts``, which are it without a part. The summary names the
    student's teacher and the student without a teacher beside it, and beside a rule the student.
    """
    variants = config.students
    of_role = {
        role: [row.name for row in rows if role_of(row.kind) == role and row.name not in parts]
        for role in (TEACHER, CONTROL)
    }
    others = [name for name in variants if name != student]
    pairs = [(student, other) for other in [*others, *of_role[TEACHER], *of_role[CONTROL]]]
    for name in others:
        if variants[name].logit > 0:
            pairs += [(name, plain) for plain in _without_teacher(variants, name)]
    pairs += [(served, part) for part in parts]
    if served != student:
        return [(student, served), *pairs], [student]
    return pairs, [*of_role[TEACHER], *_without_teacher(variants, student)]


def _safe(served: ServedRow, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the served row and the best rule on validation: what one serves if no training pays.

    The report compares the two; nothing is returned where a rule is served.
    """
    values = served["choice"]["validation"] if "choice" in served else {}
    kinds = {row.name: row.kind for row in rows}
    known = {
        name: each for name, each in values.items()
        if each is not None and role_of(kinds[name]) == RULE
    }  # fmt: skip
    if not known or role_of(kinds[served["row"]]) == RULE:
        return []
    return [(served["row"], best_of(known))]


def _add_sections(
    results: Results,
    rows: Sequence[Row],
    predictions: Predictions,
    items: Items,
    by: str | None,
    seed: int,
) -> None:
    """Add what lists are worth, where items have a value; figures over time, where asked for.

    And whom the served row helps and harms.
    """
    if by is not None:
        results["over_time"] = over_time(rows, predictions, by)
    if items.value is not None:
        results["value"] = worth_of_lists(rows, predictions, items.value, results["best_rule"])
    if (two := two_rows(results["served"], results["best_rule"], rows)) is not None:
        results["helped"] = helped(*two, predictions, items, seed)


def _counted(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return pairs of rows that tell what counting on is worth: of models, and of weekly rules."""
    names = {row.name for row in rows}
    pairs = []
    for row in rows:
        own = row.name.removesuffix(f", {row.counts}")
        if row.counts == WEEKLY or (row.counts == LIVE and role_of(row.kind) == MODEL):
            pairs.append((row.name, own))
        if row.counts == LIVE:
            pairs.append((row.name, f"{own}, {WEEKLY}"))
    return [pair for pair in pairs if pair[1] in names]


def _without_teacher(variants: ConfigDict, name: str) -> list[str]:
    """Return the student that reads the same of an item and has no teacher, if there is one."""
    own = variants[name]
    return [
        other
        for other, variant in variants.items()
        if other != name
        and (variant.view, variant.ids) == (own.view, own.ids)
        and (variant.features == NO_FEATURES) == (own.features == NO_FEATURES)
        and variant.get("encoder") == own.get("encoder")
        and not variant.logit
    ][:1]


def note_reading(workdir: Path, split: str, stage: str = "") -> int:
    """Append a reading of test to test_reads.jsonl; return how many there are."""
    path = workdir / "test_reads.jsonl"
    mend_lines(path)
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    again = stage and any(f'"{stage}"' in line for line in lines)  # a broken line is a reading too
    if split == "test" and not again:
        line = {"split": split, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        lines.append(json.dumps({**line, "stage": stage} if stage else line))
        with path.open("a") as file:
            file.write(lines[-1] + "\n")
    return len(lines)
