"""Splits of pairs, and what was known before a row: against a brute force over all rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.known import DAY, EVERY, LEARNED, SETTLED, Known, Questions
from jmrec.data.pairs import SPLITTERS, split_pairs
from jmrec.data.schema import Ratings
from jmrec.errors import UserError


def drawn(seed: int, count: int = 200, items: int = 12, users: int = 9, span: int = 30) -> Ratings:
    """Return random rows; some have no user, no label or no review, and many share a day."""
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, span * DAY, count))
    return Ratings(
        items=random.integers(0, items, count).astype(np.int32),
        users=random.integers(-1, users, count).astype(np.int32),
        user_ids=[f"u{number}" for number in range(users)],
        times=times,
        labels=random.integers(-1, 2, count).astype(np.int8),
        ratings=random.uniform(0, 1, count).astype(np.float32),
        reviews=["words" if random.random() < 0.8 else "" for _ in range(count)],
        label="low",
        label_means="avoid",
    )


def brute(ratings: Ratings, known: Known, by: str, row: int) -> list[int]:
    """Return the known rows of a row's group, by looking at every row."""
    train, validation = set(known.splits.train), set(known.splits.validation)
    may = train | validation if row in set(known.splits.test) else train
    group = ratings.items if by == "item" else ratings.users
    if group[row] < 0:
        return []
    return [
        other
        for other in range(len(ratings))
        if other in may
        and group[other] == group[row]
        and ratings.times[other] // DAY < ratings.times[row] // DAY
    ]


@pytest.mark.parametrize("how", SPLITTERS)
@pytest.mark.parametrize("by", ["item", "user"])
def test_known_rows_are_those_of_a_brute_force(how: str, by: str) -> None:
    ratings = drawn(1)
    known = Known(ratings, split_pairs(ratings, how, folds=3))
    spans = known.spans(by)
    labelled = known.spans(by, ratings.labels >= 0)
    newest, mask = spans.newest(3)
    for row in range(len(ratings)):
        expected = brute(ratings, known, by, row)
        assert spans[row].tolist() == expected
        assert newest[row][mask[row]].tolist() == expected[-3:]
        some = [other for other in expected if ratings.labels[other] >= 0]
        assert labelled[row].tolist() == some
        np.testing.assert_allclose(
            labelled.sums(ratings.labels.astype(float))[row], ratings.labels[some].sum()
        )


@pytest.mark.parametrize("how", SPLITTERS)
@pytest.mark.parametrize("by", ["item", "user"])
def test_a_row_reads_the_newest_cut_that_lies_wholly_before_it(how: str, by: str) -> None:
    ratings, sizes = drawn(2, count=300), (2, 4, 8)
    known = Known(ratings, split_pairs(ratings, how, folds=3))
    cuts = known.cuts(by, sizes)
    day = ratings.times // DAY
    group = ratings.items if by == "item" else ratings.users
    for row in range(len(ratings)):
        # Of all known reviews, not only the earlier ones: a cut's end is a day that has passed.
        test = row in set(known.splits.test)
        may = known.levels[SETTLED if test else LEARNED]
        own = [r for r in may if group[r] == group[row] and ratings.reviews[r]]
        own = sorted(own, key=lambda r: (day[r], r))
        wanted: list[int] = []
        for size in sizes:
            if group[row] < 0 or len(own) < size:
                continue
            last = day[own[size - 1]]
            if last < day[row]:
                wanted = [r for r in own if day[r] <= last]
        assert cuts.rows[cuts.of_row[row]].tolist() == wanted
        if group[row] >= 0:
            assert cuts.group[cuts.of_row[row]] == group[row]
    assert len({(int(g), tuple(r)) for g, r in zip(cuts.group, cuts.rows)}) == len(cuts)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SPLITTERS), st.integers(0, 2))
def test_every_row_is_in_one_split_and_nothing_later_is_known(
    seed: int, how: str, fold: int
) -> None:
    ratings = drawn(seed, count=120, items=5)
    splits = split_pairs(ratings, how, folds=3, fold=fold, seed=seed)
    every = np.concatenate([splits.train, splits.validation, splits.test])
    assert sorted(every) == list(range(len(ratings)))
    spans = Known(ratings, splits).spans("item")
    for row in range(len(ratings)):
        assert (ratings.times[spans[row]] // DAY < ratings.times[row] // DAY).all()
        assert row not in spans[row]
        assert not set(spans[row]) & set(splits.test)
    if how == "unseen_items":
        assert not set(ratings.items[splits.test]) & set(ratings.items[splits.train])
        assert not set(ratings.items[splits.test]) & set(ratings.items[splits.validation])
    if how == "time":
        assert splits.train.max() < splits.validation.min() < splits.test.min()


def test_time_within_item_knows_the_first_four_fifths() -> None:
    ratings = drawn(3, count=400, items=7)
    splits = split_pairs(ratings, "time_within_item")
    for item in range(7):
        own = np.flatnonzero(ratings.items == item)
        known = int(np.ceil(0.8 * len(own) - 1e-9))
        assert np.isin(own[known:], splits.test).all()
        assert np.isin(own[:known], splits.test).sum() == 0
        assert np.isin(own[:known], splits.validation).sum() == known // 8


def test_what_makes_no_sense_is_refused() -> None:
    ratings = drawn(4)
    with pytest.raises(UserError, match=r"protocol.split"):
        split_pairs(ratings, "random")
    with pytest.raises(UserError, match="3 folds or more"):
        split_pairs(ratings, "unseen_items", folds=2)
    with pytest.raises(UserError, match="no row for validation"):
        split_pairs(drawn(5, count=3), "time_within_item")
    with pytest.raises(UserError, match="add up to 1"):
        split_pairs(ratings, "time", fractions=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("by", ["item", "user"])
def test_a_question_is_answered_as_a_row_would_be(by: str) -> None:
    ratings = drawn(4)
    known = Known(ratings, split_pairs(ratings, "time_within_item"))
    rows, spans, cuts = known.rows, known.spans(by), known.cuts(by, (2, 4, 8))
    order = np.random.default_rng(0).permutation(len(ratings))[:50]
    few = Questions(rows.items[order], rows.users[order], rows.day[order], rows.may[order])
    asked = known.spans(by, asked=few)
    assert [asked[n].tolist() for n in range(50)] == [spans[row].tolist() for row in order]
    rates = np.where(ratings.labels >= 0, ratings.ratings, 0.0).astype(float)
    assert asked.sums(rates).tolist() == spans.sums(rates)[order].tolist()  # to the last bit
    assert cuts.newest(few).tolist() == cuts.of_row[order].tolist()


def test_at_the_end_everything_is_known() -> None:
    ratings, count = drawn(5), 14
    known = Known(ratings, split_pairs(ratings, "time"))
    items, cuts = np.arange(count), known.cuts("item", (2, 4, 8))
    asked = Questions(items, items * 0 - 1, np.full(count, known.end), np.full(count, EVERY))
    found, of_users = known.spans("item", asked=asked), known.spans("user", asked=asked)
    for item in items:  # two of them without a row
        own = np.flatnonzero(ratings.items == item)
        assert found[item].tolist() == own.tolist()
        said = [row for row in own if ratings.reviews[row]]
        read = cuts.rows[cuts.newest(asked)[item]]
        assert set(read) <= set(said)
        assert (len(read) >= 8) == (len(said) >= 8)
    assert not of_users.count.any()
