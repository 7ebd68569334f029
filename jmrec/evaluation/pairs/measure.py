"""From scores of pairs to the sections of results.json: the one door of this folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy.special import expit

from jmrec.errors import UserError
from jmrec.evaluation.pairs.figures import (
    Measured,
    calibration,
    difference,
    entry,
    measure_row,
    worth,
)
from jmrec.evaluation.pairs.rows import ITEM, NONE, RATE, RECALL, PairData, Pairs, Scored, Settings
from jmrec.evaluation.pairs.segments import (
    drift_table,
    help_pairs,
    help_table,
    measure_segments,
    periods,
    segment_table,
    segments,
)
from jmrec.evaluation.results import (
    CONTROL,
    MODEL,
    PAIR,
    PAIR_METRICS,
    PAIRS,
    PR_AUC,
    RECALLS,
    RIVAL,
    ROC_AUC,
    RULE,
    Comparison,
    kinds_of,
    role_of,
)
from jmrec.evaluation.summary import plain
from jmrec.metrics.bootstrap import Resamples, ends
from jmrec.metrics.classification import curve, mass_bins

COMPARED = (PR_AUC, ROC_AUC, *RECALLS)
"""Metrics of each paired comparison."""
GRID = tuple(place / 50 for place in range(1, 51))
"""Recalls at which the curves are drawn."""


@dataclass(frozen=True)
class Chosen:
    """The rows that the page speaks of; all but the rule are chosen on validation.

    Attributes:
      rule: The rule that is best in what is reported, the harder one to beat.
      rival: The best rival.
      arm: The best model among those without a strategy.
      strategy: The best model among those that read the same and have a strategy.
      model: The best model of all.
    """

    rule: Measured | None
    rival: Measured | None
    arm: Measured | None
    strategy: Measured | None
    model: Measured | None


def measure(
    data: PairData,
    scored: Sequence[Scored],
    settings: Settings,
    tell: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Return every section of results.json that the scores of pairs decide.

    Each row and seed gets its own line over the logits and its own threshold, both from validation.
    Then all are measured on the reported split and on the same resamples of whole items or users,
    so that the difference of two rows is paired; figures, resamples and differences are averaged
    over seeds. "above" needs three seeds of a model, and means the larger number, whichever is
    better: see `jmrec.evaluation.results.lower_is_better`.

    Args:
      data: The labelled pairs of validation and test.
      scored: The rows of the table, names distinct. Models are of kind "ranker" and have ``arm``
        and ``strategy``; the arms "both", "text" and "picture" of one strategy give the table of
        what helps when. Controls are of kind "control" and name in ``of`` what they are made from.
      settings: How to measure.
      tell: Called after each row.

    Returns:
      Plain values: "primary", "caption", "dataset", "kinds", "rows", "comparisons", "best_rule",
      and "pairs" with "chosen" (role -> row name, None where there is none: "rule", "rival", "arm",
      "strategy", "model"), "calibration" (row -> before, after, and each seed's line and
      threshold), "false_positives", "segments", "help", "reliability", "curve", "costs", "drift",
      "samples". What cannot be said is an empty list. A results.json is these, and "format",
      "system", "served", "test_reads", "stages" and "curves" of the caller.

    Raises:
      UserError: A split holds one class only.
      ValueError: Two rows have one name, a control names no row, or a row's scores do not fit.
    """
    _check(data, scored, settings)
    reported = data.validation if settings.split == "validation" else data.test
    resamples = Resamples.of(_clusters(reported, settings), settings.draws, settings.seed)
    rows = []
    for each in scored:
        rows.append(measure_row(each, data.validation, reported, resamples, settings))
        tell()
    chosen = choose(rows)
    shown = _shown(rows, chosen)
    best = chosen.rule.name if chosen.rule else None
    sections = {
        "primary": PAIRS,
        "caption": caption(data, settings, reported),
        "dataset": _head(data, settings),
        "kinds": kinds_of([row.scored.kind for row in rows]),
        "rows": [_row(row) for row in rows],
        "comparisons": _comparisons(rows, chosen),
        "best_rule": best,
        "pairs": _pairs(rows, shown, chosen, data, reported, resamples, settings),
    }
    return cast(dict[str, Any], plain(sections))


def choose(rows: Sequence[Measured]) -> Chosen:
    """Return the rows that the page speaks of.

    Args:
      rows: All rows.
    """

    def best(some: Sequence[Measured]) -> Measured | None:
        return max(some, key=lambda row: np.nan_to_num(row.preferred, nan=-1.0), default=None)

    by_role: dict[str, list[Measured]] = {}
    for row in rows:
        by_role.setdefault(role_of(row.scored.kind), []).append(row)
    models = by_role.get(MODEL, [])
    arm = best([row for row in models if row.scored.strategy in ("", NONE)])
    same = [
        row
        for row in models
        if arm and row.scored.arm == arm.scored.arm and row.scored.strategy not in ("", NONE)
    ]
    rules = by_role.get(RULE, [])
    return Chosen(
        rule=max(rules, key=lambda row: row.values[PR_AUC], default=None),
        rival=best(by_role.get(RIVAL, [])),
        arm=arm,
        strategy=best(same),
        model=best(models),
    )


