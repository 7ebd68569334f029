"""Pretrained decoders of the Llama family: Llama, SmolLM2, Qwen2 and Qwen3, by config.

Shapes: B batch, T positions, D width, S slots of the cache, N picture tokens of a row.
"""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import Initialiser, dense, named
from jmrec.models.parts.transformer import KeysValues, Stack, StackConfig, causal, positions_of
from jmrec.types import Model

Cache = dict[str, jax.Array]
"""What `decode_step` needs of the positions so far; see `empty_cache`."""


@dataclass(frozen=True)
class DecoderConfig:
    """The size of a decoder.

    Attributes:
      vocab: Tokens of the tokenizer.
      stack: The blocks.
      tied: The language head is the table of words.
      context: Positions that the model was trained for.
      image_token: The token that is replaced by picture tokens; None for text alone.
    """

    vocab: int
    stack: StackConfig = field(default_factory=StackConfig)
    tied: bool = True
    context: int = 2048
    image_token: int | None = None


def empty_cache(config: DecoderConfig, batch: int, slots: int) -> Cache:
    """Return a cache without positions.

    Args:
      config: The decoder's.
      batch: B.
      slots: S, the padded prompt and what is to be written after it.

    Returns:
      "keys" and "values" [layers, B, S, K, C]; "mask" bool [B, S], which slots hold a position;
      "length" int32 [B], how many positions each row has; "slot" int32, the next one to be filled,
      the same for all rows (short prompts leave slots unused).

    Example:
      >>> cache = empty_cache(DecoderConfig(vocab=9), batch=2, slots=5)
      >>> cache["keys"].shape, int(cache["slot"])
      ((2, 2, 5, 2, 32), 0)
    """
    c = config.stack
    shape = (c.layers, batch, slots, c.kv_heads, c.head_size)
    return {
        "keys": jnp.zeros(shape, c.dtype),
        "values": jnp.zeros(shape, c.dtype),
        "mask": jnp.zeros((batch, slots), bool),
        "length": jnp.zeros(batch, jnp.int32),
        "slot": jnp.zeros((), jnp.int32),
    }


CACHE_AXES = {
    "keys": ("layers", "batch", None, "kv_heads", "head_dim"),
    "values": ("layers", "batch", None, "kv_heads", "head_dim"),
    "mask": ("batch", None),
    "length": ("batch",),
    "slot": (),
}
"""The logical axes of a cache."""


def _filled(cache: Cache, new: KeysValues, mask: jax.Array) -> Cache:
    """Return the cache with keys and values [layers, B, T, K, C] in its next T slots."""
    slot = cache["slot"]
    start = (0, 0, slot, 0, 0)
    return {
        "keys": jax.lax.dynamic_update_slice(cache["keys"], new[0], start),
        "values": jax.lax.dynamic_update_slice(cache["values"], new[1], start),
        "mask": jax.lax.dynamic_update_slice(cache["mask"], mask, (0, slot)),
        "length": cache["length"] + mask.sum(1, dtype=jnp.int32),
        "slot": slot + mask.shape[1],
    }


def put_pictures(
    words_BxTxD: jax.Array, text_BxT: jax.Array, seen_BxNxD: jax.Array, image_token: int
) -> jax.Array:
    """Put a row's picture tokens, in their order, in the places of its image tokens.

    Args:
      words_BxTxD: The vectors of the tokens.
      text_BxT: The tokens.
      seen_BxNxD: Picture tokens; a row has at most N image tokens.
      image_token: Which token.

    Example:
      >>> words, seen = jnp.zeros((1, 4, 1)), jnp.array([[[5.0], [6.0]]])
      >>> put_pictures(words, jnp.array([[9, 1, 9, 1]]), seen, 9)[0, :, 0].tolist()
      [5.0, 0.0, 6.0, 0.0]
    """
    here = text_BxT == image_token
    place = jnp.clip(jnp.cumsum(here, 1) - 1, 0, seen_BxNxD.shape[1] - 1)
    pictures = jnp.take_along_axis(seen_BxNxD, place[..., None], 1)
    return jnp.where(here[..., None], pictures.astype(words_BxTxD.dtype), words_BxTxD)


