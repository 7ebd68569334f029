"""How well scores tell two classes apart, by weighted rows: areas, calibration, rates, thresholds.

Labels are 1 for the positive class and 0 for the other, a row is called positive where its score
reaches the threshold, and rows of one score stand or fall together. Weights are float [N], or
[N, D] for D resamples at once (a column each, see `jmrec.metrics.bootstrap.Resamples`): scores are
sorted once, and each metric then has D values. What cannot be computed, as where a column holds
one class only, is NaN. Numpy and scipy.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

Weights = np.ndarray | None
"""float [N] or [N, D]; None weighs every row 1."""
BINS = 15
EXACT = 2**24
"""Up to here float32 holds every whole number, so that counts are added without an error."""
CLOSE = 1e-6
"""By how much of all positives a recall may be missed: sums of weights are rounded."""


@dataclass(frozen=True)
class Curve:
    """What is found and what is called wrongly as the threshold falls past one score after another.

    Attributes:
      scores: float [T], the distinct scores, highest first.
      hits: float [T, D], weight of positives whose score is at least that.
      flagged: float [T, D], weight of all rows whose score is at least that.
    """

    scores: np.ndarray
    hits: np.ndarray
    flagged: np.ndarray

    @property
    def positives(self) -> np.ndarray:
        """The weight of all positives, [D]."""
        return self.hits[-1]

    @property
    def negatives(self) -> np.ndarray:
        """The weight of all negatives, [D]."""
        return self.flagged[-1] - self.hits[-1]

    def roc_auc(self) -> np.ndarray:
        """Return the area under the ROC curve, [D]: see `roc_auc`."""
        false = self.flagged - self.hits
        # Half of the positives of one score stand above its negatives. Pairs are counted in
        # float64: there are up to N * N of them.
        below = _steps(false).astype(np.float64)
        pairs = np.einsum("td,td->d", below, self.hits + _before(self.hits)) / 2
        return _ratio(pairs, self.positives * self.negatives.astype(np.float64))

    def average_precision(self) -> np.ndarray:
        """Return the average precision, [D]: see `average_precision`."""
        gained = np.einsum("td,td->d", _steps(self.hits), _ratio(self.hits, self.flagged, 0.0))
        return _ratio(gained, self.positives)

    def place_of_recall(self, recall: float) -> np.ndarray:
        """Return the first place at which a recall is reached, int [D]."""
        missing = self.hits < (recall - CLOSE) * self.positives
        return np.minimum(missing.sum(0), len(self.scores) - 1)

    def fpr_at_recall(self, recall: float) -> np.ndarray:
        """Return the false-positive rate at a recall, [D]: see `fpr_at_recall`."""
        _, false = self._at_recall(recall)
        return np.where(self.positives > 0, _ratio(false, self.negatives), np.nan)

    def precision_at_recall(self, recall: float) -> np.ndarray:
        """Return the precision at a recall, rows of one score in random order, [D]."""
        hits, false = self._at_recall(recall)
        return np.where(self.positives > 0, _ratio(hits, hits + false), np.nan)

    def _at_recall(self, recall: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (hits, false positives) where a recall is reached in the middle of one score."""
        place = self.place_of_recall(recall)[None]
        false = self.flagged - self.hits
        after = [np.take_along_axis(each, place, 0)[0] for each in (self.hits, false)]
        before = [
            np.where(place[0] > 0, np.take_along_axis(each, np.maximum(place - 1, 0), 0)[0], 0.0)
            for each in (self.hits, false)
        ]
        part = _ratio(recall * self.positives - before[0], after[0] - before[0], 1.0)
        part = np.clip(part, 0.0, 1.0)
        hits, wrong = (low + part * (high - low) for low, high in zip(before, after))
        return hits, wrong


