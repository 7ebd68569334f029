"""Rows, comparisons and results.json: everything that the report shows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from jmrec.data.schema import Dataset
from jmrec.evaluation.cold import choose_offset, cold_panel
from jmrec.evaluation.figures import (
    bias,
    categories,
    figures,
    intervals,
    per_prediction,
    slices,
    units,
)
from jmrec.evaluation.protocol import Predictions, Ranked, Ranker, rank
from jmrec.evaluation.results import (
    DEPTH,
    FORMAT,
    FROZEN,
    HR20,
    LEARNED,
    LIVE,
    MEASURES,
    MRR20,
    RANKING,
    RULE,
    SESSION,
    WEEKLY,
    Comparison,
    DatasetHead,
    ResultRow,
    Results,
    ServedRow,
    StageFacts,
    kinds_of,
    role_of,
)
from jmrec.metrics.bootstrap import Paired, paired

MIN_SEEDS = 3
"""A learned row is above or below another only with at least so many seeds."""
SMALL_CATALOGUE = 200
"""Of fewer items, 20 recommendations are more than a tenth."""


LIVE_ROWS = (
    " Rows named live count everything strictly before the moment of what is predicted, of all "
    "splits, with settings chosen on validation so; every other row, students too, is frozen: it "
    "knows the training sessions alone. So does a student that is blended with live rules."
)
WEEKLY_ROWS = (
    " Rows named weekly are counted anew every Monday at 00:00 UTC with all that was before, as by "
    "jmrec remember once a week: settings, weights, EASE and students stay as they were."
)


@dataclass
class Row:
    """One row of the results table.

    Attributes:
      name: Of the row.
      kind: One of `jmrec.evaluation.results.KINDS`.
      ranked: One a seed; the ranks under the first offset, which must be 0, are reported.
      settings: What was chosen.
      cold: One cold panel a seed, or none.
      counts: FROZEN, WEEKLY or LIVE, see `jmrec.evaluation.results`.
    """

    name: str
    kind: str
    ranked: Sequence[Ranked]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cold: Sequence[Mapping[str, Any]] = ()
    counts: str = FROZEN

    def ranks(self) -> np.ndarray:
        """Return int64 [seeds, P]."""
        return np.stack([one.ranks[0] for one in self.ranked])


def measure(
    name: str,
    kind: str,
    rankers: Sequence[Ranker],
    predictions: Predictions,
    validation: Predictions,
    *,
    n_items: int,
    exclude_seen: bool,
    cold: np.ndarray,
    settings: Mapping[str, Any] | None = None,
    allowed: np.ndarray | None = None,
    warm_loss: float | None = None,
    counts: str = FROZEN,
    batch: int = 512,
    item_chunk: int | None = None,
) -> Row:
    """Rank everything that a row of the table needs.

    Args:
      name: Of the row.
      kind: See :class:`Row`.
      rankers: One a seed, prepared.
      predictions: What is reported on.
      validation: Predictions of the validation split, which choose the cold offset.
      n_items: V.
      exclude_seen: Of the data set.
      cold: bool [V], items that training never saw.
      settings: For the table; None takes the first ranker's, where it has any.
      allowed: bool [V] availability.
      warm_loss: See :func:`jmrec.evaluation.cold.choose_offset`.
      counts: WEEKLY or LIVE of rankers that count what came after training, else FROZEN.
      batch: Predictions in a chunk.
      item_chunk: See :func:`jmrec.evaluation.protocol.rank`.

    Returns:
      The row, for :func:`summarise`.
    """
    row = Row(name, kind, [], settings or getattr(rankers[0], "settings", {}))
    row.counts = counts
    ranked, panels = [], []
    common: dict[str, Any] = {"n_items": n_items, "exclude_seen": exclude_seen, "allowed": allowed}
    for ranker in rankers:
        plain = rank(ranker, predictions, batch=batch, item_chunk=item_chunk, **common)
        ranked.append(plain)
        if cold.any():
            chosen = choose_offset(
                ranker, validation, cold=cold, warm_loss=warm_loss, **common
            ).offset
            panels.append(
                cold_panel(ranker, predictions, plain, cold=cold, offset=chosen, **common)
            )
    row.ranked, row.cold = ranked, panels
    return row


def compare(
    a: Row, b: Row, predictions: Predictions, figure: str = SESSION, name: str = MRR20
) -> Comparison:
    """Compare two rows on the same predictions, seeds averaged.

    Args:
      a: One row.
      b: The other.
      predictions: What both were asked; a subset of it is compared by ``Row``s of the subset.
      figure: "session", "prediction" or "last".
      name: The metric.

    Returns:
      See :func:`judged`.
    """
    both = [units(per_prediction(row.ranks(), name), predictions, figure) for row in (a, b)]
    return judged(named(a), named(b), figure, name, paired(both[0][0], both[1][0], both[0][1]))


def judged(
    a: Mapping[str, Any] | ResultRow,
    b: Mapping[str, Any] | ResultRow,
    figure: str,
    name: str,
    found: Paired,
) -> Comparison:
    """Return an entry of "comparisons".

    "above" and "below" mean that the paired 95 % interval excludes 0, and that every learned
    row has at least three seeds; otherwise the two are "not told apart".

    Args:
      a: "name", "kind" and "seeds" of one row.
      b: The same of the other.
      figure: Which figure was compared.
      name: Which metric.
      found: The paired difference.

    Returns:
      The entry; "reason" is there where seeds are too few.
    """
    entry: Comparison = {
        "a": a["name"],
        "b": b["name"],
        "figure": figure,
        "metric": name,
        "difference": found.difference,
        "interval": [found.low, found.high],
        "verdict": found.verdict,
    }
    few = [
        row["name"]
        for row in (a, b)
        if role_of(row["kind"]) in LEARNED and row["seeds"] < MIN_SEEDS
    ]
    if few and found.verdict != "not told apart":
        entry["verdict"] = "not told apart"
        entry["reason"] = f"fewer than {MIN_SEEDS} seeds: {', '.join(few)}"
    return entry


def named(row: Row) -> dict[str, Any]:
    """Return what :func:`judged` asks of a row."""
    return {"name": row.name, "kind": row.kind, "seeds": len(row.ranked)}


def mean_panel(panels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average cold panels over seeds; a number that any seed lacks is None.

    Args:
      panels: From :func:`jmrec.evaluation.cold.cold_panel`, one a seed.
    """
    if not panels:
        return {}
    table: dict[str, Any] = {}
    for name in panels[0]:
        numbers = [panel[name] for panel in panels]
        table[name] = None if None in numbers else float(np.mean(numbers))
    table["n"] = panels[0]["n"]
    return table


