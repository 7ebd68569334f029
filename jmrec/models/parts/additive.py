"""Additive attention from each item of a session to the items up to it, without a softmax."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import Initialiser, linear_init, named


class Additive(nn.Module):
    """Sums of values whose weights are v . sigmoid(query + key).

    References:
      Bahdanau, Cho, Bengio, Neural Machine Translation by Jointly Learning to Align and Translate,
      https://arxiv.org/abs/1409.0473

    Attributes:
      init: Draws v.
    """

    init: Initialiser = linear_init()

    @nn.compact
    def __call__(
        self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
    ) -> jax.Array:
        """Return the sums, float32 [B, T, D].

        One query after the other, and again in the backward pass, so that no [B, T, T, H] is kept.

        Args:
          query: [B, T, H].
          key: [B, T, H].
          value: [B, T, D].
          mask: bool [B, T, T], which keys each query sees.
        """
        size = query.shape[-1]
        v = self.param("weight", named(self.init, "embed", None), (size, 1))[:, 0]

        @jax.checkpoint
        def one(at: tuple[jax.Array, jax.Array]) -> jax.Array:
            asked, seen = at
            weight = jnp.where(seen, jax.nn.sigmoid(asked[:, None] + key) @ v, 0.0)
            return jnp.einsum("bt,btd->bd", weight, value)

        sums = jax.lax.map(one, (jnp.swapaxes(query, 0, 1), jnp.swapaxes(mask, 0, 1)))
        return jnp.swapaxes(sums, 0, 1)
