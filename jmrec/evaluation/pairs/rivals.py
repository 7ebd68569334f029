"""Plain learners on the very features that the models have: logistic regression and boosted trees.

Their few settings are chosen on validation by average precision. By scikit-learn; neither draws
lots, so each is one seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from jmrec.errors import UserError
from jmrec.evaluation.pairs.rows import Scored
from jmrec.evaluation.results import RIVAL
from jmrec.metrics.classification import average_precision

LOGISTIC, BOOSTING = "logistic regression", "gradient boosting"
STRENGTHS = tuple({"C": c} for c in (1e-3, 1e-2, 1e-1, 1.0))
TREES = tuple(
    {"learning_rate": rate, "max_leaf_nodes": leaves, "max_iter": 200}
    for rate, leaves in ((0.03, 7), (0.03, 31), (0.1, 7))
)
FINITE = 30.0
"""Logits are cut here: leaves of one class may have any."""


@dataclass(frozen=True)
class Features:
    """The same features of three splits.

    Attributes:
      train: float [T, F]; NaN where a row lacks one.
      labels: int [T], 1 or 0.
      validation: float [M, F].
      validation_labels: int [M].
      test: float [N, F].
    """

    train: np.ndarray
    labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    test: np.ndarray


def rivals(
    features: Features,
    *,
    strengths: Sequence[Mapping[str, Any]] = STRENGTHS,
    trees: Sequence[Mapping[str, Any]] = TREES,
) -> list[Scored]:
    """Fit both, and return their rows.

    Args:
      features: Of all splits.
      strengths: Settings of logistic regression, from which validation chooses.
      trees: Settings of boosted trees.

    Returns:
      Two rows; "settings" has what was chosen.

    Raises:
      UserError: Train has one class only.
    """
    if len(np.unique(features.labels)) < 2:
        raise UserError(
            "the training rows have labels of one class only, from which nothing is learned; "
            "change the label in dataset.toml."
        )

    # A column that train lacks says nothing, and trees refuse it.
    known = ~np.isnan(features.train).all(0)
    features = replace(
        features,
        train=features.train[:, known],
        validation=features.validation[:, known],
        test=features.test[:, known],
    )

    def regression(**settings: Any) -> Any:
        # What is missing is the mean, and a column of its own says that it was missing.
        filled = SimpleImputer(add_indicator=True)
        return make_pipeline(filled, StandardScaler(), LogisticRegression(max_iter=500, **settings))

    def boosted(**settings: Any) -> Any:
        return HistGradientBoostingClassifier(early_stopping=False, random_state=0, **settings)

    return [
        _chosen(LOGISTIC, regression, strengths, features),
        _chosen(BOOSTING, boosted, trees, features),
    ]


def _chosen(
    name: str,
    make: Callable[..., Any],
    choices: Sequence[Mapping[str, Any]],
    features: Features,
) -> Scored:
    """Fit one learner with each of its settings, and keep the best on validation."""
    best: tuple[float, Scored] | None = None
    for settings in choices:
        # One thread: where others compute too, threads that wait for each other take far longer.
        with threadpool_limits(1):
            model = make(**settings).fit(features.train, features.labels)
            early, late = (
                np.clip(model.decision_function(each), -FINITE, FINITE)
                for each in (features.validation, features.test)
            )
        score = float(average_precision(features.validation_labels, early))
        score = -np.inf if np.isnan(score) else score
        if best is None or score > best[0]:
            best = score, Scored(name, RIVAL, early, late, settings=dict(settings))
    if best is None:
        raise ValueError(f"{name} was given no settings to choose from")
    return best[1]
