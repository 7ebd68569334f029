"""The transformer blocks that every tower and student is made of (Flax Linen, float32 parameters).

Shapes: B batch, T positions, D width, H query heads, K key-value heads, C head size, M MLP width,
P earlier positions that are kept in a cache.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.parts.basic import RMSNorm, dense, drop
from jmrec.models.parts.rope import RopeScaling, rotate

UNROLL = 4
"""Blocks per turn of the scan: short stacks have no loop, which a CPU runs a third faster."""


DTYPES = ("float32", "bfloat16")
"""In which a stack may be computed."""
POLICIES = (
    *("everything_saveable", "nothing_saveable", "dots_saveable", "checkpoint_dots"),
    *("dots_with_no_batch_dims_saveable", "checkpoint_dots_with_no_batch_dims"),
)
"""The policies of ``jax.checkpoint_policies`` that need no arguments of their own."""
SIZES = {"width": 1, "layers": 0, "heads": 1, "kv_heads": 1, "mlp": 1, "head": 0}
"""The least that each size of a stack may be."""


@dataclass(frozen=True)
class StackConfig:
    """The size of a stack of transformer blocks.

    Attributes:
      width: D.
      layers: Number of blocks.
      heads: H query heads.
      kv_heads: K key-value heads; divides ``heads`` (grouped-query attention).
      mlp: M, the width of the SwiGLU hidden layer.
      rope_base: Base of the rotary position frequencies.
      remat: Recompute each block in the backward pass, which trades time for memory: False or
        "none", True or "true", or one of `POLICIES`, which says what is kept.
      dtype: Compute dtype, "float32" or "bfloat16"; parameters are float32 always.
      head: C, the head size; 0 is ``width / heads``.
      eps: What the norms add to the mean square.
      qkv_bias: Queries, keys and values have biases.
      out_bias: The attention's output has a bias.
      mlp_bias: The MLP's three matrices have biases.
      qk_norm: Queries and keys are normalised, head by head, before they are rotated.
      rope_scaling: Stretched rotary frequencies.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 256
    rope_base: float = 10_000.0
    remat: bool | str = False
    dtype: str = "float32"
    head: int = 0
    eps: float = 1e-6
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name, least in SIZES.items():
            if getattr(self, name) < least:
                raise SettingError(f"{name} {getattr(self, name)} is below {least}; raise it.")
        if self.head % 2:
            raise SettingError(f"head {self.head} is odd; give an even number.")
        if not self.head and (self.width % self.heads or (self.width // self.heads) % 2):
            raise SettingError(
                f"width {self.width} over heads {self.heads} is no even number; change one of them."
            )
        if self.heads % self.kv_heads:
            raise SettingError(
                f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}; change one."
            )
        if self.dtype not in DTYPES:
            raise SettingError(
                f"dtype {self.dtype!r} is not known; choose 'float32' or 'bfloat16'."
            )
        remat_policy(self.remat)

    @property
    def head_size(self) -> int:
        """C, the size of a head."""
        return self.head or self.width // self.heads


def remat_policy(remat: bool | str) -> tuple[bool, Any]:
    """Return whether blocks are recomputed in the backward pass, and what is kept (None: nothing).

    Raises:
      SettingError: It is none of `POLICIES`.

    Example:
      >>> remat_policy("none"), remat_policy(True), remat_policy("dots_saveable")[0]
      ((False, None), (True, None), True)
    """
    word = str(remat).lower() if isinstance(remat, bool | str) else ""
    if word in ("none", "false", "true"):
        return word == "true", None
    if remat not in POLICIES:
        raise SettingError(
            f"remat {remat!r} is not known; choose none, true or one of {', '.join(POLICIES)}."
        )
    return True, getattr(jax.checkpoint_policies, str(remat))


KeysValues = tuple[jax.Array, jax.Array]
"""Keys and values [B, positions, K, C]."""


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, past: KeysValues | None = None
) -> jax.Array:
    """Return grouped-query attention, [B, T, H C]; rows without any key give zeros.

    Args:
      q: Queries [B, T, H, C].
      k: Keys [B, S, K, C]; K divides H.
      v: Values [B, S, K, C].
      mask: bool, broadcastable to [B, T, P + S]: which keys each query sees, the past ones first.
      past: Keys and values [B, P, K, C] of earlier positions.

    References:
      Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models,
      https://arxiv.org/abs/2305.13245

    Example:
      >>> one = jnp.ones((1, 1, 1, 2))
      >>> attend(one, one, 3 * one, jnp.ones((1, 1, 1), bool)).tolist()
      [[[3.0, 3.0]]]
    """
    batch, length, heads, size = q.shape
    q = q.reshape(batch, length, k.shape[2], heads // k.shape[2], size)
    logits = jnp.einsum("btkgc,bskc->bkgts", q, k)
    if past:
        logits = jnp.concatenate([jnp.einsum("btkgc,bskc->bkgts", q, past[0]), logits], -1)
    logits = logits.astype(jnp.float32) * size**-0.5
    allowed = mask[:, None, None]
    weights = jax.nn.softmax(jnp.where(allowed, logits, -1e30), -1)
    weights = jnp.where(allowed, weights, 0.0).astype(v.dtype)
    earlier = past[0].shape[1] if past else 0
    out = jnp.einsum("bkgts,bskc->btkgc", weights[..., earlier:], v)
    if past:
        out += jnp.einsum("bkgts,bskc->btkgc", weights[..., :earlier], past[1])
    return out.reshape(batch, length, heads * size)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; see `attend`."""

    config: StackConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        past: KeysValues | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """Attend from x [B, T, D] at positions [B, T].

        Args:
          x: The states.
          positions: Their places.
          mask: bool [B, T, P + T].
          past: Rotated keys and values of P earlier positions.

        Returns:
          (states [B, T, D], the rotated keys and values of x).
        """
        c = self.config
        size = c.head_size
        dtype = jnp.dtype(c.dtype)
        batch, length, _ = x.shape

        def heads(name: str, count: int, axis: str) -> jax.Array:
            out = dense(count * size, ("embed", axis), dtype, name, bias=c.qkv_bias)(x)
            return out.reshape(batch, length, count, size)

        def turned(name: str, count: int, axis: str) -> jax.Array:
            out = heads(name, count, axis)
            if c.qk_norm:
                out = RMSNorm(c.eps, "head_dim", name=f"{name}_norm")(out)
            return rotate(out, positions, c.rope_base, c.rope_scaling)

        q = turned("query", c.heads, "heads")
        k = turned("key", c.kv_heads, "kv_heads")
        v = heads("value", c.kv_heads, "kv_heads")
        out = dense(c.width, ("heads", "embed"), dtype, "out", bias=c.out_bias, gain=0.5 / c.layers)
        return out(attend(q, k, v, mask, past)), (k, v)


class Block(nn.Module):
    """A pre-norm block: attention, then a SwiGLU MLP.

    References:
      Shazeer, GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202
    """

    config: StackConfig
    cached: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        rate: jax.Array | float,
        past: KeysValues | None = None,
    ) -> tuple[jax.Array, Any]:
        """Return the new states, and them again (or, where ``cached``, keys and values)."""
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def residual(branch: jax.Array) -> jax.Array:
            return drop(branch, rate, self.make_rng("drop") if self.has_rng("drop") else None)

        y = RMSNorm(c.eps, name="attention_norm")(x)
        branch, keys_values = Attention(c, name="attention")(y, positions, mask, past)
        x = x + residual(branch)
        y = RMSNorm(c.eps, name="mlp_norm")(x)
        gate = dense(c.mlp, ("embed", "mlp"), dtype, "gate", bias=c.mlp_bias)(y)
        up = dense(c.mlp, ("embed", "mlp"), dtype, "up", bias=c.mlp_bias)(y)
        down = dense(c.width, ("mlp", "embed"), dtype, "down", bias=c.mlp_bias, gain=0.5 / c.layers)
        x = x + residual(down(nn.silu(gate) * up))
        return x, keys_values if self.cached else x


def rematerialised(block: Any, remat: bool | str) -> Any:
    """Return the module class, its blocks recomputed in the backward pass as ``remat`` says."""
    recompute, policy = remat_policy(remat)
    return nn.remat(block, prevent_cse=False, policy=policy) if recompute else block


def scanned(block: Any, layers: int, remat: bool | str, in_axes: tuple[Any, ...]) -> Any:
    """Return a module class that is so many blocks under one ``scan``.

    Their parameters (and low-rank updates) have a leading "layers" axis.
    """
    return nn.scan(
        rematerialised(block, remat),
        variable_axes={"params": 0, "lora": 0},
        split_rngs={"params": True, "drop": True},
        in_axes=in_axes,
        length=layers,
        unroll=min(layers, UNROLL),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


class Stack(nn.Module):
    """Blocks under one ``scan`` (their parameters have a leading "layers" axis), then a norm."""

    config: StackConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        rate: jax.Array | float = 0.0,
        past: KeysValues | None = None,
        cached: bool = False,
    ) -> tuple[jax.Array, Any]:
        """Return (normed states [B, T, D], every layer's states [layers, B, T, D]).

        Args:
          x: [B, T, D].
          positions: [B, T].
          mask: bool [B, T, P + T].
          rate: Of the dropout on the residual branches.
          past: Keys and values [layers, B, P, K, C] of earlier positions.
          cached: Return keys and values [layers, B, T, K, C] in place of every layer's states.
        """
        c = self.config
        in_axes = (nn.broadcast,) * 3 + (0,)
        x = x.astype(jnp.dtype(c.dtype))
        blocks = scanned(Block, c.layers, c.remat, in_axes)(c, cached, name="blocks")
        x, layers = blocks(x, positions, mask, rate, past)
        return RMSNorm(c.eps, name="norm")(x), layers


def causal(mask_BxT: jax.Array) -> jax.Array:
    """Return the attention mask [B, T, T] of a causal decoder over padded sequences.

    Args:
      mask_BxT: bool; or int32 where several sequences stand in a row: the number of each one's, 0
        for padding. A sequence then sees itself only.
    """
    length = mask_BxT.shape[1]
    before = jnp.tril(jnp.ones((length, length), bool))[None]
    if mask_BxT.dtype == bool:
        return before & mask_BxT[:, None, :]
    return before & (mask_BxT[:, None, :] == mask_BxT[:, :, None])


def positions_of(mask_BxT: jax.Array) -> jax.Array:
    """Return each position's number among the real ones of its sequence; padding shifts nothing.

    Args:
      mask_BxT: bool, or int32 as for `causal`, the numbers of a row ascending.

    Example:
      >>> positions_of(jnp.array([[True, False, True, True]])).tolist()
      [[0, 0, 1, 2]]
      >>> positions_of(jnp.array([[1, 0, 1, 2, 2, 0]])).tolist()
      [[0, 0, 1, 0, 1, 1]]
    """
    if mask_BxT.dtype != bool:
        real = (mask_BxT > 0).astype(jnp.int32)
        count, number = jnp.cumsum(real, 1), jax.lax.cummax(mask_BxT, 1)
        begins = number != jnp.pad(number, ((0, 0), (1, 0)))[:, :-1]
        return jnp.maximum(count - 1 - jax.lax.cummax(jnp.where(begins, count - real, 0), 1), 0)
    return jnp.maximum(jnp.cumsum(mask_BxT, 1) - 1, 0)
