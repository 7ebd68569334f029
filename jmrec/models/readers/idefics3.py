"""Idefics3 and SmolVLM: a SigLIP tower, pixel shuffle, one matrix and a decoder like Llama.

Shapes: B rows, F frames of a row, S their side in pixels, N tokens of a frame, T text positions.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense
from jmrec.models.readers.decoder import DECODER_FNS, Cache, Decoder, DecoderConfig
from jmrec.models.readers.vision import fold
from jmrec.models.readers.vit import ViT, ViTConfig
from jmrec.types import Model

Tapped = dict[str, jax.Array]


@dataclass(frozen=True)
class Idefics3Config:
    """The size of the model.

    Attributes:
      vision: The tower over pictures; it pools nothing.
      decoder: The decoder; its ``image_token`` marks the places of picture tokens.
      merge: Patches per side that are merged into one token (pixel shuffle).
    """

    vision: ViTConfig
    decoder: DecoderConfig
    merge: int = 2

    def __post_init__(self) -> None:
        if self.vision.side % self.merge or self.vision.pool != "mean":
            raise ValueError(
                f"{self.vision.side} patches a side, pooled by {self.vision.pool!r}, do not fit a "
                f"merge of {self.merge}."
            )
        if self.decoder.image_token is None:
            raise ValueError("the decoder has no image_token")

    @property
    def tokens(self) -> int:
        """N, picture tokens of a frame."""
        return (self.vision.side // self.merge) ** 2


class Idefics3(nn.Module):
    """The module; see `idefics3` for the pure functions."""

    config: Idefics3Config

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        dtype = jnp.dtype(c.decoder.stack.dtype)
        self.vision = ViT(c.vision)
        self.connector = dense(c.decoder.stack.width, (None, "embed"), dtype, "connector")
        self.decoder = Decoder(c.decoder)

    def see(self, picture: jax.Array) -> tuple[jax.Array, Tapped]:
        """Return picture tokens [B, F N, D] for the decoder.

        Taps: "layers" of the vision tower.

        Args:
          picture: [B, F, S, S, 3] or [B, S, S, 3] in 0..255. A row with fewer frames has anything
            in the last ones: its text has no image tokens for them.
        """
        c = self.config
        batch = len(picture)
        seen, tapped = self.vision.see(picture.reshape(-1, *picture.shape[-3:]))
        seen = fold(seen.reshape(len(seen), c.vision.side, c.vision.side, -1), c.merge)
        return self.connector(seen.reshape(batch, -1, seen.shape[-1])), tapped

    def encode_picture(self, picture: jax.Array) -> tuple[jax.Array, Tapped]:
        """Return the mean of the tower's patches, float32 [B, D of the tower], of [B, S, S, 3]."""
        return self.vision.encode_picture(picture)

    def sentence(self, text: jax.Array, mask: jax.Array) -> tuple[jax.Array, Tapped]:
        """Return one vector of a text, as `jmrec.models.readers.decoder.Decoder.sentence`."""
        return self.decoder.sentence(text, mask)

    def encode(
        self, text: jax.Array, mask: jax.Array, seen: jax.Array | None = None
    ) -> tuple[jax.Array, Tapped]:
        """Read text and picture tokens, as `jmrec.models.readers.decoder.Decoder.encode`."""
        return self.decoder.encode(text, mask, seen)

    def lm_logits(
        self, text: jax.Array, mask: jax.Array, seen: jax.Array | None = None
    ) -> tuple[jax.Array, Tapped]:
        """Return the logits, as `jmrec.models.readers.decoder.Decoder.lm_logits`."""
        return self.decoder.lm_logits(text, mask, seen)

    def prefill(
        self, text: jax.Array, mask: jax.Array, cache: Cache, seen: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, Cache], Tapped]:
        """Read prompts, as `jmrec.models.readers.decoder.Decoder.prefill`."""
        return self.decoder.prefill(text, mask, cache, seen)

    def decode_step(self, token: jax.Array, cache: Cache) -> tuple[tuple[jax.Array, Cache], Tapped]:
        """Read one token, as `jmrec.models.readers.decoder.Decoder.decode_step`."""
        return self.decoder.decode_step(token, cache)

    def __call__(self, picture: jax.Array, text: jax.Array, mask: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        return self.lm_logits(text, mask, self.see(picture)[0])[0]


@once
def idefics3(config: Idefics3Config) -> Model:
    """Return the model: fns ``see`` and ``encode_picture``, and those of a decoder.

    References:
      Laurencon et al., Building and better understanding vision-language models,
      https://arxiv.org/abs/2408.12637
      Marafioti et al., SmolVLM: Redefining small and efficient multimodal models,
      https://arxiv.org/abs/2504.05299

    Example:
      >>> from jmrec.models.parts.encoder import EncoderConfig
      >>> from jmrec.models.parts.transformer import StackConfig
      >>> tower = EncoderConfig(width=4, layers=1, heads=2, mlp=4)
      >>> stack = StackConfig(width=8, layers=1, heads=2, kv_heads=1, mlp=8)
      >>> model = idefics3(Idefics3Config(
      ...     ViTConfig(tower, size=8, patch=2, pool="mean"),
      ...     DecoderConfig(vocab=10, stack=stack, image_token=9)))
      >>> params = model.init(jax.random.key(0))
      >>> seen, _ = jax.jit(model.fns["see"])(params, jnp.zeros((1, 3, 8, 8, 3), jnp.uint8))
      >>> seen.shape  # three frames of four tokens
      (1, 12, 8)
    """
    size = config.vision.size

    def example() -> tuple[jax.Array, ...]:
        picture = jnp.zeros((1, size, size, 3), jnp.uint8)
        return picture, jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool)

    names = ("see", "encode_picture", *DECODER_FNS)
    return make_model(config, Idefics3(config), example, {name: name for name in names})
