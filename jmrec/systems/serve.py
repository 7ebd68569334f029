"""From a run to what is served: one way for `jmrec recommend`, `jmrec export` and the artefact."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.small import keep_largest
from jmrec.evaluation.results import RESULTS, read_cost, read_results, write_cost
from jmrec.lock import only_writer
from jmrec.models.sessions.table import id_table_rows
from jmrec.report.page import write_report
from jmrec.serving import (
    Answer,
    Artefact,
    Served,
    check_target,
    load,
    serve,
    write,
)
from jmrec.serving.folder import Card
from jmrec.serving.index import make_index
from jmrec.serving.measure import CALLS, cold_start, folder_bytes, latency, size
from jmrec.serving.mixed import MixedArtefact, split_mixed, write_mixed
from jmrec.serving.questions import SKIP
from jmrec.serving.rules import RuleArtefact, write_rule
from jmrec.serving.stablehlo import export_scores
from jmrec.systems import serve_pairs
from jmrec.systems.added import read_added, whole_catalogue
from jmrec.systems.card import card_of
from jmrec.systems.examples import pictures_of
from jmrec.systems.registry import open_run
from jmrec.systems.remembered import remembered_of
from jmrec.systems.sealed import check_seal, read_stage
from jmrec.systems.serve_agree import agree, cost_of, few
from jmrec.systems.serve_rules import (
    ServedRow,
    evaluated_rule,
    provenance,
    remembered_items,
    rule_artefact,
    served_row,
)
from jmrec.systems.students import GROUP, NO_FEATURES, joined, stage_name
from jmrec.systems.system import Ranks, RanksPairs, System, able
from jmrec.terminal import warn
from jmrec.tracking import Tracker

AnyArtefact = Artefact | RuleArtefact | MixedArtefact


def recommend(
    workdir: Path,
    session: Sequence[str],
    top: int,
    row: str | None,
    policy: Path | None = None,
    at: float | None = None,
    times: Sequence[float] | None = None,
    events: Sequence[str] | None = None,
    unknown: str = SKIP,
) -> Answer:
    """Recommend items for one session with a row of a run, as its artefact would.

    Args:
      workdir: A finished run.
      session: Item ids, oldest first; the last 50 are read.
      top: How many to recommend.
      row: A student or a rule of the results table; None is the run's choice.
      policy: A policy file, see `jmrec.evaluation.policy`.
      at: Unix seconds, for windows of availability; None is now.
      times: Of each item of the session, see `jmrec.serving.Served.recommend`.
      events: The same.
      unknown: What is done with items that the catalogue does not know, the same.

    Returns:
      See `jmrec.serving.Served.recommend`.

    Raises:
      UserError: If an id, the row or the policy is unknown, or nothing is asked.
    """
    with Tracker(workdir, writes=False) as tracker:
        served = answering(able(open_run(workdir, tracker), Ranks), row, policy)
        return served.recommend(session, top, at, times, events, unknown)


def answering(system: Ranks, row: str | None = None, policy: Path | None = None) -> Served:
    """Return a row of a finished run, ready to answer; see `build`."""
    return serve(build(system, row, policy), str(system.work.workdir))


def build(system: Ranks, row: str | None, policy: Path | None) -> AnyArtefact:
    """Make a run's artefact in memory, items that `embed` read included.

    Args:
      system: A finished run.
      row: A student or a rule of the results table; None is the run's choice.
      policy: A policy file, or None.

    Raises:
      UserError: If there is no such row, the towers were trained again since `embed`, or the policy
        does not fit.
    """
    return _build(system, served_row(system, row), policy)


def _build(
    system: Ranks, row: ServedRow, policy: Path | None, updatable: bool = False
) -> AnyArtefact:
    if updatable and (row.rules is None or row.student):
        raise UserError(
            f"{row.name} was trained and does not count; leave out --updatable, or name a rule "
            "with --row."
        )
    if row.student:
        return _mixed(system, row, policy)
    if row.rules is not None:
        return rule_artefact(system, row, policy, updatable=updatable)
    return _student(system, row, policy)


def _mixed(system: Ranks, row: ServedRow, policy: Path | None) -> AnyArtefact:
    """Make the artefact of rules and a student's first seed; of one of them, if it is alone."""
    student = _student(system, replace(row, name=row.student), policy, remembered_items(system))
    added = system.students.variant(row.student).view == "both"
    whole = rule_artefact(system, row, policy, with_added=added)
    assert isinstance(whole.rule, Blend)
    rules, weight = split_mixed(whole.rule, row.student)
    if rules is None:
        return student
    whole = replace(whole, rule=rules)
    student = replace(student, provenance={**whole.provenance, **student.provenance})
    return MixedArtefact(whole, student, weight) if weight else whole


