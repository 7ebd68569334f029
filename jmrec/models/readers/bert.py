"""BERT encoders, such as MiniLM, and the sentence vectors that are made of their states."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import named
from jmrec.models.parts.encoder import EncoderConfig, encoder_blocks, layer_norm
from jmrec.types import Model


@dataclass(frozen=True)
class BertConfig:
    """The size of a BERT encoder.

    Attributes:
      vocab: Tokens of the tokenizer.
      encoder: The blocks; ``pre_norm`` is False.
      context: Most positions.
      types: Types of segments; all tokens are of the first here.
    """

    vocab: int
    encoder: EncoderConfig
    context: int = 512
    types: int = 2


class Bert(nn.Module):
    """The module; see `bert` for the pure functions."""

    config: BertConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        dtype = jnp.dtype(c.encoder.dtype)

        def table(rows: int, axis: str | None) -> nn.Embed:
            init = named(nn.initializers.normal(0.02), axis, "embed")
            return nn.Embed(rows, c.encoder.width, dtype=dtype, embedding_init=init)

        self.words = table(c.vocab, "vocab")
        self.places = table(c.context, None)
        self.types = table(c.types, None)
        self.norm = layer_norm(c.encoder.eps, c.encoder.dtype, "norm")
        self.blocks = encoder_blocks(c.encoder, "blocks")

    def encode(self, text: jax.Array, mask: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Read text: states [B, T, D], for the caller to pool.

        Taps: "layers" [layers, B, T, D], the states after each block.

        Args:
          text: int32 [B, T]; T is at most ``context``.
          mask: bool [B, T]; padding is at the right.
        """
        length = text.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens are more than a context of {self.config.context}")
        words = self.words(text) + self.types(jnp.zeros_like(text))
        x = self.norm(words + self.places(jnp.arange(length)))
        states, layers = self.blocks(x, mask[:, None, :])
        return states, {"layers": layers}

    def sentence(self, text: jax.Array, mask: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return unit vectors float32 [B, D]: the mean of the states of real tokens, normalised.

        Takes what `encode` takes; a row without any token gives zeros. Taps: "states" [B, T, D]
        and "layers".
        """
        states, tapped = self.encode(text, mask)
        wide = jnp.where(mask[..., None], states.astype(jnp.float32), 0.0)
        mean = wide.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
        # Under the root, so that a row of zeros has a finite gradient.
        norm = jnp.sqrt(jnp.maximum(jnp.square(mean).sum(-1, keepdims=True), 1e-24))
        return mean / norm, {"states": states, **tapped}

    def __call__(self, text: jax.Array, mask: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        return self.sentence(text, mask)[0]


@once
def bert(config: BertConfig) -> Model:
    """Return a BERT encoder: fns ``encode`` (states) and ``sentence`` (one unit vector a text).

    References:
      Reimers and Gurevych, Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks,
      https://arxiv.org/abs/1908.10084

    Example:
      >>> size = EncoderConfig(width=8, layers=1, heads=2, mlp=8, pre_norm=False)
      >>> model = bert(BertConfig(vocab=10, encoder=size, context=6))
      >>> params = model.init(jax.random.key(0))
      >>> text, mask = jnp.array([[3, 1, 4]]), jnp.array([[True, True, False]])
      >>> e, _ = jax.jit(model.fns["sentence"])(params, text, mask)
      >>> e.shape, round(float(jnp.square(e).sum()), 5)
      ((1, 8), 1.0)
    """

    def example() -> tuple[jax.Array, ...]:
        return jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool)

    return make_model(config, Bert(config), example, {"encode": "encode", "sentence": "sentence"})
