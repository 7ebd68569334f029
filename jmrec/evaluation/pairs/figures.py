"""Every figure of one row: calibrated on validation, then measured on the same resamples as all."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from jmrec.evaluation.pairs.rows import RECALL, Pairs, Scored, Settings
from jmrec.evaluation.results import (
    ECE,
    PAIR_METRICS,
    PR_AUC,
    RECALLS,
    ROC_AUC,
    Comparison,
)
from jmrec.evaluation.summary import judged
from jmrec.metrics.bootstrap import Paired, Resamples, ends
from jmrec.metrics.calibration import Platt, fit_platt
from jmrec.metrics.classification import (
    Rates,
    average_precision,
    curve,
    ece,
    log_loss,
    rates,
    roc_auc,
    threshold_for_fpr,
    threshold_for_recall,
)

AREAS = (PR_AUC, ROC_AUC)
"""What is measured in segments, in this order."""
FEWEST = 5
"""A segment has figures from so many rows of each class on."""


@dataclass(frozen=True)
class Measured:
    """A row with its figures.

    Attributes:
      scored: The row.
      lines: The line over the logits, one a seed.
      raw: float [S, N], logits of the reported split as they were given.
      logits: float [S, N], the same under their lines.
      thresholds: float [S], chosen on validation, of calibrated logits.
      preferred: PR-AUC on validation, by which rows are chosen; seeds averaged.
      values: Metric -> its value, seeds averaged; NaN where there is none.
      draws: Metric -> float [D], its value in every resample, seeds averaged.
    """

    scored: Scored
    lines: list[Platt]
    raw: np.ndarray
    logits: np.ndarray
    thresholds: np.ndarray
    preferred: float
    values: dict[str, float]
    draws: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """Of the row."""
        return self.scored.name

    def interval(self, metric: str) -> list[float]:
        """Return the 95 % interval of a metric.

        The calibration error of a resample is too high by about as much as that of the sample, for
        chance adds to it twice. Its interval is moved down by that.
        """
        low, high = ends(self.draws[metric])
        if metric == ECE:
            excess = float(np.mean(self.draws[metric])) - self.values[metric]
            return [max(0.0, float(low) - excess), float(high) - excess]
        return [float(low), float(high)]

    def against(self, other: "Measured", metric: str) -> Paired:
        """Return the paired difference of a metric, this row less the other."""
        return difference(
            self.values[metric], other.values[metric], self.draws[metric], other.draws[metric]
        )


def difference(a: float, b: float, a_draws: np.ndarray, b_draws: np.ndarray) -> Paired:
    """Return the difference of two figures with the interval of their paired resamples."""
    low, high = ends(a_draws - b_draws)
    return Paired(float(a - b), float(low), float(high))


def entry(a: Measured, b: Measured, figure: str, metric: str, found: Paired) -> Comparison:
    """Return an entry of "comparisons"; "above" means the larger number, whichever is better."""
    named = [
        {"name": each.name, "kind": each.scored.kind, "seeds": each.scored.seeds} for each in (a, b)
    ]
    return judged(named[0], named[1], figure, metric, found)


def measure_row(
    scored: Scored,
    validation: Pairs,
    reported: Pairs,
    resamples: Resamples,
    settings: Settings,
) -> Measured:
    """Calibrate a row, choose its threshold, and measure it.

    Args:
      scored: The row.
      validation: Rows by which is chosen, with both classes.
      reported: Rows that are reported.
      resamples: Of the reported rows.
      settings: How.

    Returns:
      The row with its figures.
    """
    lines = [
        fit_platt(validation.labels, each) if settings.calibrate else Platt(1.0, 0.0)
        for each in scored.validation
    ]
    raw = scored.validation if settings.split == "validation" else scored.test
    logits = np.stack([line.logits(each) for line, each in zip(lines, raw)])
    choose = threshold_for_recall if settings.goal == RECALL else threshold_for_fpr
    thresholds = np.array(
        [
            choose(validation.labels, line.logits(each), settings.level)
            for line, each in zip(lines, scored.validation)
        ]
    )
    preferred = np.mean([average_precision(validation.labels, e) for e in scored.validation])
    one = np.ones((len(reported), 1))
    values, draws = [], []
    for each, threshold in zip(logits, thresholds):

        def statistic(
            weights: np.ndarray, x: np.ndarray = each, t: float = threshold
        ) -> np.ndarray:
            return _figures(reported.labels, x, t, weights, settings.bins)

        values.append(statistic(one)[:, 0])
        draws.append(resamples.values(statistic))
    mean, spread = np.mean(values, axis=0), np.mean(draws, axis=0)
    return Measured(
        scored, lines, raw, logits, thresholds, float(preferred),
        dict(zip(PAIR_METRICS, mean.tolist())), dict(zip(PAIR_METRICS, spread)),
    )  # fmt: skip


def _figures(
    labels: np.ndarray, logits: np.ndarray, threshold: float, weights: np.ndarray, bins: int
) -> np.ndarray:
    """Return all of `PAIR_METRICS` for each column of weights, float64 [metrics, D]."""
    found = curve(labels, logits, weights)
    half, chosen = (rates(labels, logits, each, weights) for each in (0.0, threshold))
    return np.stack(
        [
            found.average_precision(),
            found.roc_auc(),
            log_loss(labels, logits, weights),
            ece(labels, expit(logits), weights, bins),
            *(found.fpr_at_recall(each) for each in RECALLS.values()),
            *_of(half),
            *_of(chosen),
        ]
    )


def _of(found: Rates) -> tuple[np.ndarray, ...]:
    return found.precision, found.recall, found.f1, found.fpr


def areas(
    row: Measured, labels: np.ndarray, resamples: Resamples, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return PR-AUC and ROC-AUC of a row among some pairs, seeds averaged.

    Args:
      row: The row.
      labels: int [N], of all reported pairs.
      resamples: Of all reported pairs.
      rows: int [n], the pairs to look at.

    Returns:
      (values [2], draws [2, D]) in the order of `AREAS`; None with fewer than `FEWEST` of a class.
    """
    some = labels[rows]
    if min(some.sum(), len(some) - some.sum()) < FEWEST:
        return None
    values, draws = [], []
    for each in row.logits:

        def statistic(weights: np.ndarray, x: np.ndarray = each[rows]) -> np.ndarray:
            found = curve(some, x, weights)
            return np.stack([found.average_precision(), found.roc_auc()])

        values.append(statistic(np.ones((len(rows), 1)))[:, 0])
        draws.append(resamples.values(statistic, rows))
    return np.mean(values, axis=0), np.mean(draws, axis=0)