def _student(
    system: Ranks, row: ServedRow, policy: Path | None, more: Items | None = None
) -> Artefact:
    """Make the artefact of a student's first seed.

    Added items are left out for a student that is shown only texts or only pictures; not so
    ``more`` of which nothing is known.
    """
    students, dataset, workdir, name = (
        system.students, system.data.dataset, system.work.workdir, row.name
    )  # fmt: skip
    variant = students.variant(name)
    # `embed` reads new items with all that they have; a student that must not see it can not.
    catalogue = whole_catalogue(system, policy, with_added=variant.view == "both", more=more)
    added, encoder = catalogue.added, students.encoder(name)
    config, known = encoder.model.config, encoder.ids
    assert known is not None  # a student's, not the Transfer tower's
    # A new item has no id row of its own: it gets the last row, the unknown one.
    unknown = np.full(len(added.ids), max(id_table_rows(config) - 1, 0), np.int32)
    features = students.table(name)
    if added.ids and variant.features != NO_FEATURES:
        table = features["features"]
        new = np.zeros((len(added.ids), table.shape[1]), table.dtype)
        if added.features:
            new = joined(variant.features, added.features)
        features = {"features": np.concatenate([table, new])}
    seed = students.seeds(name)[0]
    own = stage_name(name, seed)
    read = [stage.name for stage in system.stages()[:-1] if not stage.name.startswith(GROUP)]
    found = {each: read_stage(workdir / each) for each in [*read, own]}
    return Artefact(
        student=name,
        config=config,
        params=system.work.params(own, encoder.model),
        features=features,
        id_rows=np.concatenate([known, unknown]),
        ids=catalogue.ids,
        titles=catalogue.titles,
        policy=catalogue.policy,
        provenance={
            **provenance(system, row, catalogue.ids, len(added.ids)),
            "seed": seed,
            "stages": {each: facts["hash"] for each, facts in found.items() if facts},
        },
        event_names=list(dataset.event_names),
    )


