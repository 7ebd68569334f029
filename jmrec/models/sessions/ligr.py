"""LiGR: attention whose blocks are gated by what they read, as eSASRec uses it.

References:
  Borisyuk et al., From Features to Transformers: Redefining Ranking for Scalable Impact,
  https://arxiv.org/abs/2502.03417 (the block)
  Tikhonovich et al., eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion,
  https://arxiv.org/abs/2508.06450 (in SASRec's place, with SwiGLU)
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.parts.basic import dense, drop, layer_norm, named
from jmrec.models.parts.transformer import attend, causal, positions_of
from jmrec.models.sessions.items import OverItems, check_sizes, over_items
from jmrec.types import Model


@dataclass(frozen=True)
class LigrConfig:
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
        check_sizes(self, "ligr", "layers", "heads", "positions")
        if self.mlp < 0:
            raise SettingError(f"mlp of the encoder ligr is {self.mlp}; give 0 or more.")
        if self.width % self.heads:
            raise SettingError(f"heads={self.heads} does not divide width={self.width}.")


EPSILON = 1e-5


class Block(nn.Module):
    """x + sigmoid(gate(x)) * branch(norm(x)), for attention and then for a SwiGLU MLP."""

    config: LigrConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, rate: jax.Array | float) -> jax.Array:
        """Map x [B, L, D], of which each position sees those of mask bool [B, L, L]."""
        c = self.config

        def gated(x: jax.Array, branch: jax.Array, name: str) -> jax.Array:
            key = self.make_rng("drop") if self.has_rng("drop") else None
            gate = dense(c.width, ("embed", "out"), jnp.float32, name, bias=True)(x)
            return x + jax.nn.sigmoid(gate) * drop(branch, rate, key)

        y = layer_norm("attention_norm", EPSILON)(x)

        def heads(name: str) -> jax.Array:
            out = dense(c.width, ("embed", "heads"), jnp.float32, name, bias=True)(y)
            return out.reshape(*y.shape[:2], c.heads, -1)

        out = dense(c.width, ("heads", "embed"), jnp.float32, "out", bias=True)
        seen = out(attend(heads("query"), heads("key"), heads("value"), mask))
        x = gated(x, seen, "attention_gate")
        y, mlp = layer_norm("mlp_norm", EPSILON)(x), c.mlp or 4 * c.width
        gate = dense(mlp, ("embed", "mlp"), jnp.float32, "gate")(y)
        up = dense(mlp, ("embed", "mlp"), jnp.float32, "up")(y)
        y = dense(c.width, ("mlp", "embed"), jnp.float32, "down")(nn.silu(gate) * up)
        return gated(x, y, "mlp_gate")


class Ligr(OverItems):
    """The module; see `ligr` for the pure functions."""

    config: LigrConfig

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        c = self.config
        places = named(nn.initializers.normal(0.02), None, "embed")
        self.places = self.param("places", places, (c.positions, c.width))
        self.blocks = [Block(c, name=f"block_{n}") for n in range(c.layers)]

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] to states [B, L, width].

        ``mask`` is bool, or int32: see `jmrec.models.parts.transformer.causal`.
        """
        place = jnp.minimum(positions_of(mask), self.config.positions - 1)
        x = self.dropped(x + self.places[place], dropout)
        seen = causal(mask)
        for block in self.blocks:
            x = block(x, seen, dropout)
        return x, {"states": x}


def ligr(config: LigrConfig) -> Model:
    """Return LiGR: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = ligr(LigrConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Ligr(config))
