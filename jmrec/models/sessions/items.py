"""The item vectors of encoders over items: x = W features + id, one matrix and one table."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import dense, named


class ItemVectors(nn.Module):
    """Item vectors from features, ids or both; see `jmrec.models.sessions.student` for its use.

    With ``nn.share_scope`` its parameters are among those of the encoder that holds it.

    Attributes:
      width: D, of the vectors.
      features: F, width of the feature table; 0 for none.
      ids: Rows of the id table, the last one is the shared unknown row; 0 for none.
    """

    width: int
    features: int
    ids: int

    def setup(self) -> None:
        """Declare the matrix and the table."""
        if self.features:
            self.project = dense(self.width, (None, "embed"), jnp.float32, "project")
        if self.ids:
            table = named(nn.initializers.normal(0.02), "item", "embed")
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
            x = x + self.table[ids]
        return x, {}
