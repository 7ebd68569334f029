"""The Transfer tower: a causal model that reads a session and says what follows.

With ``prompt="items"`` an item is one soft token, made from the Knowledge tower's cached features
e; with ``prompt="tokens"`` it is all its picture and text tokens, which costs their number squared
and is meant for accelerators. The tower's own item vectors are ``y_j = P e_j`` either way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense, drop, named
from jmrec.models.parts.transformer import Stack, StackConfig, causal, positions_of
from jmrec.models.sessions.context import Context, Direct
from jmrec.types import Model


@dataclass(frozen=True)
class ItemTokens:
    """What the tokens of an item are, for ``prompt="tokens"``.

    Attributes:
      vocab: Tokens of the tokenizer.
      text: T, text tokens of an item.
      seen: P, picture tokens of an item.
      width: Of the picture tokens, which is the Knowledge tower's.
    """

    vocab: int
    text: int
    seen: int
    width: int


@dataclass(frozen=True)
class TransferConfig:
    """The Transfer tower's size.

    Attributes:
      features: D, the width of e.
      stack: The causal decoder over items, or over their tokens.
      out: Width of the states h and of the item vectors y.
      tokens: What an item's tokens are; None reads an item as one soft token.
      gaps: Whether the time between events is read.
      events: Number of event types that are read; 0 reads none.
    """

    features: int
    stack: StackConfig = field(default_factory=StackConfig)
    out: int = 128
    tokens: ItemTokens | None = None
    gaps: bool = False
    events: int = 0


class TransferTower(nn.Module):
    """The module; see `transfer_tower` for the pure functions."""

    config: TransferConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        dtype = jnp.dtype(c.stack.dtype)
        width = c.stack.width
        if c.tokens is None:
            self.token = dense(width, (None, "embed"), dtype, "token", bias=True)
        else:
            self.embed = nn.Embed(
                c.tokens.vocab, width, dtype=dtype,
                embedding_init=named(nn.initializers.normal(width**-0.5), "vocab", "embed"),
            )  # fmt: skip
            self.look = dense(width, (None, "embed"), dtype, "look", bias=True)
            self.end = self.param("end", named(nn.initializers.normal(0.02), "embed"), (width,))
        self.context = Context(width, c.gaps, c.events)
        self.stack = Stack(c.stack)
        self.direct = Direct(c.out)
        self.head = dense(c.out, ("embed", "out"), jnp.float32, "head", bias=True)
        self.item = dense(c.out, ("embed", "out"), jnp.float32, "item")

    def encode_session(
        self,
        items: jax.Array | Mapping[str, jax.Array],
        mask: jax.Array,
        gap: jax.Array | None = None,
        event: jax.Array | None = None,
        dropout: jax.Array | float = 0.0,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode sessions of L items to states h [B, L, out].

        Args:
          items: The items' e [B, L, D]; with ``prompt="tokens"`` their ``text`` int32 [B, L, T]
            (0 is padding), ``seen`` [B, L, P, width] and ``picture_ok`` bool [B, L].
          mask: bool [B, L], or int32: see `jmrec.models.parts.transformer.causal`.
          gap: float32 [B, L], see `jmrec.models.sessions.context.Context`.
          event: int32 [B, L].
          dropout: Rate on the items (or their tokens) and on the residual branches.
        """
        key = self.make_rng("drop") if self.has_rng("drop") else None
        context = self.context(mask, gap, event)
        if isinstance(items, Mapping):
            tokens, shown = self._tokens(items, mask)
            tokens = tokens.at[:, :, -1].add(context.astype(tokens.dtype))
            tokens = drop(tokens, dropout, key)
            batch, width = tokens.shape[0], tokens.shape[-1]
            real = jnp.where(shown, mask[..., None], jnp.zeros((), mask.dtype)).reshape(batch, -1)
            flat = tokens.reshape(batch, -1, width)
            states, layers = self.stack(flat, positions_of(real), causal(real), dropout)
            # An item's last token has read all of it and of the items before.
            states = states.reshape(tokens.shape)[:, :, -1]
            weight = shown[..., None]
            x = jnp.where(weight, tokens, 0).sum(2) / jnp.maximum(weight.sum(2), 1)
        else:
            x = self.token(items)
            x = drop(x + context.astype(x.dtype), dropout, key)
            states, layers = self.stack(x, positions_of(mask), causal(mask), dropout)
        out = self.head(states.astype(jnp.float32)) + self.direct(x, mask)
        return out, {"states": states, "layers": layers}

    def _tokens(
        self, items: Mapping[str, jax.Array], mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return every item's tokens [B, L, P + T + 1, width], the last one its end, and masks."""
        width, seen, text = self.config.stack.width, items["seen"], items["text"]
        words = self.embed(text) * width**0.5
        end = jnp.broadcast_to(self.end.astype(words.dtype), (*mask.shape, 1, width))
        looked = jnp.broadcast_to(items["picture_ok"][..., None], seen.shape[:-1])
        shown = jnp.concatenate([looked, text > 0, jnp.ones((*mask.shape, 1), bool)], -1)
        return jnp.concatenate([self.look(seen), words, end], 2), shown & (mask[..., None] > 0)

    def item_table(self, e: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the item vectors y = P e: [V, D] -> [V, out], scaled for a plain dot product."""
        return self.item(e) * self.config.out**-0.5, {}

    def __call__(
        self, items: jax.Array | Mapping[str, jax.Array], mask: jax.Array, e: jax.Array
    ) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        h, _ = self.encode_session(items, mask)
        self.item_table(e)
        return h


@once
def transfer_tower(config: TransferConfig) -> Model:
    """Return the Transfer tower: fns ``encode_session`` and ``item_table``.

    Example:
      >>> tiny = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
      >>> model = transfer_tower(TransferConfig(features=6, stack=tiny, out=8))
      >>> params = model.init(jax.random.key(0))
      >>> encode = jax.jit(model.fns["encode_session"])
      >>> h, _ = encode(params, jnp.ones((2, 5, 6)), jnp.ones((2, 5), bool))
      >>> h.shape
      (2, 5, 8)
    """

    def example() -> tuple[Any, ...]:
        e, mask, tokens = jnp.zeros((2, config.features)), jnp.ones((1, 2), bool), config.tokens
        if tokens is None:
            return e[None], mask, e
        items = {
            "text": jnp.ones((1, 2, tokens.text), jnp.int32),
            "seen": jnp.zeros((1, 2, tokens.seen, tokens.width)),
            "picture_ok": mask,
        }
        return items, mask, e

    names = ("encode_session", "item_table")
    return make_model(config, TransferTower(config), example, {name: name for name in names})
