"""CORE: the state of a session is a weighted sum of its items' vectors, compared by the cosine.

Items and sessions are in one space, for nothing stands between the vectors and their sum. How much
an item weighs, the blocks of SASRec say. Its weights are a softmax over the items up to a position,
and each logit reads the items up to its own, so that one pass trains all prefixes.

References:
  Hou, Hu, Zhang, Zhao, CORE: Simple and Effective Session-based Recommendation within Consistent
  Representation Space, https://arxiv.org/abs/2204.11067
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.parts.basic import Initialiser, dense, even_init, layer_norm, named
from jmrec.models.parts.transformer import causal, positions_of
from jmrec.models.sessions.items import OverItems, check_rates, check_sizes, over_items
from jmrec.models.sessions.sasrec import EPSILON, Block, SasrecConfig
from jmrec.types import Model


@dataclass(frozen=True)
class CoreConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      layers: Blocks that weigh the items.
      heads: Of their attention; they divide the width.
      mlp: Width inside a block's MLP, 0 for four times ``width``.
      positions: How many positions have a vector; later ones share the last.
      temperature: By which the cosine is divided.
      hidden_dropout: Rate inside the blocks; the run's own rate is that of a session's items.
      item_dropout: Rate of the vectors that a session is compared with.
    """

    features: int
    ids: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    mlp: int = 0
    positions: int = 50
    temperature: float = 0.07
    hidden_dropout: float = 0.5
    item_dropout: float = 0.2

    def __post_init__(self) -> None:
        check_sizes(self, "core", "layers", "heads", "positions")
        check_rates(self, "core", "hidden_dropout", "item_dropout")
        if not self.temperature > 0:
            raise SettingError(
                f"temperature of the encoder core is {self.temperature}; give a number above 0."
            )
        self.blocks()

    def blocks(self) -> SasrecConfig:
        """Return the size of the blocks."""
        sizes = (self.width, self.layers, self.heads, self.mlp, self.positions)
        return SasrecConfig(self.features, self.ids, *sizes)


def unit(x: jax.Array) -> jax.Array:
    """Return vectors of length 1 along the last axis, and 0 for 0.

    Example:
      >>> found = unit(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
      >>> [[round(float(each), 4) for each in row] for row in found]
      [[0.6, 0.8], [0.0, 0.0]]
    """
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)


class Core(OverItems):
    """The module; see `core` for the pure functions."""

    config: CoreConfig

    def id_init(self) -> Initialiser:
        """Return what draws the table of item ids."""
        return even_init(self.config.width**-0.5)

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        c = self.config
        places = named(nn.initializers.normal(0.02), None, "embed")
        self.places = self.param("places", places, (c.positions, c.width))
        self.norm = layer_norm("norm", EPSILON)
        self.blocks = [Block(c.blocks(), name=f"block_{n}") for n in range(c.layers)]
        self.weigh = dense(1, ("embed", None), jnp.float32, "weigh", bias=True)

    def item_table(
        self, features: jax.Array | None, ids: jax.Array, id_dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return item vectors of length 1, float32 [V, width], and as "raw" those of any length."""
        x, _ = self.items(features, ids, id_dropout)
        return unit(self.dropped(x, self.config.item_dropout)), {"raw": x}

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode raw item vectors x [B, L, width] to states [B, L, width].

        ``mask`` is bool, or int32: see `jmrec.models.parts.transformer.causal`.
        """
        c = self.config
        x = self.dropped(x, dropout)
        place = jnp.minimum(positions_of(mask), c.positions - 1)
        y = self.dropped(self.norm(x + self.places[place]), c.hidden_dropout)
        seen = causal(mask)
        for block in self.blocks:
            y = block(y, seen, c.hidden_dropout)
        weights = jax.nn.softmax(jnp.where(seen, self.weigh(y)[:, None, :, 0], -1e30), -1)
        return unit(weights @ x) / c.temperature, {"weights": weights}


def core(config: CoreConfig) -> Model:
    """Return CORE: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = core(CoreConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, raw = model.fns["item_table"](params, None, jnp.zeros(7, int), taps=("raw",))
      >>> read, mask = raw["raw"][None], jnp.ones((1, 7), bool)
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, read, mask)
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Core(config))
