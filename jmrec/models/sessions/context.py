"""What session encoders share besides a stack: a session's context, and a direct linear path."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import dense, named
from jmrec.models.parts.transformer import positions_of

RECENT = 3
"""How many of the last items the direct path reads one by one."""


class Direct(nn.Module):
    """A linear path from the items of a session to its state, beside the attention.

    The last items, the first one and the mean of all so far, each through a matrix of its own: a
    Markov chain of a higher order, smoothed by what the session is about. Attention has to find
    these places first, and learns the same transitions from sessions many times as slowly.

    References:
      He and McAuley, Fusing Similarity Models with Markov Chains for Sparse Sequential
      Recommendation, https://arxiv.org/abs/1609.09152
      Liu et al., STAMP: Short-Term Attention/Memory Priority Model for Session-based
      Recommendation, https://doi.org/10.1145/3219819.3219950
    """

    out: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Map item vectors x [B, T, D] to float32 [B, T, out].

        Args:
          x: The vectors.
          mask: bool [B, T], or int32: see `jmrec.models.parts.transformer.causal`. Padding is at
            the right.
        """
        length = x.shape[1]
        x = jnp.where(mask[..., None] > 0, x, 0.0).astype(jnp.float32)
        within = positions_of(mask)[..., None]  # how many items of its session stand before each
        recent = [
            jnp.where(within >= o, jnp.pad(x, ((0, 0), (o, 0), (0, 0)))[:, :length], 0.0)
            for o in range(RECENT)
        ]
        start = jnp.arange(length)[:, None] - within
        first = jnp.take_along_axis(x, start, 1)
        total = jnp.cumsum(x, 1)
        before = jnp.take_along_axis(total - x, start, 1)
        mean = (total - before) / (within + 1)
        read = jnp.concatenate([*recent, first, mean], -1)
        return dense(self.out, ("embed", "out"), jnp.float32, "matrices")(read)


GAPS = 16
"""Time gaps are sorted into classes by their power of e; all above 38 days are one class."""


class Context(nn.Module):
    """What a position of a session says beside its item: the time since the last, the event's type.

    Its tables begin at zero, so that a model begins as one that reads neither.
    """

    width: int
    gaps: bool
    events: int

    @nn.compact
    def __call__(
        self, mask: jax.Array, gap: jax.Array | None, event: jax.Array | None
    ) -> jax.Array:
        """Return float32 [B, T, width] to add to the items.

        Args:
          mask: bool or int32 [B, T].
          gap: float32 [B, T], log(1 + seconds since the item before); None is all 0.
          event: int32 [B, T] codes; None is all 0, and so is a code that training did not have.
        """
        out = jnp.zeros((*mask.shape, self.width))
        init = nn.initializers.zeros_init()
        if self.gaps:
            table = self.param("gaps", named(init, None, "embed"), (GAPS, self.width))
            power = jnp.zeros(mask.shape, int) if gap is None else gap.astype(int)
            out += jnp.take(table, jnp.clip(power, 0, GAPS - 1), 0)
        if self.events:
            table = self.param("events", named(init, None, "embed"), (self.events, self.width))
            code = jnp.zeros(mask.shape, int) if event is None else event
            out += jnp.take(table, jnp.where(code < self.events, code, 0), 0)
        return out
