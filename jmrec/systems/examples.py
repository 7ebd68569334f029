"""Example sessions for the report: what the served student recommends in them, and why."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from jmrec.data.pictures import thumbnail
from jmrec.data.schema import Items, take_items
from jmrec.evaluation.explain import choose_examples, explain, rule_in_words
from jmrec.evaluation.protocol import Predictions, rank
from jmrec.evaluation.results import Results
from jmrec.evaluation.students import TowerRanker
from jmrec.systems.catalogue import view
from jmrec.systems.tables import read_standardiser
from jmrec.systems.tpad import Tpad

COUNT, CLICKS, TOP = 4, 6, 3
"""Sessions shown, clicks of each, recommendations of each."""


def examples(system: Tpad, predictions: Predictions) -> dict[str, Any]:
    """Return the report's section "examples".

    Args:
      system: A run whose training stages are done; its served student's first seed is asked.
      predictions: Of the split that is reported on.

    Returns:
      Plain values: "row", "seed", "rule", "items" by id, "sessions"; {} where nothing can be
      shown.
    """
    config, dataset = system.config, system.dataset
    name, seed, items = config.evaluate.serve, config.seeds[0], dataset.items
    cold = ~system.train_items
    chosen = choose_examples(predictions, cold, COUNT, CLICKS)
    if not len(chosen):
        return {}
    ranker = system.student_ranker(name, seed)
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
    vectors = without_parts(system, ranker, np.unique(np.concatenate(best)))
    window = predictions.prefixes.windows.shape[1]
    sessions, shown = [], set()
    for row, ranked, rows in zip(chosen.tolist(), found, best):
        asked = predictions.take(slice(row, row + 1))
        prefixes = asked.prefixes
        past = prefixes.expand()[0]
        gaps, events = (each[0, : len(past)] for each in (prefixes.gaps, prefixes.events))
        candidate = np.ones(len(items), bool)
        if dataset.exclude_seen:
            candidate[asked.seen()[1]] = False
        if asked.available is not None:
            candidate &= asked.available.open(asked.time, slice(0, len(items)))[0]
        without = {part: [each[r] for r in rows.tolist()] for part, each in vectors.items()}
        reasons = explain(ranker, past, rows, without, candidate, window, gaps, events)
        target = int(asked.target[0])
        shown.update([target, *past.tolist(), *rows.tolist()])
        sessions.append(
            {
                "session": int(asked.session[0]),
                "length": int(asked.length[0]),
                "past": [items.ids[r] for r in past],
                "next": {"item": items.ids[target], "place": int(ranked.ranks[0, 0])},
                "recommended": [
                    {"item": items.ids[r], **asdict(why)} for r, why in zip(rows.tolist(), reasons)
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


def pictures_of(items: Items, results: Results) -> dict[str, bytes]:
    """Return small pictures of the items in the examples: item id -> JPEG, where there is one."""
    shown = (results.get("examples") or {}).get("items") or {}
    rows = [row for row, item in enumerate(items.ids) if item in shown]
    found = {items.ids[row]: thumbnail(items.pictures[row]) for row in rows}
    return {item: data for item, data in found.items() if data}


def without_parts(
    system: Tpad, ranker: TowerRanker, rows: np.ndarray
) -> dict[str, dict[int, np.ndarray | None]]:
    """Return the vectors that items would have without their text, their picture or their id.

    A student that reads both is given what it would be given of an item that came without the
    part: the Knowledge tower reads the item again, as ``jmrec embed`` reads a new one. A student
    that reads one of them is given zeros, which stand for an item of which nothing is known.

    Args:
      system: A run whose training stages are done.
      ranker: Its served student, prepared.
      rows: int [R] items.

    Returns:
      "text", "picture", "id" -> item row -> float32 [D], None where the item has no such part.
      What the student does not read is left out.
    """
    name = system.config.evaluate.serve
    variant = system.config.students[name]
    ids = ranker.tower.ids
    assert ids is not None  # a student's, not the Transfer tower's
    own, known = system.student_features(name).get("features"), ids[rows]
    features = None if own is None else own[rows]
    changed: dict[str, np.ndarray] = {}
    has: dict[str, Any] = {}
    if features is not None:
        arrays = system.reader.read(take_items(system.dataset.items, rows.tolist()))
        has = {"text": np.any(arrays["text"] != 0, axis=1), "picture": arrays["picture_ok"]}
        if variant.view == "both":
            bare = _read_without(system, arrays, variant.features)
        else:
            bare = {variant.view: np.zeros_like(features)}
        changed = {part: ranker.vectors(table, known) for part, table in bare.items()}
    if variant.ids:
        unknown = np.full(len(rows), ranker.tower.model.config.ids - 1, np.int32)
        changed["id"] = ranker.vectors(features, unknown)
        has["id"] = system.train_items[rows]
    return {
        part: {
            row: table[place] if has[part][place] else None
            for place, row in enumerate(rows.tolist())
        }
        for part, table in changed.items()
    }


def _read_without(
    system: Tpad, arrays: Mapping[str, np.ndarray], features: str
) -> dict[str, np.ndarray]:
    """Return "text", "picture" -> a student's features of items [R] without that part."""
    other = {"text": "picture", "picture": "text"}  # without its text an item is its picture
    shown = [view(arrays, other[part], 0) for part in other]
    both = {key: np.concatenate([each[key] for each in shown]) for key in arrays}
    e = read_standardiser(system.workdir / "read")(system.encode(both, "examples"))
    tables = {"e": e}
    if features != "e":
        for head, table in zip("kt", system.heads(e)):
            tables[head] = read_standardiser(system.workdir / "embed", f"{head}/")(table)
    joined = np.concatenate([tables[head] for head in features.split("+")], 1)
    return dict(zip(other, np.split(joined, 2)))