def export(
    workdir: Path,
    out: Path,
    *,
    row: str | None = None,
    policy: Path | None = None,
    stablehlo: bool = False,
    verdicts: Path | None = None,
    updatable: bool = False,
    index: float | None = None,
    keep: int | None = None,
    calls: int = CALLS,
) -> dict[str, Any]:
    """Write a run's serving artefact, measure it beside the teacher, and note it in the report.

    Args:
      workdir: A finished run.
      out: The folder to write; an older artefact there is replaced.
      row: A row of the results table that can be served; None is the run's choice.
      policy: A policy file, which becomes the artefact's own.
      stablehlo: Whether to add the scores as a StableHLO program.
      verdicts: A file of verdicts for a system that ranks pairs, which become the artefact's own.
      updatable: Whether a rule gets what counting of new sessions needs, see
        `jmrec.serving.remember`.
      index: The share of the exact best items that an approximate index is to find, see
        `jmrec.serving.index`; None is exact, without an index.
      keep: How many entries of an item the tables of rules keep, the largest, see
        `jmrec.evaluation.rankers.small`; None keeps all.
      calls: How many answers are timed.

    Returns:
      What was measured: "serving" of ``evaluate/cost.json``.

    Raises:
      UserError: There is no run, ``out`` is something else, or the row or policy is unknown.
    """
    out, device = check_target(out), _cpu()
    with only_writer(workdir, warn), Tracker(workdir) as tracker:
        opened = open_run(workdir, tracker)
        if updatable or keep is not None or index is not None:
            able(opened, Ranks)
        if isinstance(opened, RanksPairs) or verdicts is not None:
            pairs = able(opened, RanksPairs)
            with jax.default_device(device):
                made = serve_pairs.export(
                    pairs, out, row=row, policy=policy, verdicts=verdicts, stablehlo=stablehlo
                )
                tracker.say(f"export: {out} is written; now it is measured")
                section = serve_pairs.measure(made, out, calls)
            _note(opened, workdir / "evaluate", section)
            return section
        system = able(opened, Ranks)
        chosen = served_row(system, row)
        artefact = _build(system, chosen, policy, updatable)
        if index is not None:
            artefact = _indexed(system, artefact, index)
        if keep is not None:
            artefact = _kept(system, artefact, keep, updatable)
        program = export_scores(serve(artefact, str(out))) if stablehlo else None
        write_any(artefact, out, program, card_of(system, chosen.name, artefact))
        tracker.say(f"export: {out} is written; now it is measured")
        with jax.default_device(device):
            section = measure(system, chosen, artefact, out, calls)
        _note(opened, workdir / "evaluate", section)
        return section


def write_any(
    artefact: AnyArtefact, out: Path, program: bytes | None = None, card: Card | None = None
) -> None:
    """Write an artefact of any kind that ranks items for sessions.

    Args:
      artefact: What `build` made.
      out: The folder.
      program: Of a student, see `jmrec.serving.artefact.write`.
      card: The model card.
    """
    if isinstance(artefact, RuleArtefact):
        write_rule(artefact, out, card)
    elif isinstance(artefact, MixedArtefact):
        write_mixed(artefact, out, card)
    else:
        write(artefact, out, program, card)


def _note(system: System, folder: Path, section: dict[str, Any]) -> None:
    """Write what was measured into cost.json, and write the report again."""
    if not (folder / RESULTS).is_file():
        return
    try:
        cost = read_cost(folder)
        cost["serving"] = section
        write_cost(folder, cost)
        check_seal(folder, read_stage(folder) or {})
        results = read_results(folder / RESULTS)
    except UserError as error:  # an older run, or a damaged report, is served all the same
        system.work.tracker.warn(f"the report is left as it is: {error}")
        return
    shown = pictures_of(system.data.dataset.items, results) if isinstance(system, Ranks) else None
    write_report(results, folder / "report.html", cost, shown)


def _cpu() -> jax.Device:
    """Return the device that is measured on."""
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        raise UserError(
            "export measures on the CPU, which JAX_PLATFORMS leaves out; add it, as in "
            "JAX_PLATFORMS=cuda,cpu."
        ) from None