def calibration(row: Measured, reported: Pairs, bins: int) -> dict[str, object]:
    """Return what the line did: errors and areas before and after, seeds averaged."""
    labels = reported.labels
    return {
        "before": {
            ECE: float(np.mean([ece(labels, expit(each), bins=bins) for each in row.raw])),
            "log loss": float(np.mean([log_loss(labels, each) for each in row.raw])),
            ROC_AUC: float(np.mean([roc_auc(labels, each) for each in row.raw])),
        },
        "after": {name: row.values[name] for name in (ECE, "log loss", ROC_AUC)},
        "scale": [line.scale for line in row.lines],
        "shift": [line.shift for line in row.lines],
        "threshold": expit(row.thresholds).tolist(),
    }


def worth(
    row: Measured, labels: np.ndarray, resamples: Resamples, settings: Settings, pays: bool
) -> tuple[dict[str, float], np.ndarray]:
    """Return what acting on a row is worth, per 1,000 decisions, seeds averaged.

    Args:
      row: The row.
      labels: int [N].
      resamples: Of the pairs.
      settings: Cost and gain.
      pays: At the threshold above which a calibrated probability pays, cost / (cost + gain), rather
        than at the one that validation chose.

    Returns:
      ("hits", "false", "missed", "value", "threshold"; the value in every resample, [D]).
    """
    line = float(logit(settings.cost / (settings.cost + settings.gain)))
    thresholds = np.full(len(row.logits), line) if pays else row.thresholds
    found, draws = [], []
    for each, threshold in zip(row.logits, thresholds):

        def statistic(
            weights: np.ndarray, x: np.ndarray = each, t: float = threshold
        ) -> np.ndarray:
            at = rates(labels, x, t, weights)
            value = settings.gain * at.hits - settings.cost * at.false
            return 1000.0 * np.stack([at.hits, at.false, at.missed, value])

        found.append(statistic(np.ones((len(labels), 1)))[:, 0])
        draws.append(resamples.values(statistic)[3])
    names = ("hits", "false", "missed", "value")
    values = dict(zip(names, np.mean(found, axis=0).tolist()))
    return values | {"threshold": float(expit(thresholds).mean())}, np.mean(draws, axis=0)
