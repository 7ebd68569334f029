"""The blocks of pretrained encoders (BERT, CLIP, SigLIP): layer norms, biases, no rotations.

Shapes: B batch, T positions, D width, H heads, C head size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import dense, named
from jmrec.models.parts.transformer import attend, scanned

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_pytorch_tanh": nn.gelu,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
}
"""Activations by the names that pretrained models give them."""


@dataclass(frozen=True)
class EncoderConfig:
    """The size of a stack of encoder blocks.

    Attributes:
      width: D.
      layers: Number of blocks.
      heads: H; divides ``width``.
      mlp: Width of the hidden layer.
      activation: A key of `ACTIVATIONS`.
      pre_norm: Each branch reads normed states (CLIP, SigLIP); else each sum is normed (BERT).
      eps: What the norms add to the variance.
      remat: Recompute blocks in the backward pass, as for
        `jmrec.models.parts.transformer.StackConfig`.
      dtype: Compute dtype, "float32" or "bfloat16"; parameters are float32 always.
    """

    width: int
    layers: int
    heads: int
    mlp: int
    activation: str = "gelu"
    pre_norm: bool = True
    eps: float = 1e-6
    remat: bool | str = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}.")


def layer_norm(eps: float, dtype: str, name: str) -> nn.LayerNorm:
    """Return a layer norm that carries logical axes."""
    return nn.LayerNorm(
        epsilon=eps,
        dtype=jnp.dtype(dtype),
        scale_init=named(nn.initializers.ones_init(), "embed"),
        bias_init=named(nn.initializers.zeros_init(), "embed"),
        # The mean of squares less the square of the mean loses what parity needs.
        use_fast_variance=False,
        name=name,
    )


class Mlp(nn.Module):
    """Two matrices with an activation between them."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., D] to [..., D]."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        x = ACTIVATIONS[c.activation](dense(c.mlp, ("embed", "mlp"), dtype, "up", bias=True)(x))
        return dense(c.width, ("mlp", "embed"), dtype, "down", bias=True)(x)


class MultiHeadAttention(nn.Module):
    """Attention with biases and without rotations, from some states to the same or others."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, to: jax.Array | None = None) -> jax.Array:
        """Attend from x [B, T, D] with mask bool [B, T, S] to ``to`` [B, S, D] (None: to x)."""
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def heads(name: str, states: jax.Array) -> jax.Array:
            out = dense(c.width, ("embed", "heads"), dtype, name, bias=True)(states)
            return out.reshape(*states.shape[:2], c.heads, c.width // c.heads)

        to = x if to is None else to
        out = attend(heads("query", x), heads("key", to), heads("value", to), mask)
        return dense(c.width, ("heads", "embed"), dtype, "out", bias=True)(out)


class EncoderBlock(nn.Module):
    """Attention, then an MLP, with the norms before or after."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the new states twice: as the scan's carry and as its output."""
        c = self.config
        attention, mlp = MultiHeadAttention(c, name="attention"), Mlp(c, name="mlp")
        attention_norm = layer_norm(c.eps, c.dtype, "attention_norm")
        mlp_norm = layer_norm(c.eps, c.dtype, "mlp_norm")
        if c.pre_norm:
            x = x + attention(attention_norm(x), mask)
            x = x + mlp(mlp_norm(x))
        else:
            x = attention_norm(x + attention(x, mask))
            x = mlp_norm(x + mlp(x))
        return x, x


def encoder_blocks(config: EncoderConfig, name: str) -> Any:
    """Return blocks under one scan: ``(x, mask) -> (states, every layer's states)``."""
    blocks = scanned(EncoderBlock, config.layers, config.remat, (nn.broadcast,))
    return blocks(config, name=name)