class Decoder(nn.Module):
    """The module; see `decoder` for the pure functions."""

    config: DecoderConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        dtype = jnp.dtype(c.stack.dtype)
        init: Initialiser = named(nn.initializers.normal(0.02), "vocab", "embed")
        self.embed = nn.Embed(c.vocab, c.stack.width, dtype=dtype, embedding_init=init)
        self.stack = Stack(c.stack)
        if not c.tied:
            self.head = dense(c.vocab, ("embed", "vocab"), dtype, "head")

    def _words(self, text: jax.Array, seen: jax.Array | None) -> jax.Array:
        words = self.embed(text)
        if seen is None:
            return words
        if self.config.image_token is None:
            raise ValueError("picture tokens were given to a decoder without an image_token")
        return put_pictures(words, text, seen, self.config.image_token)

    def logits(self, states: jax.Array) -> jax.Array:
        """Return the language head's float32 logits [B, T, vocab] of states [B, T, D]."""
        logits = self.embed.attend(states) if self.config.tied else self.head(states)
        return logits.astype(jnp.float32)

    def encode(
        self, text: jax.Array, mask: jax.Array, seen: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Read text: the normed states [B, T, D], for the caller to pool.

        Taps: "layers" [layers, B, T, D], the states after each block.

        Args:
          text: int32 [B, T].
          mask: bool [B, T]; padding may be on either side.
          seen: Picture tokens [B, N, D] for the places of the image token.
        """
        x = self._words(text, seen)
        states, layers = self.stack(x, positions_of(mask), causal(mask))
        return states, {"layers": layers}

    def sentence(self, text: jax.Array, mask: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the mean of the states of real tokens, float32 [B, D]; zeros where there is none.

        Takes what `encode` takes but pictures. Taps: "states" [B, T, D] and "layers".
        """
        states, tapped = self.encode(text, mask)
        wide = jnp.where(mask[..., None], states.astype(jnp.float32), 0.0)
        mean = wide.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
        return mean, {"states": states, **tapped}

    def lm_logits(
        self, text: jax.Array, mask: jax.Array, seen: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return logits float32 [B, T, vocab] of the token after each position.

        Takes what `encode` takes. Taps: "states" [B, T, D] and "layers".
        """
        states, tapped = self.encode(text, mask, seen)
        return self.logits(states), {"states": states, **tapped}

    def prefill(
        self, text: jax.Array, mask: jax.Array, cache: Cache, seen: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, Cache], dict[str, jax.Array]]:
        """Read prompts into an empty cache.

        Takes what `encode` takes, and a cache of at least T slots. Returns (logits float32
        [B, vocab] of the token after each row's last one, the cache).
        """
        x = self._words(text, seen)
        states, new = self.stack(x, positions_of(mask), causal(mask), cached=True)
        last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], 1)
        final = jnp.take_along_axis(states, last[:, None, None], 1)[:, 0]
        return (self.logits(final), _filled(cache, new, mask)), {"states": states}

    def decode_step(
        self, token: jax.Array, cache: Cache
    ) -> tuple[tuple[jax.Array, Cache], dict[str, jax.Array]]:
        """Read one token int32 [B] a row; returns (logits float32 [B, vocab], the cache)."""
        own = jnp.ones((len(token), 1), bool)
        mask = jnp.concatenate([cache["mask"], own], 1)[:, None]
        past = cache["keys"], cache["values"]
        x, positions = self.embed(token[:, None]), cache["length"][:, None]
        states, new = self.stack(x, positions, mask, past=past, cached=True)
        return (self.logits(states[:, 0]), _filled(cache, new, own)), {"states": states}

    def __call__(self, text: jax.Array, mask: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        return self.lm_logits(text, mask)[0]


DECODER_FNS = ("encode", "sentence", "lm_logits", "prefill", "decode_step")


@once
def decoder(config: DecoderConfig) -> Model:
    """Return a decoder: fns ``encode``, ``sentence``, ``lm_logits``, ``prefill``, ``decode_step``.

    Example:
      >>> tiny = StackConfig(width=8, layers=1, heads=2, kv_heads=1, mlp=8)
      >>> model = decoder(DecoderConfig(vocab=10, stack=tiny))
      >>> params = model.init(jax.random.key(0))
      >>> text, mask = jnp.array([[3, 1, 4]]), jnp.ones((1, 3), bool)
      >>> logits, _ = jax.jit(model.fns["lm_logits"])(params, text, mask)
      >>> cache = empty_cache(model.config, batch=1, slots=4)
      >>> (after, cache), _ = jax.jit(model.fns["prefill"])(params, text, mask, cache)
      >>> logits.shape, bool(jnp.allclose(after, logits[:, -1], atol=1e-5)), cache["mask"].tolist()
      ((1, 3, 10), True, [[True, True, True, False]])
    """

    def example() -> tuple[jax.Array, ...]:
        return jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool)

    return make_model(config, Decoder(config), example, {name: name for name in DECODER_FNS})
