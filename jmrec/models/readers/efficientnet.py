"""EfficientNet-Lite: a small convolutional network for pictures, as it is after training.

Batch normalisation of a finished network is a scale and a shift of each channel, so it is part of
the kernels and biases here (`jmrec.convert.efficientnet` puts it there) and no layer of its own.
"""

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import Linear, dense, linear_init, named
from jmrec.types import Model


@dataclass(frozen=True)
class BlockConfig:
    """An inverted bottleneck.

    Attributes:
      out: Channels that come out.
      kernel: Side of the depthwise kernel.
      stride: Pixels from one output to the next.
      expand: How many times wider the middle is; 1 has no expansion at all.
    """

    out: int
    kernel: int = 3
    stride: int = 1
    expand: int = 6


@dataclass(frozen=True)
class EfficientNetConfig:
    """The network's size.

    Attributes:
      size: Height and width of the pictures that it was trained on; others may be given.
      blocks: The bottlenecks, first to last.
      stem: Channels of the first convolution.
      head: Channels of the last one, which are the features.
      classes: Classes of the logits.
      dtype: Compute dtype, "float32" or "bfloat16"; parameters are float32 always.
    """

    size: int = 224
    blocks: tuple[BlockConfig, ...] = ()
    stem: int = 32
    head: int = 1280
    classes: int = 1000
    dtype: str = "float32"


# Repeats, kernel, stride, expansion, channels of each stage of lite0.
_STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
# Width, depth, picture size.
_SCALES = {
    **{"lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260)},
    **{"lite3": (1.2, 1.4, 280), "lite4": (1.4, 1.8, 300)},
}


def _channels(channels: int, width: float) -> int:
    """Scale to a multiple of 8 that is not more than a tenth below."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _lite(width: float, depth: float, size: int) -> EfficientNetConfig:
    blocks = []
    for stage, (repeats, kernel, stride, expand, out) in enumerate(_STAGES):
        # The first and the last stage are not made deeper, nor are stem and head made wider.
        scaled = repeats if stage in (0, len(_STAGES) - 1) else math.ceil(depth * repeats)
        for repeat in range(scaled):
            blocks.append(
                BlockConfig(_channels(out, width), kernel, stride if not repeat else 1, expand)
            )
    return EfficientNetConfig(size, tuple(blocks))


LITE = {name: _lite(*scale) for name, scale in _SCALES.items()}
"""The published sizes, "lite0" to "lite4"."""


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after, as TensorFlow's "SAME" puts them: the odd one after.

    Example:
      >>> _same(224, 3, 2), _same(65, 5, 2)
      ((0, 1), (2, 2))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def depthwise(x_BxHxWxC: jax.Array, kernel_KxKxC: jax.Array, stride: int = 1) -> jax.Array:
    """Convolve each channel with a kernel of its own, "SAME" padding.

    Written as a sum of shifted products, which XLA makes one loop of: as a grouped convolution
    it is some 17 times slower on a CPU.

    Args:
      x_BxHxWxC: The input.
      kernel_KxKxC: One kernel per channel.
      stride: Pixels from one output to the next.

    Returns:
      An array [B, ceil(H / stride), ceil(W / stride), C].

    Example:
      >>> depthwise(jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1)))[0, :, :, 0].tolist()
      [[4.0, 4.0], [4.0, 4.0]]
    """
    side = kernel_KxKxC.shape[0]
    _, height, width, _ = x_BxHxWxC.shape
    rows, columns = -(-height // stride), -(-width // stride)
    pads = (0, 0), _same(height, side, stride), _same(width, side, stride), (0, 0)
    x = jnp.pad(x_BxHxWxC, pads)
    out = jnp.zeros((), x.dtype)
    for i in range(side):
        for j in range(side):
            seen = x[:, i : i + stride * (rows - 1) + 1 : stride]
            out += seen[:, :, j : j + stride * (columns - 1) + 1 : stride] * kernel_KxKxC[i, j]
    return out


def pointwise(features: int, axes: tuple[str, str], dtype: Any, name: str) -> Linear:
    """Return a matrix over the channels, with a bias."""
    return dense(features, axes, dtype, name, bias=True, gain=2.0)


class Depthwise(nn.Module):
    """A depthwise convolution with a bias."""

    side: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), C]."""
        # He's initialisation: a channel sees its own kernel only.
        init = named(nn.initializers.normal(math.sqrt(2.0) / self.side), None, None, "mlp")
        kernel = self.param("kernel", init, (self.side, self.side, x.shape[-1]))
        zeros = named(nn.initializers.zeros_init(), "mlp")
        bias = self.param("bias", zeros, (x.shape[-1],))
        return depthwise(x, kernel.astype(x.dtype), self.stride) + bias.astype(x.dtype)


