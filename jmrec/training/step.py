"""The jitted update of a task: one program over one mesh, its state born sharded and donated.

The learning rate and all other numbers of a task and of its optimiser are traced, so that seeds
and trials share the program. Batch n and the key of update n are functions of n.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jmrec.flops import matmul_flops
from jmrec.kernels.spread import over
from jmrec.sharding import (
    abstract_arrays,
    batch_sharding,
    put_batch,
    put_tree,
    replicated,
    shardings,
)
from jmrec.training.optim import OptimConfig, make_optimizer, opt_state_shardings
from jmrec.types import Batch, HParams, LossResult, Params, State, SumCount, Task, TrainState


class TrainStep:
    """K updates of a task in one call of the device.

    ``(state, frozen, batches, hparams) -> (state, metrics as (sum, count))``; the state given is
    used up. With K above 1, batches and metrics have a first axis of K.

    Args:
      task: What to train.
      optim: The optimiser's settings.
      mesh: The devices.
      rules: The sharding rules.
      accumulate: Microbatches that a batch is cut into.
      updates_per_call: K.

    Attributes:
      abstract: The state's shapes with their shardings.
      compilations: How often the step was traced: once per batch shape.
      populations: Number of members -> their `PopulationStep`, where one was made.
    """

    abstract: TrainState

    def __init__(
        self,
        task: Task,
        optim: OptimConfig,
        mesh: Mesh,
        *,
        rules: str = "dp",
        accumulate: int = 1,
        updates_per_call: int = 1,
    ) -> None:
        self.task, self.mesh, self.rules = task, mesh, rules
        self.accumulate, self.updates_per_call = accumulate, updates_per_call
        self.compilations = 0
        self.populations: dict[int, Any] = {}
        self._flops: dict[tuple[tuple[int, ...], ...], int] = {}
        axes = task.logical_axes()
        self._optimizer = make_optimizer(optim, axes)
        self._averages = optim.average > 0

        # Born sharded: shapes -> logical axes -> rules -> jit(init, out_shardings).
        whole = replicated(mesh)
        key = jax.random.key(0)
        # What a task begins with is an argument: as a constant of the program it would be compiled
        # again for other values, and lie in memory for as long as the program does.
        made, shapes = jax.make_jaxpr(self._fresh, return_shape=True)(key, key)
        tree = jax.tree.structure(shapes)

        def fresh(given: list[Any], init_key: jax.Array, run_key: jax.Array) -> TrainState:
            leaves = jax.core.eval_jaxpr(made.jaxpr, given, init_key, run_key)
            state: TrainState = jax.tree.unflatten(tree, leaves)
            return state

        self._given = made.consts
        params = shardings(axes, shapes.params, mesh, rules)
        placement = replace(
            jax.tree.map(lambda _: whole, shapes),
            params=params,
            average=params if self._averages else {},
            opt_state=opt_state_shardings(shapes.opt_state, params, whole),
            task_state=shardings(task.state_axes(), shapes.task_state, mesh, rules),
        )
        self.abstract = abstract_arrays(shapes, placement)
        self._initialise = jax.jit(
            fresh,
            out_shardings=placement,
            # It runs once: most of its time is compilation.
            compiler_options={"xla_backend_optimization_level": 0},
        )
        batch = batch_sharding(mesh, self._lead)
        self.jitted = jax.jit(
            self._call,
            in_shardings=(placement, None, batch, whole),  # None: frozen stays where it was placed
            out_shardings=(placement, whole),
            donate_argnums=0,
        )

    def initialise(self, seed: int) -> TrainState:
        """Return a new state, every array where it belongs."""
        init_key, run_key = jax.random.split(jax.random.key(seed))
        state: TrainState = self._initialise(self._given, init_key, run_key)
        return state

    def __call__(
        self, state: TrainState, frozen: Any, batches: Batch, hparams: HParams
    ) -> tuple[TrainState, dict[str, Any]]:
        """Do the updates; see the class."""
        done: tuple[TrainState, dict[str, Any]] = self.jitted(state, frozen, batches, hparams)
        return done

    def flops(self, state: TrainState, frozen: Any, batches: Batch, hparams: HParams) -> int:
        """Return the FLOPs of a call; the trace is the one that the call itself compiles."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves((frozen, batches)))
        if shapes not in self._flops:
            traced = self.jitted.trace(state, frozen, batches, hparams)
            self._flops[shapes] = matmul_flops(traced.jaxpr)
        return self._flops[shapes]

    # ---- the step as one of a population of one, see `jmrec.training.population` ----------------

    def join(self, states: Sequence[TrainState]) -> TrainState:
        """Return the state of the one member."""
        (state,) = states
        return state

    def member(self, state: TrainState, k: int) -> TrainState:
        """Return the state of the one member."""
        return state

    def advance(
        self,
        state: TrainState,
        frozen: Any,
        hosts: Sequence[Batch],
        hparams: HParams,
        active: Sequence[bool],
    ) -> tuple[TrainState, dict[str, Any], int]:
        """Do the updates of the one member on its host batches; return their FLOPs too."""
        (host,) = hosts
        batches = self.place_batches(host)
        flops = self.flops(state, frozen, batches, hparams)
        return *self(state, frozen, batches, hparams), flops

    def place_numbers(self, numbers: Sequence[HParams]) -> HParams:
        """Place what is traced, of the one member."""
        (own,) = numbers
        return self.place_whole(own)

    def place_frozen(self, tree: Any, axes: Any) -> Any:
        """Place what is never optimised, by its logical axes."""
        return put_tree(tree, shardings(axes, tree, self.mesh, self.rules))

    def place_batches(self, batches: Batch) -> Batch:
        """Place a host's batch, or its K stacked ones."""
        return put_batch(batches, self.mesh, lead=self._lead)

    @property
    def _lead(self) -> int:
        return int(self.updates_per_call > 1)

    def begin(self, state: TrainState, params: Params) -> TrainState:
        """Return a new state with other parameters than those drawn for it.

        Args:
          state: From `initialise`.
          params: Arrays of the same names and shapes.
        """
        placement = jax.tree.map(lambda leaf: leaf.sharding, self.abstract.params)
        begun = replace(state, params=put_tree(params, placement))
        return replace(begun, average=put_tree(params, placement)) if self._averages else begun

    def place_whole(self, tree: Any) -> Any:
        """Place numbers on every device."""
        return put_tree(tree, jax.tree.map(lambda _: replicated(self.mesh), tree))

    def _fresh(self, init_key: jax.Array, run_key: jax.Array) -> TrainState:
        params, task_state = self.task.init(init_key)
        return TrainState(
            step=jnp.int32(0),
            params=params,
            average=params if self._averages else {},
            opt_state=self._optimizer.init(params),
            task_state=task_state,
            key=run_key,
            best=jnp.float32(-jnp.inf),
            best_step=jnp.int32(0),
            stale=jnp.int32(0),
        )

    def _update(
        self, state: TrainState, frozen: Any, batch: Batch, hparams: HParams
    ) -> tuple[TrainState, dict[str, Any]]:
        def loss(params: Params, task_state: State, part: Batch, key: jax.Array) -> LossResult:
            return self.task.loss(params, task_state, frozen, part, key, state.step, hparams)

        (total, count, metrics, grads), task_state = gradient_sums(
            loss,
            state.params,
            state.task_state,
            batch,
            jax.random.fold_in(state.key, state.step),
            self.accumulate,
        )
        # Divided here and only here: by the count of the whole batch.
        divisor = jnp.where(count > 0, count, 1.0)
        grads = jax.tree.map(lambda g: (g / divisor).astype(g.dtype), grads)
        updates, opt_state = self._optimizer.update(grads, state.opt_state, state.params, hparams)
        rate = self._optimizer.schedule(state.step, hparams)
        params = jax.tree.map(lambda p, u: (p - rate * u).astype(p.dtype), state.params, updates)
        average = self._followed(state, params, hparams)
        out = {
            **metrics,
            "loss": (total, count),
            "gradient_norm": (optax.tree.norm(grads), 1.0),
            "learning_rate": (rate, 1.0),
        }
        new = replace(
            state, step=state.step + 1, params=params, average=average, opt_state=opt_state,
            task_state=task_state,
        )  # fmt: skip
        return new, out

    def _followed(self, state: TrainState, params: Params, hparams: HParams) -> Params:
        """Return the moving average after an update to ``params``."""
        if not self._averages:
            return {}
        done = state.step.astype(jnp.float32)
        share = jnp.maximum(1.0 / hparams["optim"]["average"], 1.0 / (1.0 + 0.1 * done))
        average: Params = optax.incremental_update(params, state.average, share)
        return average

    def _call(
        self, state: TrainState, frozen: Any, batches: Batch, hparams: HParams
    ) -> tuple[TrainState, dict[str, Any]]:
        self.compilations += 1  # runs when traced, not when called
        return self.updates(state, frozen, batches, hparams)

    def updates(
        self, state: TrainState, frozen: Any, batches: Batch, hparams: HParams
    ) -> tuple[TrainState, dict[str, Any]]:
        """Return what a call returns: the pure function that is compiled."""
        with over(self.mesh):
            if self.updates_per_call == 1:
                return self._update(state, frozen, batches, hparams)
            return jax.lax.scan(lambda s, b: self._update(s, frozen, b, hparams), state, batches)


def gradient_sums(
    loss: Callable[[Params, State, Batch, jax.Array], LossResult],
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
