"""Stage "evaluate" of "mmrec": every row of the table on a split, then the report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from jmrec.cluster.member import first, is_first
from jmrec.data.toyshop_reviews import TRUTH, ReviewOracle
from jmrec.evaluation.choice import can_be_served, choose_row
from jmrec.evaluation.pairs.measure import measure
from jmrec.evaluation.pairs.rows import RECALL, PairData, Pairs, Scored, Settings
from jmrec.evaluation.pairs.rules import Known as KnownCounts
from jmrec.evaluation.pairs.rules import rules
from jmrec.evaluation.results import (
    FORMAT,
    PAIRS,
    Results,
    ServedRow,
    write_results,
)
from jmrec.evaluation.summary import plain
from jmrec.files import read_json
from jmrec.systems.costs import cost_of, evaluation_cost, facts_by_stage
from jmrec.systems.evaluate import note_reading
from jmrec.systems.mmrec.data import GROUPS, item_words
from jmrec.systems.mmrec.parts import Run
from jmrec.systems.mmrec.why import explain
from jmrec.systems.mmrec.words import bag_of_words
from jmrec.systems.outcome import show
from jmrec.systems.stages import Stage
from jmrec.tracking import read_curves


def evaluation_stage(system: Run, before: Sequence[Stage], command: Sequence[str] = ()) -> Stage:
    """Return the stage "evaluate".

    Args:
      system: The system.
      before: All stages before it.
      command: The command line, for the report.
    """
    c = system.work.config

    def run(folder: Path) -> None:
        own = read_json(folder / "stage.json")["hash"]
        evaluate(system, folder, c.evaluate.split, command=command, stage=own)

    settings = {
        "evaluate": c.evaluate,
        "protocol": c.protocol,
        "rankers": list(c.rankers),
        "sizes": c.describe.sizes,
    }
    return Stage("evaluate", settings, tuple(each.name for each in before), run, shared=False)


def evaluate(
    system: Run,
    folder: Path,
    split: str,
    *,
    command: Sequence[str] = (),
    stage: str = "",
) -> None:
    """Measure every row of the table on a split; write results and report.

    Args:
      system: A run whose training stages are done.
      folder: Where ``results.json``, ``cost.json`` and ``report.html`` go.
      split: "validation" or "test".
      command: The command line, for the report.
      stage: The hash of the stage "evaluate", "" for none.
    """
    work = system.work
    c = work.config
    reads = first(lambda: note_reading(work.workdir, split, stage))
    with evaluation_cost() as spent:
        scored = score_rows(system)
        measured = _measured(system, scored, split) if is_first() else None
    pairs = measured[1]["pairs"] if measured is not None else {}
    why = _why(system, pairs, split)
    if measured is None:
        return
    data, sections = measured
    sections["pairs"] |= {"space": system.space.cosines, "texts": system.texts.counts()} | why
    served = served_row(scored, data.validation.labels, str(c.evaluate.serve))
    names = [each.name for each in system.stages()[:-1]]
    found: dict[str, Any] = {
        "format": FORMAT,
        "system": system.name,
        **sections,
        "served": {**served, "beside": [each for each in (sections["best_rule"],) if each]},
        "test_reads": reads,
        "stages": facts_by_stage(work.workdir, names),
        "curves": {n: curve for n, curve in read_curves(work.workdir).items() if n in names},
    }
    results = cast(Results, found)
    cost = cost_of(work.workdir, names, command)
    cost["evaluation"] = spent
    write_results(folder, results, cost)
    show(work, folder, results, cost)


def _measured(system: Run, scored: Sequence[Scored], split: str) -> tuple[PairData, dict[str, Any]]:
    """Return what the rows are judged by, and all parts of results.json that follow from that."""
    c, data = system.work.config, pair_data(system)
    settings = Settings(
        split=split, clusters=c.evaluate.by, goal=RECALL, level=float(c.evaluate.recall),
        cost=float(c.evaluate.value.false_positive), gain=float(c.evaluate.value.hit),
        seed=int(c.seed), samples=tuple(system.texts.samples()),
    )  # fmt: skip
    tracker = system.work.tracker.stage("evaluate")
    with tracker.progress(len(scored) + 1, "measure rows") as bar:
        sections = measure(data, scored, settings, bar.update)
        bar.update(1)
    return data, sections


def _why(system: Run, pairs: dict[str, Any], split: str) -> dict[str, Any]:
    """Return why the best model says what it says; {} where that is no ranker of this run.

    Every process asks it, since reading parameters is an act of all; the first knows of whom.
    """
    model: str | None = first(lambda: pairs["chosen"]["model"])
    if model not in system.rankers.names:
        return {}
    line = first(lambda: plain(pairs["calibration"][model]))
    asked = system.data.rows.validation if split == "validation" else system.data.rows.test
    return {"why": plain(explain(system, model, asked, line))}


def served_row(scored: Sequence[Scored], labels: np.ndarray, wanted: str) -> ServedRow:
    """Return the row that is served: the one wanted, or the best on validation.

    A rule that needs no training is served where it is best.

    Args:
      scored: The rows of the table.
      labels: int [M], of validation.
      wanted: A row's name, or `jmrec.evaluation.results.BEST`.

    Raises:
      UserError: There is no such row, or it can not be served.
    """
    from sklearn.metrics import average_precision_score

    values = {
        row.name: float(np.mean([average_precision_score(labels, each) for each in row.validation]))
        for row in scored
        if can_be_served(row.kind)
    }
    name, choice = choose_row(wanted, values, PAIRS)
    return {"row": name, "beside": [], "choice": choice}


def pair_data(system: Run) -> PairData:
    """Return the labelled rows of validation and test."""
    data = system.data
    dataset, ratings = data.run_data.dataset, data.ratings
    cuts, numbers = data.cuts["item"], system.rankers.pair_numbers
    said = np.array([len(text) for text in ratings.reviews])
    length = np.array([float(said[rows].sum()) for rows in cuts.rows])[cuts.of_row]

    def part(rows: np.ndarray) -> Pairs:
        return Pairs(
            labels=ratings.labels[rows].astype(int),
            items=ratings.items[rows],
            users=ratings.users[rows],
            times=ratings.times[rows],
            item_count=numbers.count["item"][rows],
            user_count=numbers.count["user"][rows],
            picture=system.space.picture_ok[ratings.items[rows]],
            length=length[rows] if said.any() else None,
        )

    rows = data.rows
    return PairData(
        name=dataset.name,
        label=ratings.label,
        validation=part(rows.validation),
        test=part(rows.test),
        label_means=ratings.label_means,
        has_time=dataset.has_time,
        facts={"items": len(dataset.items), "split how": system.work.config.protocol.split},
    )


def score_rows(system: Run) -> list[Scored]:
    """Return every row of the table with its scores of validation and test."""
    data, rankers, c = system.data, system.rankers, system.work.config
    rows = data.rows
    held, asked = rows.validation, rows.test
    found: list[Scored] = []
    names = rankers.names
    controlled = _controlled(system)
    controls = rankers.controls(controlled)
    total = 2 + len(names) + len(controls)
    with system.work.tracker.stage("evaluate").progress(total, "score rows") as bar:
        found += _oracle(system)
        found += _rules(system)
        bar.update(1)
        if c.evaluate.rivals:
            found += _rivals(system)
        bar.update(1)
        both = np.concatenate([held, asked])
        for name, control in [*((each, "") for each in names),
                              *((controlled, each) for each in controls)]:  # fmt: skip
            logits = rankers.logits(name, both, control)
            variant = c.rankers[name]
            more: dict[str, Any] = {"arm": variant.arm, "strategy": variant.strategy}
            if control:
                more = {"of": name}
            found.append(
                Scored(
                    f"{name}, {control}" if control else name, "control" if control else "ranker",
                    logits[:, : len(held)], logits[:, len(held) :], **more,
                )
            )  # fmt: skip
            bar.update(1)
    return found


def _controlled(system: Run) -> str:
    """Return the ranker of which controls are made: the first that reads the most."""
    names = system.rankers.names
    return max(names, key=lambda name: len(system.rankers.controls(name)))


def _oracle(system: Run) -> list[Scored]:
    """Return the row of who knows how the data was made; none where the data is real."""
    data, rows = system.data, system.data.rows
    shop = data.run_data.truth.parent
    if not (shop / TRUTH).is_file():
        return []
    oracle = ReviewOracle(shop)

    def chance(some: np.ndarray) -> np.ndarray:
        users = [data.ratings.user_ids[code] for code in data.ratings.users[some]]
        return oracle.probability(users, [data.items.ids[row] for row in data.ratings.items[some]])

    return [Scored.of_probabilities("oracle", "oracle", chance(rows.validation), chance(rows.test))]


def _rules(system: Run) -> list[Scored]:
    numbers, rows = system.rankers.pair_numbers, system.data.rows

    def counts(some: np.ndarray) -> KnownCounts:
        return KnownCounts(
            numbers.count["item"][some], numbers.total["item"][some],
            numbers.count["user"][some], numbers.total["user"][some],
        )  # fmt: skip

    prior = float((system.data.ratings.labels[rows.train] == 1).mean())
    return rules(counts(rows.validation), counts(rows.test), prior)


MOST = 200_000
"""Rows that plain learners are fitted on, at most, drawn by chance."""
DIRECTIONS = 16
"""What plain learners read of each part, as the rankers read it in a vector of about this width."""


def _directions(table: np.ndarray, ok: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return a part's main directions among the training rows, float32 [rows, 16]."""
    known = np.unique(train)
    known = known[ok[known]]
    width = min(DIRECTIONS, table.shape[1] - 1, len(known) - 1)
    if width < 1:
        return table[:, :1]
    from sklearn.decomposition import TruncatedSVD

    svd = TruncatedSVD(width, random_state=0).fit(table[known])
    return np.asarray(svd.transform(table), np.float32)


