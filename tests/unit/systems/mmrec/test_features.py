"""The numbers of pairs: what stands for nothing is a number that a row may have."""

from dataclasses import replace

import numpy as np

from jmrec.data.known import DAY, Known
from jmrec.data.pairs import split_pairs
from jmrec.data.schema import Items, Ratings
from jmrec.systems.mmrec.features import FAR, pair_numbers


def test_what_stands_for_nothing_lies_where_rows_may_lie() -> None:
    random = np.random.default_rng(0)
    count, items = 20_000, 5
    ratings = Ratings(
        items=random.integers(0, items, count).astype(np.int32),
        users=random.integers(0, 8, count).astype(np.int32),
        user_ids=[f"u{n}" for n in range(8)],
        times=np.sort(random.uniform(0, 400 * DAY, count)),
        labels=(random.random(count) < 0.1).astype(np.int8),
        ratings=np.full(count, np.nan, np.float32),
        reviews=[""] * count,
        label="low",
        label_means="avoid",
    )
    known = Known(ratings, split_pairs(ratings, "time"))
    names = [f"i{n}" for n in range(items)]
    catalogue = Items(names, names, {"title": names}, [b""] * items)
    found = pair_numbers(known, catalogue, known.splits.train)
    # Nearly every row knows something, so that "any" hardly varies and nothing is far away.
    for by in ("item", "user"):
        assert np.abs(found.empty[by]).max() == FAR
        assert found.empty[by].dtype == np.float32
    assert np.abs(found.values).max() <= FAR
    # Labels of test move no number of any row.
    other = ratings.labels.copy()
    other[known.splits.test] = 1 - other[known.splits.test]
    planted = Known(replace(ratings, labels=other), known.splits)
    again = pair_numbers(planted, catalogue, known.splits.train)
    np.testing.assert_array_equal(found.values, again.values)
