"""GRU4Rec: a recurrent network reads the session item by item.

References:
  Hidasi, Karatzoglou, Baltrunas, Tikk, Session-based Recommendations with Recurrent Neural
  Networks, https://arxiv.org/abs/1511.06939
  Tan, Xu, Liu, Improved Recurrent Neural Networks for Session-based Recommendations,
  https://arxiv.org/abs/1606.08117 (items as vectors, dropout on them)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import dense
from jmrec.models.parts.gru import Gru
from jmrec.models.parts.transformer import positions_of
from jmrec.models.sessions.items import OverItems, check_sizes, over_items
from jmrec.types import Model


@dataclass(frozen=True)
class Gru4recConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      hidden: Of the recurrent state.
      layers: Recurrent layers, one above the other.
    """

    features: int
    ids: int
    width: int = 64
    hidden: int = 128
    layers: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "gru4rec", "hidden", "layers")


class Gru4rec(OverItems):
    """The module; see `gru4rec` for the pure functions."""

    config: Gru4recConfig

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        c = self.config
        self.layers = [Gru(c.hidden, name=f"gru_{n}") for n in range(c.layers)]
        self.head = dense(c.width, ("mlp", "embed"), jnp.float32, "head", bias=True)

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] to states [B, L, width].

        ``mask`` is bool, or int32: see `jmrec.models.parts.transformer.causal`.
        """
        begins = positions_of(mask) == 0
        x = self.dropped(x, dropout)
        for layer in self.layers:
            x = layer(x, begins)
        return self.head(x), {"states": x}


def gru4rec(config: Gru4recConfig) -> Model:
    """Return GRU4Rec: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = gru4rec(Gru4recConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Gru4rec(config))
