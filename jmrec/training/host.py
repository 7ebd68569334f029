"""The host's side of a fit: the parts that `jmrec.training.loop` puts in order."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jmrec.checkpoint import Checkpoints
from jmrec.errors import UserError
from jmrec.sharding import process_local
from jmrec.training.config import TrainConfig
from jmrec.training.step import TrainStep
from jmrec.types import Batch, HParams, Params, ProgressBar, State, TrainingLog, TrainState

Evaluate = Callable[[Params, State], Mapping[str, float]]
"""``(params, task_state) -> metrics``, whose "score" is maximised."""


class Silent:
    """The log of a fit that says nothing."""

    prefix = ""

    def say(self, text: str) -> None:
        """Say nothing."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def truncate(self, step: int) -> None:
        """Drop nothing."""

    @contextmanager
    def progress(self, total: int, description: str, start: int = 0) -> Iterator[ProgressBar]:
        """Show nothing."""
        yield self

    def update(self, n: int) -> None:
        """Show nothing."""


@dataclass
class _Kept:
    """What a checkpoint's metadata hold of the host's side."""

    history: list[dict[str, float]] = field(default_factory=list)
    window: dict[str, list[float]] = field(default_factory=dict)
    evaluated: bool = False
    flops: int = 0


class Run:
    """The host's side of a fit: where it stands, and the parts of the loop, in the loop's order.

    Args:
      step: The compiled update.
      config: The static settings.
      checkpoints: Where the state is kept.
      log: Where it says what it does.
      metadata: Of the run; a checkpoint of another is refused.
      evaluate: What judges the state, if anything does.
      seed: Of a new state.
      begin: Its parameters; None for drawn ones.

    Attributes:
      state: The device's side.
      n: Updates done.
      best, best_step, stale: The early-stopping counters of ``state``.
    """

    def __init__(
        self,
        step: TrainStep,
        config: TrainConfig,
        checkpoints: Checkpoints,
        log: TrainingLog,
        metadata: Mapping[str, Any],
        evaluate: Evaluate | None,
        seed: int,
        begin: Params | None = None,
    ) -> None:
        self._step, self._config, self._checkpoints = step, config, checkpoints
        self._log, self._metadata, self._evaluate = log, metadata, evaluate
        self.state, self._kept = self._begin(seed, begin)
        self.n = int(self.state.step)
        self.best, self.best_step = float(self.state.best), int(self.state.best_step)
        self.stale = int(self.state.stale)
        self._saved = self.n if checkpoints.latest_step() == self.n else -1
        self._pending: tuple[int, Any] | None = None
        log.truncate(self.n)

    def _begin(self, seed: int, params: Params | None) -> tuple[TrainState, _Kept]:
        """Return the newest checkpoint's state and where it goes on, or a new state."""
        if self._checkpoints.latest_step() is None:
            state = self._step.initialise(seed)
            return state if params is None else self._step.begin(state, params), _Kept()
        state, found = self._checkpoints.restore(self._step.abstract, expected=self._metadata)
        before, now = (math.prod(each["mesh"].values()) for each in (found, self._metadata))
        moved = f" (saved on {before} device{'s' * (before > 1)}, now {now})"
        name = self._log.prefix or self._step.task.name
        self._log.say(f"{name}: resumed at {int(state.step)}{moved if before != now else ''}")
        return state, _Kept(**found["loop"])

    @property
    def at_end(self) -> bool:
        """Whether all updates are done."""
        return self.n >= self._config.steps

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        patience = self._config.patience
        return self.at_end or bool(patience and self.stale >= patience)

    @property
    def save_due(self) -> bool:
        """Whether the state is to be saved at this step."""
        return self.n > 0 and self.n % self._config.save_every == 0

    @property
    def evaluation_due(self) -> bool:
        """Whether the state is to be judged at this step, and was not yet."""
        if self._evaluate is None or self._kept.evaluated or self.n == 0:
            return False
        return self.at_end or self.n % self._config.eval_every == 0

    def evaluate(self) -> bool:
        """Judge the state; return whether it is the best so far."""
        assert self._evaluate is not None
        score, row = judge(self._evaluate, self.state, self._step.mesh, self.n)
        improved = score > self.best
        if improved:
            self.best, self.best_step = score, self.n
        self.stale = 0 if improved else self.stale + 1
        counters = {
            "best": np.float32(self.best),
            "best_step": np.int32(self.best_step),
            "stale": np.int32(self.stale),
        }
        self.state = replace(self.state, **self._step.place_whole(counters))
        self._kept.history.append(row)
        self._kept.evaluated = True
        self._log.log(self.n, {f"eval/{name}": x for name, x in row.items() if name != "step"})
        return improved

    def save(self, improved: bool) -> None:
        """Save the state, unless this very state is saved already."""
        if not improved and self.n == self._saved:
            return
        self._checkpoints.save(
            self.n,
            self.state,
            metadata={**self._metadata, "loop": asdict(self._kept)},
            metric=self.best if improved else None,
        )
        self._saved = self.n

    def step(self, frozen: Any, host: Batch, hparams: HParams) -> tuple[int, Any]:
        """Start the next updates; return (the first of them, their metrics, not fetched)."""
        first, batches = self.n, self._step.place_batches(host)
        self._kept.flops += self._step.flops(self.state, frozen, batches, hparams)
        self.state, metrics = self._step(self.state, frozen, batches, hparams)
        self.n += self._config.updates_per_call
        self._kept.evaluated = False
        return first, metrics

    def log(self, after: tuple[int, Any] | None = None) -> None:
        """Fetch the metrics that are pending, check each update, log the averages when due.

        Args:
          after: What is pending from then on.
        """
        pending, self._pending = self._pending, after
        if pending is None:
            return
        first, metrics = pending
        host = {
            name: [np.atleast_1d(x).astype(np.float64) for x in pair]
            for name, pair in jax.device_get(metrics).items()
        }
        window = self._kept.window
        for i in range(self._config.updates_per_call):
            for name in ("loss", "gradient_norm"):
                value = float(host[name][0][i])
                if not math.isfinite(value):
                    raise UserError(
                        f"the {name.replace('_', ' ')} of update {first + i} is {value}; lower "
                        f"learning_rate, or look at batch {first + i}."
                    )
            for name, (total, count) in host.items():
                sums = window.setdefault(name, [0.0, 0.0])
                sums[0] += float(total[i])
                sums[1] += float(count[i])
            done = first + i + 1
            if done % self._config.log_every == 0 or done == self._config.steps:
                self._log.log(done, {name: s / c for name, (s, c) in window.items() if c})
                window.clear()

    def chosen(self) -> TrainState:
        """Return the state of the best evaluation, or the last without evaluations."""
        if 0 < self.best_step != self.n:
            state, _ = self._checkpoints.restore(self._step.abstract, self.best_step)
            return state
        return self.state

    @property
    def history(self) -> list[dict[str, float]]:
        """One dict per evaluation."""
        return self._kept.history

    @property
    def flops(self) -> int:
        """Of all updates."""
        return self._kept.flops


def judge(
    evaluate: Evaluate, state: TrainState, mesh: Mesh, n: int
) -> tuple[float, dict[str, float]]:
    """Return the score as float32 (the state's type) and the row of the history."""
    params, task_state = process_local((state.params, state.task_state), mesh)
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


class Ahead:
    """The batches of a fit, the next one read while the device works on the last."""

    def __init__(self, read: Callable[[int], Batch], ahead: int, end: int) -> None:
        self._read, self._ahead, self._end = read, ahead, end
        self._pool = ThreadPoolExecutor(1, "next-batch")
        self._next: Future[Batch] | None = None

    def take(self, n: int) -> Batch:
        """Return the batches of updates n and on, which are asked for in order."""
        batch = self._read(n) if self._next is None else self._next.result()
        if n + self._ahead < self._end:
            self._next = self._pool.submit(self._read, n + self._ahead)
        return batch

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()
