"""The Knowledge tower on frozen features: heads that bring text and picture into one code."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense, drop
from jmrec.types import Model


@dataclass(frozen=True)
class FrozenConfig:
    """Sizes of the heads.

    Attributes:
      text: Width of a text's features.
      picture: Width of a picture's features.
      width: Width of each half of the code.
    """

    text: int
    picture: int
    width: int = 128

    @property
    def features(self) -> int:
        """Width of the code e."""
        return 2 * self.width


class Frozen(nn.Module):
    """The module; see `frozen_tower` for the pure functions.

    The heads are linear, as those on a trained tower are (`jmrec.models.readers.alignment`).
    """

    config: FrozenConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        self.text = dense(c.width, ("embed", "out"), jnp.float32, "text")
        self.picture = dense(c.width, ("embed", "out"), jnp.float32, "picture")
        self.text_out = dense(c.text, ("out", "embed"), jnp.float32, "text_out", bias=True)
        self.picture_out = dense(c.picture, ("out", "embed"), jnp.float32, "picture_out", bias=True)

    def halves(
        self,
        text: jax.Array,
        picture: jax.Array,
        picture_ok: jax.Array,
        dropout: jax.Array | float = 0.0,
    ) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """Map features [B, text], [B, picture] to the code's halves, [B, width] each."""
        key = self.make_rng("drop") if self.has_rng("drop") else None
        both = drop(jnp.concatenate([text, picture], 1), dropout, key)
        said, seen = jnp.split(both, [text.shape[1]], 1)
        return (self.text(said), jnp.where(picture_ok[:, None], self.picture(seen), 0.0)), {}

    def encode_item(
        self, text: jax.Array, picture: jax.Array, picture_ok: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Map features to e float32 [B, 2 width]: zeros in the half of what an item has not."""
        halves, tapped = self.halves(text, picture, picture_ok)
        return jnp.concatenate(halves, -1), tapped

    def rebuild(
        self, text: jax.Array, picture: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """Map the halves back to features, so that the heads keep what was in them."""
        return (self.text_out(text), self.picture_out(picture)), {}

    def __call__(self, text: jax.Array, picture: jax.Array, picture_ok: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        (a, b), _ = self.halves(text, picture, picture_ok)
        (c, d), _ = self.rebuild(a, b)
        return a.sum() + b.sum() + c.sum() + d.sum()


@once
def frozen_tower(config: FrozenConfig) -> Model:
    """Return the tower: fns ``halves``, ``encode_item`` and ``rebuild``.

    Example:
      >>> model = frozen_tower(FrozenConfig(text=3, picture=5, width=2))
      >>> params = model.init(jax.random.key(0))
      >>> text, picture = jnp.ones((2, 3)), jnp.ones((2, 5))
      >>> e, _ = jax.jit(model.fns["encode_item"])(params, text, picture, jnp.array([True, False]))
      >>> e.shape, e[1, 2:].tolist()
      ((2, 4), [0.0, 0.0])
    """

    def example() -> tuple[jax.Array, ...]:
        return jnp.zeros((1, config.text)), jnp.zeros((1, config.picture)), jnp.ones(1, bool)

    methods = {name: name for name in ("halves", "encode_item", "rebuild")}
    return make_model(config, Frozen(config), example, methods)
