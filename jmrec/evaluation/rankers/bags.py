"""Prefixes as weighted bags of items, and weighted sums of the rows of a matrix."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from jmrec.evaluation.protocol import Prefixes

FEW = 10_000
"""Sums of no more entries are made by numpy: scipy's checks would take longer than the sum."""


def context_weights(
    prefixes: Prefixes, n_items: int, decay: float, last: int | None = None
) -> sp.csr_array:
    """Return the prefixes as weighted bags of items, the last item with weight 1.

    Args:
      prefixes: P prefixes.
      n_items: V.
      decay: Factor for every step back; 0 leaves the last item alone.
      last: How many of the last items count; None is all of the window.

    Returns:
      float32 [P, V] sparse; an item that occurs twice has the sum of its weights.

    Example:
      >>> none = np.zeros((1, 3))
      >>> two = Prefixes(np.array([[2, 0, -1]]), none, none, np.array([0, 0]), np.array([0, 1]),
      ...     np.zeros(2))
      >>> context_weights(two, 3, decay=0.5).toarray()
      array([[0. , 0. , 1. ],
             [1. , 0. , 0.5]], dtype=float32)
    """
    window = prefixes.windows[prefixes.window]
    age = prefixes.end[:, None] - np.arange(window.shape[1])
    near, weight = counted_back(age, decay, last)
    row, column = np.nonzero(near)
    # Building from parts sums repeated items.
    return sp.csr_array((weight[near], (row, window[row, column])), shape=(len(window), n_items))


def last_bag(prefixes: Prefixes, decay: float, last: int | None = None) -> "Bag":
    """Return what `context_weights` says of one prefix, without the time that shapes take.

    Args:
      prefixes: One prefix.
      decay: As in `context_weights`.
      last: As in `context_weights`.

    Example:
      >>> none = np.zeros((1, 3))
      >>> one = Prefixes(np.array([[2, 0, 2]]), none, none, np.array([0]), np.array([2]),
      ...     np.zeros(1))
      >>> bag = last_bag(one, decay=0.5)
      >>> bag.rows.tolist(), bag.weights.tolist()
      ([0, 2], [0.5, 1.25])
    """
    window = prefixes.windows[prefixes.window[0], : prefixes.end[0] + 1]
    near, weight = counted_back(np.arange(len(window))[::-1], decay, last)
    rows, place = np.unique(window[near], return_inverse=True)
    return Bag(rows, np.bincount(place, weight[near]).astype(np.float32))


@dataclass(frozen=True)
class Bag:
    """Rows of a matrix and what each weighs.

    Attributes:
      rows: int [n], each once.
      weights: float32 [n].
    """

    rows: np.ndarray
    weights: np.ndarray

    def product(self, matrix: sp.csr_array | np.ndarray) -> np.ndarray:
        """Return float32 [M], the weighted sum of the rows of a matrix [N, M].

        Example:
          >>> two = Bag(np.array([1, 2]), np.array([2, 1], np.float32))
          >>> two.product(sp.csr_array([[1, 0], [2, 0], [3, 4]])).tolist()
          [7.0, 4.0]
        """
        if isinstance(matrix, np.ndarray):
            found: np.ndarray = self.weights @ matrix[self.rows]
            return found
        if (matrix.indptr[self.rows + 1] - matrix.indptr[self.rows]).sum() > FEW:
            found = matrix[self.rows].T @ self.weights
            return found
        column, parts = self._entries(matrix)
        return np.bincount(column, parts, matrix.shape[1]).astype(np.float32)

    def within(self, matrix: sp.csr_array) -> "Bag":
        """Return the weighted sum of the rows of a matrix [N, M] as a bag of rows of M.

        Example:
          >>> two = Bag(np.array([1, 2]), np.array([2, 1], np.float32))
          >>> found = two.within(sp.csr_array([[1, 0, 0], [2, 0, 0], [3, 0, 4]]))
          >>> found.rows.tolist(), found.weights.tolist()
          ([0, 2], [7.0, 4.0])
        """
        column, parts = self._entries(matrix)
        rows, place = np.unique(column, return_inverse=True)
        return Bag(rows, np.bincount(place, parts, len(rows)).astype(np.float32))

    def _entries(self, matrix: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of the entries of the rows, and the entries times their weights."""
        start = matrix.indptr[self.rows]
        size = matrix.indptr[self.rows + 1] - start
        # The entries of a row follow each other: each is as far after the row's first one as it is
        # after the first one of that row here.
        place = np.arange(size.sum()) + np.repeat(start - (np.cumsum(size) - size), size)
        return matrix.indices[place], np.repeat(self.weights, size) * matrix.data[place]


def counted_back(age: np.ndarray, decay: float, last: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which clicks count, and their weights.

    Args:
      age: int, how many clicks came after each; below 0 is none.
      decay: As in `context_weights`; a weight of a ten-thousandth or less is none.
      last: As in `context_weights`.

    Returns:
      bool and float32, in the shape of ``age``.
    """
    weight = np.power(decay, np.maximum(age, 0), dtype=np.float64)
    near = age >= 0 if last is None else (age >= 0) & (age < last)
    return near & (weight > 1e-4) if decay < 1 else near, weight.astype(np.float32)


def add_product(
    total: np.ndarray, weights: sp.csr_array, matrix: sp.csr_array | np.ndarray, items: slice
) -> None:
    """Add some columns of ``weights @ matrix``; only rows that have a weight are looked at.

    Args:
      total: float32 [P, n], changed in place.
      weights: float32 [P, N] sparse.
      matrix: float32 [N, M], sparse or dense.
      items: Which n columns.

    Example:
      >>> total = np.ones((1, 1), np.float32)
      >>> add_product(total, sp.csr_array([[0, 2, 1]]), np.array([[1, 0], [2, 0], [3, 0]]),
      ...     slice(0, 1))
      >>> total
      array([[8.]], dtype=float32)
    """
    if items.start > 0 or items.stop < matrix.shape[1]:
        used, column = np.unique(weights.indices, return_inverse=True)
        shape = (weights.shape[0], len(used))
        weights = sp.csr_array((weights.data, column, weights.indptr), shape=shape)
        dense = isinstance(matrix, np.ndarray)
        matrix = matrix[used, items] if dense else matrix[used][:, items]
    product = weights @ matrix
    if isinstance(product, np.ndarray):
        total += product
    else:  # where most is 0, a dense copy would cost more than the product
        row = np.repeat(np.arange(len(total)), np.diff(product.indptr))
        total[row, product.indices] += product.data
