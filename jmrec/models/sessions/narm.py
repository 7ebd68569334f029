"""NARM: a recurrent network, and attention from its last state to the earlier ones.

The attention of every position reads the states up to it, so that one pass trains all prefixes.

References:
  Li, Ren, Chen, Ren, Lian, Ma, Neural Attentive Session-based Recommendation,
  https://arxiv.org/abs/1711.04725
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.additive import Additive
from jmrec.models.parts.basic import dense
from jmrec.models.parts.gru import Gru
from jmrec.models.parts.transformer import causal, positions_of
from jmrec.models.sessions.items import OverItems, check_rates, check_sizes, over_items
from jmrec.types import Model


@dataclass(frozen=True)
class NarmConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      hidden: Of the recurrent state and of the attention.
      layers: Recurrent layers, one above the other.
      item_dropout: Rate on the item vectors; the run's own rate is that of what the head reads.
    """

    features: int
    ids: int
    width: int = 64
    hidden: int = 128
    layers: int = 1
    item_dropout: float = 0.25

    def __post_init__(self) -> None:
        check_sizes(self, "narm", "hidden", "layers")
        check_rates(self, "narm", "item_dropout")


class Narm(OverItems):
    """The module; see `narm` for the pure functions."""

    config: NarmConfig

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        c = self.config
        self.layers = [Gru(c.hidden, name=f"gru_{n}") for n in range(c.layers)]
        init = nn.initializers.xavier_normal()
        self.query = dense(c.hidden, ("mlp", "embed"), jnp.float32, "query", init=init)
        self.key = dense(c.hidden, ("mlp", "embed"), jnp.float32, "key", init=init)
        self.attention = Additive(init, name="attention")
        self.head = dense(c.width, ("mlp", "embed"), jnp.float32, "head", init=init)

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] to states [B, L, width].

        ``dropout`` is on what the head reads. ``mask`` is bool, or int32: see
        `jmrec.models.parts.transformer.causal`.
        """
        begins = positions_of(mask) == 0
        h = self.dropped(x, self.config.item_dropout)
        for layer in self.layers:
            h = layer(h, begins)
        local = self.attention(self.query(h), self.key(h), h, causal(mask))
        both = jnp.concatenate([local, h], -1)
        return self.head(self.dropped(both, dropout)), {"states": both}


def narm(config: NarmConfig) -> Model:
    """Return NARM: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = narm(NarmConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Narm(config))