def best_rule(rows: Sequence[ResultRow], counts: str = FROZEN) -> str | None:
    """Return the rule with the highest primary figure shown.

    It is the best of the table that is shown, not the one that validation preferred: the harder
    rule to beat.

    Args:
      rows: "rows" of results.json.
      counts: What it knows of: the training sessions, as models do, or also what came later.
    """
    rules = [row for row in rows if role_of(row["kind"]) == RULE]
    rules = [row for row in rules if row.get("counts", FROZEN) == counts]
    if not rules:
        return None
    figure, metric = RANKING["figure"], RANKING["metric"]
    return max(rules, key=lambda row: row["figures"][figure][metric] or 0.0)["name"]


def summarise(
    rows: Sequence[Row],
    predictions: Predictions,
    dataset: Dataset,
    split: str,
    *,
    system: str = "",
    served: ServedRow | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    measures: Sequence[tuple[str, str]] = MEASURES,
    caption: str | None = None,
    warm_loss: float | None = None,
    test_reads: int = 0,
    stages: Mapping[str, StageFacts] | None = None,
    curves: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
) -> Results:
    """Build results.json.

    Args:
      rows: In the table's order, names distinct.
      predictions: What every row was asked.
      dataset: Its counts are shown at the top.
      split: "test" or "validation".
      system: The name of the system whose rows these are.
      served: Which row is served, and with which rows the summary compares it.
      pairs: Names (a, b) to compare. Besides, every learned row is compared with the best rule.
      measures: (figure, metric) of each comparison.
      caption: None writes one that states the protocol.
      warm_loss: By which the rows' cold offsets were chosen, for the caption.
      test_reads: How often test was read.
      stages: Stage -> its group and seed, of all in ``curves`` or in cost.json.
      curves: Stage -> {"step": [..], ..}.
      policy: From :func:`jmrec.evaluation.effect.correction_effect`.

    Returns:
      Plain Python values, None where there is no number.

    Raises:
      ValueError: If two rows have one name, a pair names no row, or a row is of an unknown kind.
    """
    by_name = {row.name: row for row in rows}
    if len(by_name) != len(rows):
        raise ValueError("rows of a table need distinct names")
    unknown = {name for pair in pairs for name in pair} - set(by_name)
    if unknown:
        raise ValueError(f"no row named {', '.join(sorted(unknown))}")
    parts = categories(dataset.items, predictions)
    table = [_table_row(row, predictions, dataset.train_count, parts) for row in rows]
    best, live = best_rule(table), best_rule(table, LIVE)
    wanted = list(pairs)
    learned = [row.name for row in rows if role_of(row.kind) in LEARNED]
    for rule in filter(None, (best, live)):
        wanted += [(name, rule) for name in learned if (name, rule) not in wanted]
    result: Results = {
        "format": FORMAT,
        "system": system,
        "primary": RANKING,
        "caption": caption
        or default_caption(dataset, split, predictions, warm_loss, [row.counts for row in rows]),
        "dataset": _dataset_head(dataset, split, predictions),
        "kinds": kinds_of([row.kind for row in rows]),
        "rows": table,
        "comparisons": [
            compare(by_name[a], by_name[b], predictions, figure, name)
            for a, b in wanted
            for figure, name in measures
        ],
        "best_rule": best,
        "served": served,
        "test_reads": test_reads,
        "stages": dict(stages or {}),
        "curves": dict(curves or {}),
    }
    if policy is not None:
        result["policy"] = dict(policy)
    if live is not None:
        result["best_live_rule"] = live
    return cast(Results, plain(result))


