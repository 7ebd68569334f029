"""Optimisers: an optax chain without a learning rate, schedules, freezing by path.

The learning rate is not in the chain because it is traced (``hparams["learning_rate"]``): a
sweep over it compiles nothing.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from optax.contrib import MuonDimensionNumbers

from jmrec.errors import UserError
from jmrec.types import Batch, HParams, Params, State, SumCount

SCHEDULES = ("constant", "cosine", "linear")
TABLES = ("vocab", "item", "patch")
"""First axes of tables that are looked up row by row, not multiplied by."""


@dataclass(frozen=True)
class OptimConfig:
    """The static settings of an optimiser.

    Attributes:
      clip: Largest global norm of a gradient; 0 does not clip.
      b1: Decay of Adam's first moment.
      b2: Decay of Adam's second moment (0.98 for small batches and short runs).
      eps: Added to the root of the second moment.
      weight_decay: Decoupled decay of matrices (vectors and scalars never decay).
      muon: 0 trains everything with Adam. Otherwise matrices that are no lookup tables are
        trained with Muon (momentum 0.95, updates scaled by the root of out / in where that is above
        1), at so many times the learning rate, and the rest with Adam under Nesterov's momentum.
        Weight decay goes by the learning rate itself.
      schedule: "constant", "cosine" or "linear" (the last two end at 0).
      warmup: Updates over which the learning rate rises linearly.
      steps: Updates in all, where the schedule ends; 0 takes the run's.
    """

    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.0
    muon: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Optimizer:
    """What ``make_optimizer`` returns.

    Attributes:
      tx: The optax transformation; its updates are to be scaled by minus the learning rate.
      schedule: ``(step, hparams) -> learning rate``, both traced.
    """

    tx: optax.GradientTransformation
    schedule: Callable[[jax.Array, HParams], jax.Array]


def _shape(config: OptimConfig, step: jax.Array) -> jax.Array:
    """Return the schedule's factor in [0, 1] for the update after ``step`` updates."""
    done = jnp.asarray(step, jnp.float32)
    factor = jnp.ones((), jnp.float32)
    if config.schedule != "constant":
        span = max(config.steps - config.warmup, 1)
        part = jnp.clip((done - config.warmup) / span, 0.0, 1.0)
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * part))
        factor = falling if config.schedule == "cosine" else 1.0 - part
    if config.warmup:
        factor = jnp.where(done < config.warmup, (done + 1.0) / config.warmup, factor)
    return factor


def _is_axes(node: Any) -> bool:
    return isinstance(node, tuple) and all(name is None or isinstance(name, str) for name in node)


def _dimensions(axes: Any) -> Any:
    """Return what Muon is to do with each parameter: its two axes, or None for Adam."""

    def leaf(names: tuple[str | None, ...]) -> MuonDimensionNumbers | None:
        inner = [i for i, name in enumerate(names) if name != "layers"]
        if len(inner) != 2 or names[inner[0]] in TABLES:
            return None
        return MuonDimensionNumbers(inner[0], inner[1])

    return jax.tree.map(leaf, axes, is_leaf=_is_axes)


