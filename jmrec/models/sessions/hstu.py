"""HSTU: attention without a softmax, gated item by item, that knows places and times apart.

As its authors' program for sequences has it: item vectors times the root of the width plus a vector
of the position, layers of one projection each, a bias of the distance and one of the time between
two items. (That program counts the time up to the next click, which nobody knows before it comes;
here it is the time up to the item itself.) States are compared with items by their dot product.

References:
  Zhai et al., Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for
  Generative Recommendations, https://arxiv.org/abs/2402.17152
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.parts.basic import dense, drop, named
from jmrec.models.parts.transformer import causal, positions_of
from jmrec.models.sessions.items import OverItems, check_sizes, over_items
from jmrec.types import Model

BUCKETS = 128
"""Times apart are sorted by their logarithm; all longer ones are in the last bucket."""
BUCKET = 0.301
"""Width of a bucket, in natural logarithms of seconds."""


@dataclass(frozen=True)
class HstuConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      layers: One above the other.
      heads: Of the attention; they divide the width, and are as wide for keys as for values.
      positions: How many positions, and distances, have a number of their own; later ones share
        the last. The attention is divided by it.
      gaps: Whether the time between events is read.
    """

    features: int
    ids: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    positions: int = 50
    gaps: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "hstu", "layers", "heads", "positions")
        if self.width % self.heads:
            raise SettingError(f"heads={self.heads} does not divide width={self.width}.")


def seconds_between(gap: jax.Array) -> jax.Array:
    """Return the seconds from each item to each later one, float32 [B, L, L]: [b, later, earlier].

    They are sums of the gaps between the two, so that short times far from the start are exact.
    Where the second index is not the earlier one they are 0.

    Args:
      gap: float32 [B, L], log(1 + seconds since the item before).

    Example:
      >>> seconds_between(jnp.log(1 + jnp.array([[0.0, 3.0, 5.0]]))).round().tolist()
      [[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [8.0, 5.0, 0.0]]]
    """
    place = jnp.arange(gap.shape[1])

    def step(before: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        seconds, here = at
        now = jnp.where(place < here, before + seconds[:, None], 0.0)
        return now, now

    _, rows = jax.lax.scan(step, jnp.zeros_like(gap), (jnp.expm1(gap).T, place))
    return jnp.swapaxes(rows, 0, 1)


class Layer(nn.Module):
    """x + out(u * norm(silu(q k + bias) v / positions)); u, v, q and k are one projection's."""

    config: HstuConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        apart: jax.Array,
        bucket: jax.Array | None,
        rate: jax.Array | float,
    ) -> jax.Array:
        """Map x [B, L, D].

        Args:
          x: The states.
          mask: bool [B, L, L], which positions each sees.
          apart: int [B, L, L], how many items two positions are apart.
          bucket: int [B, L, L], that of the time between them; None where it is not read.
          rate: Of the dropout.
        """
        c = self.config
        small = nn.initializers.normal(0.02)
        project = dense(4 * c.width, ("embed", "heads"), jnp.float32, "uvqk", init=small)
        u, v, q, k = jnp.split(nn.silu(project(norm(x))), 4, -1)
        q, k, v = (each.reshape(*x.shape[:2], c.heads, -1) for each in (q, k, v))
        bias = self.param("distance", named(small, None), (c.positions,))[apart]
        if c.gaps:
            times = self.param("time", named(small, None), (BUCKETS + 1,))
            bias = bias if bucket is None else bias + times[bucket]
        weight = nn.silu(jnp.einsum("bthc,bshc->bhts", q, k) + bias[:, None]) / c.positions
        weight = jnp.where(mask[:, None], weight, 0.0)
        seen = jnp.einsum("bhts,bshc->bthc", weight, v).reshape(x.shape)
        key = self.make_rng("drop") if self.has_rng("drop") else None
        even = nn.initializers.xavier_uniform()
        out = dense(c.width, ("heads", "embed"), jnp.float32, "out", bias=True, init=even)
        return x + out(drop(u * norm(seen), rate, key))


def norm(x: jax.Array) -> jax.Array:
    """Return x with mean 0 and variance 1 along the last axis; nothing is learned."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


class Hstu(OverItems):
    """The module; see `hstu` for the pure functions."""

    config: HstuConfig

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        c = self.config
        places = named(nn.initializers.normal(c.width**-0.5), None, "embed")
        self.places = self.param("places", places, (c.positions, c.width))
        self.layers = [Layer(c, name=f"layer_{n}") for n in range(c.layers)]

    def encode_session(
        self,
        x: jax.Array,
        mask: jax.Array,
        gap: jax.Array | None = None,
        dropout: jax.Array | float = 0.0,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] to states [B, L, width].

        ``mask`` is bool, or int32: see `jmrec.models.parts.transformer.causal`. ``gap`` [B, L] is
        that of the batch.
        """
        c, place, bucket = self.config, positions_of(mask), None
        last = c.positions - 1
        apart = jnp.clip(place[:, :, None] - place[:, None], 0, last)
        if c.gaps and gap is not None:
            bucket = jnp.log(jnp.maximum(seconds_between(gap), 1.0)) / BUCKET
            bucket = jnp.minimum(bucket.astype(jnp.int32), BUCKETS)
        x = x * c.width**0.5 + self.places[jnp.minimum(place, last)]
        x, seen = self.dropped(x, dropout), causal(mask)
        for layer in self.layers:
            x = layer(x, seen, apart, bucket, dropout)
        return x, {"states": x}


def hstu(config: HstuConfig) -> Model:
    """Return HSTU: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = hstu(HstuConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Hstu(config))
