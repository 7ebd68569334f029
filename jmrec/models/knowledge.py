"""The Knowledge tower: a small multimodal language model that reads one item.

It reads ``<picture tokens> <text fields>`` and gives a pooled state e: the picture tokens and the
states of each field, pooled apart, because one pool over everything dilutes the one telling word.
(The picture comes first, so that the decoder's states of it know no more than the tokens
themselves, and a small decoder blurs them.) The
language head writes each text field *from e alone* (a few soft tokens, and a shift of the tokens
of each field): whatever the picture and the shown fields say about the hidden ones has to pass
through e. Both are jmrec's own reading of TPAD (arXiv 2504.10538), whose method section was not
available to us.
"""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jmrec.models.build import make_model
from jmrec.models.layers import (
    Stack,
    StackConfig,
    causal,
    dense,
    gather,
    named,
    positions_of,
)
from jmrec.models.vision import VisionConfig, VisionEncoder
from jmrec.types import Model


@dataclass(frozen=True)
class KnowledgeConfig:
    """The Knowledge tower's size.

    Attributes:
      vocab: Tokens of the tokenizer.
      fields: Number of tokens of each text field, in the order of the ``text`` array.
      vision: The vision encoder.
      stack: The causal decoder.
      soft: Soft tokens that carry e into the language head.
      contrast: Width of the space in which pictures and texts are compared.
    """

    vocab: int
    fields: tuple[int, ...]
    vision: VisionConfig = field(default_factory=VisionConfig)
    stack: StackConfig = field(default_factory=StackConfig)
    soft: int = 4
    contrast: int = 64

    @property
    def tokens(self) -> int:
        """Text tokens of an item: the fields one after the other."""
        return sum(self.fields)

    @property
    def features(self) -> int:
        """D, the width of e: mean and maximum of the picture and of each field, and the end."""
        return (2 * (1 + len(self.fields)) + 1) * self.stack.width

    def token_fields(self) -> list[int]:
        """Return the field number of each text token."""
        return [i for i, length in enumerate(self.fields) for _ in range(length)]


