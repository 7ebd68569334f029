"""The host's side of a fit: the parts that `jmrec.training.loop` puts in order."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jmrec.checkpoint import Checkpoints
from jmrec.errors import UserError
from jmrec.sharding import Batches, host_batch, process_local
from jmrec.training.config import TrainConfig
from jmrec.training.population import PopulationStep
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


@dataclass(frozen=True)
class Member:
    """One fit, of which several may be done at once.

    Attributes:
      workdir: See `jmrec.training.Trainer.fit` for this and what follows.
      batches: See there.
      seed: See there.
      hparams: See there.
      evaluate: See there.
      tracker: See there.
      metadata: See there.
      begin: See there.
    """

    workdir: str | Path
    batches: Batches
    seed: int
    hparams: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Evaluate | None = None
    tracker: TrainingLog | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    begin: Params | None = None


class Run:
    """The host's side of one member of a fit: where it stands, what is due, what it keeps.

    Args:
      step: The compiled update of one member.
      config: The static settings.
      checkpoints: Where the state is kept.
      member: What is its own.
      metadata: Of the run; a checkpoint of another is refused.

    Attributes:
      begun: The state to begin with.
      upcoming: Its batches.
      n: Updates done.
      best, best_step, stale: The early-stopping counters.
      fault: Why it can not go on, None while it can.
    """

    def __init__(
        self,
        step: TrainStep,
        config: TrainConfig,
        checkpoints: Checkpoints,
        member: Member,
        metadata: Mapping[str, Any],
    ) -> None:
        self._step, self._config, self._checkpoints = step, config, checkpoints
        self.log = Silent() if member.tracker is None else member.tracker
        self._metadata, self._evaluate = metadata, member.evaluate
        self.fault: UserError | None = None
        self._moved = ""
        self.begun, self._kept = self._begin(member)
        self.n = int(self.begun.step)
        self.best, self.best_step = float(self.begun.best), int(self.begun.best_step)
        self.stale = int(self.begun.stale)
        self._saved = self.n if checkpoints.latest_step() == self.n else -1
        if self._saved >= 0 and not self.over:
            self.log.say(f"{self.log.prefix or step.task.name}: resumed at {self.n}{self._moved}")
        k = config.updates_per_call
        read = partial(host_batch, member.batches, k=k, accumulate=config.accumulate)
        self.upcoming = Ahead(read, k, config.steps)
        self.log.truncate(self.n)

    def _begin(self, member: Member) -> tuple[TrainState, _Kept]:
        """Return the newest checkpoint's state and where it goes on, or a new state."""
        if self._checkpoints.latest_step() is None:
            state, params = self._step.initialise(member.seed), member.begin
            return state if params is None else self._step.begin(state, params), _Kept()
        state, found = self._checkpoints.restore(self._step.abstract, expected=self._metadata)
        before, now = (math.prod(each["mesh"].values()) for each in (found, self._metadata))
        if before != now:
            self._moved = f" (saved on {before} device{'s' * (before > 1)}, now {now})"
        return state, _Kept(**found["loop"])

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to update."""
        patience = self._config.patience
        return self.n >= self._config.steps or bool(patience and self.stale >= patience)

    @property
    def evaluation_due(self) -> bool:
        """Whether the state is to be judged at this step, and was not yet."""
        if self.fault or self._evaluate is None or self._kept.evaluated or self.n == 0:
            return False
        return self.n >= self._config.steps or self.n % self._config.eval_every == 0

    @property
    def save_due(self) -> bool:
        """Whether the state is to be saved at this step, and was not yet."""
        if self.fault or self.n == self._saved:
            return False
        return self.finished or (self.n > 0 and self.n % self._config.save_every == 0)

    @property
    def over(self) -> bool:
        """Whether it is updated no more."""
        return self.fault is not None or (self.finished and not self.evaluation_due)

    def evaluate(self, state: TrainState) -> bool:
        """Judge the state; return whether it is the best so far."""
        assert self._evaluate is not None
        score, row = judge(self._evaluate, state, self._step.mesh, self.n)
        improved = score > self.best
        if improved:
            self.best, self.best_step = score, self.n
        self.stale = 0 if improved else self.stale + 1
        self._kept.history.append(row)
        self._kept.evaluated = True
        self.log.log(self.n, {f"eval/{name}": x for name, x in row.items() if name != "step"})
        return improved

    def save(self, state: TrainState, improved: bool) -> None:
        """Save the state, unless this very state is saved already."""
        if not improved and self.n == self._saved:
            return
        counters = {
            "best": np.float32(self.best),
            "best_step": np.int32(self.best_step),
            "stale": np.int32(self.stale),
        }
        self._checkpoints.save(
            self.n,
            replace(state, **self._step.place_whole(counters)),
            metadata={**self._metadata, "loop": asdict(self._kept)},
            metric=self.best if improved else None,
        )
        self._saved = self.n

    def updated(self, flops: int) -> int:
        """Note that the next updates have begun; return the first of them."""
        first = self.n
        self.n += self._config.updates_per_call
        self._kept.flops += flops
        self._kept.evaluated = False
        return first

    def record(self, first: int, metrics: Mapping[str, list[np.ndarray]]) -> None:
        """Check each update of a call, log the averages when due.

        Args:
          first: The first update.
          metrics: Name -> [sums, counts], float64 with one number an update.

        Raises:
          UserError: A loss or gradient is not finite.
        """
        window = self._kept.window
        for i in range(self._config.updates_per_call):
            for name in ("loss", "gradient_norm"):
                value = float(metrics[name][0][i])
                if not math.isfinite(value):
                    raise UserError(
                        f"the {name.replace('_', ' ')} of update {first + i} is {value}; lower "
                        f"learning_rate, or look at batch {first + i}."
                    )
            for name, (total, count) in metrics.items():
                sums = window.setdefault(name, [0.0, 0.0])
                sums[0] += float(total[i])
                sums[1] += float(count[i])
            done = first + i + 1
            if done % self._config.log_every == 0 or done == self._config.steps:
                self.log.log(done, {name: s / c for name, (s, c) in window.items() if c})
                window.clear()

    def chosen(self, state: TrainState) -> TrainState:
        """Return the state of the best evaluation, or the last without evaluations."""
        if 0 < self.best_step != self.n:
            state, _ = self._checkpoints.restore(self._step.abstract, self.best_step)
        return state

    def wait(self) -> None:
        """Wait until the last save is on disk."""
        self._checkpoints.wait()

    @property
    def history(self) -> list[dict[str, float]]:
        """One dict per evaluation."""
        return self._kept.history

    @property
    def flops(self) -> int:
        """Of all updates."""
        return self._kept.flops


class Members:
    """The runs of a fit, which are updated at once: the parts of the loop, in the loop's order.

    A run that is over is updated no more, and one that is ahead of others (a kill came between two
    saves) waits for them. Each does what it would do alone.

    Args:
      step: The compiled update of so many members.
      runs: They.
      hparams: The traced numbers of each.
    """

    def __init__(
        self, step: TrainStep | PopulationStep, runs: Sequence[Run], hparams: Sequence[HParams]
    ) -> None:
        self.runs, self._step = runs, step
        self._numbers = step.place_numbers(hparams)
        self._state = step.join([run.begun for run in runs])
        for run in runs:
            del run.begun  # the memory is used up by the first update
        self._pending: tuple[list[tuple[int, int]], Any] | None = None

    @property
    def n(self) -> int:
        """Updates that each has done that goes on."""
        places = [run.n for run in self.runs if not run.over]
        return min(places) if places else max(run.n for run in self.runs)

    @property
    def due(self) -> bool:
        """Whether any state is to be judged or saved at this step."""
        return any(run.evaluation_due or run.save_due for run in self.runs)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return all(run.over for run in self.runs)

    def evaluate(self) -> list[bool]:
        """Judge each state that is to be; return which of them are the best so far."""
        improved = [False] * len(self.runs)
        for k, run in enumerate(self.runs):
            if run.evaluation_due:
                with _noted(run):
                    improved[k] = run.evaluate(self._step.member(self._state, k))
        return improved

    def save(self, improved: Sequence[bool], every: bool = False) -> None:
        """Save each state that is to be; ``every`` saves those that are not due as well."""
        for k, run in enumerate(self.runs):
            if not run.fault and (every or improved[k] or run.save_due):
                run.save(self._step.member(self._state, k), improved[k])
        if every:
            for run in self.runs:
                run.wait()

    def take(self) -> tuple[list[bool], list[Batch]]:
        """Return which members are to be updated next, and the batches of each."""
        n = self.n
        active = [not run.over and run.n == n for run in self.runs]
        read = [run.upcoming.take(n) if on else None for run, on in zip(self.runs, active)]
        some = next(batch for batch in read if batch is not None)
        return active, [some if batch is None else batch for batch in read]

    def step(self, frozen: Any, active: Sequence[bool], hosts: Sequence[Batch]) -> Any:
        """Start the next updates; return (members and the first of theirs, metrics not fetched)."""
        self._state, metrics, flops = self._step.advance(
            self._state, frozen, hosts, self._numbers, active
        )
        return [(k, self.runs[k].updated(flops)) for k, on in enumerate(active) if on], metrics

    def log(self, after: Any = None) -> None:
        """Fetch the metrics that are pending, check each update, log the averages when due.

        Args:
          after: What is pending from then on.
        """
        pending, self._pending = self._pending, after
        if pending is None:
            return
        updated, metrics = pending
        host = {
            name: [np.asarray(x, np.float64).reshape(len(self.runs), -1) for x in pair]
            for name, pair in jax.device_get(metrics).items()
        }
        for k, first in updated:
            run = self.runs[k]
            if not run.fault:
                with _noted(run):
                    own = {name: [x[k] for x in pair] for name, pair in host.items()}
                    run.record(first, own)

    def chosen(self, k: int) -> TrainState:
        """Return the state of a run's best evaluation, or its last without evaluations."""
        return self.runs[k].chosen(self._step.member(self._state, k))


@contextmanager
def _noted(run: Run) -> Iterator[None]:
    """Note why a run can not go on, so that the others do."""
    try:
        yield
    except UserError as error:
        run.fault = error


def judge(
    evaluate: Evaluate, state: TrainState, mesh: Mesh, n: int
) -> tuple[float, dict[str, float]]:
    """Return the score as float32 (the state's type) and the row of the history."""
    params, task_state = process_local((state.judged, state.task_state), mesh)
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
