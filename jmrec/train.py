"""The one training loop. A new idea is a new Task, never a fork of this file.

One jitted step over one mesh, its state donated; the learning rate and all other numbers of a
task are traced, so that seeds and trials share one program. The step is the position: batch n
and the key of update n are functions of n, and a checkpoint of step n holds all that a run needs
to go on in the same bits.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jmrec.checkpoint import Checkpoints
from jmrec.errors import UserError
from jmrec.flops import matmul_flops
from jmrec.optim import OptimConfig, gradient_sums, make_optimizer, opt_state_shardings
from jmrec.preemption import Sigterm
from jmrec.sharding import (
    Batches,
    abstract_arrays,
    batch_sharding,
    host_batch,
    make_mesh,
    process_local,
    put_batch,
    put_tree,
    replicated,
    shardings,
    stacked_batch_sharding,
)
from jmrec.types import Batch, HParams, Params, State, Task, TrainState

NOT_PART_OF_A_RUN = ("keep", "log_every", "rules", "updates_per_call")
"""Settings that may change when a run is resumed: they do not change what is computed."""


@dataclass(frozen=True)
class TrainConfig:
    """The static settings of a fit.

    Attributes:
      steps: Updates in all.
      eval_every: Updates between evaluations (one more follows the last update).
      save_every: Updates between checkpoints (one more at every new best and at the end).
      log_every: Updates between lines of the log, each an average over them.
      patience: Evaluations without a new best after which to stop; 0 never stops early.
      accumulate: Microbatches that a batch is cut into; their sums are added, then divided.
      updates_per_call: Updates done in one call of the device, K; divides the intervals.
      optim: The optimiser's settings; its ``steps`` is ``steps`` where it says 0.
      rules: The sharding rules: "dp", "fsdp", "tp" or "fsdp_tp".
      keep: Last checkpoints kept beside the best.
    """

    steps: int
    eval_every: int
    save_every: int
    log_every: int = 20
    patience: int = 0
    accumulate: int = 1
    updates_per_call: int = 1
    optim: OptimConfig = field(default_factory=OptimConfig)
    rules: str = "dp"
    keep: int = 2


@dataclass(frozen=True)
class FitResult:
    """What a fit ends in.

    Attributes:
      params: The parameters of the best evaluation, or the last without evaluations.
      task_state: The task state that belongs to them.
      step: Updates done.
      best, best_step: The best score and its step, -inf and 0 without evaluations.
      history: One dict per evaluation: its metrics and "step".
      flops: Of all updates, as `jmrec.flops` counts them, over all devices together.
    """

    params: Params
    task_state: State
    step: int
    best: float
    best_step: int
    history: list[dict[str, float]]
    flops: int = 0


@dataclass
class _Loop:
    """The host's side of the state; goes into a checkpoint's metadata."""

    history: list[dict[str, float]] = field(default_factory=list)
    window: dict[str, list[float]] = field(default_factory=dict)
    evaluated: bool = False
    flops: int = 0


def _check(task: Task, config: TrainConfig) -> None:
    """Refuse settings that cannot be trained with."""
    for name in ("steps", "eval_every", "save_every", "log_every", "accumulate"):
        if getattr(config, name) < 1:
            raise UserError(f"train.{name} is {getattr(config, name)}; make it 1 or more.")
    k = config.updates_per_call
    for name in ("steps", "eval_every", "save_every"):
        if k < 1 or getattr(config, name) % k:
            raise UserError(
                f"train.updates_per_call={k} does not divide train.{name}="
                f"{getattr(config, name)}; choose a divisor."
            )
    if config.accumulate > 1 and getattr(task, "couples_examples", False):
        raise UserError(
            f"the loss of {task.name} couples the examples of a batch, so that "
            f"train.accumulate={config.accumulate} would change it; set train.accumulate=1."
        )


class Trainer:
    """Compiles a task's step once and fits it as often as asked.

    Args:
      task: What to train. ``couples_examples = True`` refuses accumulation; an optional
        ``state_axes()`` gives the logical axes of the task state (replicated without).
      config: The static settings.
      mesh: From ``make_mesh``; by default one over all devices.
      frozen: (tree, logical axes or None) of what is never optimised; by default
        ``task.frozen(workdir)``.

    Attributes:
      compilations: How often the step was traced: once per batch shape.

    Raises:
      UserError: The settings contradict each other or the task.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        *,
        mesh: Mesh | None = None,
        frozen: tuple[Any, Any] | None = None,
    ) -> None:
        _check(task, config)
        self.task = task
        self.config = config
        self.mesh = make_mesh(config.rules) if mesh is None else mesh
        self.compilations = 0
        self._flops: dict[tuple[tuple[int, ...], ...], int] = {}
        optim = config.optim
        if not optim.steps:
            optim = replace(optim, steps=config.steps)
        axes = task.logical_axes()
        self._optimizer = make_optimizer(optim, axes)
        self._frozen = None if frozen is None else self._place_frozen(*frozen)

        # Born sharded: shapes -> logical axes -> rules -> jit(init, out_shardings).
        whole = replicated(self.mesh)
        key = jax.random.key(0)
        shapes = jax.eval_shape(self._init, key, key)
        params = shardings(axes, shapes.params, self.mesh, config.rules)
        state_axes = getattr(task, "state_axes", None)
        placement = jax.tree.map(lambda _: whole, shapes)
        placement = replace(
            placement,
            params=params,
            opt_state=opt_state_shardings(shapes.opt_state, params, whole),
            task_state=shardings(
                None if state_axes is None else state_axes(),
                shapes.task_state,
                self.mesh,
                config.rules,
            ),
        )
        self._abstract = abstract_arrays(shapes, placement)
        self._initialise = jax.jit(
            self._init,
            out_shardings=placement,
            # It runs once: most of its time is compilation.
            compiler_options={"xla_backend_optimization_level": 0},
        )
        k = config.updates_per_call
        batch = batch_sharding(self.mesh) if k == 1 else stacked_batch_sharding(self.mesh)
        self._step = jax.jit(
            self._call,
            in_shardings=(placement, None, batch, whole),  # None: frozen lies where it was put
            out_shardings=(placement, whole),
            donate_argnums=0,
        )

    def trace(self, frozen: Any, batch: Batch) -> jax.stages.Traced:
        """Trace the step from shapes alone: nothing is read, made or placed.

        Args:
          frozen: ``jax.ShapeDtypeStruct`` with shardings, in place of what is never optimised.
          batch: The same for a global batch.

        Returns:
          The traced step; ``.lower().compile()`` compiles it for the devices of the mesh, which
          need not be here.
        """
        numbers = self._hparams(None)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), numbers)
        return self._step.trace(self._abstract, frozen, batch, shapes)

    @property
    def abstract(self) -> TrainState:
        """The state's shapes with their shardings."""
        return self._abstract

    def _init(self, init_key: jax.Array, run_key: jax.Array) -> TrainState:
        params, task_state = self.task.init(init_key)
        return TrainState(
            step=jnp.int32(0),
            params=params,
            opt_state=self._optimizer.tx.init(params),
            task_state=task_state,
            key=run_key,
            best=jnp.float32(-jnp.inf),
            best_step=jnp.int32(0),
            stale=jnp.int32(0),
        )

    def _update(
        self, state: TrainState, frozen: Any, batch: Batch, hparams: HParams
    ) -> tuple[TrainState, dict[str, Any]]:
        def loss(params: Params, task_state: State, part: Batch, key: jax.Array) -> Any:
            return self.task.loss(params, task_state, frozen, part, key, state.step, hparams)

        (total, count, metrics, grads), task_state = gradient_sums(
            loss,
            state.params,
            state.task_state,
            batch,
            jax.random.fold_in(state.key, state.step),
            self.config.accumulate,
        )
        # Divided here and only here: by the count of the whole batch.
        divisor = jnp.where(count > 0, count, 1.0)
        grads = jax.tree.map(lambda g: (g / divisor).astype(g.dtype), grads)
        updates, opt_state = self._optimizer.tx.update(grads, state.opt_state, state.params)
        rate = self._optimizer.schedule(state.step, hparams)
        params = jax.tree.map(lambda p, u: (p - rate * u).astype(p.dtype), state.params, updates)
        out = {
            **metrics,
            "loss": (total, count),
            "gradient_norm": (optax.tree.norm(grads), 1.0),
            "learning_rate": (rate, 1.0),
        }
        new = replace(
            state, step=state.step + 1, params=params, opt_state=opt_state, task_state=task_state
        )
        return new, out

    def _call(
        self, state: TrainState, frozen: Any, batches: Batch, hparams: HParams
    ) -> tuple[TrainState, dict[str, Any]]:
        self.compilations += 1  # runs when traced, not when called
        if self.config.updates_per_call == 1:
            return self._update(state, frozen, batches, hparams)
        return jax.lax.scan(lambda s, b: self._update(s, frozen, b, hparams), state, batches)

    def fit(
        self,
        workdir: str | Path,
        batches: Batches,
        *,
        seed: int,
        hparams: Mapping[str, Any] | None = None,
        evaluate: Callable[[Params, State], Mapping[str, float]] | None = None,
        tracker: Any = None,
        resume: str = "auto",
        metadata: Mapping[str, Any] | None = None,
    ) -> FitResult:
        """Train; go on from the newest checkpoint of ``workdir`` where there is one.

        Args:
          workdir: Checkpoints go to ``workdir/checkpoints``.
          batches: Anything with ``[n] -> host batch``; read from another thread. With several
            processes, this process's rows of it (`jmrec.sharding.process_rows`).
          seed: Of parameters and updates.
          hparams: Values in place of the task's; traced.
          evaluate: ``(params, task_state) -> metrics``, whose "score" is maximised. It must not
            keep the arrays: the next update reuses their memory. Each process evaluates, by
            itself.
          tracker: A ``jmrec.tracking.Tracker``.
          resume: "auto", or "never" to delete the checkpoints and begin anew.
          metadata: json-able; its "fingerprint" and "config" must not change between a run and
            its resumption.

        Returns:
          The parameters and how they came about. A fit that was finished returns at once.

        Raises:
          UserError: Another run's checkpoint, a loss that is not finite, a batch that does not
            fit the devices.
          Preempted: SIGTERM came; the state is saved. Interrupted: so after the first Ctrl-C.
        """
        config, k, name = self.config, self.config.updates_per_call, self.task.name
        numbers = self._hparams(hparams)
        frozen = self._frozen
        if frozen is None:
            frozen = self._place_frozen(*self.task.frozen(Path(workdir)))
        stored = self._metadata(metadata or {}, seed, numbers)
        directory = Path(workdir) / "checkpoints"
        if resume == "never":
            if jax.process_index() == 0:
                shutil.rmtree(directory, ignore_errors=True)
            multihost_utils.sync_global_devices("jmrec checkpoints removed")
        load = partial(host_batch, batches, k=k, accumulate=config.accumulate)
        traced = put_tree(numbers, jax.tree.map(lambda _: replicated(self.mesh), numbers))

        with (
            Sigterm(keyboard=True) as sigterm,
            Checkpoints(directory, config.keep) as checkpoints,
            ThreadPoolExecutor(1, "next-batch") as pool,
        ):
            state, loop, resumed = self._start(checkpoints, seed, stored)
            if resumed and hasattr(tracker, "say"):
                tracker.say(f"{tracker.prefix or name}: {resumed}")
            n = int(state.step)
            best, best_step, stale = float(state.best), int(state.best_step), int(state.stale)
            saved = n if checkpoints.latest_step() == n else -1
            if tracker is not None and hasattr(tracker, "truncate"):
                tracker.truncate(n)
            pending: tuple[int, Any] | None = None
            upcoming: Future[Batch] | None = None
            bars = (
                nullcontext() if tracker is None else tracker.progress(config.steps, name, start=n)
            )
            with bars as bar:
                while True:
                    # THE ORDER OF THIS LOOP MUST NOT CHANGE:
                    # EVALUATE -> SAVE -> NEXT BATCHES -> STEP -> LOG THE PREVIOUS STEP.
                    # SO CHECKPOINT n MEANS "n UPDATES AND THEIR EVALUATION DONE", AND THE DEVICE
                    # NEVER WAITS FOR THE LOG.
                    stop = sigterm.agreed(n % (config.log_every * k) == 0)
                    at_end = n >= config.steps
                    due = evaluate is not None and not loop.evaluated and n > 0
                    due = due and (at_end or n % config.eval_every == 0)
                    improved = False
                    if pending and (stop or due or at_end or n % config.save_every == 0):
                        self._log(pending, loop, tracker)  # never save or judge a broken state
                        pending = None
                    if due and evaluate is not None and not stop:
                        score, row = self._evaluate(evaluate, state, n)
                        improved = score > best
                        best, best_step = (score, n) if improved else (best, best_step)
                        stale = 0 if improved else stale + 1
                        state = self._place_counters(state, best, best_step, stale)
                        loop.history.append(row)
                        loop.evaluated, due = True, False
                        if tracker is not None:
                            shown = {f"eval/{key}": x for key, x in row.items() if key != "step"}
                            tracker.log(n, shown)
                    finished = at_end or bool(config.patience and stale >= config.patience)
                    if (improved or n != saved) and (
                        stop or improved or finished or (n > 0 and n % config.save_every == 0)
                    ):
                        checkpoints.save(
                            n,
                            state,
                            metadata={**stored, "loop": asdict(loop)},
                            metric=best if improved else None,
                        )
                        saved = n
                    if stop:
                        checkpoints.wait()
                        raise sigterm.saved(n)
                    if finished:
                        break

                    host = load(n) if upcoming is None else upcoming.result()
                    if n + k < config.steps:
                        upcoming = pool.submit(load, n + k)
                    placed = put_batch(host, self.mesh, stacked=k > 1)
                    loop.flops += self._count_flops(state, frozen, placed, traced)
                    state, metrics = self._step(state, frozen, placed, traced)
                    if pending:
                        self._log(pending, loop, tracker)
                    pending = (n, metrics)
                    n += k
                    loop.evaluated = False
                    if bar is not None:
                        bar.update(k)
            if pending:
                self._log(pending, loop, tracker)
            params, task_state = state.params, state.task_state
            if 0 < best_step != n:
                chosen, _ = checkpoints.restore(self._abstract, best_step)
                params, task_state = chosen.params, chosen.task_state
        if sigterm.agreed(True):  # it came after the loop looked for the last time
            raise sigterm.saved(n)
        return FitResult(params, task_state, n, best, best_step, loop.history, loop.flops)

    def _count_flops(self, *args: Any) -> int:
        """Return the FLOPs of a call; the trace is the one that the call itself compiles."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(args[2]))
        if shapes not in self._flops:
            self._flops[shapes] = matmul_flops(self._step.trace(*args).jaxpr)
        return self._flops[shapes]

    def _start(
        self, checkpoints: Checkpoints, seed: int, stored: Mapping[str, Any]
    ) -> tuple[TrainState, _Loop, str]:
        """Return the newest checkpoint's state and where it goes on, or a new state and ""."""
        if checkpoints.latest_step() is None:
            init_key, run_key = jax.random.split(jax.random.key(seed))
            return self._initialise(init_key, run_key), _Loop(), ""
        state, found = checkpoints.restore(self._abstract, expected=stored)
        before, now = (math.prod(each["mesh"].values()) for each in (found, stored))
        moved = f" (saved on {before} device{'s' * (before > 1)}, now {now})"
        resumed = f"resumed at {int(state.step)}{moved if before != now else ''}"
        return state, _Loop(**found["loop"]), resumed

    def _evaluate(
        self, evaluate: Callable[[Params, State], Mapping[str, float]], state: TrainState, n: int
    ) -> tuple[float, dict[str, float]]:
        """Return the score as float32 (the state's type) and the row of the history."""
        params, task_state = process_local((state.params, state.task_state), self.mesh)
        row = {name: float(x) for name, x in evaluate(params, task_state).items()}
        score = float(np.float32(row["score"]))
        if jax.process_count() > 1:  # all processes must decide alike
            score = float(multihost_utils.broadcast_one_to_all(np.float32(score)))
        if not math.isfinite(score):
            raise UserError(
                f"the evaluation after {n} updates gave the score {score}; check that the "
                "validation split has predictions."
            )
        return score, {"step": n, **row}

    def _log(self, pending: tuple[int, Any], loop: _Loop, tracker: Any) -> None:
        """Fetch the metrics of a call, check each update and log the averages when due."""
        first, metrics = pending
        host = {
            name: [np.atleast_1d(x).astype(np.float64) for x in pair]
            for name, pair in jax.device_get(metrics).items()
        }
        for i in range(self.config.updates_per_call):
            for name in ("loss", "gradient_norm"):
                value = float(host[name][0][i])
                if not math.isfinite(value):
                    raise UserError(
                        f"the {name.replace('_', ' ')} of update {first + i} is {value}; lower "
                        f"learning_rate, or look at batch {first + i}."
                    )
            for name, (total, count) in host.items():
                sums = loop.window.setdefault(name, [0.0, 0.0])
                sums[0] += float(total[i])
                sums[1] += float(count[i])
            done = first + i + 1
            if done % self.config.log_every == 0 or done == self.config.steps:
                averages = {name: s / c for name, (s, c) in loop.window.items() if c}
                loop.window = {}
                if tracker is not None:
                    tracker.log(done, averages)

    def _place_frozen(self, tree: Any, axes: Any) -> Any:
        return put_tree(tree, shardings(axes, tree, self.mesh, self.config.rules))

    def _place_counters(self, state: TrainState, best: float, step: int, stale: int) -> TrainState:
        new = {"best": np.float32(best), "best_step": np.int32(step), "stale": np.int32(stale)}
        return replace(state, **put_tree(new, dict.fromkeys(new, replicated(self.mesh))))

    def _hparams(self, given: Mapping[str, Any] | None) -> HParams:
        """Return the task's numbers with those given in their place, all float32."""
        unknown = sorted(set(given or {}) - set(self.task.hparams))
        if unknown:
            raise UserError(
                f"{self.task.name} has no hparams.{unknown[0]}; "
                f"it has {', '.join(sorted(self.task.hparams))}."
            )
        merged = {**self.task.hparams, **(given or {})}
        return jax.tree.map(lambda x: np.asarray(x, np.float32), merged)

    def _metadata(self, given: Mapping[str, Any], seed: int, numbers: HParams) -> dict[str, Any]:
        settings = {k: v for k, v in asdict(self.config).items() if k not in NOT_PART_OF_A_RUN}
        hparams = jax.tree.map(lambda x: x.tolist(), numbers)
        return {
            **given,
            "train": {**settings, "task": self.task.name, "seed": seed, "hparams": hparams},
            "mesh": {name: int(size) for name, size in self.mesh.shape.items()},
            "versions": {"jax": jax.__version__, "optax": optax.__version__},
        }
