"""The bag of words: what counted words of earlier reviews tell, by a logistic regression."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import csr_matrix, hstack

from jmrec.data.pairs import PairSplits
from jmrec.evaluation.pairs.rows import Scored

STRENGTHS = (0.1, 1.0)
NAME = "bag of words"


def bag_of_words(
    texts: Mapping[str, tuple[Sequence[str], np.ndarray]],
    rows: PairSplits,
    labels: np.ndarray,
    known: Sequence[str],
) -> Scored | None:
    """Fit a logistic regression on TF-IDF of texts, its strength chosen on validation.

    Args:
      texts: Name -> (texts, int [N], which of them each row has).
      rows: The rows with a label.
      labels: int [N].
      known: Texts by which words are weighed, of training rows alone.

    Returns:
      A row of the table, of kind "rival"; None where there are no words.
    """
    # Here, so that a wrong setting is answered before it is loaded.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score

    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=20_000)
    try:
        vectorizer.fit(known)
    except ValueError:  # no word stands in two texts
        return None
    counted = {
        name: (csr_matrix(vectorizer.transform(some)), which)
        for name, (some, which) in texts.items()
    }

    def read(some: np.ndarray) -> csr_matrix:
        return hstack([table[which[some]] for table, which in counted.values()], format="csr")

    train, held, asked = (read(some) for some in (rows.train, rows.validation, rows.test))
    truth = labels[rows.validation]
    best: tuple[float, Scored] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=60, tol=1e-3).fit(train, labels[rows.train])
        early, late = (model.decision_function(each) for each in (held, asked))
        quality = float(average_precision_score(truth, early))
        if best is None or quality > best[0]:
            best = quality, Scored(NAME, "rival", early, late, settings={"C": strength})
    assert best is not None
    return best[1]
