"""Critics and conditionals for bounds of mutual information.

A critic scores every pair of an x and a y of a batch; a conditional is a Gaussian q(y | x).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense
from jmrec.types import Model

KINDS = ("bilinear", "separable", "concatenated")


@dataclass(frozen=True)
class CriticConfig:
    """The kind and the sizes of a critic.

    Attributes:
      x: Width of x.
      y: Width of y.
      kind: "bilinear" (x^T W y: cheap, sees what is linear), "separable" (the dot product of two
        networks: [N, M] scores for N + M evaluations) or "concatenated" (one network of every pair:
        the most flexible, N M evaluations).
      hidden: Width of the networks' hidden layers.
      width: Width of the space in which a separable critic compares.
    """

    x: int
    y: int
    kind: str = "separable"
    hidden: int = 128
    width: int = 64

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"critic {self.kind!r} is not one of {', '.join(KINDS)}.")


class Critic(nn.Module):
    """The module; see `critic` for the pure function."""

    config: CriticConfig

    def setup(self) -> None:
        """Declare the layers of the kind that is wanted."""
        c = self.config
        if c.kind == "bilinear":
            self.form = dense(c.y, ("embed", "out"), jnp.float32, "form")
            return
        self.x0 = dense(c.hidden, ("embed", "mlp"), jnp.float32, "x0", bias=True)
        self.y0 = dense(c.hidden, ("embed", "mlp"), jnp.float32, "y0", bias=True)
        if c.kind == "separable":
            self.x1 = dense(c.width, ("mlp", "out"), jnp.float32, "x1", bias=True)
            self.y1 = dense(c.width, ("mlp", "out"), jnp.float32, "y1", bias=True)
        else:
            self.pair1 = dense(c.hidden, ("mlp", None), jnp.float32, "pair1", bias=True)
            self.pair2 = dense(1, ("mlp", None), jnp.float32, "pair2", bias=True)

    def __call__(self, x: jax.Array, y: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Score every pair of x [N, X] and y [M, Y]: [N, M]."""
        c = self.config
        if c.kind == "bilinear":
            return self.form(x) @ y.T * c.y**-0.5, {}
        if c.kind == "separable":
            left, right = self.x1(nn.gelu(self.x0(x))), self.y1(nn.gelu(self.y0(y)))
            return left @ right.T * c.width**-0.5, {}
        # The first layer of [x; y] is a sum, so it costs N + M products and not N M.
        hidden = nn.gelu(self.x0(x)[:, None] + self.y0(y)[None, :])
        return self.pair2(nn.gelu(self.pair1(hidden)))[..., 0], {}


@once
def critic(config: CriticConfig) -> Model:
    """Return a critic: fns ``scores``, (params, x [N, X], y [M, Y]) -> [N, M].

    Row i holds the scores of x_i with every y: what the bounds of
    `jmrec.losses.mutual_information` take.

    Example:
      >>> model = critic(CriticConfig(x=3, y=2, kind="bilinear"))
      >>> params = model.init(jax.random.key(0))
      >>> scores, _ = model.fns["scores"](params, jnp.ones((5, 3)), jnp.ones((4, 2)))
      >>> scores.shape
      (5, 4)
    """

    def example() -> tuple[jax.Array, ...]:
        return jnp.zeros((2, config.x)), jnp.zeros((2, config.y))

    return make_model(config, Critic(config), example, {"scores": "__call__"})


@dataclass(frozen=True)
class ConditionalConfig:
    """The sizes of a conditional.

    Attributes:
      x: Width of x.
      y: Width of y.
      hidden: Width of the hidden layer.
    """

    x: int
    y: int
    hidden: int = 128


class Conditional(nn.Module):
    """The module; see `conditional` for the pure function."""

    config: ConditionalConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        self.first = dense(c.hidden, ("embed", "mlp"), jnp.float32, "first", bias=True)
        self.mean = dense(c.y, ("mlp", "out"), jnp.float32, "mean", bias=True)
        self.spread = dense(c.y, ("mlp", "out"), jnp.float32, "spread", bias=True)

    def __call__(self, x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        """Map x [..., X] to mean and log-variance [..., Y]."""
        hidden = nn.gelu(self.first(x))
        # Bounded, so that a start far off cannot overflow.
        return (self.mean(hidden), 4.0 * jnp.tanh(self.spread(hidden) / 4.0)), {}


@once
def conditional(config: ConditionalConfig) -> Model:
    """Return a diagonal Gaussian q(y | x): fns ``gaussian``, (params, x) -> (mean, log-variance).

    What `vclub` and `l1out` of `jmrec.losses.mutual_information` take, trained with
    `gaussian_log_likelihood`.

    Example:
      >>> model = conditional(ConditionalConfig(x=3, y=2))
      >>> (mean, log_variance), _ = model.fns["gaussian"](
      ...     model.init(jax.random.key(0)), jnp.ones((5, 3)))
      >>> mean.shape, log_variance.shape
      ((5, 2), (5, 2))
    """

    def example() -> tuple[jax.Array, ...]:
        return (jnp.zeros((2, config.x)),)

    return make_model(config, Conditional(config), example, {"gaussian": "__call__"})