def _rivals(system: Run) -> list[Scored]:
    """Return plain learners on what the rankers read, and on words."""
    # Here, so that a wrong setting is answered before scikit-learn is loaded.
    from jmrec.evaluation.pairs.rivals import Features, rivals

    data, rows, labels = system.data, system.data.rows, system.data.ratings.labels
    parts = system.rankers.parts(_controlled(system))

    train = rows.train
    if len(train) > MOST:
        train = np.sort(np.random.default_rng(0).choice(train, MOST, replace=False))
    tables = [_directions(part.table, part.ok, part.row[train]) for part in parts]
    codes = [
        np.eye(len(names), dtype=np.float32)[data.items.category[name][data.ratings.items]]
        for name, names in data.items.category_names.items()
    ]

    def read(some: np.ndarray) -> np.ndarray:
        each = [system.rankers.pair_numbers.values[some], *(code[some] for code in codes)]
        # What a row lacks is no number: the learners have their own way with it.
        each += [
            np.where(part.ok[part.row[some]][:, None], table[part.row[some]], np.nan)
            for part, table in zip(parts, tables)
        ]
        return np.concatenate(each, 1)

    features = Features(
        read(train), labels[train].astype(int), read(rows.validation),
        labels[rows.validation].astype(int), read(rows.test),
    )  # fmt: skip
    reviews, words = data.ratings.reviews, item_words(data.items)
    texts: dict[str, tuple[list[str], np.ndarray]] = {"words": (words, data.ratings.items)}
    for by in GROUPS:
        cuts = data.cuts[by]
        said = [" ".join(reviews[row] for row in few) for few in cuts.rows]
        texts[by] = said, cuts.of_row
    known = [*(words[row] for row in data.train_items),
             *(reviews[row] for row in data.known.splits.train)]  # fmt: skip
    bag = bag_of_words(texts, replace(rows, train=train), labels, known)
    return [*rivals(features), *([bag] if bag is not None else [])]
