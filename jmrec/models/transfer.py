"""The Transfer tower: a causal model that reads a session as one soft token per item.

This is ``prompt="items"`` of the design: the soft tokens come from the Knowledge tower's cached
item features e. The tower's own item vectors are ``y_j = P e_j``.
"""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.build import make_model
from jmrec.models.layers import (
    Direct,
    Stack,
    StackConfig,
    causal,
    dense,
    drop,
    positions_of,
)
from jmrec.types import Model


@dataclass(frozen=True)
class TransferConfig:
    """The Transfer tower's size.

    Attributes:
      features: D, the width of e.
      stack: The causal decoder over items.
      out: Width of the states h and of the item vectors y.
    """

    features: int
    stack: StackConfig = field(default_factory=StackConfig)
    out: int = 128


class TransferTower(nn.Module):
    """The module; see `transfer_tower` for the pure functions."""

    config: TransferConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        dtype = jnp.dtype(c.stack.dtype)
        self.token = dense(c.stack.width, (None, "embed"), dtype, "token", bias=True)
        self.stack = Stack(c.stack)
        self.direct = Direct(c.out)
        self.head = dense(c.out, ("embed", "out"), jnp.float32, "head", bias=True)
        self.item = dense(c.out, ("embed", "out"), jnp.float32, "item")

    def encode_session(
        self, e: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode the items' e [B, L, D] with mask [B, L] to states h [B, L, out]."""
        key = self.make_rng("drop") if self.has_rng("drop") else None
        x = drop(self.token(e), dropout, key)
        states, layers = self.stack(x, positions_of(mask), causal(mask), dropout)
        out = self.head(states.astype(jnp.float32)) + self.direct(x, mask)
        return out, {"states": states, "layers": layers}

    def item_table(self, e: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the item vectors y = P e: [V, D] -> [V, out], scaled for a plain dot product."""
        return self.item(e) * self.config.out**-0.5, {}

    def __call__(self, e: jax.Array, mask: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        h, _ = self.encode_session(e, mask)
        self.item_table(e[0])
        return h


def transfer_tower(config: TransferConfig) -> Model:
    """Return the Transfer tower: fns ``encode_session`` and ``item_table``.

    Example:
      >>> tiny = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
      >>> model = transfer_tower(TransferConfig(features=6, stack=tiny, out=8))
      >>> params = model.init(jax.random.key(0))
      >>> h, _ = model.fns["encode_session"](params, jnp.ones((2, 5, 6)), jnp.ones((2, 5), bool))
      >>> h.shape
      (2, 5, 8)
    """

    def example() -> tuple[jax.Array, ...]:
        return jnp.zeros((1, 2, config.features)), jnp.ones((1, 2), bool)

    names = ("encode_session", "item_table")
    return make_model(config, TransferTower(config), example, {name: name for name in names})
