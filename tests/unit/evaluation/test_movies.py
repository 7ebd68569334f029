"""The protocol and the rules on real data; the test split is counted, never ranked."""

import time
from itertools import islice

import numpy as np
import pytest

from jmrec.evaluation.figures import figures
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers.content import TextNeighbours
from jmrec.evaluation.rankers.cooccurrence import (
    LinearRule,
    compact,
    cosine,
    markov,
    tie_break,
)
from jmrec.evaluation.rankers.ease import ease
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import StaticRule


@pytest.fixture(scope="module")
def validation(movies):
    return make_predictions(movies.splits["validation"])


def test_the_counts_are_those_measured_before(movies) -> None:
    with_target = {name: int((part.lengths > 1).sum()) for name, part in movies.splits.items()}
    assert with_target == {"train": 2552, "validation": 319, "test": 320}
    asked = make_predictions(movies.splits["test"])
    assert (asked.length[asked.is_last] - 1).sum() == 10_156
    assert (asked.position <= 50).sum() == 5119
    assert (asked.position <= 20).sum() == 3154
    assert asked.is_last.sum() == 320
    # Counted over training sessions that have a transition, as those figures were.
    train = movies.splits["train"]
    events = np.repeat(train.lengths > 1, train.lengths)
    cold = np.bincount(train.items[events], minlength=len(movies.items)) == 0
    assert cold.sum() == 127
    new = cold[asked.target]
    assert (new[asked.position <= 50].sum(), new[asked.position <= 20].sum()) == (448, 337)
    # With the sessions of one event, twenty of those items are known after all.
    assert (movies.train_count == 0).sum() == 107


def test_rules_do_what_they_are_known_to_do(movies, validation) -> None:
    train, n_items = movies.splits["train"], len(movies.items)
    prior, share = tie_break(train, n_items, 0.1)
    text = next(islice(TextNeighbours.grid(Known(movies)), 1, None))
    rules = {
        "popularity": StaticRule("popularity", movies.train_count.astype(np.float32)),
        "markov": markov(train, n_items, 10.0),
        "knn": LinearRule("knn", compact(cosine(train, n_items, 0.0, 0.0)), prior, share, 0.8),
        "ease": LinearRule("ease", ease(train, n_items, 100.0), prior, share, 0.8),
        "text": text,
    }
    found = {}
    for name, rule in rules.items():
        ranked = rank(rule, validation, n_items=n_items, exclude_seen=True, top=0)
        found[name] = figures(ranked.ranks[0], validation)
    hit = {name: one["prediction"]["HR@20"] for name, one in found.items()}
    mrr = {name: one["session"]["MRR@20"] for name, one in found.items()}
    assert 0.02 < hit["popularity"] < 0.10
    assert 0.08 < hit["markov"] < 0.16
    assert 0.12 < hit["knn"] < 0.24
    assert 0.12 < hit["ease"] < 0.26
    assert 0.05 < hit["text"] < 0.15
    assert mrr["popularity"] < mrr["markov"] < mrr["knn"] < mrr["ease"]


def test_five_thousand_predictions_are_ranked_in_seconds(movies, validation) -> None:
    prior, share = tie_break(movies.splits["train"], len(movies.items), 0.1)
    matrix = compact(cosine(movies.splits["train"], len(movies.items), 0.0, 0.0))
    rule = LinearRule("knn", matrix, prior, share, 0.8)
    started = time.process_time()
    rank(rule, validation, n_items=len(movies.items), exclude_seen=True)
    # Two seconds on an idle machine, all threads counted.
    assert time.process_time() - started < 15
