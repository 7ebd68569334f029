"""The heads k and t on the Knowledge tower's e, and the critics that the distillation needs."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense
from jmrec.types import Model


@dataclass(frozen=True)
class AlignmentConfig:
    """Sizes of the heads and critics.

    Attributes:
      features: D, the width of e.
      states: Width of the Transfer tower's states h.
      k: Width of k, "what the item is".
      t: Width of t, "what the item leads to and follows from".
      critic: Width of the space in which t and h are compared.
    """

    features: int
    states: int
    k: int = 64
    t: int = 64
    critic: int = 64


class Alignment(nn.Module):
    """The module; see `alignment` for the pure functions.

    The heads are linear: a linear map keeps the neighbourhoods of e, so it carries over to items
    that nobody has clicked yet, where a deep one turns content into a fingerprint of known items.
    """

    config: AlignmentConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        self.head_k = dense(c.k, ("embed", "out"), jnp.float32, "head_k")
        self.head_t = dense(c.t, ("embed", "out"), jnp.float32, "head_t")
        self.rebuild = dense(c.features, ("out", "embed"), jnp.float32, "rebuild", bias=True)
        self.next_t = dense(c.critic, ("embed", "out"), jnp.float32, "next_t")
        self.next_h = dense(c.critic, ("embed", "out"), jnp.float32, "next_h", bias=True)
        self.last_t = dense(c.critic, ("embed", "out"), jnp.float32, "last_t")
        self.last_h = dense(c.critic, ("embed", "out"), jnp.float32, "last_h", bias=True)
        self.conditional0 = dense(2 * c.t, ("embed", "mlp"), jnp.float32, "conditional0", bias=True)
        self.conditional1 = dense(2 * c.t, ("mlp", "embed"), jnp.float32, "conditional1", bias=True)

    def heads(self, e: jax.Array) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """Map e [..., D] to (k [..., K], t [..., T])."""
        return (self.head_k(e), self.head_t(e)), {}

    def reconstruct(self, k: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Predict e [..., D] from k, so that "what it is" is not thrown away."""
        return self.rebuild(k), {}

    def next_scores(self, t: jax.Array, h: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Score every pair of t [N, T] of next items and states h [M, S]: [M, N], bilinear."""
        scale = self.config.critic**-0.5
        return self.next_h(h) @ self.next_t(t).T * scale, {}

    def last_scores(self, t: jax.Array, h: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Score every pair of t [N, T] of the item just seen and states h [M, S]: [M, N]."""
        scale = self.config.critic**-0.5
        return self.last_h(h) @ self.last_t(t).T * scale, {}

    def conditional(self, k: jax.Array) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """Return mean and log-variance of a Gaussian q(t | k), each [..., T], for vCLUB."""
        out = self.conditional1(nn.gelu(self.conditional0(k)))
        mean, log_variance = jnp.split(out, 2, -1)
        return (mean, 4.0 * jnp.tanh(log_variance / 4.0)), {}

    def __call__(self, e: jax.Array, h: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        (k, t), _ = self.heads(e)
        self.reconstruct(k)
        self.conditional(k)
        self.last_scores(t, h)
        return self.next_scores(t, h)[0]


@once
def alignment(config: AlignmentConfig) -> Model:
    """Return heads and critics: fns ``heads``, ``reconstruct``, ``conditional`` and the scores.

    Example:
      >>> model = alignment(AlignmentConfig(features=6, states=5, k=4, t=3, critic=2))
      >>> params = model.init(jax.random.key(0))
      >>> (k, t), _ = model.fns["heads"](params, jnp.ones((7, 6)))
      >>> k.shape, t.shape
      ((7, 4), (7, 3))
    """

    def example() -> tuple[jax.Array, ...]:
        return jnp.zeros((2, config.features)), jnp.zeros((2, config.states))

    names = ("heads", "reconstruct", "next_scores", "last_scores", "conditional")
    return make_model(config, Alignment(config), example, {name: name for name in names})
