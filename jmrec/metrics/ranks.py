"""Hit rate, MRR and NDCG of one relevant item, from its rank (1 is best). Plain numpy.

Every function gives one number a prediction; how they are averaged is the protocol's business.
"""

import numpy as np

CUTOFFS = (1, 5, 10, 20)


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k: 1 where the target is among the first k, else 0.

    With one relevant item this is also recall@k, and what session papers call P@k.

    Args:
      ranks: int array of any shape, 1 is best.
      k: The cut-off.

    Returns:
      float64 array of the same shape.

    Example:
      >>> hit_rate(np.array([1, 3, 21]), 20)
      array([1., 1., 0.])
    """
    return (np.asarray(ranks) <= k).astype(np.float64)


def reciprocal_rank(ranks: np.ndarray, k: int) -> np.ndarray:
    """MRR@k: 1 / rank where the target is among the first k, else 0.

    Args:
      ranks: int array of any shape, 1 is best.
      k: The cut-off.

    Returns:
      float64 array of the same shape; its mean is the MRR.

    Example:
      >>> reciprocal_rank(np.array([1, 4, 21]), 20)
      array([1.  , 0.25, 0.  ])
    """
    ranks = np.asarray(ranks)
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k: 1 / log2(1 + rank) where the target is among the first k, else 0.

    The ideal list has the one relevant item first, so the ideal gain is 1.

    Args:
      ranks: int array of any shape, 1 is best.
      k: The cut-off.

    Returns:
      float64 array of the same shape.

    References:
      Jarvelin and Kekalainen, *Cumulated gain-based evaluation of IR techniques*
      (https://doi.org/10.1145/582415.582418).

    Example:
      >>> ndcg(np.array([1, 3, 21]), 20)
      array([1. , 0.5, 0. ])
    """
    ranks = np.asarray(ranks)
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)


METRICS = {"HR": hit_rate, "MRR": reciprocal_rank, "NDCG": ndcg}
NAMES = tuple(f"{name}@{k}" for name in METRICS for k in CUTOFFS)
"""All metrics of the protocol, such as "HR@1" and "NDCG@20"."""


def metric(name: str, ranks: np.ndarray) -> np.ndarray:
    """Return a metric by its name, such as "MRR@20".

    Args:
      name: Family and cut-off.
      ranks: int array of any shape, 1 is best.

    Returns:
      float64 array of the same shape.

    Example:
      >>> metric("MRR@5", np.array([2, 6]))
      array([0.5, 0. ])
    """
    family, cutoff = name.split("@")
    return METRICS[family](ranks, int(cutoff))


def group_means(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average values inside groups.

    Args:
      values: float [N].
      groups: int [N], such as each prediction's session.

    Returns:
      (group ids int [G], ascending; means float64 [G]).

    Example:
      >>> group_means(np.array([1.0, 0.0, 1.0]), np.array([7, 7, 9]))
      (array([7, 9]), array([0.5, 1. ]))
    """
    found, which = np.unique(groups, return_inverse=True)
    sums = np.bincount(which, values, minlength=len(found))
    return found, sums / np.maximum(np.bincount(which, minlength=len(found)), 1)


def session_mean(values: np.ndarray, sessions: np.ndarray) -> float:
    """Mean over sessions of the mean over each one's predictions; NaN where there are none.

    Args:
      values: float [N], one a prediction.
      sessions: int [N], each prediction's session.

    Example:
      >>> session_mean(np.array([1.0, 0.0, 1.0]), np.array([7, 7, 9]))
      0.75
    """
    means = group_means(np.asarray(values, np.float64), sessions)[1]
    return float(means.mean()) if len(means) else float("nan")
