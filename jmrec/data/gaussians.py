"""Correlated Gaussians: pairs whose mutual information, best critic and conditional are known.

x and e are standard normal in D dimensions and y = r x + s e with s**2 = 1 - r**2, so that
I(x; y) = -D / 2 log(1 - r**2). Everything is a function of a key: no data set is on disk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.types import Batch

# A run makes its parameters and the keys of its updates from the first two children of its seed.
TRAIN, FRESH = 101, 102
"""Streams of pairs: those to learn from, and those to estimate on."""


@dataclass(frozen=True)
class Gaussians:
    """Pairs (x, y) in D dimensions each.

    Attributes:
      dimensions: D.
      nats: I(x; y); a number or a traced scalar.

    Example:
      >>> pairs = Gaussians(dimensions=20, nats=2.0)
      >>> round(float(-10 * jnp.log(1 - pairs.correlation**2)), 4)
      2.0
      >>> x, y = pairs.draw(jax.random.key(0), 8)
      >>> pairs.log_ratio(x, y).shape
      (8, 8)
    """

    dimensions: int
    nats: Any

    @property
    def correlation(self) -> jax.Array:
        """r, of each component of x with that of y."""
        return jnp.sqrt(-jnp.expm1(-2.0 * jnp.asarray(self.nats, jnp.float32) / self.dimensions))

    @property
    def log_deviation(self) -> jax.Array:
        """Log s, where s is the standard deviation of a component of y given x."""
        return -jnp.asarray(self.nats, jnp.float32) / self.dimensions

    @property
    def club(self) -> jax.Array:
        """The value of CLUB with the true conditional, D r**2 / s**2."""
        return self.dimensions * jnp.expm1(-2.0 * self.log_deviation)

    def draw(self, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """Return x and y, float32 [count, D] each."""
        x, e = jax.random.normal(key, (2, count, self.dimensions))
        return x, self.correlation * x + jnp.exp(self.log_deviation) * e

    def log_ratio(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return log p(y_j | x_i) / p(y_j) of x [N, D] and y [M, D]: float32 [N, M]."""
        r, precision = self.correlation, jnp.exp(-2.0 * self.log_deviation)
        x_squares, y_squares = (jnp.square(each).sum(-1) for each in (x, y))
        squares = y_squares[None, :] - 2.0 * r * x @ y.T + r**2 * x_squares[:, None]
        return self.nats + 0.5 * (y_squares[None, :] - precision * squares)

    def conditional(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and log-variance of p(y | x), [..., D] each."""
        # No broadcast number: XLA for CPUs (seen in jax 0.10.2) gives garbage for the sum over a
        # product of two matrices of which one is that.
        return self.correlation * x, 2.0 * self.log_deviation + 0.0 * x


def stream_key(seed: int, stream: int) -> jax.Array:
    """Return the key of a stream; the one of its batch n is ``fold_in(key, n)``."""
    return jax.random.fold_in(jax.random.key(seed), stream)


@partial(jax.jit, static_argnames=("dimensions", "count"))
def _draw(
    key: jax.Array, n: jax.Array, nats: jax.Array, dimensions: int, count: int
) -> tuple[jax.Array, jax.Array]:
    return Gaussians(dimensions, nats).draw(jax.random.fold_in(key, n), count)


class PairBatches:
    """Endless batches of pairs: batch n is a pure function of (pairs, batch size, seed, n).

    Args:
      pairs: What to draw from.
      batch_size: Pairs in a batch.
      seed: The seed.
      read: Batch size -> which rows of a batch to read, see `jmrec.sharding.process_rows`. None
        is all.

    Example:
      >>> batches = PairBatches(Gaussians(3, 0.5), 4, seed=0)
      >>> batches[7]["x"].shape, bool((batches[7]["y"] == batches[7]["y"]).all())
      ((4, 3), True)
    """

    def __init__(
        self,
        pairs: Gaussians,
        batch_size: int,
        seed: int,
        read: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.pairs, self.batch_size, self.read = pairs, batch_size, read
        self._key = stream_key(seed, TRAIN)

    def __getitem__(self, n: int) -> Batch:
        """Return batch n: ``x`` and ``y``, float32 [B, D]."""
        x, y = _draw(self._key, n, self.pairs.nats, self.pairs.dimensions, self.batch_size)
        rows = slice(None) if self.read is None else self.read(self.batch_size)
        return {"x": np.asarray(x)[rows], "y": np.asarray(y)[rows]}
