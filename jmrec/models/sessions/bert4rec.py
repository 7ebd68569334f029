"""BERT4Rec: attention in both directions, trained to fill in hidden items (a cloze).

Of a session in training some items are hidden, each by one learned vector, and named again from
what stands on both sides. To say what comes next a hidden item is put behind the last one. What
comes later changes the state of what was before, so the encoder is not causal, and each prefix is
encoded by itself.

States are compared with the item vectors that are read; the paper's bias of each item is left out,
for an item that nobody has clicked would have none.

References:
  Sun, Liu, Wu, Pei, Lin, Ou, Jiang, BERT4Rec: Sequential Recommendation with Bidirectional Encoder
  Representations from Transformer, https://arxiv.org/abs/1904.06690
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.linen import make_model
from jmrec.models.parts.basic import dense, layer_norm, named
from jmrec.models.sessions.items import OverItems, check_rates, check_sizes
from jmrec.models.sessions.sasrec import EPSILON, Block, SasrecConfig
from jmrec.types import Model


@dataclass(frozen=True)
class Bert4recConfig:
    """The encoder's size, and what is hidden in training.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      layers: Blocks.
      heads: Of the attention; they divide the width.
      positions: How many positions have a vector; later ones share the last. The hidden item behind
        a session has one too.
      hide: Share of a session's items that are hidden in training.
      last: Share of the sessions of which the last item alone is hidden, as when it is asked for.
    """

    features: int
    ids: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    positions: int = 51
    hide: float = 0.2
    last: float = 0.5

    def __post_init__(self) -> None:
        check_sizes(self, "bert4rec", "layers", "heads", "positions")
        check_rates(self, "bert4rec", "hide", "last")
        if self.width % self.heads:
            raise SettingError(f"heads={self.heads} does not divide width={self.width}.")


class Bert4rec(OverItems):
    """The module; see `bert4rec` for the pure functions."""

    config: Bert4recConfig

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        c, init = self.config, nn.initializers.normal(0.02)
        size = SasrecConfig(c.features, c.ids, c.width, c.layers, c.heads)
        self.places = self.param("places", named(init, None, "embed"), (c.positions, c.width))
        self.hidden = self.param("hidden", named(init, "embed"), (c.width,))
        self.norm = layer_norm("norm", EPSILON)
        self.blocks = [Block(size, name=f"block_{n}") for n in range(c.layers)]
        self.head = dense(c.width, ("embed", "out"), jnp.float32, "head", bias=True)
        self.head_norm = layer_norm("head_norm", EPSILON)

    def fill(
        self, x: jax.Array, mask: jax.Array, hidden: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the states of all positions, [B, L, width]; those of hidden ones are compared.

        Args:
          x: Item vectors [B, L, width].
          mask: bool [B, L], real positions; padding is at the right.
          hidden: bool [B, L], real positions of which only the place is read.
          dropout: The rate.
        """
        x = jnp.where(hidden[..., None], self.hidden, x)
        place = jnp.minimum(jnp.arange(x.shape[1]), self.config.positions - 1)
        x = self.dropped(self.norm(x + self.places[place]), dropout)
        for block in self.blocks:
            x = block(x, mask[:, None, :], dropout)
        states = self.head_norm(nn.gelu(self.head(x), approximate=False))
        return states, {"states": states}

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] with mask bool [B, L] to one state [B, width].

        Padding is at the right. It is the state of a hidden item behind the last one.
        """
        x, mask = jnp.pad(x, ((0, 0), (0, 1), (0, 0))), jnp.pad(mask, ((0, 0), (0, 1)))
        next_one = jnp.arange(mask.shape[1]) == mask.sum(1, keepdims=True)
        states, tapped = self.fill(x, mask | next_one, next_one, dropout)
        return jnp.where(next_one[..., None], states, 0.0).sum(1), tapped


def bert4rec(config: Bert4recConfig) -> Model:
    """Return BERT4Rec: fns ``item_table``, ``encode_session`` and ``fill``, for training.

    Example:
      >>> model = bert4rec(Bert4recConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> state, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> state.shape
      (1, 16)
      >>> hidden = jnp.arange(7)[None] == 3
      >>> jax.jit(model.fns["fill"])(params, x[None], jnp.ones((1, 7), bool), hidden)[0].shape
      (1, 7, 16)
    """

    def example() -> tuple[jax.Array | None, ...]:
        features = jnp.zeros((2, config.features)) if config.features else None
        return features, jnp.zeros(2, jnp.int32)

    names = ("item_table", "encode_session", "fill")
    return make_model(config, Bert4rec(config), example, {name: name for name in names})
