"""Rotary positions, and how pretrained decoders stretch them.

Shapes: B batch, T positions, H heads, C head size.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies of a pretrained decoder are stretched for longer contexts.

    Attributes:
      kind: "linear" divides all frequencies by ``factor``; "llama3" divides the low ones, keeps the
        high ones, and goes from one to the other in between.
      factor: By how much.
      low: llama3: wavelengths above ``context / low`` are divided.
      high: llama3: wavelengths below ``context / high`` are kept.
      context: llama3: the number of positions before the stretching.

    References:
      Chen et al., Extending Context Window of Large Language Models via Positional Interpolation,
      https://arxiv.org/abs/2306.15595
      Dubey et al., The Llama 3 Herd of Models, https://arxiv.org/abs/2407.21783
    """

    kind: str
    factor: float
    low: float = 1.0
    high: float = 4.0
    context: int = 8192

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "llama3"):
            raise ValueError(f"rope scaling {self.kind!r} is neither 'linear' nor 'llama3'.")

    def stretch(self, frequency: jax.Array) -> jax.Array:
        """Return the stretched frequencies.

        Example:
          >>> RopeScaling("linear", 4.0).stretch(jnp.array([1.0, 0.5])).tolist()
          [0.25, 0.125]
          >>> llama3 = RopeScaling("llama3", 8.0, context=64)
          >>> llama3.stretch(jnp.array([1.0, 0.01])).tolist()  # one is kept, the other divided
          [1.0, 0.0012499999720603228]
        """
        divided = frequency / self.factor
        if self.kind == "linear":
            return divided
        turns = self.context * frequency / (2 * math.pi)
        kept = jnp.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)
        return kept * frequency + (1.0 - kept) * divided


def rotate(
    x_BxTxHxC: jax.Array,
    positions_BxT: jax.Array,
    base: float,
    scaling: RopeScaling | None = None,
) -> jax.Array:
    """Apply rotary positions.

    References:
      Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding,
      https://arxiv.org/abs/2104.09864
    """
    half = x_BxTxHxC.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling:
        frequency = scaling.stretch(frequency)
    angle = positions_BxT[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = jnp.split(x_BxTxHxC.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BxTxHxC.dtype)