class KnowledgeTower(nn.Module):
    """The module; see `knowledge_tower` for the pure functions."""

    config: KnowledgeConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        width, dtype = c.stack.width, jnp.dtype(c.stack.dtype)
        self.vision = VisionEncoder(c.vision, width)
        self.embed = nn.Embed(
            c.vocab, width, dtype=dtype,
            embedding_init=named(nn.initializers.normal(width**-0.5), "vocab", "embed"),
        )  # fmt: skip
        self.stack = Stack(c.stack)
        self.end = self.param("end", named(nn.initializers.normal(0.02), "embed"), (width,))
        self.soft = dense(c.soft * width, (None, "embed"), dtype, "soft")
        self.condition = dense(len(c.fields) * width, (None, "embed"), dtype, "condition")
        self.contrast_picture = dense(c.contrast, ("embed", "out"), jnp.float32, "contrast_picture")
        self.contrast_text = dense(c.contrast, ("embed", "out"), jnp.float32, "contrast_text")

    def see(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode pictures [B, S, S, 3] in 0..255 to picture tokens [B, P, D]."""
        return self.vision(picture), {}

    def encode_item(
        self,
        text: jax.Array | None,
        seen: jax.Array | None,
        text_ok: jax.Array | None,
        picture_ok: jax.Array | None,
        dropout: jax.Array | float = 0.0,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Read items; what is None is not there, which costs less than hiding it by a mask.

        Args:
          text: int32 [B, T] tokens, 0 is padding; or None.
          seen: Picture tokens [B, P, D] from ``see``; or None.
          text_ok: bool [B, T], the tokens that are shown.
          picture_ok: bool [B], whether the picture is shown.
          dropout: Rate on the residual branches.

        Returns:
          e float32 [B, D], and the tap "states" [B, P + T + 1, D].
        """
        width, dtype = self.config.stack.width, jnp.dtype(self.config.stack.dtype)
        given = text if text is not None else seen
        assert given is not None
        batch = given.shape[0]
        if seen is None or picture_ok is None:
            seen, shown_picture = jnp.zeros((batch, 0, width), dtype), jnp.zeros((batch, 0), bool)
        else:
            shown_picture = jnp.broadcast_to(picture_ok[:, None], seen.shape[:2])
        if text is None or text_ok is None:
            words, shown_text = jnp.zeros((batch, 0, width), dtype), jnp.zeros((batch, 0), bool)
        else:
            words, shown_text = self.embed(text) * width**0.5, text_ok & (text > 0)
        end = jnp.broadcast_to(self.end.astype(dtype), (batch, 1, width))
        x = jnp.concatenate([seen, words, end], 1)
        mask = jnp.concatenate([shown_picture, shown_text, jnp.ones((batch, 1), bool)], 1)
        states, _ = self.stack(x, positions_of(mask), causal(mask), dropout)
        count, empty = seen.shape[1], jnp.zeros((batch, 2 * width))
        pooled = [gather(seen, shown_picture) if count else empty]
        start = count
        for length in self.config.fields:
            part = slice(start, start + length)
            pooled.append(gather(states[:, part], mask[:, part]) if text is not None else empty)
            start += length
        e = jnp.concatenate([*pooled, states[:, -1].astype(jnp.float32)], -1)
        return e, {"states": states}

    def lm_logits(
        self, e: jax.Array, text: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Write text from e: logits [B, T, vocab] at position i predict token i of ``text``.

        Every field is written from e alone: it sees its own earlier tokens and no other field.

        Args:
          e: float32 [B, D].
          text: int32 [B, T].
          dropout: Rate on the residual branches.
        """
        c = self.config
        width, batch = c.stack.width, len(e)
        soft = self.soft(e).reshape(batch, c.soft, width)
        # Each field sees e through a matrix of its own.
        shifts = self.condition(e).reshape(batch, len(c.fields), width)
        shift = shifts[:, np.array(c.token_fields())]
        words = self.embed(text) * width**0.5 + shift
        x = jnp.concatenate([soft.astype(words.dtype), words], 1)
        real = jnp.concatenate([jnp.ones((batch, c.soft), bool), text > 0], 1)
        field = np.array([-1] * c.soft + c.token_fields())
        place = np.concatenate([np.arange(c.soft)] + [c.soft + np.arange(n) for n in c.fields])
        together = (field[None, :] == field[:, None]) | (field[None, :] == -1)
        positions = jnp.broadcast_to(place, (batch, len(place)))
        states, _ = self.stack(x, positions, causal(real) & together, dropout)
        logits = self.embed.attend(states[:, c.soft - 1 : -1])
        return logits.astype(jnp.float32), {"states": states}

    def contrast(
        self, seen: jax.Array, text_e: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """Map picture tokens [B, P, D] and e of a text alone [B, D] to unit vectors [B, C] each."""

        def unit(x: jax.Array) -> jax.Array:
            return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-6)

        picture = gather(seen, jnp.ones(seen.shape[:2], bool))
        return (unit(self.contrast_picture(picture)), unit(self.contrast_text(text_e))), {}

    def __call__(
        self, text: jax.Array, picture: jax.Array, text_ok: jax.Array, picture_ok: jax.Array
    ) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        seen, _ = self.see(picture)
        e, _ = self.encode_item(text, seen, text_ok, picture_ok)
        logits, _ = self.lm_logits(e, text)
        self.contrast(seen, e)
        return logits


def knowledge_tower(config: KnowledgeConfig) -> Model:
    """Return the Knowledge tower: fns ``see``, ``encode_item``, ``lm_logits`` and ``contrast``.

    Example:
      >>> tiny = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
      >>> model = knowledge_tower(KnowledgeConfig(vocab=10, fields=(3, 2), stack=tiny,
      ...                                         vision=VisionConfig(size=8, patch=4, stack=tiny)))
      >>> params = model.init(jax.random.key(0))
      >>> seen, _ = model.fns["see"](params, jnp.zeros((2, 8, 8, 3), jnp.uint8))
      >>> e, _ = model.fns["encode_item"](
      ...     params, jnp.ones((2, 5), int), seen, jnp.ones((2, 5), bool), jnp.ones(2, bool))
      >>> e.shape
      (2, 112)
    """
    size = config.vision.size

    def example() -> tuple[jax.Array, ...]:
        return (
            jnp.ones((1, config.tokens), jnp.int32),
            jnp.zeros((1, size, size, 3), jnp.uint8),
            jnp.ones((1, config.tokens), bool),
            jnp.ones((1,), bool),
        )

    names = ("see", "encode_item", "lm_logits", "contrast")
    return make_model(config, KnowledgeTower(config), example, {name: name for name in names})
