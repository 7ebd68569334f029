"""Rules and rivals of pairs: by hand, and on data whose truth is known."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from jmrec.errors import UserError
from jmrec.evaluation.pairs.rivals import BOOSTING, LOGISTIC, Features, rivals
from jmrec.evaluation.pairs.rules import Known, rule_logits, rules

KNOWN = Known(np.array([0, 10]), np.array([0.0, 9.0]), np.array([0, 2]), np.array([0.0, 0.0]))


def test_means_lean_on_the_prior() -> None:
    found = rule_logits(KNOWN, 0.2)
    assert expit(found["item mean"]) == pytest.approx([0.2, 10 / 15])
    assert expit(found["user mean"]) == pytest.approx([0.2, 1 / 7])
    both = logit(10 / 15) + logit(1 / 7) - logit(0.2)
    assert found["item + user mean"] == pytest.approx([logit(0.2), both])
    with pytest.raises(ValueError, match="tells nothing apart"):
        rule_logits(KNOWN, 0.0)


def test_rules_are_rows() -> None:
    none = Known(*(np.zeros(3) for _ in range(4)))
    found = rules(none, KNOWN, 0.3)
    assert [row.name for row in found] == ["item mean", "user mean", "item + user mean"]
    assert {row.kind for row in found} == {"rule"}
    assert found[0].validation == pytest.approx(np.full((1, 3), logit(0.3)))
    assert found[0].test.shape == (1, 2)


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features, of which one is often missing and one always, and labels of a product."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    y = (rng.random(n) < expit(1.5 * x[:, 0] + 2 * np.sign(x[:, 1] * x[:, 2]) - 1)).astype(int)
    x[rng.random(n) < 0.3, 0] = np.nan
    x[:, 3] = np.nan
    return x, y


def test_rivals_learn_and_say_what_they_chose() -> None:
    (x, y), (early, early_y), (late, late_y) = drawn(1500, 0), drawn(500, 1), drawn(800, 2)
    features = Features(x, y, early, early_y, late)
    few = {"learning_rate": 0.1, "max_leaf_nodes": 7, "max_iter": 40}
    trees = [{**few, "max_iter": 1}, few]
    regression, boosted = rivals(features, trees=trees)
    assert (regression.name, boosted.name) == (LOGISTIC, BOOSTING)
    assert {regression.kind, boosted.kind} == {"rival"}
    areas = [roc_auc_score(late_y, row.test[0]) for row in (regression, boosted)]
    assert areas[0] > 0.6
    assert areas[1] > areas[0] + 0.1  # a line knows no product
    assert boosted.settings == few
    again = rivals(features, trees=trees)
    assert all((a.test == b.test).all() for a, b in zip((regression, boosted), again))
    with pytest.raises(UserError, match="one class only"):
        rivals(Features(x, np.zeros(len(x)), early, early_y, late))
    with pytest.raises(ValueError, match="no settings"):
        rivals(features, trees=[])