def caption(data: PairData, settings: Settings, reported: Pairs) -> str:
    """Return what states the protocol, in a few sentences.

    Args:
      data: What was evaluated on.
      settings: How.
      reported: The split that is reported.
    """
    share = reported.labels.mean()
    goals = {
        RECALL: "that finds {:.0%} of the positives",
        RATE: "that calls {:.0%} of the negatives wrongly",
    }
    lines = "Scores are calibrated by a line over their logits. " if settings.calibrate else ""
    return (
        f"{data.name}, {settings.split} split: {len(reported):,} rows, of which {share:.1%} are "
        f"positive ({data.label}; {data.label_means}). A row knows only what was known before its "
        f"own time. 95 % intervals over {settings.draws:,} resamples of whole "
        f"{settings.clusters}s. {lines}The threshold is the one "
        f"{goals[settings.goal].format(settings.level)} on validation, for each seed by itself."
    )


def _check(data: PairData, scored: Sequence[Scored], settings: Settings) -> None:
    names = [row.name for row in scored]
    if len(set(names)) < len(names):
        raise ValueError("rows of a table need distinct names")
    parts = {"validation": data.validation}
    if settings.split != "validation":
        parts["test"] = data.test
    for row in scored:
        if row.of and row.of not in names:
            raise ValueError(f"{row.name} is a control of {row.of}, which is no row")
        for name, part in parts.items():
            if getattr(row, name).shape[1] != len(part):
                raise ValueError(f"{row.name} scores not every row of {name}")
    for name, part in parts.items():
        for label, word in ((1, "positive"), (0, "negative")):
            if not (part.labels == label).any():
                raise UserError(
                    f"{data.name}: no row of the {name} split is {word} ({data.label}), so nothing "
                    "can be told apart; change the label in dataset.toml, or the split."
                )


def _clusters(pairs: Pairs, settings: Settings) -> np.ndarray:
    """Return what is drawn together; a row without a user is alone."""
    if settings.clusters == ITEM:
        return np.asarray(pairs.items)
    return np.where(pairs.users >= 0, pairs.users, -1 - np.arange(len(pairs)))


def _shown(rows: Sequence[Measured], chosen: Chosen) -> list[Measured]:
    """Return the rows that are looked at closely: those chosen, and the arms."""
    first = [chosen.model, chosen.rule, chosen.rival, chosen.arm, chosen.strategy]
    arms = [row for _, *pair in help_pairs(rows) for row in pair]
    return list({row.name: row for row in [*first, *arms] if row is not None}.values())


def _row(row: Measured) -> dict[str, Any]:
    settings = dict(row.scored.settings)
    named = {"arm": row.scored.arm, "strategy": row.scored.strategy, "of": row.scored.of}
    return {
        "name": row.name,
        "kind": row.scored.kind,
        "seeds": row.scored.seeds,
        "settings": {name: value for name, value in named.items() if value} | settings,
        "figures": {PAIR: row.values},
        "interval": {PAIR: {name: row.interval(name) for name in PAIR_METRICS}},
    }


def _comparisons(rows: Sequence[Measured], chosen: Chosen) -> list[Comparison]:
    pairs = {(a.name, b.name): (a, b) for a, b in _wanted(rows, chosen) if a.name != b.name}
    return [
        entry(a, b, PAIR, metric, a.against(b, metric))
        for a, b in pairs.values()
        for metric in COMPARED
    ]


def _wanted(rows: Sequence[Measured], chosen: Chosen) -> Iterator[tuple[Measured, Measured]]:
    """Yield who is compared with whom."""
    by_name = {row.name: row for row in rows}
    learned = [row for row in rows if role_of(row.scored.kind) in (MODEL, RIVAL)]
    if chosen.rule:
        yield from ((row, chosen.rule) for row in learned)
    if chosen.model:
        others = [row for row in rows if role_of(row.scored.kind) in (RULE, RIVAL)]
        yield from ((chosen.model, row) for row in others)
    if chosen.arm:
        for row in learned:
            if role_of(row.scored.kind) != MODEL:
                continue
            if row.scored.strategy in ("", NONE):
                yield chosen.arm, row
            elif row.scored.arm == chosen.arm.scored.arm:
                yield row, chosen.arm
    # What reads the same in another way, such as what another writer says of the reviews.
    first: dict[tuple[str, str], Measured] = {}
    for row in (row for row in learned if role_of(row.scored.kind) == MODEL):
        alike = first.setdefault((row.scored.arm, row.scored.strategy), row)
        if chosen.arm not in (alike, row):
            yield row, alike
    for row in rows:
        if role_of(row.scored.kind) == CONTROL and row.scored.of:
            yield by_name[row.scored.of], row


