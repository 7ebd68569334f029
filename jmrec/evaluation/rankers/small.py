"""Rules that take less room: halves where they are exact, and tables of the largest entries."""

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.cooccurrence import compact

TABLES = ("matrix", "block")
"""The fields of rules that hold what each item says of each other one."""
ROWS = 256
"""So many items are looked at at a time."""


def halves(numbers: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Return numbers as float16 times a power of two, None where that is not exact.

    Args:
      numbers: float32 [...], finite.

    Returns:
      (float16 [...], the exponent): ``numbers == halves * 2.0 ** exponent``.

    Example:
      >>> halves(np.array([3.0, 0.1], np.float32)) is None
      True
      >>> half, exponent = halves(np.array([3.0, 0.5], np.float32))
      >>> half.dtype, whole(half, exponent).tolist()
      (dtype('float16'), [3.0, 0.5])
    """
    half, exponent = _rounded(numbers)
    return (half, exponent) if np.array_equal(whole(half, exponent), numbers) else None


def whole(half: np.ndarray, exponent: int) -> np.ndarray:
    """Return float32 [...] of what `halves` returned; infinite where a float32 ends."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(half.astype(np.float32), exponent)


def _rounded(numbers: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the nearest float16 of numbers by a power of two, the largest below 2^15."""
    most = float(np.abs(numbers).max(initial=0.0))
    exponent = int(np.frexp(most)[1]) - 15 if most else 0
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(numbers, -exponent).astype(np.float16), exponent


def keep_largest(rule: Ranker, count: int) -> Ranker:
    """Return a rule whose tables hold of each item the largest entries alone, rounded to halves.

    It is another rule: what an item says of those that it knows least is forgotten. Rules without
    such a table stay as they are; of a blend each member is made smaller.

    Args:
      rule: Fitted.
      count: Entries of an item, the largest without their sign.

    Example:
      >>> from jmrec.evaluation.rankers.cooccurrence import LinearRule
      >>> table = np.array([[0.0, 1.0, -2.0], [0.5, 0.0, 0.1], [3.0, 1.0, 0.0]], np.float32)
      >>> rule = LinearRule("mine", table, np.zeros(3), np.zeros(3))
      >>> keep_largest(rule, 1).matrix.tolist()
      [[0.0, 0.0, -2.0], [0.5, 0.0, 0.0], [3.0, 0.0, 0.0]]
    """
    if isinstance(rule, Blend):
        return replace(rule, members=[keep_largest(member, count) for member in rule.members])
    for name in TABLES:
        if (table := getattr(rule, name, None)) is not None:
            changed: Any = rule
            return replace(changed, **{name: compact(_largest(table, count))})
    return rule


def _largest(table: sp.csr_array | np.ndarray, count: int) -> sp.csr_array:
    """Return the largest entries of each row, the first ones among equals, rounded to halves."""
    parts = []
    for start in range(0, table.shape[0], ROWS):
        some = table[start : start + ROWS]
        dense = some if isinstance(some, np.ndarray) else some.toarray()
        size = np.abs(dense)
        if count < size.shape[1]:
            least = -np.partition(-size, count - 1, axis=1)[:, count - 1 : count]
            above, equal = size > least, size == least
            left = count - above.sum(axis=1, keepdims=True)
            dense = np.where(above | (equal & (np.cumsum(equal, axis=1) <= left)), dense, 0.0)
        parts.append(sp.csr_array(dense.astype(np.float32)))
    kept = sp.csr_array(sp.vstack(parts, format="csr"))
    kept.data = whole(*_rounded(kept.data))
    kept.eliminate_zeros()
    return kept