class Stem(nn.Module):
    """The first convolution: 3 x 3, stride 2."""

    out: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, 3] to [B, ceil(H / 2), ceil(W / 2), out]."""
        init = named(linear_init(2.0), None, None, None, "embed")
        kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.out))
        bias = self.param("bias", named(nn.initializers.zeros_init(), "embed"), (self.out,))
        x = jax.lax.conv_general_dilated(
            x, kernel.astype(x.dtype), (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x + bias.astype(x.dtype)


class Block(nn.Module):
    """Expansion, depthwise convolution and projection, with a way around where nothing changes."""

    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), out]."""
        c, before = self.config, x
        if c.expand > 1:
            wide = c.expand * x.shape[-1]
            x = nn.relu6(pointwise(wide, ("embed", "mlp"), x.dtype, "expand")(x))
        x = nn.relu6(Depthwise(c.kernel, c.stride, name="depthwise")(x))
        x = pointwise(c.out, ("mlp", "embed"), x.dtype, "project")(x)
        return x + before if c.stride == 1 and x.shape == before.shape else x


class EfficientNet(nn.Module):
    """EfficientNet without squeeze-and-excitation and with ReLU6.

    References:
      Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
      https://arxiv.org/abs/1905.11946
    """

    config: EfficientNetConfig

    def setup(self) -> None:
        """Make the layers: all functions share them."""
        c = self.config
        self.stem = Stem(c.stem)
        self.blocks = [Block(block) for block in c.blocks]
        self.head = pointwise(c.head, ("embed", "mlp"), jnp.dtype(c.dtype), "head")
        self.classes = pointwise(c.classes, ("embed", "vocab"), jnp.float32, "classes")

    def features(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Map pictures [B, H, W, 3] in 0..255 to features [B, h, w, head]; taps: stem, block_N."""
        # What the published weights were trained with.
        x = (picture.astype(jnp.float32) - 127.0) / 128.0
        x = nn.relu6(self.stem(x.astype(jnp.dtype(self.config.dtype))))
        taps = {"stem": x}
        for number, block in enumerate(self.blocks):
            taps[f"block_{number}"] = x = block(x)
        return nn.relu6(self.head(x)), taps

    def pooled(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Map pictures [B, H, W, 3] in 0..255 to their mean features, float32 [B, head]."""
        x, taps = self.features(picture)
        return x.astype(jnp.float32).mean((1, 2)), taps | {"features": x}

    def __call__(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Map pictures [B, H, W, 3] in 0..255 to logits float32 [B, classes]."""
        x, taps = self.pooled(picture)
        return self.classes(x), taps | {"pooled": x}


@once
def efficientnet(config: EfficientNetConfig) -> Model:
    """Return EfficientNet-Lite: fns ``features``, ``pooled`` and ``logits``.

    Pictures are [B, H, W, 3], uint8 or float, in 0..255.

    Example:
      >>> tiny = EfficientNetConfig(8, (BlockConfig(8, expand=2),), stem=8, head=16, classes=5)
      >>> model = efficientnet(tiny)
      >>> params = model.init(jax.random.key(0))
      >>> picture = jnp.zeros((2, 8, 8, 3), jnp.uint8)
      >>> jax.jit(model.fns["features"])(params, picture)[0].shape
      (2, 4, 4, 16)
      >>> jax.jit(model.fns["logits"])(params, picture)[0].shape
      (2, 5)
    """

    def example() -> tuple[jax.Array, ...]:
        return (jnp.zeros((1, config.size, config.size, 3), jnp.uint8),)

    methods = {"features": "features", "pooled": "pooled", "logits": "__call__"}
    return make_model(config, EfficientNet(config), example, methods)