def _pairs(
    rows: Sequence[Measured],
    shown: Sequence[Measured],
    chosen: Chosen,
    data: PairData,
    reported: Pairs,
    resamples: Resamples,
    settings: Settings,
) -> dict[str, Any]:
    labels = reported.labels
    parts = segments(reported)
    found = measure_segments(shown, parts, labels, resamples)
    time = periods(reported) if data.has_time else []
    two = [row for row in (chosen.model, chosen.rule) if row is not None]
    return {
        "chosen": {
            role: row.name if row is not None else None for role, row in vars(chosen).items()
        },
        "share": float(labels.mean()),
        "calibration": {row.name: calibration(row, reported, settings.bins) for row in rows},
        "false_positives": _false_positives(rows, chosen),
        "segments": segment_table(shown, parts, labels, found),
        "help": help_table(rows, parts, labels, found),
        "reliability": [_reliability(row, labels, resamples, settings) for row in shown],
        "curve": [_curve(row, labels) for row in shown],
        "costs": _costs(shown, chosen, labels, resamples, settings),
        "drift": drift_table(two, time, labels, measure_segments(two, time, labels, resamples)),
        "samples": list(settings.samples),
    }


def _false_positives(rows: Sequence[Measured], chosen: Chosen) -> list[dict[str, Any]]:
    """Return each model's false positives over the best rule's, where both find as much."""
    rule = chosen.rule
    if rule is None:
        return []
    table = []
    for row in rows:
        if role_of(row.scored.kind) not in (MODEL, RIVAL):
            continue
        for metric, recall in RECALLS.items():
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.float64(row.values[metric]) / rule.values[metric]
                draws = row.draws[metric] / rule.draws[metric]
            pair = ends(np.where(np.isfinite(draws), draws, np.nan)).tolist()
            ratio = {"recall": recall, "share": float(share), "interval": pair}
            table.append({"a": row.name, "b": rule.name, **ratio})
    return table


def _reliability(
    row: Measured, labels: np.ndarray, resamples: Resamples, settings: Settings
) -> dict[str, Any]:
    """Return the bins of the reliability diagram, seeds together, before and after calibration."""

    def bins(logits: np.ndarray, sure: bool) -> list[dict[str, Any]]:
        p = expit(logits).ravel()
        which = mass_bins(p, settings.bins)
        rows = np.tile(np.arange(len(labels)), len(logits))
        table = []
        for place in range(int(which.max()) + 1):
            at = rows[which == place]

            def share(weights: np.ndarray, y: np.ndarray = labels[at]) -> np.ndarray:
                total = weights.sum(0)
                return np.where(total > 0, y @ weights / np.maximum(total, 1e-9), np.nan)

            line: dict[str, Any] = {
                "p": float(p[which == place].mean()),
                "share": float(labels[at].mean()),
            }
            if sure:
                line["interval"] = ends(resamples.values(share, at)).tolist()
            table.append({**line, "n": len(at)})
        return table

    return {"row": row.name, "bins": bins(row.logits, True), "before": bins(row.raw, False)}


def _curve(row: Measured, labels: np.ndarray) -> dict[str, Any]:
    """Return precision and false-positive rate over recall, seeds averaged."""
    every = [curve(labels, each) for each in row.logits]
    return {
        "row": row.name,
        "recall": list(GRID),
        "precision": [
            float(np.mean([each.precision_at_recall(recall) for each in every])) for recall in GRID
        ],
        "fpr": [float(np.mean([each.fpr_at_recall(recall) for each in every])) for recall in GRID],
    }


def _costs(
    shown: Sequence[Measured],
    chosen: Chosen,
    labels: np.ndarray,
    resamples: Resamples,
    settings: Settings,
) -> dict[str, Any]:
    """Return what acting on each row is worth, and how much more than acting on the best rule."""
    table = []
    for pays in (False, True):
        known = {row.name: worth(row, labels, resamples, settings, pays) for row in shown}
        for row in shown:
            values, draws = known[row.name]
            at = "pays" if pays else "chosen"
            line: dict[str, Any] = {"row": row.name, "at": at, **values}
            line["interval"] = ends(draws)
            if chosen.rule and row.name != chosen.rule.name:
                base, base_draws = known[chosen.rule.name]
                apart = difference(values["value"], base["value"], draws, base_draws)
                said = entry(row, chosen.rule, PAIR, "value", apart)
                kept = ("difference", "interval", "verdict", "reason")
                line["over rule"] = {name: each for name, each in said.items() if name in kept}
            table.append(line)
    return {"cost": settings.cost, "gain": settings.gain, "rows": table}


def _head(data: PairData, settings: Settings) -> dict[str, Any]:
    parts = {"validation": data.validation, "test": data.test}
    users = np.concatenate([part.users for part in parts.values()])
    return {
        "name": data.name,
        "split": settings.split,
        "label": data.label,
        "label means": data.label_means,
        "users": len(np.unique(users[users >= 0])),
        "rows": {name: len(part) for name, part in parts.items()},
        "positives": {name: int(part.labels.sum()) for name, part in parts.items()},
        **data.facts,
    }