def _table_row(
    row: Row,
    predictions: Predictions,
    train_count: np.ndarray,
    parts: Mapping[str, Mapping[str, np.ndarray]],
) -> ResultRow:
    ranks = row.ranks()
    table: ResultRow = {
        "name": row.name,
        "kind": row.kind,
        "seeds": len(row.ranked),
        "settings": dict(row.settings),
        "figures": figures(ranks, predictions),
        "interval": intervals(ranks, predictions),
        "slices": slices(ranks, predictions, train_count, parts),
        "cold": mean_panel(row.cold),
        "bias": bias(row.ranked, train_count),
    }
    if row.counts != FROZEN:
        table["counts"] = row.counts
    return table


def _dataset_head(dataset: Dataset, split: str, predictions: Predictions) -> DatasetHead:
    train_count = dataset.train_count
    new = train_count[predictions.target] == 0
    last, early = predictions.is_last, predictions.place <= 20
    return {
        "name": dataset.name,
        "items": len(dataset.items),
        "sessions": {name: int((part.lengths > 1).sum()) for name, part in dataset.splits.items()},
        "exclude_seen": bool(dataset.exclude_seen),
        "split": split,
        "predictions": {
            "all": int(dataset.splits[split].predicted.sum()),
            "scored": len(predictions),
            "1-50": int((predictions.place <= 50).sum()),
            "1-20": int(early.sum()),
            "last": int(last.sum()),
            "cold": int((new & early).sum()),
        },
        # What is recommended is compared with these.
        "training count": {
            "mean of targets": _mean(train_count[predictions.target[early]]),
            "mean of the catalogue": _mean(train_count),
        },
    }


def _mean(numbers: np.ndarray) -> float | None:
    return float(numbers.mean()) if len(numbers) else None


def default_caption(
    dataset: Dataset,
    split: str,
    predictions: Predictions,
    warm_loss: float | None = None,
    counts: Collection[str] = (),
) -> str:
    """Return what states the protocol, in a sentence or two.

    Args:
      dataset: What was evaluated on.
      split: "test" or "validation".
      predictions: What was asked.
      warm_loss: By which cold offsets were chosen, see :func:`jmrec.evaluation.cold.choose_offset`.
      counts: What the rows count, see `Row`.
    """
    seen = "are no candidates" if dataset.exclude_seen else "stay candidates"
    offset = "is the best for all targets together"
    if warm_loss is not None:
        offset = f"is the best for cold targets that costs warm ones at most {warm_loss:.0%}"
    available = "" if predictions.available is None else " that were available at the time"
    small = ""
    if len(dataset.items) < SMALL_CATALOGUE:
        drawn = min(1.0, 20 / max(len(dataset.items), 1))
        small = (
            f" In a catalogue this small {HR20} says little (20 items drawn by lot hit "
            f"{drawn:.0%}): look at {MRR20}."
        )
    chosen = not dataset.splits[split].targets.all()
    first = "its first 20 predictions" if chosen else "positions 1-20"
    averaged = f"The session figure is the mean over sessions of the mean over {first}"
    if chosen and predictions.is_last.all() and (predictions.place == 1).all():
        averaged = (
            "Of a session the last item alone is predicted, so that all three ways of averaging "
            f"are one, and {HR20} is what papers call P@{DEPTH}"
        )
    units = "users" if (predictions.user >= 0).any() else "sessions"
    return (
        f"{dataset.name}, {split} split: every target ranked among all {len(dataset.items):,} "
        f"items{available}, ties against the model; items of the session so far {seen}. "
        f"{averaged}; intervals are "
        f"95 % bootstrap intervals over {units}; rules are fitted on the training sessions alone, "
        f"their settings chosen on validation; so is the offset of cold items, which {offset}."
        f"{small}{LIVE_ROWS if LIVE in counts else ''}{WEEKLY_ROWS if WEEKLY in counts else ''}"
    )


def plain(value: Any) -> Any:
    """Turn numpy numbers and arrays into what JSON holds; NaN and infinity become None.

    Args:
      value: Any nesting of dicts, sequences and numbers.

    Example:
      >>> plain({"a": np.float32(0.5), "b": np.array([1, 2]), "c": float("nan")})
      {'a': 0.5, 'b': [1, 2], 'c': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