def make_optimizer(config: OptimConfig, axes: Any = None) -> Optimizer:
    """Make AdamW or Muon without a learning rate, and its schedule.

    Args:
      config: The static settings.
      axes: The logical axes of the parameters. With them a stack of vectors over "layers" is not
        taken for a matrix; without them, weight decay goes by the number of array axes.

    Returns:
      The transformation (global-norm clip, Adam or Muon, decoupled decay of matrices) and the
      schedule, which is ``hparams["learning_rate"]`` times a shape.

    Raises:
      UserError: The schedule is not known or has no end.
      ValueError: Muon is asked for without axes.

    References:
      Ilya Loshchilov and Frank Hutter, Decoupled Weight Decay Regularization,
      https://arxiv.org/abs/1711.05101
      Keller Jordan et al., Muon: An optimizer for hidden layers in neural networks,
      https://kellerjordan.github.io/posts/muon/

    Example:
      >>> optimizer = make_optimizer(OptimConfig(schedule="linear", warmup=2, steps=10))
      >>> [round(float(optimizer.schedule(n, {"learning_rate": 1.0})), 3) for n in (0, 1, 2, 6)]
      [0.5, 1.0, 1.0, 0.5]
    """
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"optim.schedule={config.schedule!r} is not known; choose {', '.join(SCHEDULES)}."
        )
    if config.schedule != "constant" and config.steps <= config.warmup:
        raise UserError(
            f"optim.schedule={config.schedule!r} needs more steps than optim.warmup="
            f"{config.warmup}, and has {config.steps}; lower the warmup or train longer."
        )

    def matrices(params: Params) -> Any:
        if axes is None:
            return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)
        names = jax.tree.leaves(axes, is_leaf=_is_axes)
        wide = [sum(name != "layers" for name in leaf) >= 2 for leaf in names]
        return jax.tree.unflatten(jax.tree.structure(params), wide)

    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if not config.muon:
        parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps))
    elif axes is None:
        raise ValueError("Muon has to know the axes of the parameters")
    else:
        # The signs: optax.contrib.muon scales by minus the learning rate, and so does the caller.
        parts.append(
            optax.contrib.muon(
                -config.muon,
                adam_learning_rate=-1.0,
                adam_b1=config.b1,
                adam_b2=config.b2,
                eps=config.eps,
                muon_weight_dimension_numbers=lambda params: _dimensions(axes),
            )
        )
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=matrices))

    def schedule(step: jax.Array, hparams: HParams) -> jax.Array:
        return hparams["learning_rate"] * _shape(config, step)

    return Optimizer(optax.chain(*parts), schedule)


def gradient_sums(
    loss: Callable[[Params, State, Batch, jax.Array], tuple[Any, Any, State, dict[str, SumCount]]],
    params: Params,
    state: State,
    batch: Batch,
    key: jax.Array,
    accumulate: int = 1,
) -> tuple[tuple[jax.Array, jax.Array, dict[str, SumCount], Params], State]:
    """Return a loss sum, its count, metrics and the gradient of the sum, over microbatches.

    Nothing is divided here: the caller divides by the count of the whole batch, so that
    microbatches with unequal masks add up to exactly the whole batch's gradient.

    Args:
      loss: ``(params, state, batch, key) -> (sum, count, new state, metrics)``.
      params: What to differentiate by.
      state: The task's state, handed from one microbatch to the next.
      batch: Arrays [B, ...].
      key: Microbatch a gets ``fold_in(key, a)``; without accumulation the key itself is used.
      accumulate: Microbatches, a divisor of B.

    Returns:
      ((sum, count, metrics, gradient), new state).

    Example:
      >>> def loss(params, state, batch, key):
      ...     return params * batch["x"].sum(), batch["x"].size, state, {}
      >>> batch = {"x": jnp.arange(4.0)}
      >>> (total, count, _, gradient), _ = gradient_sums(
      ...     loss, jnp.float32(2), {}, batch, jax.random.key(0), accumulate=2)
      >>> float(total), float(count), float(gradient)
      (12.0, 4.0, 6.0)
    """

    def sums(state: State, part: Batch, key: jax.Array) -> tuple[Any, State]:
        def scalar(params: Params) -> Any:
            total, count, new_state, metrics = loss(params, state, part, key)
            return total, (jnp.asarray(count, jnp.float32), new_state, metrics)

        (total, (count, new_state, metrics)), grads = jax.value_and_grad(scalar, has_aux=True)(
            params
        )
        return (total, count, metrics, grads), new_state

    if accumulate == 1:
        return sums(state, batch, key)
    # Rows a, n + a, 2n + a, ... make microbatch a, so that each draws on every device.
    n = accumulate
    parts = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(x.shape[0] // n, n, *x.shape[1:]), 1, 0), batch
    )
    first = jax.tree.map(lambda x: x[0], parts)
    shapes, _ = jax.eval_shape(sums, state, first, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(carry: Any, part: Any) -> tuple[Any, None]:
        index, micro = part
        new, new_state = sums(carry[1], micro, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, carry[0], new), new_state), None

    out, _ = jax.lax.scan(body, (zeros, state), (jnp.arange(n), parts))
    return out


