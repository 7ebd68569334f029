"""Optimisers: optax chains and schedules whose numbers are traced.

The learning rate (``hparams["learning_rate"]``) and what `traced_numbers` returns
(``hparams["optim"]``) are arguments of the program: a sweep over them compiles nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from optax.contrib import MuonDimensionNumbers

from jmrec.errors import UserError
from jmrec.types import HParams, Params

SCHEDULES = ("constant", "cosine", "linear")
TABLES = ("vocab", "item", "patch")
"""First axes of tables that are looked up row by row, not multiplied by."""


@dataclass(frozen=True)
class OptimConfig:
    """The settings of an optimiser; those in `traced_numbers` compile nothing anew.

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
      average: The parameters that are judged and kept are a moving average over about so many of
        the last updates, and over the last tenth of them while those are fewer. 0 keeps none.

    References:
      Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging,
      https://doi.org/10.1137/0330046
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
    average: int = 0


def traced_numbers(config: OptimConfig) -> HParams:
    """Return the settings that are traced: ``hparams["optim"]`` of a step.

    The end of a schedule is one of them: a longer run compiles nothing anew. Under Muon the clip is
    a constant: its iterations make a large difference of a last bit, and a traced clip rounds
    otherwise.

    Example:
      >>> traced_numbers(OptimConfig(warmup=3))
      {'clip': 1.0, 'warmup': 3, 'weight_decay': 0.0}
      >>> traced_numbers(OptimConfig(muon=1.0, schedule="cosine", steps=90))
      {'steps': 90, 'warmup': 0, 'weight_decay': 0.0}
    """
    traced: HParams = {"warmup": config.warmup, "weight_decay": config.weight_decay}
    if config.average:
        traced = {"average": config.average, **traced}
    if config.schedule != "constant":
        traced = {"steps": config.steps, **traced}
    return traced if config.muon else {"clip": config.clip, **traced}


def check_optim(config: OptimConfig) -> None:
    """Refuse settings that nothing can be trained with.

    Raises:
      UserError: The schedule is not known or has no end.
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


@dataclass(frozen=True)
class Optimizer:
    """What ``make_optimizer`` returns; ``hparams`` holds "learning_rate" and "optim", all traced.

    Attributes:
      init: ``params -> state``.
      update: ``(gradients, state, params, hparams) -> (updates, state)``; the updates are to be
        scaled by minus the learning rate.
      schedule: ``(step, hparams) -> learning rate``.
    """

    init: Callable[[Params], Any]
    update: Callable[[Any, Any, Params, HParams], tuple[Any, Any]]
    schedule: Callable[[jax.Array, HParams], jax.Array]


def _shape(config: OptimConfig, step: jax.Array, numbers: HParams) -> jax.Array:
    """Return the schedule's factor in [0, 1] for the update after ``step`` updates."""
    done = jnp.asarray(step, jnp.float32)
    warmup = jnp.asarray(numbers["warmup"], jnp.float32)
    factor = jnp.ones((), jnp.float32)
    # Times the reciprocal, as XLA divides by a constant: traced numbers give the constants' bits.
    if config.schedule != "constant":
        span = jnp.maximum(jnp.asarray(numbers["steps"], jnp.float32) - warmup, 1.0)
        part = jnp.clip((done - warmup) * (1.0 / span), 0.0, 1.0)
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * part))
        factor = falling if config.schedule == "cosine" else 1.0 - part
    rising = (done + 1.0) * (1.0 / jnp.maximum(warmup, 1.0))
    return jnp.where(done < warmup, rising, factor)


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


def _clip_by_global_norm(most: jax.Array) -> optax.GradientTransformation:
    """Return optax's clip for a traced norm; 0 does not clip.

    optax divides by the norm and multiplies by ``most``, which XLA turns into one factor unless it
    knows that ``most`` is 1. Here one division is left whatever it is, so that a traced 1 gives the
    bits of a constant 1 under Adam.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        limit = jnp.where(jnp.asarray(most) > 0, most, jnp.inf)
        norm = optax.tree.norm(grads)
        excess = jax.lax.optimization_barrier(norm / limit)
        return jax.tree.map(lambda g: jnp.where(norm < limit, g, g / excess), grads), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def make_optimizer(config: OptimConfig, axes: Any = None) -> Optimizer:
    """Make AdamW or Muon without a learning rate, and its schedule.

    Args:
      config: The settings; those in `traced_numbers` are read from ``hparams["optim"]`` instead.
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
      >>> config = OptimConfig(schedule="linear", warmup=2, steps=10)
      >>> hparams = {"learning_rate": 1.0, "optim": traced_numbers(config)}
      >>> optimizer = make_optimizer(config)
      >>> [round(float(optimizer.schedule(n, hparams)), 3) for n in (0, 1, 2, 6)]
      [0.5, 1.0, 1.0, 0.5]
    """
    check_optim(config)

    def matrices(params: Params) -> Any:
        if axes is None:
            return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)
        names = jax.tree.leaves(axes, is_leaf=_is_axes)
        wide = [sum(name != "layers" for name in leaf) >= 2 for leaf in names]
        return jax.tree.unflatten(jax.tree.structure(params), wide)

    if not config.muon:
        scale = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    elif axes is None:
        raise ValueError("Muon has to know the axes of the parameters")
    else:
        # The signs: optax.contrib.muon scales by minus the learning rate, and so does the caller.
        scale = optax.contrib.muon(
            -config.muon,
            adam_learning_rate=-1.0,
            adam_b1=config.b1,
            adam_b2=config.b2,
            eps=config.eps,
            muon_weight_dimension_numbers=lambda params: _dimensions(axes),
        )

    constant_clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()

    def chain(numbers: HParams) -> optax.GradientTransformation:
        # Made while tracing, because optax takes its numbers here and not in update.
        return optax.chain(
            constant_clip if config.muon else _clip_by_global_norm(numbers["clip"]),
            scale,
            optax.add_decayed_weights(jnp.asarray(numbers["weight_decay"]), mask=matrices),
        )

    def update(grads: Any, state: Any, params: Params, hparams: HParams) -> tuple[Any, Any]:
        return chain(hparams["optim"]).update(grads, state, params)

    def schedule(step: jax.Array, hparams: HParams) -> jax.Array:
        return hparams["learning_rate"] * _shape(config, step, hparams["optim"])

    return Optimizer(chain(traced_numbers(config)).init, update, schedule)


def opt_state_shardings(opt_state: Any, params: Params, other: Any) -> Any:
    """Return the shardings of an optax state: each moment is placed as its parameter.

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
