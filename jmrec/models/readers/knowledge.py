"""The Knowledge tower: a small multimodal language model that reads one item.

It reads ``<picture tokens> <text fields>`` and gives a pooled state e: the picture tokens and the
states of each field, each pooled by itself, because one pool over everything dilutes the one word
that matters. (The picture comes first, so that the decoder's states of it know no more than the
tokens themselves, and a small decoder blurs them.) The
language head writes each text field *from e alone* (a few soft tokens, and a shift of the tokens
of each field): whatever the picture and the shown fields say about the hidden ones has to pass
through e. Both are jmrec's own reading of TPAD (arXiv 2504.10538), whose method section was not
available to us.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense, named
from jmrec.models.parts.pooling import mean_and_max
from jmrec.models.parts.transformer import Stack, StackConfig, causal, positions_of
from jmrec.models.readers.vision import VisionConfig, VisionEncoder
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
    def width(self) -> int:
        """Width of the decoder."""
        return self.stack.width

    @property
    def dtype(self) -> str:
        """Compute dtype of the decoder."""
        return self.stack.dtype

    @property
    def features(self) -> int:
        """Width of e."""
        return features_width(self.width, self.fields)


class KnowledgeTower(nn.Module):
    """The module; see `knowledge_tower` for the pure functions.

    A tower of other parts (`jmrec.models.readers.assembled`) declares its own encoder and decoder,
    and says how they ``see``, read ``words``, and give ``states`` and ``logits``. Of a config, all
    but ``setup`` wants ``fields``, ``soft``, ``contrast``, ``width`` and ``dtype``.
    """

    config: Any
    condition_gain = 1.0

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        self.vision: nn.Module = VisionEncoder(c.vision, c.width)
        self.embed = nn.Embed(
            c.vocab, c.width, dtype=jnp.dtype(c.dtype),
            embedding_init=named(nn.initializers.normal(c.width**-0.5), "vocab", "embed"),
        )  # fmt: skip
        self.stack = Stack(c.stack)
        self.declare()

    def declare(self) -> None:
        """Declare the layers around the decoder; for ``setup``."""
        c = self.config
        width, dtype = c.width, jnp.dtype(c.dtype)
        self.end = self.param("end", named(nn.initializers.normal(0.02), "embed"), (width,))
        self.soft = dense(c.soft * width, (None, "embed"), dtype, "soft")
        self.condition = dense(
            len(c.fields) * width, (None, "embed"), dtype, "condition", gain=self.condition_gain
        )
        self.contrast_picture = dense(c.contrast, ("embed", "out"), jnp.float32, "contrast_picture")
        self.contrast_text = dense(c.contrast, ("embed", "out"), jnp.float32, "contrast_text")

    def see(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode pictures [B, S, S, 3] in 0..255 to picture tokens [B, P, D]."""
        return self.vision(picture), {}

    def words(self, text: jax.Array) -> jax.Array:
        """Return what the decoder reads in the places of tokens: [B, T] -> [B, T, D]."""
        return self.embed(text) * self.config.width**0.5

    def states(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, dropout: jax.Array | float
    ) -> jax.Array:
        """Run the decoder over x [B, T, D] at positions [B, T] with mask [B, T, T]."""
        return self.stack(x, positions, mask, dropout)[0]

    def logits(self, states: jax.Array) -> jax.Array:
        """Return the language head's float32 logits [B, T, vocab] of states [B, T, D]."""
        return self.embed.attend(states).astype(jnp.float32)

    def scaled(self, e: jax.Array) -> jax.Array:
        """Return e at the scale that the language head reads."""
        return e

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
        width, dtype = self.config.width, jnp.dtype(self.config.dtype)
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
            words, shown_text = self.words(text), text_ok & (text > 0)
        end = jnp.broadcast_to(self.end.astype(dtype), (batch, 1, width))
        x = jnp.concatenate([seen, words, end], 1)
        mask = jnp.concatenate([shown_picture, shown_text, jnp.ones((batch, 1), bool)], 1)
        states = self.states(x, positions_of(mask), causal(mask), dropout)
        count, empty = seen.shape[1], jnp.zeros((batch, 2 * width))
        pooled = [mean_and_max(seen, shown_picture) if count else empty]
        start = count
        for length in self.config.fields:
            part = slice(start, start + length)
            pooled.append(
                mean_and_max(states[:, part], mask[:, part]) if text is not None else empty
            )
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
        batch, scaled = len(e), self.scaled(e)
        soft = self.soft(scaled).reshape(batch, c.soft, c.width)
        # Each field sees e through a matrix of its own.
        shifts = self.condition(scaled).reshape(batch, len(c.fields), c.width)
        shift = shifts[:, np.array(token_fields(c.fields))]
        words = self.words(text) + shift
        x = jnp.concatenate([soft.astype(words.dtype), words], 1)
        real = jnp.concatenate([jnp.ones((batch, c.soft), bool), text > 0], 1)
        field = np.array([-1] * c.soft + token_fields(c.fields))
        place = np.concatenate([np.arange(c.soft)] + [c.soft + np.arange(n) for n in c.fields])
        together = (field[None, :] == field[:, None]) | (field[None, :] == -1)
        positions = jnp.broadcast_to(place, (batch, len(place)))
        states = self.states(x, positions, causal(real) & together, dropout)
        return self.logits(states[:, c.soft - 1 : -1]), {"states": states}

    def contrast(
        self, seen: jax.Array, text_e: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """Map picture tokens [B, P, D] and e of a text alone [B, D] to unit vectors [B, C] each."""

        def unit(x: jax.Array) -> jax.Array:
            return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-6)

        picture = mean_and_max(seen, jnp.ones(seen.shape[:2], bool))
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


READER_FNS = ("see", "encode_item", "lm_logits", "contrast")


def token_fields(fields: Sequence[int]) -> list[int]:
    """Return the field number of each text token.

    Example:
      >>> token_fields((2, 1))
      [0, 0, 1]
    """
    return [i for i, length in enumerate(fields) for _ in range(length)]


def features_width(width: int, fields: Sequence[int]) -> int:
    """Return D, the width of e: mean and maximum of the picture and of each field, and the end."""
    return (2 * (1 + len(fields)) + 1) * width


@once
def knowledge_tower(config: KnowledgeConfig) -> Model:
    """Return the Knowledge tower: fns ``see``, ``encode_item``, ``lm_logits`` and ``contrast``.

    Example:
      >>> tiny = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
      >>> model = knowledge_tower(KnowledgeConfig(vocab=10, fields=(3, 2), stack=tiny,
      ...                                         vision=VisionConfig(size=8, patch=4, stack=tiny)))
      >>> params = model.init(jax.random.key(0))
      >>> seen, _ = jax.jit(model.fns["see"])(params, jnp.zeros((2, 8, 8, 3), jnp.uint8))
      >>> e, _ = jax.jit(model.fns["encode_item"])(
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

    return make_model(config, KnowledgeTower(config), example, {name: name for name in READER_FNS})