def opt_state_shardings(opt_state: Any, params: Params, other: Any) -> Any:
    """Return the shardings of an optax state: each moment lies where its parameter lies.

    A moment is known by its path, which ends in the path of its parameter. (optax's own
    ``tree_map_params`` can not look into ``optax.partition``, of which Muon is made.)

    Args:
      opt_state: The state or its shapes.
      params: A nested dict of shardings, one a parameter.
      other: The sharding of what is no copy of the parameters (counts).

    Returns:
      A tree of shardings with the structure of ``opt_state``.

    Example:
      >>> state = optax.scale_by_adam().init({"w": jnp.ones(2)})
      >>> opt_state_shardings(state, {"w": "cut"}, "whole")
      ScaleByAdamState(count='whole', mu={'w': 'cut'}, nu={'w': 'cut'})
    """
    known = dict(jax.tree_util.tree_flatten_with_path(params)[0])

    def place(path: tuple[Any, ...], leaf: Any) -> Any:
        del leaf
        ends = (path[start:] for start in range(len(path)))
        return next((known[end] for end in ends if end in known), other)

    return jax.tree_util.tree_map_with_path(place, opt_state)


def freeze(params: Params, patterns: Sequence[str]) -> Any:
    """Say which parameters are frozen.

    Args:
      params: A nested dict of arrays.
      patterns: Regular expressions searched in paths such as ``tower/layer_0/kernel``.

    Returns:
      A tree of bool with the structure of ``params``; True where a pattern is found.

    Raises:
      UserError: A pattern is found in no path.

    Example:
      >>> freeze({"tower": {"w": 1}, "head": {"w": 2}}, ["^tower/"])
      {'head': {'w': False}, 'tower': {'w': True}}
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(f"the pattern {pattern!r} is found in no parameter's path; mend it.")
    hits = [any(re.search(pattern, path) for pattern in patterns) for path in paths]
    return jax.tree.unflatten(structure, hits)


def partition(params: Params, patterns: Sequence[str]) -> tuple[Params, Params]:
    """Split parameters by path.

    Args:
      params: A nested dict of arrays.
      patterns: As in ``freeze``.

    Returns:
      (trainable, frozen): two nested dicts that ``merge`` puts together again; branches without
      a leaf are left out.

    Raises:
      UserError: A pattern is found in no path.

    Example:
      >>> partition({"tower": {"w": 1, "b": 3}, "head": {"w": 2}}, ["^tower/w"])
      ({'head': {'w': 2}, 'tower': {'b': 3}}, {'tower': {'w': 1}})
    """

    def pick(node: Any, mask: Any, wanted: bool) -> Any:
        kept = {}
        for name in sorted(node):
            if isinstance(node[name], dict):
                branch = pick(node[name], mask[name], wanted)
                if branch:
                    kept[name] = branch
            elif mask[name] is wanted:
                kept[name] = node[name]
        return kept

    frozen = freeze(params, patterns)
    return pick(params, frozen, False), pick(params, frozen, True)


def merge(trainable: Params, frozen: Params) -> Params:
    """Put together what ``partition`` split.

    Args:
      trainable: A nested dict.
      frozen: A nested dict with other leaves.

    Returns:
      One nested dict.

    Raises:
      ValueError: Both hold the same leaf.

    Example:
      >>> merge({"tower": {"b": 3}}, {"tower": {"w": 1}})
      {'tower': {'b': 3, 'w': 1}}
    """
    out = dict(trainable)
    for name, value in frozen.items():
        if name not in out:
            out[name] = value
        elif isinstance(value, dict) and isinstance(out[name], dict):
            out[name] = merge(out[name], value)
        else:
            raise ValueError(f"both trees hold {name!r}")
    return dict(sorted(out.items()))
