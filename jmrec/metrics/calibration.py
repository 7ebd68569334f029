"""Probabilities from scores without changing their order: Platt's line, and closed forms. By scipy.

Both map a logit to a logit by a rising line, so that no area under a curve can fall.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

SMALLEST = 1e-6
"""How near to 0 or 1 a probability is taken as it is, when its logit is asked for."""
STEEPEST = 1e3
"""The line's slope in units of the scores' spread is between this and its inverse."""


def logit_of(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities, those of 0 and 1 finite.

    Args:
      probabilities: float of any shape.

    Returns:
      float64 of the same shape.

    Example:
      >>> logit_of(np.array([0.5, 1.0])).round(2)
      array([ 0.  , 13.82])
    """
    return logit(np.clip(np.asarray(probabilities, np.float64), SMALLEST, 1.0 - SMALLEST))


@dataclass(frozen=True)
class Platt:
    """A rising line over logits.

    Attributes:
      scale: Above 0.
      shift: Added after.
    """

    scale: float
    shift: float

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated logits, float64 of the same shape and in the same order."""
        return self.scale * np.asarray(logits, np.float64) + self.shift

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float64 of the same shape."""
        return expit(self.logits(logits))


def fit_platt(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None) -> Platt:
    """Fit the line under which logits of validation are most likely.

    Its slope stays above 0: scores that point the wrong way become all but constant, and are not
    turned round. As Platt does, a positive counts as (P + 1) / (P + 2) of one, so that classes that
    scores tell apart fully do not make the line infinitely steep.

    Args:
      labels: int or bool [N].
      logits: float [N], of rows that are not those to be reported: of validation.
      weights: float [N]; None weighs every row 1.

    Returns:
      The line. Where all logits are equal, they become the logit of the share of positives.

    Raises:
      ValueError: There is no row.

    References:
      Platt, *Probabilistic outputs for support vector machines and comparisons to regularized
      likelihood methods*, 1999; Lin et al., *A note on Platt's probabilistic outputs for support
      vector machines* (https://doi.org/10.1007/s10994-007-5018-6).

    Example:
      >>> line = fit_platt(np.array([0, 0, 0, 1]), np.zeros(4))
      >>> round(float(line.probabilities(np.zeros(1))[0]), 3)  # (1 + 1) / (4 + 2) by Platt's counts
      0.317
    """
    x = np.asarray(logits, np.float64)
    if not len(x):
        raise ValueError("there is no row to calibrate by")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    y = np.asarray(labels).astype(bool)
    positives, negatives = w[y].sum(), w[~y].sum()
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    total = max(w.sum(), 1e-12)
    middle = np.average(x, weights=w)
    spread = np.sqrt(np.average((x - middle) ** 2, weights=w))
    base = float(logit_of(np.average(target, weights=w)))
    if spread <= 1e-12 * (1 + abs(middle)):
        return Platt(1.0, base - float(middle))
    z = (x - middle) / spread

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(line[0])
        found = slope * z + line[1]
        value = np.logaddexp(0.0, found) - target * found
        error = w * (expit(found) - target)
        return (w * value).sum() / total, np.array([slope * (error @ z), error.sum()]) / total

    from scipy.optimize import minimize  # here: it takes a while to load

    limit = np.log(STEEPEST)
    found = minimize(
        loss, np.array([0.0, base]), jac=True, method="L-BFGS-B",
        bounds=[(-limit, limit), (None, None)],
    ).x  # fmt: skip
    scale = float(np.exp(found[0]) / spread)
    return Platt(scale, float(found[1] - scale * middle))


def odds_ratio(trained: float, true: float) -> float:
    """Return by how much training raised the odds of the positive class.

    Args:
      trained: Share of positives in what the loss saw: among the sampled rows, or by weight.
      true: Share of positives as the data has them.

    Returns:
      The ratio of the two odds, 1 where nothing was changed.

    Raises:
      ValueError: A share is not between 0 and 1.

    Example:
      >>> round(odds_ratio(0.5, 0.06), 2)
      15.67
    """
    if not 0 < trained < 1 or not 0 < true < 1:
        raise ValueError(f"shares of positives of {trained:g} and {true:g} have no odds")
    return trained / (1 - trained) * (1 - true) / true


def prior_correction(logits: np.ndarray, ratio: float) -> np.ndarray:
    """Take back what class weights or sampling did to the odds: logit - log(ratio).

    Exact for a log loss whose positives were drawn, or weighed, ``ratio`` times as often as its
    negatives: the learned odds are then the true ones times that. It holds for no other loss
    (a focal one, a pairwise one): those need `fit_platt`.

    Args:
      logits: float of any shape.
      ratio: Weight of a positive over that of a negative, or `odds_ratio`.

    Returns:
      float64 of the same shape, in the same order.

    Raises:
      ValueError: The ratio is not above 0.

    References:
      Elkan, *The Foundations of Cost-Sensitive Learning*
      (https://dl.acm.org/doi/10.5555/1642194.1642224); King and Zeng, *Logistic Regression in Rare
      Events Data* (https://doi.org/10.1093/oxfordjournals.pan.a004868).

    Example:
      >>> expit(prior_correction(np.zeros(1), odds_ratio(0.5, 0.1))).round(3)
      array([0.1])
    """
    if not ratio > 0:
        raise ValueError(f"a ratio of odds of {ratio:g} is not above 0")
    return np.asarray(logits, np.float64) - np.log(ratio)
