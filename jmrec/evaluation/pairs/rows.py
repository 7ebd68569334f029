"""What is asked and what answers: labelled pairs of two splits, and each row's scores of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jmrec.data.schema import AVOID
from jmrec.metrics.calibration import logit_of

ITEM, USER = "item", "user"
"""What hangs together and is drawn as a whole: the rows of an item, or those of a user."""
BOTH, TEXT, PICTURE, NONE = "both", "text", "picture", "none"
"""Names of arms that are compared with each other, and of the strategy that changes nothing."""
RECALL, RATE = "recall", "fpr"
"""What a threshold is to reach on validation."""


@dataclass(frozen=True)
class Pairs:
    """N labelled rows of one split.

    Attributes:
      labels: int [N], 1 where the label occurs, else 0; rows that do not say are not here.
      items: int [N], item rows.
      users: int [N], user codes, -1 where a row has none.
      times: float64 [N], unix seconds, or the file's order where the data has no time.
      item_count: int [N], earlier rows of the item that were known to the model.
      user_count: int [N], earlier rows of the user that were known.
      picture: bool [N], whether the item has a picture; None where nobody has one.
      length: float [N], what was read of the item's earlier reviews, such as characters; None
        where there are no reviews. Never the length of the row's own review.
      segments: Further segments: a heading -> N names of segments.
    """

    labels: np.ndarray
    items: np.ndarray
    users: np.ndarray
    times: np.ndarray
    item_count: np.ndarray
    user_count: np.ndarray
    picture: np.ndarray | None = None
    length: np.ndarray | None = None
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PairData:
    """What a table of pairs is about.

    Attributes:
      name: Of the data set.
      label: What the positive class is, in the words of dataset.toml.
      label_means: `jmrec.data.schema.AVOID` or `WANT`.
      validation: By which lines, thresholds and the best are chosen.
      test: What is reported.
      has_time: Whether times are real ones, so that there are months.
      facts: More of the data set for the head of results.json, such as "items" and "split how".
    """

    name: str
    label: str
    validation: Pairs
    test: Pairs
    label_means: str = AVOID
    has_time: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """A row of the table: what it says of every pair, one line a seed.

    Attributes:
      name: Of the row.
      kind: One of `jmrec.evaluation.results.KINDS`: "oracle", "rule", "rival", "ranker", "control".
      validation: float [S, M] logits, log of p / (1 - p); they need not be calibrated. [M] is one
        seed.
      test: float [S, N] logits.
      arm: What it reads: "both", "text", "picture", "none", "mean", ...; "" of who has no arm.
      strategy: Against imbalance: "none" or a name; "" of who has none.
      of: Of a control, the name of the row of which it has one thing broken.
      settings: What was chosen, for the page.
    """

    name: str
    kind: str
    validation: np.ndarray
    test: np.ndarray
    arm: str = ""
    strategy: str = ""
    of: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in ("validation", "test"):
            table = np.atleast_2d(np.asarray(getattr(self, part), np.float64))
            if not np.isfinite(table).all():
                raise ValueError(f"{self.name}: a logit of {part} is no finite number")
            object.__setattr__(self, part, table)
        if len(self.validation) != len(self.test):
            raise ValueError(f"{self.name}: validation and test have different numbers of seeds")

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.test)

    @classmethod
    def of_probabilities(
        cls, name: str, kind: str, validation: np.ndarray, test: np.ndarray, **more: Any
    ) -> "Scored":
        """Return a row of who says probabilities.

        Args:
          name: As above.
          kind: As above.
          validation: float [S, M] or [M], from 0 to 1.
          test: float [S, N] or [N].
          **more: The other attributes.

        Example:
          >>> Scored.of_probabilities("half", "rule", np.full(2, 0.5), np.full(3, 0.5)).test
          array([[0., 0., 0.]])
        """
        return cls(name, kind, logit_of(validation), logit_of(test), **more)


@dataclass(frozen=True)
class Settings:
    """How a table of pairs is measured.

    Attributes:
      split: "test"; or "validation", which is then both chosen by and reported, as in a sweep.
      clusters: `ITEM` or `USER`, whose rows are drawn together. Where a row's signal is the item's,
        it is the item.
      draws: Resamples.
      seed: Of the resamples.
      calibrate: Whether each row and seed gets a line of its own over its logits, fitted on
        validation (Platt's, which changes no order).
      goal: What the threshold is to reach on validation, `RECALL` or `RATE`.
      level: Of it: the recall to find, or the false-positive rate to allow.
      bins: Of the calibration error and the reliability diagram.
      cost: What a false positive costs.
      gain: What a hit brings.
      samples: Summaries beside their sources, for the page.
    """

    split: str = "test"
    clusters: str = ITEM
    draws: int = 1000
    seed: int = 0
    calibrate: bool = True
    goal: str = RECALL
    level: float = 0.5
    bins: int = 15
    cost: float = 1.0
    gain: float = 1.0
    samples: tuple[Mapping[str, Any], ...] = ()
