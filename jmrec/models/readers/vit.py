"""Pretrained vision transformers: the vision towers of CLIP, SigLIP and Idefics3.

Shapes: B pictures, S their side in pixels, P patches, D width.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense, named
from jmrec.models.parts.encoder import (
    EncoderConfig,
    Mlp,
    MultiHeadAttention,
    encoder_blocks,
    layer_norm,
)
from jmrec.models.readers.vision import fold
from jmrec.types import Model

POOLS = ("class", "attention", "mean")


@dataclass(frozen=True)
class ViTConfig:
    """The size of a vision transformer.

    Attributes:
      encoder: The blocks.
      size: S, the side of the pictures in pixels.
      patch: Pixels per patch side; divides ``size``.
      pool: What one vector of a picture is: "class" (CLIP: the state of a token of its own before
        the patches, normed), "attention" (SigLIP: a learned query attends to the patches) or
        "mean" (Idefics3 pools nothing: the mean of the patches).
      projection: Width of CLIP's shared space, onto which the pooled vector is projected; 0: not.
      mean: Of each colour in 0..1, taken off the pixels.
      std: Of each colour, by which they are divided.
    """

    encoder: EncoderConfig
    size: int = 224
    patch: int = 16
    pool: str = "class"
    projection: int = 0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ValueError(f"picture size {self.size} is no multiple of patch {self.patch}.")
        if self.pool not in POOLS:
            raise ValueError(f"pool {self.pool!r} is none of {', '.join(POOLS)}.")

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.size // self.patch

    @property
    def tokens(self) -> int:
        """Tokens of a picture: its patches, and CLIP's own token before them."""
        return self.side**2 + (self.pool == "class")


class AttentionPool(nn.Module):
    """SigLIP's head: a learned query attends to the patches, then an MLP."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, states: jax.Array) -> jax.Array:
        """Pool states [B, P, D] to [B, D]."""
        c = self.config
        init = named(nn.initializers.normal(1.0), None, "embed")
        probe = self.param("probe", init, (1, c.width)).astype(states.dtype)
        probe = jnp.broadcast_to(probe, (len(states), 1, c.width))
        everything = jnp.ones((1, 1, states.shape[1]), bool)
        x = MultiHeadAttention(c, name="attention")(probe, everything, states)
        x = x + Mlp(c, name="mlp")(layer_norm(c.eps, c.dtype, "norm")(x))
        return x[:, 0]


class ViT(nn.Module):
    """The module; see `vit` for the pure functions."""

    config: ViTConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        e = c.encoder
        dtype = jnp.dtype(e.dtype)
        clip = c.pool == "class"
        normal = nn.initializers.normal(0.02)
        self.patches = dense(e.width, (None, "embed"), dtype, "patches", bias=not clip)
        self.position = self.param("position", named(normal, "patch", "embed"), (c.tokens, e.width))
        if clip:
            self.token = self.param("token", named(normal, "embed"), (e.width,))
            self.pre_norm = layer_norm(e.eps, e.dtype, "pre_norm")
        self.blocks = encoder_blocks(e, "blocks")
        self.norm = layer_norm(e.eps, e.dtype, "norm")
        if c.pool == "attention":
            self.head = AttentionPool(e)
        if c.projection:
            self.project = dense(c.projection, ("embed", "out"), dtype, "project")

    def see(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the tokens of pictures, [B, P, D] (CLIP: [B, 1 + P, D], not normed).

        Taps: "layers" [layers, B, P, D], the states after each block.

        Args:
          picture: [B, S, S, 3] in 0..255, uint8 or float.
        """
        c = self.config
        dtype = jnp.dtype(c.encoder.dtype)
        x = (picture.astype(jnp.float32) / 255.0 - jnp.array(c.mean)) / jnp.array(c.std)
        x = self.patches(fold(x.astype(dtype), c.patch))
        x = x.reshape(len(x), c.side**2, c.encoder.width)
        if c.pool == "class":
            token = jnp.broadcast_to(self.token.astype(dtype), (len(x), 1, c.encoder.width))
            x = jnp.concatenate([token, x], 1)
        x = x + self.position.astype(dtype)
        if c.pool == "class":
            x = self.pre_norm(x)
        x, layers = self.blocks(x, jnp.ones((1, c.tokens, c.tokens), bool))
        return (x if c.pool == "class" else self.norm(x)), {"layers": layers}

    def encode_picture(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return one vector of each picture, float32 [B, D] or [B, projection].

        Taps: "seen" (what `see` returns) and "layers".

        Args:
          picture: As for `see`.
        """
        seen, tapped = self.see(picture)
        if self.config.pool == "class":
            pooled = self.norm(seen[:, 0])
        elif self.config.pool == "attention":
            pooled = self.head(seen)
        else:
            pooled = seen.astype(jnp.float32).mean(1)
        if self.config.projection:
            pooled = self.project(pooled)
        return pooled.astype(jnp.float32), {"seen": seen, **tapped}

    def __call__(self, picture: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        return self.encode_picture(picture)[0]


@once
def vit(config: ViTConfig) -> Model:
    """Return a vision transformer: fns ``see`` (tokens) and ``encode_picture`` (one vector).

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929
      Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
      https://arxiv.org/abs/2103.00020
      Zhai et al., Sigmoid Loss for Language Image Pre-Training, https://arxiv.org/abs/2303.15343

    Example:
      >>> model = vit(ViTConfig(EncoderConfig(width=8, layers=1, heads=2, mlp=8), size=8, patch=4))
      >>> params = model.init(jax.random.key(0))
      >>> seen, _ = jax.jit(model.fns["see"])(params, jnp.zeros((2, 8, 8, 3), jnp.uint8))
      >>> seen.shape
      (2, 5, 8)
    """

    def example() -> tuple[jax.Array, ...]:
        return (jnp.zeros((1, config.size, config.size, 3), jnp.uint8),)

    names = ("see", "encode_picture")
    return make_model(config, ViT(config), example, {name: name for name in names})
