"""The transformer blocks that every tower and student is made of (Flax Linen, float32 parameters).

Shapes: B batch, T positions, D width, H query heads, K key-value heads, C head size, M MLP width,
P earlier positions that are kept in a cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.rope import RopeScaling, rotate

Initialiser = Callable[..., Any]

UNROLL = 4
"""Blocks per turn of the scan: short stacks have no loop, which a CPU runs a third faster."""


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
        "none", True or "true", or the name of a policy of ``jax.checkpoint_policies``, which says
        what is kept.
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
        if self.dtype not in ("float32", "bfloat16"):
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
      SettingError: It is no policy of ``jax.checkpoint_policies``.

    Example:
      >>> remat_policy("none"), remat_policy(True), remat_policy("dots_saveable")[0]
      ((False, None), (True, None), True)
    """
    if str(remat).lower() in ("none", "false", "true"):
        return str(remat).lower() == "true", None
    policy = getattr(jax.checkpoint_policies, str(remat), None)
    if policy is None:
        raise SettingError(
            f"remat {remat!r} is not known; choose none, true or a name of jax.checkpoint_policies."
        )
    return True, policy


def named(init: Initialiser, *axes: str | None) -> Initialiser:
    """Attach one logical axis name per array axis to an initialiser."""
    return nn.with_logical_partitioning(init, axes)


def linear_init(gain: float = 1.0) -> Initialiser:
    """Return the initialiser of all matrices: fan-in scaled, normal."""
    return nn.initializers.variance_scaling(gain, "fan_in", "normal")


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
) -> Linear:
    """Return a Dense layer whose parameters carry logical axes; ``gain`` scales its variance."""
    return Linear(
        features,
        use_bias=bias,
        dtype=dtype,
        kernel_init=named(linear_init(gain), *axes),
        bias_init=named(nn.initializers.zeros_init(), axes[1]),
        name=name,
    )


def drop(x: jax.Array, rate: jax.Array | float, key: jax.Array | None) -> jax.Array:
    """Apply inverted dropout with a traced rate; the identity where ``key`` is None.

    Linen's own Dropout needs a static rate, and a sweep over rates would compile anew.
    """
    if key is None:
        return x
    keep = jax.random.uniform(key, x.shape) >= rate
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


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
        """Map item vectors x [B, T, D] with mask bool [B, T] to float32 [B, T, out].

        Padding stands at the right.
        """
        length = x.shape[1]
        x = jnp.where(mask[..., None], x, 0.0).astype(jnp.float32)
        recent = [jnp.pad(x, ((0, 0), (o, 0), (0, 0)))[:, :length] for o in range(RECENT)]
        first = jnp.broadcast_to(x[:, :1], x.shape)
        count = jnp.maximum(jnp.cumsum(mask, 1), 1)[..., None]
        mean = jnp.cumsum(x, 1) / count
        read = jnp.concatenate([*recent, first, mean], -1)
        return dense(self.out, ("embed", "out"), jnp.float32, "matrices")(read)


GAPS = 16
"""Time gaps are told apart by their power of e; all above 38 days are one."""


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
          mask: bool [B, T].
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


def causal(mask_BxT: jax.Array) -> jax.Array:
    """Return the attention mask [B, T, T] of a causal decoder over padded sequences."""
    length = mask_BxT.shape[1]
    return jnp.tril(jnp.ones((length, length), bool))[None] & mask_BxT[:, None, :]


def positions_of(mask_BxT: jax.Array) -> jax.Array:
    """Return each position's number among the real ones, so that padding shifts nothing.

    Example:
      >>> positions_of(jnp.array([[True, False, True, True]])).tolist()
      [[0, 0, 1, 2]]
    """
    return jnp.maximum(jnp.cumsum(mask_BxT, 1) - 1, 0)


def gather(x_BxTxD: jax.Array, mask_BxT: jax.Array) -> jax.Array:
    """Return mean and maximum over real positions, float32 [B, 2 D]; zeros where there is none.

    In the mean one telling word among forty is diluted; the maximum keeps it.

    Example:
      >>> gather(jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[True, True, False]])).tolist()
      [[2.0, 3.0]]
    """
    x, mask = x_BxTxD.astype(jnp.float32), mask_BxT[..., None]
    if not x.shape[1]:
        return jnp.zeros((x.shape[0], 2 * x.shape[2]))
    mean = jnp.where(mask, x, 0.0).sum(1) / jnp.maximum(mask.sum(1), 1)
    most = jnp.where(mask, x, -1e30).max(1)
    return jnp.concatenate([mean, jnp.where(mask.any(1), most, 0.0)], -1)
