"""Rules without training: how often the label occurred among what was known of item and user."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from jmrec.evaluation.pairs.rows import Scored
from jmrec.evaluation.results import PLAIN

STRENGTH = 5.0
"""The prior counts as so many rows."""
ITEM_MEAN, USER_MEAN, BOTH_MEANS = "item mean", "user mean", "item + user mean"


@dataclass(frozen=True)
class Known:
    """What was known before each of N rows, its own label never among it.

    Attributes:
      item_count: int [N], earlier rows of the item with a label.
      item_sum: float [N], how many of them are positive.
      user_count: int [N], the same of the user; 0 where a row has none.
      user_sum: float [N].
    """

    item_count: np.ndarray
    item_sum: np.ndarray
    user_count: np.ndarray
    user_sum: np.ndarray


def smoothed(
    sums: np.ndarray, counts: np.ndarray, prior: float, strength: float = STRENGTH
) -> np.ndarray:
    """Return means that lean on a prior where little is known: (sum + s prior) / (count + s).

    Args:
      sums: float [N].
      counts: float [N].
      prior: The mean of all, between 0 and 1.
      strength: s, above 0.

    Returns:
      float64 [N], between 0 and 1.

    Example:
      >>> smoothed(np.array([0.0, 5.0]), np.array([0.0, 5.0]), 0.2)
      array([0.2, 0.6])
    """
    return (np.asarray(sums, np.float64) + strength * prior) / (
        np.asarray(counts, np.float64) + strength
    )


def rule_logits(known: Known, prior: float, strength: float = STRENGTH) -> dict[str, np.ndarray]:
    """Return the logits of item mean, user mean, and both together.

    The last adds what item and user each say above the prior: logit(item) + logit(user) -
    logit(prior), naive Bayes with two features.

    Args:
      known: What was known before each row.
      prior: The share of positives in train, between 0 and 1.
      strength: Of the prior.

    Returns:
      Name -> float64 [N].

    Raises:
      ValueError: The prior is 0 or 1.
    """
    if not 0 < prior < 1:
        raise ValueError(f"a share of positives of {prior:g} tells nothing apart")
    item = logit(smoothed(known.item_sum, known.item_count, prior, strength))
    user = logit(smoothed(known.user_sum, known.user_count, prior, strength))
    return {ITEM_MEAN: item, USER_MEAN: user, BOTH_MEANS: item + user - logit(prior)}


def rules(validation: Known, test: Known, prior: float, strength: float = STRENGTH) -> list[Scored]:
    """Return the rows of the rules.

    Args:
      validation: What was known before each of its M rows.
      test: What was known before each of its N rows, validation among it.
      prior: The share of positives in train.
      strength: Of the prior.

    Returns:
      Three rows.

    Raises:
      ValueError: The prior is 0 or 1.
    """
    early, late = (rule_logits(each, prior, strength) for each in (validation, test))
    settings = {"strength": strength}
    return [Scored(name, PLAIN, early[name], late[name], settings=settings) for name in early]