def measure(
    system: Ranks, row: ServedRow, artefact: AnyArtefact, out: Path, calls: int = CALLS
) -> dict[str, Any]:
    """Measure a written artefact: size, start, latency beside a student's teacher, agreement.

    Args:
      system: The run that it was made of.
      row: Which row of it.
      artefact: What was written.
      out: Where.
      calls: How many answers are timed.
    """
    start = cold_start(out)
    sessions = [
        [artefact.ids[item] for item in items]
        for items in islice(system.data.dataset.splits["validation"], calls)
    ]
    timed = [load(out)]
    served, added = timed[0], read_added(system)
    own, large = _ranker(system, row), None
    rules, student = _parts(artefact)
    arrays, params = [] if rules is None else [*rules.tables().values()], {}
    if student is not None:
        arrays, params = [*arrays, *student.features.values(), student.id_rows], student.params
        # The teacher ranks the items that the artefact holds, but for those that came to be
        # remembered, of which it has read nothing.
        known = len(system.data.dataset.items)
        new = added.ids if added is not None else []
        with_added = bool(new) and artefact.ids[known : known + len(new)] == new
        known += len(new) if with_added else 0
        large = system.teacher(added.features if added is not None and with_added else None)
    if large is not None:
        few = served.ids[:known], served.titles[:known], served.policy.first(known)
        timed.append(Served(large, *few, "the teacher"))
    times = latency(timed, sessions, calls)
    tables = sum(array.nbytes for array in arrays)
    about = {"name": row.name, **size(params), "table_bytes": tables}
    section: dict[str, Any] = {"served": {**about, **times[0]}, "why": row.why}
    if served.index is not None:
        section["index"] = {**served.index.facts, "cells": len(served.index.centres)}
    if kept := artefact.provenance.get("kept"):
        section["keep"] = kept
    if rules is not None and rules.sessions():
        section["sessions held"] = rules.sessions()
    if large is not None:
        read = jax.tree.leaves(large.rows)
        held = sum(each[:known].nbytes for each in read)
        about = {"name": large.name, **size(large.params), "table_bytes": held}
        section["teacher"] = {**about, **times[1]}
        section["knowledge_parameters"] = system.reader_parameters()
    return section | {
        "items": len(artefact.ids),
        "added": artefact.provenance["added"],
        "bytes": folder_bytes(out),
        "seconds": start,
        "calls": calls,
        "same top 20": agree(system, own, served),
    }


def _parts(artefact: AnyArtefact) -> tuple[RuleArtefact | None, Artefact | None]:
    """Return the rules and the student that an artefact holds."""
    if isinstance(artefact, MixedArtefact):
        return artefact.rules, artefact.student
    return (artefact, None) if isinstance(artefact, RuleArtefact) else (None, artefact)


def _ranker(system: Ranks, row: ServedRow) -> Ranker:
    """Return a row as the run itself ranks with it; of a student the first seed."""
    if row.rules is not None:
        remembered = remembered_of(system)
        counts = remembered is not None and remembered.batches
        if counts:
            return serve(_build(system, row, None), str(system.work.workdir)).ranker
        return evaluated_rule(system, row)
    return system.students.ranker(row.name, system.students.seeds(row.name)[0])


def _indexed(system: Ranks, artefact: AnyArtefact, recall: float) -> AnyArtefact:
    """Return a student's artefact with an index that finds a share of the exact best items.

    Raises:
      UserError: Rules are served, which have no vectors.
    """
    if not isinstance(artefact, Artefact):
        raise UserError(
            "an index holds vectors of items, which only a student has; leave out --index, or name "
            "a student with --row."
        )
    ranker: Any = serve(artefact, "").ranker
    states = ranker.states(few(system)[1].prefixes)
    return replace(artefact, index=make_index(ranker.items[: len(artefact.ids)], states, recall))


def _kept(system: Ranks, artefact: AnyArtefact, count: int, updatable: bool) -> AnyArtefact:
    """Return an artefact whose rules keep the largest entries of each item alone.

    It says so in its provenance, and what that costs.

    Raises:
      UserError: No rule is served, or it is to be counted on, or nothing would be kept.
    """
    rules, _ = _parts(artefact)
    if count < 1:
        raise UserError(f"--keep {count} keeps nothing; give a number of entries, such as 200.")
    if rules is None:
        raise UserError(
            "a student holds no tables of rules; leave out --keep, or name a rule with --row."
        )
    if updatable:
        raise UserError("what --keep forgets could not be counted on; leave out it or --updatable.")
    rules = replace(rules, rule=keep_largest(rules.rule, count))
    smaller: AnyArtefact = rules
    if isinstance(artefact, MixedArtefact):
        smaller = replace(artefact, rules=rules)
    cost = cost_of(system, serve(artefact, "").ranker, serve(smaller, "").ranker)
    said = {**smaller.provenance, "kept": {"entries": count, **cost}}
    if isinstance(smaller, MixedArtefact):
        return replace(smaller, student=replace(smaller.student, provenance=said))
    return replace(smaller, provenance=said)
