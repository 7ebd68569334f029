"""STAMP: attention by the last item and by the mean of the session; no recurrence.

What the attention brings is added to the mean, as in its authors' program (the paper's formula has
the attention alone). The attention of every position reads the items up to it, so that one pass
trains all prefixes.

References:
  Liu, Zeng, Mokhosi, Zhang, STAMP: Short-Term Attention/Memory Priority Model for Session-based
  Recommendation, https://doi.org/10.1145/3219819.3219950
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.additive import Additive
from jmrec.models.parts.basic import Initialiser, Linear, dense
from jmrec.models.parts.transformer import causal
from jmrec.models.sessions.items import OverItems, check_sizes, over_items
from jmrec.types import Model


@dataclass(frozen=True)
class StampConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors, attention and states.
    """

    features: int
    ids: int
    width: int = 64

    def __post_init__(self) -> None:
        check_sizes(self, "stamp")


class Stamp(OverItems):
    """The module; see `stamp` for the pure functions."""

    config: StampConfig

    def id_init(self) -> Initialiser:
        """Return what draws the table of item ids."""
        return nn.initializers.normal(0.002)

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        width, init = self.config.width, nn.initializers.normal(0.05)

        def square(name: str, bias: bool = False) -> Linear:
            return dense(width, ("embed", "out"), jnp.float32, name, bias=bias, init=init)

        self.item, self.last, self.mean = square("item"), square("last"), square("mean", bias=True)
        self.attention = Additive(init, name="attention")
        self.general, self.current = square("general", bias=True), square("current", bias=True)

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] to states [B, L, width].

        Dropout is on the item vectors (the paper has none). ``mask`` is bool, or int32: see
        `jmrec.models.parts.transformer.causal`.
        """
        x = self.dropped(x, dropout)
        seen = causal(mask)
        share = seen / jnp.maximum(seen.sum(-1, keepdims=True), 1)
        mean = share @ x
        query = self.last(x) + self.mean(mean)
        memory = self.attention(query, self.item(x), x, seen) + mean
        return jnp.tanh(self.general(memory)) * jnp.tanh(self.current(x)), {"memory": memory}


def stamp(config: StampConfig) -> Model:
    """Return STAMP: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = stamp(StampConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """
    return over_items(Stamp(config))
