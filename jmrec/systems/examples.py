"""Example sessions for the report: what the served row recommends in them, and why."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from jmrec.data.pictures import thumbnail
from jmrec.data.schema import Items
from jmrec.evaluation.evidence import Evidence
from jmrec.evaluation.explain import choose_examples, explain, rule_in_words
from jmrec.evaluation.protocol import Predictions, Ranker, rank
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.neural import NeuralRanker
from jmrec.evaluation.results import Results
from jmrec.systems.students import Students
from jmrec.systems.system import Ranks

COUNT, CLICKS, TOP = 4, 6, 3
"""Sessions shown, clicks of each, recommendations of each."""


def examples(
    system: Ranks, predictions: Predictions, name: str, rule: Ranker | None = None
) -> dict[str, Any]:
    """Return the report's section "examples".

    Args:
      system: A run whose training stages are done.
      predictions: Of the split that is reported on.
      name: The row that is served; of a student the first seed is used.
      rule: Its ranker, where it is a rule.

    Returns:
      Plain values: "row", "seed" (None of a rule), "rule" (by which sessions were chosen), "items"
      by id, "sessions"; {} where there is nothing to show. Of a recommended item there is what its
      score loses without each thing, or of a rule, in "parts", what its score is made of.
    """
    dataset, students = system.data.dataset, system.students
    seed, items = None if rule else students.seeds(name)[0], dataset.items
    cold = ~system.data.train_items
    chosen = choose_examples(predictions, cold, COUNT, CLICKS)
    if not len(chosen):
        return {}
    ranker = rule or students.ranker(name, students.seeds(name)[0])
    evidence = Evidence(Known(dataset))
    found = [
        rank(
            ranker, predictions.take(slice(row, row + 1)), n_items=len(items),
            exclude_seen=dataset.exclude_seen, top=TOP,
        )
        for row in chosen.tolist()
    ]  # fmt: skip
    best = [each.top_ids[0][each.top_ids[0] >= 0] for each in found]
    if not any(map(len, best)):  # the sessions have seen the whole catalogue
        return {}
    vectors = {}
    if isinstance(ranker, NeuralRanker):
        vectors = without_parts(students, name, ranker, np.unique(np.concatenate(best)))
    window = predictions.prefixes.windows.shape[1]
    sessions, shown = [], set()
    for row, ranked, rows in zip(chosen.tolist(), found, best):
        asked = predictions.take(slice(row, row + 1))
        prefixes = asked.prefixes
        past = prefixes.expand()[0]
        gaps, events = (each[0, : len(past)] for each in (prefixes.gaps, prefixes.events))
        candidate = _candidates(asked, len(items), dataset.exclude_seen)
        without = {part: [each[r] for r in rows.tolist()] for part, each in vectors.items()}
        why = explain(ranker, past, rows, without, candidate, window, gaps, events)
        reasons = [asdict(each) for each in why]
        if rule:
            for each, item in zip(reasons, rows.tolist()):
                parts = evidence.parts(rule, past, item, gaps, events)
                each |= {"past": [], "parts": [asdict(part) for part in parts]}
        target = int(asked.target[0])
        shown.update([target, *past.tolist(), *rows.tolist()])
        sessions.append(
            {
                "session": int(asked.session[0]),
                "length": int(asked.length[0]),
                "past": [items.ids[r] for r in past],
                "next": {"item": items.ids[target], "place": int(ranked.ranks[0, 0])},
                "recommended": [
                    {"item": items.ids[r], **each} for r, each in zip(rows.tolist(), reasons)
                ],
            }
        )
    count = dataset.train_count
    facts = {
        items.ids[row]: {"title": items.titles[row], "train count": int(count[row])}
        for row in sorted(shown)
    }
    new = int(cold[predictions.target[chosen[-1]]])
    return {
        "row": name,
        "seed": seed,
        "rule": rule_in_words(len(chosen) - new, CLICKS, bool(new)),
        "candidates": len(items),
        "items": facts,
        "sessions": sessions,
    }


def _candidates(asked: Predictions, n_items: int, exclude_seen: bool) -> np.ndarray:
    """Return bool [V]: what may be recommended by one prediction."""
    candidate = np.ones(n_items, bool)
    if exclude_seen:
        candidate[asked.seen()[1]] = False
    if asked.available is not None:
        candidate &= asked.available.open(asked.time, slice(0, n_items))[0]
    return candidate


def pictures_of(items: Items, results: Results) -> dict[str, bytes]:
    """Return small pictures of the items in all examples: item id -> JPEG, where there is one."""
    parts: list[Mapping[str, Any]] = [results.get("examples") or {}, results.get("helped") or {}]
    shown = {item for part in parts for item in part.get("items") or ()}
    rows = [row for row, item in enumerate(items.ids) if item in shown]
    found = {items.ids[row]: thumbnail(items.pictures[row]) for row in rows}
    return {item: data for item, data in found.items() if data}


def without_parts(
    students: Students, name: str, ranker: NeuralRanker, rows: np.ndarray
) -> dict[str, dict[int, np.ndarray | None]]:
    """Return the vectors that items would have without a part of their features, or their id.

    Args:
      students: Of a run whose training stages are done.
      name: A student's.
      ranker: The same, prepared.
      rows: int [R] items.

    Returns:
      "id", and the parts that the features have, such as "text" and "picture" -> item row ->
      float32 [D], None where the item has no such part. Parts that the student does not read are
      left out.
    """
    variant = students.variant(name)
    ids = ranker.encoder.ids
    assert ids is not None  # a student's, not the Transfer tower's
    own, known = students.table(name).get("features"), ids[rows]
    features = None if own is None else own[rows]
    changed: dict[str, np.ndarray] = {}
    has: dict[str, np.ndarray] = {}
    if features is not None:
        parts = students.features.without(variant.features, variant.view, rows)
        changed = {part: ranker.vectors(table, known) for part, (table, _) in parts.items()}
        has = {part: present for part, (_, present) in parts.items()}
    if variant.ids:
        unknown = np.full(len(rows), ranker.encoder.model.config.ids - 1, np.int32)
        changed["id"] = ranker.vectors(features, unknown)
        has["id"] = students.data.train_items[rows]
    return {
        part: {
            row: table[place] if has[part][place] else None
            for place, row in enumerate(rows.tolist())
        }
        for part, table in changed.items()
    }
