"""What is left of many comparisons at once: p-values corrected for how many there are."""

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return Holm's corrected p-values: of all below a level one is wrong no oftener than that.

    Formula: with p sorted rising, max over j <= i of min(1, (m - j + 1) p_j), i and j from 1 to m.

    Args:
      p: float [m], one a comparison.

    Returns:
      float64 [m], in the order of ``p``.

    References:
      Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979:
      https://www.jstor.org/stable/4615733

    Example:
      >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
      [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return corrected
