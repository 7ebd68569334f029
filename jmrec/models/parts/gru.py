"""A gated recurrent unit over rows that may hold several sequences."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import dense, named


class Gru(nn.Module):
    """One layer without biases; the reset gate acts on the state after its matrix, as in cuDNN.

    r = sigmoid(W_r x + U_r h), z = sigmoid(W_z x + U_z h), n = tanh(W_n x + r * U_n h),
    h' = (1 - z) * n + z * h.

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
      Translation, https://arxiv.org/abs/1406.1078

    Attributes:
      width: H, of the state.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, begins: jax.Array) -> jax.Array:
        """Map x [B, T, D] to the states after each position, float32 [B, T, H].

        Args:
          x: The inputs.
          begins: bool [B, T], where a sequence begins; the state before it is zero.
        """
        init, size = nn.initializers.xavier_uniform(), 3 * self.width
        given = dense(size, ("embed", "mlp"), jnp.float32, "input", init=init)(x)
        matrix = self.param("state", named(init, None, "mlp"), (self.width, size))

        def step(state: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            now, fresh = at
            state = jnp.where(fresh[:, None], 0.0, state)
            reset, update, new = jnp.split(now, 3, -1)
            from_reset, from_update, from_new = jnp.split(state @ matrix, 3, -1)
            keep = jax.nn.sigmoid(update + from_update)
            new = jnp.tanh(new + jax.nn.sigmoid(reset + from_reset) * from_new)
            state = (1 - keep) * new + keep * state
            return state, state

        by_time = jnp.swapaxes(given, 0, 1), begins.T
        _, states = jax.lax.scan(step, jnp.zeros_like(given[:, 0, : self.width]), by_time)
        return jnp.swapaxes(states, 0, 1)
