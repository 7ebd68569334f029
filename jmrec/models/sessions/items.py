"""The item vectors of encoders over items: x = W features + id, one matrix and one table.

And what all modules of such encoders share.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.kernels.spread import align
from jmrec.models.linen import make_model
from jmrec.models.parts.basic import Initialiser, dense, drop, named
from jmrec.types import Model


class ItemVectors(nn.Module):
    """Item vectors from features, ids or both; see `jmrec.models.sessions.student` for its use.

    With ``nn.share_scope`` its parameters are among those of the encoder that holds it.

    Attributes:
      width: D, of the vectors.
      features: F, width of the feature table; 0 for none.
      ids: Rows of the id table, the last one is the shared unknown row; 0 for none.
      init: Draws the id table.
    """

    width: int
    features: int
    ids: int
    init: Initialiser = nn.initializers.normal(0.02)

    def setup(self) -> None:
        """Declare the matrix and the table."""
        if self.features:
            self.project = dense(self.width, (None, "embed"), jnp.float32, "project")
        if self.ids:
            table = named(self.init, "item", None)
            self.table = self.param("ids", table, (self.ids, self.width))

    def __call__(
        self, features: jax.Array | None, ids: jax.Array, id_dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the vectors of V items.

        Args:
          features: float32 [V, F], zeros where an item has none; None where F is 0.
          ids: int32 [V], each item's row of the id table; the last row is the unknown one.
          id_dropout: Share of items whose id is replaced by the unknown one in training, so that
            an item without an id is nothing new to the encoder.

        Returns:
          float32 [V, D], and no intermediates.
        """
        x = jnp.zeros((ids.shape[0], self.width))
        if self.features:
            x = x + self.project(features)
        if self.ids:
            if self.has_rng("drop"):
                dropped = jax.random.uniform(self.make_rng("drop"), ids.shape) < id_dropout
                ids = jnp.where(dropped, self.ids - 1, ids)
            x = x + align(self.table, ids)
        return x, {}


class OverItems(nn.Module):
    """The base of a session encoder's module: ``encode_session`` is left to write.

    A subclass that has layers declares them in ``setup``, after ``super().setup()``.

    Attributes:
      config: Its frozen dataclass, with ``features``, ``ids`` and ``width``.
    """

    config: Any

    def setup(self) -> None:
        """Declare the item vectors."""
        c = self.config
        self.items = ItemVectors(c.width, c.features, c.ids, self.id_init())
        nn.share_scope(self, self.items)

    def id_init(self) -> Initialiser:
        """Return what draws the table of item ids."""
        return nn.initializers.normal(0.02)

    def item_table(
        self, features: jax.Array | None, ids: jax.Array, id_dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return item vectors, float32 [V, width]; see `ItemVectors`."""
        return self.items(features, ids, id_dropout)

    def dropped(self, x: jax.Array, rate: jax.Array | float) -> jax.Array:
        """Apply dropout in training; each call draws anew."""
        return drop(x, rate, self.make_rng("drop") if self.has_rng("drop") else None)

    def __call__(self, features: jax.Array | None, ids: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        x, _ = self.item_table(features, ids)
        return self.encode_session(x[None], jnp.ones((1, x.shape[0]), bool))[0]


def over_items(module: OverItems) -> Model:
    """Return the `Model` of a module: fns ``item_table`` and ``encode_session``."""
    config = module.config

    def example() -> tuple[jax.Array | None, ...]:
        features = jnp.zeros((2, config.features)) if config.features else None
        return features, jnp.zeros(2, jnp.int32)

    names = ("item_table", "encode_session")
    return make_model(config, module, example, {name: name for name in names})


def check_sizes(config: Any, name: str, *sizes: str) -> None:
    """Check what every encoder's config promises: items are known by something, sizes are sizes.

    Args:
      config: The frozen dataclass.
      name: The encoder's.
      *sizes: The fields that are whole numbers above 0, beside ``width``.

    Raises:
      SettingError: It reads neither features nor ids, or a size is below 1.
    """
    if not config.features and not config.ids:
        raise SettingError(f"the encoder {name} needs features, ids or both.")
    for size in ("width", *sizes):
        if getattr(config, size) < 1:
            raise SettingError(
                f"{size} of the encoder {name} is {getattr(config, size)}; raise it to 1 or more."
            )


def check_rates(config: Any, name: str, *rates: str) -> None:
    """Check that dropout rates are 0 or more and below 1.

    Raises:
      SettingError: One is not.
    """
    for rate in rates:
        if not 0 <= getattr(config, rate) < 1:
            raise SettingError(
                f"{rate} of the encoder {name} is {getattr(config, rate)}; give 0 or more, below 1."
            )
