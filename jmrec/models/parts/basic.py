"""Matrices with named axes, dropout with a traced rate, normalisation (Flax Linen, float32)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Initialiser = Callable[..., Any]


def named(init: Initialiser, *axes: str | None) -> Initialiser:
    """Attach one logical axis name per array axis to an initialiser."""
    return nn.with_logical_partitioning(init, axes)


def linear_init(gain: float = 1.0) -> Initialiser:
    """Return the initialiser of all matrices: fan-in scaled, normal."""
    return nn.initializers.variance_scaling(gain, "fan_in", "normal")


def even_init(bound: float) -> Initialiser:
    """Return an initialiser that draws evenly from -bound to bound."""

    def draw(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


class Linear(nn.Dense):
    """A Dense layer that adds a low-rank update where the collection "lora" has one for it.

    References:
      Hu et al., LoRA: Low-Rank Adaptation of Large Language Models,
      https://arxiv.org/abs/2106.09685
    """

    def __call__(self, inputs: Any) -> Any:
        """Map [..., D] to [..., features]."""
        out = super().__call__(inputs)
        if not self.has_variable("lora", "a"):
            return out
        a: jax.Array = self.get_variable("lora", "a").astype(out.dtype)
        b: jax.Array = self.get_variable("lora", "b").astype(out.dtype)
        return out + (inputs.astype(out.dtype) @ a) @ b


def dense(
    features: int,
    axes: tuple[str | None, str | None],
    dtype: Any,
    name: str,
    bias: bool = False,
    gain: float = 1.0,
    init: Initialiser | None = None,
) -> Linear:
    """Return a Dense layer whose parameters carry logical axes.

    Its matrix is drawn by ``init``, else by `linear_init`, whose variance ``gain`` scales.
    """
    return Linear(
        features,
        use_bias=bias,
        dtype=dtype,
        kernel_init=named(linear_init(gain) if init is None else init, *axes),
        bias_init=named(nn.initializers.zeros_init(), axes[1]),
        name=name,
    )


def drop(x: jax.Array, rate: jax.Array | float, key: jax.Array | None) -> jax.Array:
    """Apply inverted dropout with a traced rate; the identity where ``key`` is None.

    Linen's own Dropout needs a static rate, and a sweep over rates would compile again.
    """
    if key is None:
        return x
    keep = jax.random.uniform(key, x.shape) >= rate
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


def layer_norm(name: str, epsilon: float) -> nn.LayerNorm:
    """Return a layer norm whose parameters carry logical axes."""
    return nn.LayerNorm(
        epsilon=epsilon,
        scale_init=named(nn.initializers.ones_init(), "embed"),
        bias_init=named(nn.initializers.zeros_init(), "embed"),
        name=name,
    )


class RMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in float32."""

    eps: float = 1e-6
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        scale = self.param("scale", named(nn.initializers.ones_init(), self.axis), (x.shape[-1],))
        wide = x.astype(jnp.float32)
        wide *= jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + self.eps)
        return (wide * scale).astype(x.dtype)
