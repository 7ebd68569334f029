"""The patch vision encoder: pixels to a short row of picture tokens."""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import Linear, dense, named
from jmrec.models.parts.pooling import mean_and_max
from jmrec.models.parts.transformer import Stack, StackConfig
from jmrec.types import Model


@dataclass(frozen=True)
class VisionConfig:
    """The vision encoder's size.

    Attributes:
      size: Height and width of the pictures in pixels.
      patch: Pixels per patch side; a multiple of 4.
      merge: Patches per side that are merged into one token for the decoder.
      stack: The transformer over patches.
    """

    size: int = 32
    patch: int = 8
    merge: int = 1
    stack: StackConfig = field(default_factory=StackConfig)

    def __post_init__(self) -> None:
        if self.patch % 4 or self.size % (self.patch * self.merge):
            raise SettingError(
                f"picture size {self.size} must be a multiple of patch {self.patch} x merge "
                f"{self.merge}, and patch a multiple of 4."
            )

    @property
    def tokens(self) -> int:
        """Picture tokens that the decoder sees."""
        return (self.size // self.patch // self.merge) ** 2


def fold(x_BxHxWxC: jax.Array, side: int) -> jax.Array:
    """Move each ``side`` x ``side`` square of cells into the channels of one cell.

    Example:
      >>> fold(jnp.zeros((2, 8, 8, 3)), 2).shape
      (2, 4, 4, 12)
    """
    b, h, w, c = x_BxHxWxC.shape
    x = x_BxHxWxC.reshape(b, h // side, side, w // side, side, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // side, w // side, side * side * c)


def neighbours(x_BxHxWxC: jax.Array) -> jax.Array:
    """Put the 3 x 3 neighbourhood of each cell into its channels; zeros beyond the border.

    With a matrix after it this is a 3 x 3 convolution, whose gradient is then a product of
    matrices too: XLA's own convolution gradients are many times slower on a CPU.

    Example:
      >>> neighbours(jnp.ones((1, 2, 2, 1)))[0, 0, 0].tolist()
      [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    """
    _, h, w, _ = x_BxHxWxC.shape
    x = jnp.pad(x_BxHxWxC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], -1)


class VisionEncoder(nn.Module):
    """A convolutional stem, bidirectional blocks over patches, and a projector to the decoder.

    The stem (three 3 x 3 convolutions before the patch projection) is what lets a small encoder
    learn from a thousand pictures.

    References:
      Xiao et al., Early Convolutions Help Transformers See Better, https://arxiv.org/abs/2106.14881
    """

    config: VisionConfig
    out: int

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:
        """Encode pictures [B, S, S, 3] in 0..255 (uint8 or float) to picture tokens [B, P, out]."""
        c = self.config
        width = c.stack.width
        dtype = jnp.dtype(c.stack.dtype)

        def layer(x: jax.Array, features: int, name: str) -> jax.Array:
            return dense(features, (None, "embed"), dtype, name, bias=True)(x)

        x = fold(picture.astype(dtype) / 127.5 - 1.0, 2)
        x = nn.gelu(layer(neighbours(x), width // 2, "stem0"))
        x = nn.gelu(layer(neighbours(fold(x, 2)), width, "stem1"))
        x = nn.gelu(layer(neighbours(x), width, "stem2"))
        x = layer(fold(x, c.patch // 4), width, "patches")
        batch, rows, columns, _ = x.shape
        table = named(nn.initializers.normal(0.02), "patch", "embed")
        position = self.param("position", table, (rows * columns, width)).astype(dtype)
        x = x.reshape(batch, rows * columns, width) + position
        everything = jnp.ones((1, rows * columns, rows * columns), bool)
        x, _ = Stack(c.stack, name="stack")(
            x, jnp.zeros((1, rows * columns), jnp.int32), everything
        )
        x = fold(x.reshape(batch, rows, columns, width), c.merge)
        x = x.reshape(batch, c.tokens, c.merge**2 * width)
        return layer(nn.gelu(layer(x, self.out, "project0")), self.out, "project1")


class PictureWords(nn.Module):
    """A vision encoder and a head that names the words of an item from its picture alone."""

    config: VisionConfig
    out: int
    vocab: int

    def setup(self) -> None:
        """Declare the encoder and the head.

        The head begins at zero: most words of a text are not to be seen in its picture, and a head
        that begins at random hands their noise on to the encoder.
        """
        zeros = nn.initializers.zeros_init()
        self.vision = VisionEncoder(self.config, self.out)
        self.words = Linear(
            self.vocab,
            kernel_init=named(zeros, "embed", "vocab"),
            bias_init=named(zeros, "vocab"),
        )

    def pooled(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Map pictures [B, S, S, 3] in 0..255 to one vector each, float32 [B, 2 out]."""
        seen = self.vision(picture)
        return mean_and_max(seen, jnp.ones(seen.shape[:2], bool)), {}

    def __call__(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Map pictures [B, S, S, 3] in 0..255 to logits float32 [B, vocab]."""
        return self.words(self.pooled(picture)[0]), {}


@once
def picture_words(config: VisionConfig, out: int, vocab: int) -> Model:
    """Return the model that names words from pictures: fns ``name_words`` and ``pooled``.

    Its parameters "vision" are those of the Knowledge tower's encoder.

    Example:
      >>> tiny = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
      >>> model = picture_words(VisionConfig(size=8, patch=4, stack=tiny), out=12, vocab=5)
      >>> params = model.init(jax.random.key(0))
      >>> logits, _ = jax.jit(model.fns["name_words"])(params, jnp.zeros((2, 8, 8, 3), jnp.uint8))
      >>> logits.shape, sorted(params)
      ((2, 5), ['vision', 'words'])
    """

    def example() -> tuple[jax.Array, ...]:
        return (jnp.zeros((1, config.size, config.size, 3), jnp.uint8),)

    module = PictureWords(config, out, vocab)
    return make_model(config, module, example, {"name_words": "__call__", "pooled": "pooled"})
