"""CASER: filters over the last items, read as a picture of L rows, one an item.

A horizontal filter is as wide as the vectors and 1 to L items high, and of all the places where it
fits the best one counts; a vertical one weighs the L items, number by number. Before a session's
first item there are zeros. Sessions are anonymous, so that the vector of a user is left out; states
are compared with the vectors that are read. Filters have biases, as in the authors' program (the
paper's formula has none).

References:
  Tang, Wang, Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding,
  https://arxiv.org/abs/1809.07426
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import Linear, dense
from jmrec.models.parts.transformer import positions_of
from jmrec.models.sessions.items import OverItems, check_sizes, over_items
from jmrec.types import Model


@dataclass(frozen=True)
class CaserConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      last: L, how many of the last items are read.
      horizontal: Filters of each height from 1 to L.
      vertical: Filters of L weights.
    """

    features: int
    ids: int
    width: int = 64
    last: int = 5
    horizontal: int = 16
    vertical: int = 8

    def __post_init__(self) -> None:
        check_sizes(self, "caser", "last", "horizontal", "vertical")


def earlier(x: jax.Array, steps: int, place: jax.Array, before: jax.Array | float) -> jax.Array:
    """Return what stood so many positions earlier in the same session.

    Args:
      x: [B, L, D].
      steps: How many, 0 or more.
      place: int32 [B, L], each position's number in its session.
      before: What there is before a session's first item, [D] or a number.

    Returns:
      [B, L, D].

    Example:
      >>> x, place = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0, 1, 2, 0])
      >>> earlier(x[None, :, None], 1, place[None], 0.0)[0, :, 0].tolist()
      [0.0, 1.0, 2.0, 0.0]
    """
    moved = jnp.pad(x, ((0, 0), (steps, 0), (0, 0)))[:, : x.shape[1]]
    return jnp.where((place >= steps)[..., None], moved, before)


class Caser(OverItems):
    """The module; see `caser` for the pure functions."""

    config: CaserConfig

    def setup(self) -> None:
        """Declare the filters, and the layer above them."""
        super().setup()
        c = self.config

        def layer(name: str, size: int, axes: tuple[str | None, str | None]) -> Linear:
            return dense(size, axes, jnp.float32, name, bias=True)

        self.rows = [
            layer(f"horizontal_{height}", c.horizontal, ("embed", None))
            for height in range(1, c.last + 1)
        ]
        self.columns = layer("vertical", c.vertical, (None, None))
        self.head = layer("head", c.width, ("mlp", "embed"))

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] to states [B, L, width].

        Dropout is on what the filters give. ``mask`` is bool, or int32: see
        `jmrec.models.parts.transformer.causal`.
        """
        c, place = self.config, positions_of(mask)
        # The last items up to each position, the oldest first: [B, L, last, width].
        window = jnp.stack([earlier(x, n, place, 0.0) for n in reversed(range(c.last))], 2)
        columns = jnp.swapaxes(self.columns(jnp.swapaxes(window, 2, 3)), 2, 3)
        read = [columns.reshape(*mask.shape, -1)]
        for height, layer in enumerate(self.rows, 1):
            below = window[:, :, c.last - height :].reshape(*mask.shape, -1)
            # A filter that ends n items earlier gives what it gave there: each place is read once.
            ends, nothing = layer(below), layer(jnp.zeros(below.shape[-1]))
            places = [earlier(ends, n, place, nothing) for n in range(c.last - height + 1)]
            read.append(jax.nn.relu(jnp.stack(places).max(0)))
        return jax.nn.relu(self.head(self.dropped(jnp.concatenate(read, -1), dropout))), {}


def caser(config: CaserConfig) -> Model:
    """Return CASER: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = caser(CaserConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Caser(config))
