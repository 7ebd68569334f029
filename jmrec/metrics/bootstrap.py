"""Percentile bootstrap by cluster: how far a mean may be trusted, and a difference of two.

The predictions of one session, and the sessions of one user, are not independent, so whole
users (or sessions, where there are no users) are drawn with replacement.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

DRAWS = 2000
LEVEL = 0.95
AT_ONCE = 2**18
"""Weights that are in memory at a time: so many stay in a processor's cache."""
RARE = 0.05
"""An interval is given up where more than this share of the resamples has no value."""


@lru_cache(maxsize=4)
def resampling_counts(n: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return uint8 [draws, n]: how often each of n clusters is drawn, n draws with replacement.

    Args:
      n: Clusters.
      draws: Resamples.
      seed: The same seed gives the same resamples, so that paired figures are comparable.

    Example:
      >>> resampling_counts(5, draws=3).sum(axis=1)
      array([5, 5, 5], dtype=uint64)
    """
    random = np.random.default_rng(seed)
    counts = np.empty((draws, n), np.uint8)  # about Poisson with mean 1: far below 256
    for index in range(draws):
        counts[index] = np.bincount(random.integers(0, n, n), minlength=n)
    counts.flags.writeable = False
    return counts


def interval(
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """Return the percentile bootstrap interval of a mean, drawing whole clusters.

    Compatible with several measures at once: they share the resamples.

    Args:
      values: float [N] or [N, M], one row a unit (a prediction, or a session's mean).
      clusters: int [N], what is drawn together.
      draws: Resamples.
      level: Coverage aimed at.
      seed: Of the resamples.

    Returns:
      float64 [2] or [2, M], lower and upper end; NaN where there are no units.

    References:
      Efron and Tibshirani, *An Introduction to the Bootstrap*
      (https://doi.org/10.1201/9780429246593), chapter 13.

    Example:
      >>> low, high = interval(np.array([0.0, 1.0] * 50), np.arange(100))
      >>> bool(low < 0.5 < high), round(float(high - low), 1)
      (True, 0.2)
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return np.full((2, *values.shape[1:]), np.nan)
    means = _means(values.reshape(len(values), -1), clusters, draws, seed)
    return _ends(means, level).reshape(2, *values.shape[1:])


def _means(table: np.ndarray, clusters: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return float64 [draws, M], the means of each resample of values [N, M]."""
    found, which = np.unique(clusters, return_inverse=True)
    sums = np.stack(
        [np.bincount(which, column, minlength=len(found)) for column in table.T], axis=1
    )
    size = np.bincount(which, minlength=len(found)).astype(np.float64)
    counts = resampling_counts(len(found), draws, seed)
    means = np.empty((draws, sums.shape[1]))
    block = max(1, AT_ONCE // max(len(found), 1))
    for start in range(0, draws, block):
        drawn = counts[start : start + block].astype(np.float64)
        # Clusters differ in size: a resample's mean is a ratio of sums.
        means[start : start + block] = (drawn @ sums) / (drawn @ size)[:, None]
    return means


def _ends(means: np.ndarray, level: float) -> np.ndarray:
    tail = (1.0 - level) / 2.0
    return np.quantile(means, [tail, 1.0 - tail], axis=0)


@dataclass(frozen=True)
class Paired:
    """A mean difference a - b with its interval.

    Attributes:
      difference: The mean of a - b.
      low: Lower end of the interval.
      high: Upper end.
      p: Two-sided, of the same resamples: twice the share of those on the other side of 0 (or on
        it), of which one more is counted than there are, so that it is never 0. 1 where there are
        no units.
    """

    difference: float
    low: float
    high: float
    p: float = 1.0

    @property
    def verdict(self) -> str:
        """Whether a is "above" or "below" b, or "not told apart": the interval includes 0."""
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "not told apart"


def paired(
    a: np.ndarray,
    b: np.ndarray,
    clusters: np.ndarray,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Paired:
    """Compare two models on the same units; several seeds of a model are averaged first.

    Args:
      a: float [N], or [seeds, N].
      b: float [N], or [seeds, N]; the number of seeds may differ.
      clusters: int [N], what is drawn together.
      draws: Resamples.
      level: Coverage aimed at.
      seed: Of the resamples.

    Returns:
      The difference of the means and its interval.

    Example:
      >>> paired(np.array([1.0, 0.9, 0.8]), np.array([0.5, 0.4, 0.6]), np.arange(3)).verdict
      'above'
    """
    difference = np.atleast_2d(a).mean(axis=0) - np.atleast_2d(b).mean(axis=0)
    if not len(difference):
        return Paired(np.nan, np.nan, np.nan)
    means = _means(difference[:, None].astype(np.float64), clusters, draws, seed)[:, 0]
    low, high = _ends(means, level).tolist()
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2.0 * float(beyond + 1) / (draws + 1))
    return Paired(float(difference.mean()), float(low), float(high), p)


@dataclass(frozen=True)
class Resamples:
    """The same resamples of whole clusters for every metric and model, as a weight for each row.

    Attributes:
      cluster: int64 [N], each row's cluster, from 0.
      counts: uint8 [C, D], how often each cluster is drawn.
    """

    cluster: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, clusters: np.ndarray, draws: int = DRAWS, seed: int = 0) -> "Resamples":
        """Draw them.

        Args:
          clusters: int [N], what is drawn together.
          draws: D.
          seed: Of the resamples.
        """
        found, which = np.unique(clusters, return_inverse=True)
        counts = resampling_counts(len(found), draws, seed)
        return cls(which, np.ascontiguousarray(counts.T))

    def values(
        self, statistic: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Return a statistic of every resample, in blocks that fit into a cache.

        Args:
          statistic: Takes weights, float32 [N, B], and returns [..., B].
          rows: int [n], rows to which the statistic is limited; it then gets n weights.

        Returns:
          float64 [..., D].

        Example:
          >>> means = Resamples.of(np.arange(3), 100).values(lambda w: np.arange(3.0) @ w / 3)
          >>> means.shape, round(float(means.mean()))
          ((100,), 1)
        """
        cluster = self.cluster if rows is None else self.cluster[rows]
        draws = self.counts.shape[1]
        block = max(1, AT_ONCE // max(len(cluster), 1))
        found = [
            np.asarray(statistic(weights.astype(np.float32)), np.float64)
            for start in range(0, draws, block)
            for weights in [self.counts[cluster, start : start + block]]
        ]
        return np.concatenate(found, axis=-1)


def ends(draws: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Return the percentile interval of a statistic's resamples.

    Args:
      draws: float [..., D]; NaN where a resample has no value.
      level: Coverage aimed at.

    Returns:
      float64 [..., 2]; NaN where more than `RARE` of the resamples have no value.

    Example:
      >>> ends(np.arange(101.0), 0.9)
      array([ 5., 95.])
    """
    draws = np.asarray(draws, np.float64)
    tail = (1.0 - level) / 2.0
    lost = np.isnan(draws)
    few = lost.mean(-1) <= RARE
    known = np.where(few[..., None], draws, 0.0)
    quantile = np.nanquantile if lost.any() else np.quantile
    found = np.moveaxis(quantile(known, [tail, 1.0 - tail], axis=-1), 0, -1)
    return np.where(few[..., None], found, np.nan)
