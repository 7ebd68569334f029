"""Tables of rules on disk: nothing is lost by default, and --keep forgets the smallest entries."""

import json
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.cooccurrence import LinearRule
from jmrec.evaluation.rankers.ease import FrequentItems
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.rankers.small import halves, keep_largest, whole

V = 40
RNG = np.random.default_rng(7)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def drawn(share: float, whole_numbers: bool = False) -> np.ndarray:
    """Return a table [V, V] of which a share is not 0."""
    numbers = RNG.integers(1, 50, (V, V)) if whole_numbers else RNG.normal(size=(V, V))
    return np.where(RNG.random((V, V)) < share, numbers, 0).astype(np.float32)


def linear(matrix: Any, name: str = "mine") -> LinearRule:
    prior = RNG.random(V).astype(np.float32)
    return LinearRule(name, matrix, prior, np.full(V, 0.25, np.float32), decay=0.5)


def dense(table: Any) -> np.ndarray:
    return table.toarray() if sp.issparse(table) else table


@settings(max_examples=200, deadline=None)
@given(numbers=arrays(np.float32, st.integers(0, 20), elements=FLOATS))
def test_halves_are_exact_or_none(numbers: np.ndarray) -> None:
    found = halves(numbers)
    if found is not None:
        assert found[0].dtype == np.float16
        np.testing.assert_array_equal(whole(*found), numbers)


def test_small_whole_numbers_are_halves_and_thirds_are_not() -> None:
    assert halves(np.arange(2049, dtype=np.float32)) is not None
    assert halves(np.array([1 / 3], np.float32)) is None
    assert halves(np.array([2.0**-100, 2.0**-110], np.float32)) is not None


@pytest.mark.parametrize("share", [0.02, 0.2, 0.45, 0.9])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_what_is_read_back_is_what_was_kept(share: float, whole_numbers: bool) -> None:
    table = drawn(share, whole_numbers)
    for matrix in (table, sp.csr_array(table)):
        facts, stored = codec.encode(linear(matrix))
        back: Any = codec.decode(json.loads(json.dumps(facts)), stored, V)
        assert dense(back.matrix).dtype == np.float32
        # As it was fitted: products with a dense one are quicker.
        assert sp.issparse(back.matrix) is (share < 0.05)
        np.testing.assert_array_equal(dense(back.matrix), table)
    if share < 0.5:
        size = sum(array.nbytes for name, array in stored.items() if name.startswith("matrix"))
        entries = np.count_nonzero(table)
        assert size <= entries * (2 if whole_numbers else 4) + entries * 2 + 4 * (V + 1)


def test_an_older_jmrec_kept_tables_whole() -> None:
    rule = linear(drawn(0.2))
    facts, stored = codec.encode(rule)
    facts.pop("exponents")
    stored = {name: x for name, x in stored.items() if not name.startswith("matrix")}
    back: Any = codec.decode({**facts, "shapes": {}}, {**stored, "matrix": rule.matrix}, V)
    np.testing.assert_array_equal(back.matrix, rule.matrix)


@pytest.mark.parametrize("exponent", [True, "3", 1000, 1.5, [1]])
def test_an_exponent_that_is_none_is_refused(exponent: Any) -> None:
    facts, stored = codec.encode(linear(drawn(0.2, whole_numbers=True)))
    assert stored["matrix/data"].dtype == np.float16
    with pytest.raises(ValueError, match="matrix, exponent"):
        codec.decode({**facts, "exponents": {"matrix": exponent}}, stored, V)
    with pytest.raises(ValueError, match="no sparse table"):
        codec.decode({**facts, "exponents": {}}, stored, V)


def largest(row: list[float], count: int) -> list[float]:
    """Return a row with its largest entries alone, by sorting."""
    order = sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))
    return [x if j in order[:count] else 0.0 for j, x in enumerate(row)]


@pytest.mark.parametrize("count", [1, 5, V, 10 * V])
@pytest.mark.parametrize("kind", ["dense", "sparse", "ties"])
def test_the_largest_entries_of_each_item_stay(kind: str, count: int) -> None:
    table = drawn(0.6)
    if kind == "ties":
        table = np.sign(table).astype(np.float32)
    found: Any = keep_largest(linear(sp.csr_array(table) if kind == "sparse" else table), count)
    wanted = np.array([largest(row, count) for row in table.tolist()])
    np.testing.assert_allclose(dense(found.matrix), wanted, rtol=2**-11, atol=1e-7)
    assert ((dense(found.matrix) != 0) == (wanted != 0)).all()


def test_a_smaller_rule_is_kept_as_it_answers_and_takes_less() -> None:
    among = np.arange(V) % 4 > 0
    block = RNG.normal(size=(30, 30)).astype(np.float32)
    ease = FrequentItems("EASE", block, among, np.zeros(V, np.float32), np.zeros(V, np.float32))
    rest = StaticRule("popularity", RNG.random(V).astype(np.float32), {})
    blend = Blend([linear(drawn(0.9)), ease, rest], [1.0, 0.5, 0.1], V)
    small: Any = keep_largest(blend, 4)
    assert small.members[2] is rest
    assert [type(each) for each in small.members] == [type(each) for each in blend.members]
    assert np.count_nonzero(dense(small.members[1].block), axis=1).tolist() == [4] * 30
    facts, stored = codec.encode(small)
    back: Any = codec.decode(facts, stored, V)
    for mine, read in zip(small.members[:2], back.members[:2]):
        for name in ("matrix", "block"):
            if hasattr(mine, name):
                np.testing.assert_array_equal(
                    dense(getattr(mine, name)), dense(getattr(read, name))
                )
    assert stored["0/matrix/data"].dtype == np.float16
    taken, before = (
        sum(x.nbytes for x in each.values()) for each in (stored, codec.encode(blend)[1])
    )
    assert taken < before / 5