def curve(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> Curve:
    """Sort the scores once and add the weights up, for several metrics of one ranking.

    Args:
      labels: int or bool [N], 1 or 0.
      scores: float [N], finite; higher is more positive.
      weights: See `Weights`.

    Returns:
      The curve, a column for each column of weights.

    Raises:
      ValueError: Nothing is scored, or a score is no number.

    Example:
      >>> found = curve(np.array([1, 0, 1]), np.array([3.0, 2.0, 1.0]))
      >>> found.hits[:, 0], found.flagged[:, 0]
      (array([1., 1., 2.]), array([1., 2., 3.]))
    """
    scores = np.asarray(scores)
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError("scores must be finite numbers, and at least one")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    rows = _columns(weights, len(scores))[order]
    positive = np.asarray(labels)[order].astype(bool)
    hits = np.cumsum(np.where(positive[:, None], rows, rows.dtype.type(0)), axis=0)
    flagged = np.cumsum(rows, axis=0)
    if len(ends) < len(ordered):
        hits, flagged = hits[ends], flagged[ends]
    return Curve(ordered[ends], hits, flagged)


def roc_auc(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> np.ndarray:
    """Return the chance that a positive scores above a negative, a tie counting half.

    Compatible with resamples: a column of weights gives a value.

    Args:
      labels: int or bool [N].
      scores: float [N].
      weights: See `Weights`.

    Returns:
      float64 [D], or a number where the weights have no columns; NaN without both classes.

    References:
      Fawcett, *An introduction to ROC analysis* (https://doi.org/10.1016/j.patrec.2005.10.010).

    Example:
      >>> float(roc_auc(np.array([1, 0, 1, 0]), np.array([0.9, 0.9, 0.8, 0.1])))
      0.625
    """
    return _as_given(curve(labels, scores, weights).roc_auc(), weights)


def average_precision(
    labels: np.ndarray, scores: np.ndarray, weights: Weights = None
) -> np.ndarray:
    """Return the precision averaged over the recall that each score adds: the PR-AUC.

    There is no interpolation between points, which would be too kind.

    Args:
      labels: int or bool [N].
      scores: float [N].
      weights: See `Weights`.

    Returns:
      float64 [D], or a number where the weights have no columns; NaN without a positive.

    References:
      Davis and Goadrich, *The relationship between Precision-Recall and ROC curves*
      (https://doi.org/10.1145/1143844.1143874).

    Example:
      >>> round(float(average_precision(np.array([1, 0, 1]), np.array([3.0, 2.0, 1.0]))), 4)
      0.8333
    """
    return _as_given(curve(labels, scores, weights).average_precision(), weights)


def fpr_at_recall(
    labels: np.ndarray, scores: np.ndarray, recall: float, weights: Weights = None
) -> np.ndarray:
    """Return which share of the negatives is called positive where a recall is first reached.

    Rows of one score are taken in random order, on average: who has few different scores, as a
    mean of few labels has, is not made to look worse than by drawing lots.

    Args:
      labels: int or bool [N].
      scores: float [N].
      recall: Above 0, at most 1.
      weights: See `Weights`.

    Returns:
      float64 [D], or a number where the weights have no columns.

    Example:
      >>> float(fpr_at_recall(np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0]), 1.0))
      0.5
    """
    return _as_given(curve(labels, scores, weights).fpr_at_recall(recall), weights)


def log_loss(labels: np.ndarray, logits: np.ndarray, weights: Weights = None) -> np.ndarray:
    """Return the mean negative log-likelihood in nats, from logits: no probability is clipped.

    Args:
      labels: int or bool [N].
      logits: float [N], log of p / (1 - p).
      weights: See `Weights`.

    Returns:
      float64 [D], or a number where the weights have no columns.

    Example:
      >>> round(float(log_loss(np.array([1, 0]), np.array([0.0, 0.0]))), 4)
      0.6931
    """
    logits = np.asarray(logits, np.float64)
    loss = np.logaddexp(0.0, np.where(np.asarray(labels).astype(bool), -logits, logits))
    rows = _columns(weights, len(loss))
    return _as_given(_ratio(loss @ rows, rows.sum(0, dtype=np.float64)), weights)


def mass_bins(probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Put probabilities into bins of equal numbers of rows; equal ones share a bin.

    Args:
      probabilities: float [N].
      bins: At most so many.

    Returns:
      int64 [N], a bin's number, ascending with the probability; none is empty.

    Example:
      >>> mass_bins(np.array([0.1, 0.2, 0.3, 0.4, 0.4, 0.4]), 3)
      array([0, 0, 1, 2, 2, 2])
    """
    values = np.asarray(probabilities)
    inner = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(values, inner, method="higher")) if len(values) else values
    return np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]


def ece(
    labels: np.ndarray, probabilities: np.ndarray, weights: Weights = None, bins: int = BINS
) -> np.ndarray:
    """Return the expected calibration error, over bins of equal mass.

    The mean distance between a bin's mean probability and its share of positives. It is above 0
    by chance even for the true probabilities, and a resample's is too high by as much again.

    Args:
      labels: int or bool [N].
      probabilities: float [N].
      weights: See `Weights`; the bins are of the rows as they are.
      bins: How many.

    Returns:
      float64 [D], or a number where the weights have no columns.

    References:
      Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian Binning*
      (https://doi.org/10.1609/aaai.v29i1.9602); bins of equal mass: Nixon et al., *Measuring
      Calibration in Deep Learning* (https://arxiv.org/abs/1904.01685).

    Example:
      >>> round(float(ece(np.array([0, 1, 1, 1]), np.array([0.5, 0.5, 0.9, 0.9]), bins=2)), 3)
      0.05
    """
    which = mass_bins(probabilities, bins)
    rows = _columns(weights, len(which))
    short = np.asarray(labels, np.float64) - np.asarray(probabilities, np.float64)
    apart = np.abs(_sums(short, which, int(which.max(initial=0)) + 1, rows)).sum(0)
    return _as_given(_ratio(apart, rows.sum(0, dtype=np.float64)), weights)


@dataclass(frozen=True)
class Rates:
    """What a threshold does; each is float64 [D], or a number without columns of weights.

    Attributes:
      precision: Share of true positives among what is called positive; NaN where nothing is.
      recall: Share of the positives that is found.
      f1: Harmonic mean of the two, 0 where nothing is found.
      fpr: Share of the negatives that is called positive.
      hits: True positives, as a share of all rows.
      false: False positives, as a share of all rows.
      missed: False negatives, as a share of all rows.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    fpr: np.ndarray
    hits: np.ndarray
    false: np.ndarray
    missed: np.ndarray


def rates(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: Weights = None
) -> Rates:
    """Return the rates of the confusion matrix at a threshold.

    Args:
      labels: int or bool [N].
      scores: float [N].
      threshold: From this score on a row is called positive.
      weights: See `Weights`.

    Returns:
      The rates.

    Example:
      >>> found = rates(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.2, 0.1]), 0.5)
      >>> float(found.precision), float(found.recall), float(found.f1), float(found.fpr)
      (0.5, 0.5, 0.5, 0.5)
    """
    called, positive = np.asarray(scores) >= threshold, np.asarray(labels).astype(bool)
    rows = _columns(weights, len(called))
    cell = 2 * ~called + ~positive
    hits, false, missed, right = _sums(np.ones(len(cell)), cell, 4, rows)
    every = hits + false + missed + right
    found = (
        _ratio(hits, hits + false),
        _ratio(hits, hits + missed),
        np.where(hits + missed > 0, _ratio(2 * hits, 2 * hits + false + missed), np.nan),
        _ratio(false, false + right),
        *(_ratio(each, every) for each in (hits, false, missed)),
    )
    return Rates(*(_as_given(each, weights) for each in found))


def threshold_for_recall(labels: np.ndarray, scores: np.ndarray, recall: float) -> float:
    """Return the highest threshold that finds a share of the positives.

    It lies halfway to the next lower score, so that rounding where it is used moves no row.

    Args:
      labels: int or bool [N], with a positive.
      scores: float [N], of rows that are not those to be reported: of validation.
      recall: The share, above 0, at most 1.

    Returns:
      The threshold.

    Raises:
      ValueError: There is no positive.

    Example:
      >>> threshold_for_recall(np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0]), 0.5)
      3.5
    """
    found = curve(labels, scores)
    if not found.positives[0]:
        raise ValueError("no positive row, so no recall")
    return _between(found.scores, int(found.place_of_recall(recall)[0]))


def threshold_for_fpr(labels: np.ndarray, scores: np.ndarray, fpr: float) -> float:
    """Return the lowest threshold that calls at most a share of the negatives positive.

    Args:
      labels: int or bool [N], with a negative.
      scores: float [N], of validation.
      fpr: The share, from 0 to 1.

    Returns:
      The threshold, which may lie above all scores.

    Raises:
      ValueError: There is no negative.

    Example:
      >>> threshold_for_fpr(np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0]), 0.0)
      3.5
    """
    found = curve(labels, scores)
    if not found.negatives[0]:
        raise ValueError("no negative row, so no false-positive rate")
    false = (found.flagged - found.hits)[:, 0]
    allowed = int((false <= (fpr + CLOSE * (fpr > 0)) * found.negatives[0]).sum())
    if not allowed:
        return float(np.nextafter(found.scores[0], np.inf))
    return _between(found.scores, allowed - 1)


def _between(scores: np.ndarray, place: int) -> float:
    """Return the middle of a score and the next lower one; the score itself where it is last."""
    high, low = scores[place], scores[min(place + 1, len(scores) - 1)]
    middle = low + (high - low) / 2
    return float(middle if low < middle else high)


def _columns(weights: Weights, rows: int) -> np.ndarray:
    """Return weights as columns, in float32 where that adds them up without an error."""
    if weights is None:
        return np.ones((rows, 1))
    table = np.asarray(weights)
    if len(table) != rows:
        raise ValueError(f"{len(table)} weights for {rows} rows")
    table = table.reshape(rows, -1)
    small = table.dtype == np.float32 and table.shape[1] > 1
    if small and float(table.max(initial=0.0)) * rows < EXACT and (table == np.rint(table)).all():
        return table
    return table.astype(np.float64)


def _sums(values: np.ndarray, groups: np.ndarray, count: int, rows: np.ndarray) -> np.ndarray:
    """Return each group's weighted sum of values, float64 [count, D]."""
    table = csr_array(
        (values.astype(rows.dtype), (groups, np.arange(len(groups)))), shape=(count, len(groups))
    )
    return (table @ rows).astype(np.float64)


def _before(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])


def _steps(values: np.ndarray) -> np.ndarray:
    return np.diff(values, axis=0, prepend=np.zeros_like(values[:1]))


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Return a ratio in float64, ``otherwise`` where there is nothing to divide by."""
    result = np.full(np.shape(above), otherwise)
    return np.divide(above, below, out=result, where=below > 0, dtype=np.float64)


def _as_given(values: np.ndarray, weights: Weights) -> np.ndarray:
    """Return one number where the weights were none or had no columns."""
    values = np.asarray(values, np.float64)
    return values if weights is not None and np.ndim(weights) > 1 else values[0]
