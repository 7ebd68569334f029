"""SASRec: self-attention over the items of a session, as it was published.

References:
  Kang and McAuley, Self-Attentive Sequential Recommendation, https://arxiv.org/abs/1808.09781
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.parts.basic import dense, drop, layer_norm, named
from jmrec.models.parts.transformer import attend, causal, positions_of
from jmrec.models.sessions.items import OverItems, over_items
from jmrec.types import Model


@dataclass(frozen=True)
class SasrecConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      layers: Blocks.
      heads: Of the attention; they divide the width.
      mlp: Width inside a block's MLP, 0 for four times ``width``.
      positions: How many positions have a vector; later ones share the last.
    """

    features: int
    ids: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    mlp: int = 0
    positions: int = 50

    def __post_init__(self) -> None:
        if not self.features and not self.ids:
            raise SettingError("the encoder sasrec needs features, ids or both.")
        if min(self.width, self.layers, self.heads, self.positions) < 1 or self.mlp < 0:
            raise SettingError("the sizes of the encoder sasrec are whole numbers above 0.")
        if self.width % self.heads:
            raise SettingError(f"heads={self.heads} does not divide width={self.width}.")


EPSILON = 1e-12


class Block(nn.Module):
    """Attention, then an MLP; each is added and the sum normalised."""

    config: SasrecConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, rate: jax.Array | float) -> jax.Array:
        """Map x [B, L, D], of which each position sees those of mask bool [B, L, L]."""
        c = self.config

        def key() -> jax.Array | None:
            return self.make_rng("drop") if self.has_rng("drop") else None

        def heads(name: str) -> jax.Array:
            out = dense(c.width, ("embed", "heads"), jnp.float32, name, bias=True)(x)
            return out.reshape(*x.shape[:2], c.heads, -1)

        out = dense(c.width, ("heads", "embed"), jnp.float32, "out", bias=True)
        seen = out(attend(heads("query"), heads("key"), heads("value"), mask))
        x = layer_norm("attention_norm", EPSILON)(x + drop(seen, rate, key()))
        mlp = c.mlp or 4 * c.width
        y = dense(mlp, ("embed", "mlp"), jnp.float32, "up", bias=True)(x)
        y = nn.gelu(y, approximate=False)
        y = dense(c.width, ("mlp", "embed"), jnp.float32, "down", bias=True)(y)
        return layer_norm("mlp_norm", EPSILON)(x + drop(y, rate, key()))


class Sasrec(OverItems):
    """The module; see `sasrec` for the pure functions."""

    config: SasrecConfig

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        c = self.config
        places = named(nn.initializers.normal(0.02), None, "embed")
        self.places = self.param("places", places, (c.positions, c.width))
        self.norm = layer_norm("norm", EPSILON)
        self.blocks = [Block(c, name=f"block_{n}") for n in range(c.layers)]

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] to states [B, L, width].

        ``mask`` is bool, or int32: see `jmrec.models.parts.transformer.causal`.
        """
        place = jnp.minimum(positions_of(mask), self.config.positions - 1)
        x = self.dropped(self.norm(x + self.places[place]), dropout)
        seen = causal(mask)
        for block in self.blocks:
            x = block(x, seen, dropout)
        return x, {"states": x}


def sasrec(config: SasrecConfig) -> Model:
    """Return SASRec: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = sasrec(SasrecConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Sasrec(config))
