"""What a run of "mmrec" serves: a ranker or a rule, with what was known at the end of the data."""

from pathlib import Path
from typing import Any

import numpy as np

from jmrec import __version__
from jmrec.config import choose
from jmrec.data.known import EVERY, Questions
from jmrec.data.verdicts import read_verdicts
from jmrec.evaluation.choice import named_rows
from jmrec.evaluation.policy import Availability, make_policy, read_correction
from jmrec.evaluation.results import MODEL, role_of
from jmrec.features import hash_ids
from jmrec.metrics.calibration import Platt
from jmrec.report.serving import why_served
from jmrec.serving.pairs import Line, PairArtefact
from jmrec.systems.fit import seeded
from jmrec.systems.mmrec.parts import Run
from jmrec.systems.sealed import read_stage
from jmrec.systems.serve_rules import results_of

OF_ITEM, OF_USER = ("numbers", "category"), ("numbers", "past", "past_label", "past_mask")
"""What of a batch is an item's, and what is a user's."""


def pair_artefact(
    system: Run,
    row: str | None = None,
    policy: Path | None = None,
    verdicts: Path | None = None,
    *,
    day: int | None = None,
    may: int = EVERY,
) -> PairArtefact:
    """Make a run's artefact in memory; of a ranker its first seed.

    Args:
      system: A finished run.
      row: A rule or a ranker of the results table; None is the row that the results name.
      policy: A policy file, or None.
      verdicts: A file of verdicts, or None.
      day: The day before which everything is known; None is the first after all rows.
      may: What may be known, see `jmrec.data.known.Questions`.

    Raises:
      UserError: There is no such row, the results are damaged, or a file does not fit.
    """
    data, work = system.data, system.work
    results = results_of(work.workdir)
    rows, served = named_rows(results), results["served"]
    name = choose("--row", row or (served["row"] if served else ""), tuple(rows))
    known, items, ratings = data.known, data.items, data.ratings
    at = known.end if day is None else day
    # Without codes of who was forgotten; the last is who is not known.
    codes = np.array([code for code, user in enumerate(ratings.user_ids) if user] + [-1], np.int64)
    people = len(codes)
    of_items = _questions(np.arange(len(items)), np.full(len(items), -1), at, may)
    of_users = _questions(np.zeros(people, np.int64), codes, at, may)
    seen = known.spans("user", asked=of_users)
    ranker = role_of(rows[name]) == MODEL
    tables = (_of_ranker if ranker else _of_rule)(system, name, of_items, of_users)
    line = results["pairs"]["calibration"][name]
    ids, lists = list(items.ids), None if policy is None else read_correction(policy)
    own = [seeded(f"rankers.{name}", system.rankers.seeds[0]).name] if ranker else []
    read = [each.name for each in system.stages()[:-1] if not each.name.startswith("rankers/")]
    hashes = {each: read_stage(work.workdir / each) for each in [*read, *own]}
    return PairArtefact(
        row=name,
        prior=float((ratings.labels[data.rows.train] == 1).mean()),
        line=Line(
            system.rankers.balance(name).shift if ranker else 0.0,
            Platt(line["scale"][0], line["shift"][0]), line["threshold"][0],
        ),
        label=ratings.label,
        label_means=ratings.label_means,
        ids=ids,
        titles=list(items.titles),
        user_ids=[ratings.user_ids[code] for code in codes[:-1]],
        # What a verdict keeps is not rated by that.
        rated=[np.unique(ratings.items[rows[rows < data.said]]).astype(np.int32)
               for rows in map(seen.__getitem__, range(people))],
        policy=make_policy(ids, True, lists, Availability.of(items), str(policy)),
        verdicts=() if verdicts is None else read_verdicts(verdicts, ids),
        provenance={
            "jmrec": __version__,
            "run": work.workdir.resolve().name,
            "dataset": data.run_data.dataset.name,
            "fingerprint": data.fingerprint,
            "items": hash_ids(ids),
            "rows": len(ratings),
            "why": f"Served is {name}: --row names it." if row else why_served(results),
            "stages": {each: facts["hash"] for each, facts in hashes.items() if facts},
        },
        **tables,
    )  # fmt: skip


def _questions(items: np.ndarray, users: np.ndarray, day: int, may: int) -> Questions:
    return Questions(items, users, np.full(len(items), day), np.full(len(items), may))


def _of_rule(system: Run, name: str, of_items: Questions, of_users: Questions) -> dict[str, Any]:
    """Return the fields of the artefact that a rule decides: counts and sums."""
    del name
    known, labels = system.data.known, system.data.ratings.labels

    def table(by: str, asked: Questions) -> dict[str, np.ndarray]:
        spans = known.spans(by, labels >= 0, asked)
        sums = spans.sums((labels == 1).astype(float))
        return {"count": spans.count.astype(np.float64), "sum": sums}

    return {
        "config": None,
        "params": {},
        "parts": (),
        "of_user": np.zeros(0, bool),
        "items": table("item", of_items),
        "users": table("user", of_users),
    }


def _of_ranker(system: Run, name: str, of_items: Questions, of_users: Questions) -> dict[str, Any]:
    """Return the fields of the artefact that a ranker decides."""
    rankers = system.rankers
    found: dict[str, dict[str, np.ndarray]] = {}
    for by, asked, own in (("item", of_items, OF_ITEM), ("user", of_users, OF_USER)):
        parts = rankers.parts(name, asked)
        arrays = rankers.arrays(name, parts, asked)
        found[by] = {each: arrays[each] for each in own}
        found[by]["id_row"] = arrays[f"{by}_id"]
        for part in parts:
            if (part.of == "user") == (by == "user"):
                found[by][f"part/{part.name}"] = part.table[part.row].astype(np.float32)
                found[by][f"ok/{part.name}"] = part.ok[part.row]
    every = rankers.parts(name)
    task = rankers.task(name, every)
    stage = seeded(f"rankers.{name}", rankers.seeds[0]).name
    return {
        "config": task.model.config,
        "params": system.work.params(stage, task.model),
        "parts": tuple((part.name, "user" if part.of == "user" else "item") for part in every),
        "of_user": rankers.pair_numbers.of["user"],
        "items": found["item"],
        "users": found["user"],
    }
