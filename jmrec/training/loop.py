"""The one training loop. A new idea is a new Task, never a fork of this file.

The step is the position: batch n and the key of update n are functions of n, and a checkpoint of
step n holds all that a run needs to go on in the same bits.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jmrec.checkpoint import Checkpoints
from jmrec.errors import UserError
from jmrec.preemption import Sigterm
from jmrec.sharding import Batches, make_mesh
from jmrec.training.config import NOT_PART_OF_A_RUN, TrainConfig, check_train
from jmrec.training.host import Evaluate, Member, Members, Run, Silent
from jmrec.training.optim import OptimConfig, check_optim, traced_numbers
from jmrec.training.population import population_step
from jmrec.training.step import TrainStep
from jmrec.types import Batch, HParams, Params, State, Task, TrainingLog, TrainState


@dataclass(frozen=True)
class FitResult:
    """What a fit ends in.

    Attributes:
      params: The parameters of the best evaluation, or the last without evaluations; their
        average, where there is one.
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


class Trainer:
    """Compiles a task's step once and fits it as often as asked.

    Args:
      task: What to train.
      config: The static settings.
      mesh: From ``make_mesh``; by default one over all devices.
      frozen: (tree, logical axes or None) of what is never optimised; by default
        ``task.frozen(workdir)``.
      step: A compiled update to share, of a task of the same `jmrec.types.Task` in all but its
        numbers and frozen arrays, under settings that are alike in `compiled_by`; None makes one.

    Attributes:
      step: The compiled update.

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
        step: TrainStep | None = None,
    ) -> None:
        check_train(task, config)
        self.task = task
        self.config = config
        self.mesh = make_mesh(config.rules) if mesh is None else mesh
        self.step = step or TrainStep(
            task,
            self._optim(config.optim),
            self.mesh,
            rules=config.rules,
            accumulate=config.accumulate,
            updates_per_call=config.updates_per_call,
        )
        self._frozen = None if frozen is None else self.step.place_frozen(*frozen)

    @property
    def abstract(self) -> TrainState:
        """The state's shapes with their shardings."""
        return self.step.abstract

    @property
    def compilations(self) -> int:
        """How often the step was traced: once per batch shape."""
        return self.step.compilations

    def trace(self, frozen: Any, batch: Batch) -> jax.stages.Traced:
        """Trace the step from shapes alone: nothing is read, made or placed.

        Args:
          frozen: ``jax.ShapeDtypeStruct`` with shardings, in place of what is never optimised.
          batch: The same for a global batch.

        Returns:
          The traced step; ``.lower().compile()`` compiles it for the devices of the mesh, which
          need not be here.
        """
        numbers = _numbers(self.task.hparams, self._optim(self.config.optim))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), numbers)
        return self.step.jitted.trace(self.step.abstract, frozen, batch, shapes)

    def fit(
        self,
        workdir: str | Path,
        batches: Batches,
        *,
        seed: int,
        hparams: Mapping[str, Any] | None = None,
        evaluate: Evaluate | None = None,
        tracker: TrainingLog | None = None,
        resume: str = "auto",
        metadata: Mapping[str, Any] | None = None,
        begin: Params | None = None,
    ) -> FitResult:
        """Train; go on from the newest checkpoint of ``workdir`` where there is one.

        Args:
          workdir: Checkpoints go to ``workdir/checkpoints``.
          batches: Anything with ``[n] -> host batch``; read from another thread. With several
            processes, this process's rows of it (`jmrec.sharding.process_rows`).
          seed: Of parameters and updates.
          hparams: Values in place of the task's and, under "optim", of the optimiser's
            ("weight_decay", "clip", "warmup", "steps" of a schedule); traced.
          evaluate: ``(params, task_state) -> metrics``, whose "score" is maximised. It must not
            keep the arrays: the next update reuses their memory. Each process evaluates, by
            itself.
          tracker: Such as a `jmrec.tracking.Tracker`; by default nothing is said.
          resume: "auto", or "never" to delete the checkpoints and start again.
          metadata: json-able; its "fingerprint" and "config" must not change between a run and
            its resumption.
          begin: Parameters to begin with, as numpy arrays; None for drawn ones.

        Returns:
          The parameters and how they came about. A fit that was finished returns at once.

        Raises:
          UserError: Another run's checkpoint, a loss that is not finite, a batch that does not
            fit the devices.
          Preempted: SIGTERM came; the state is saved. Interrupted: so after the first Ctrl-C.
        """
        member = Member(
            workdir, batches, seed, hparams or {}, evaluate, tracker, metadata or {}, begin
        )
        (found,) = self.fit_members([member], resume=resume)
        if isinstance(found, UserError):
            raise found
        return found

    def fit_members(
        self, members: Sequence[Member], *, resume: str = "auto"
    ) -> list[FitResult | UserError]:
        """Do several fits in one program; each ends as it would alone, within rounding.

        They are killed and resumed together. One that has stopped, or that can not go on, rests
        while the others are updated.

        Args:
          members: The fits; their batches n are of one shape, and what is never optimised is that
            of the first.
          resume: As for `fit`.

        Returns:
          What each ended in, in their order: where its loss or score is not finite, the error.

        Raises:
          UserError, Preempted, Interrupted: As `fit`.
        """
        config, k = self.config, self.config.updates_per_call
        given = [self._given(each.hparams) for each in members]
        frozen = self._frozen_on_devices(members[0].workdir)
        step = population_step(self.step, len(members))
        with Sigterm(keyboard=True) as sigterm, ExitStack() as opened:
            runs = []
            for member, (numbers, optim) in zip(members, given):
                stored = self._metadata(member.metadata, member.seed, numbers, optim)
                folder = _folder(member.workdir, resume)
                checkpoints = opened.enter_context(Checkpoints(folder, config.keep))
                runs.append(Run(self.step, config, checkpoints, member, stored))
                opened.enter_context(runs[-1].upcoming)
            group = Members(step, runs, [numbers for numbers, _ in given])
            what = self.task.name + (f", {len(runs)} at once" if len(runs) > 1 else "")
            what += ", until it improves no more" if config.patience else ""
            shown = Silent() if group.over else runs[0].log
            with shown.progress(config.steps, what, start=group.n) as bar:
                while True:
                    # THE ORDER OF THIS LOOP MUST NOT CHANGE:
                    # EVALUATE -> SAVE -> NEXT BATCHES -> STEP -> LOG THE PREVIOUS STEP.
                    # SO CHECKPOINT n MEANS "n UPDATES AND THEIR EVALUATION DONE", AND THE DEVICE
                    # NEVER WAITS FOR THE LOG.
                    stop = sigterm.agreed(group.n % (config.log_every * k) == 0)
                    if stop or group.due:
                        group.log()  # never save or judge a broken state
                    improved = [False] * len(runs) if stop else group.evaluate()
                    group.save(improved, every=stop)
                    if stop and (fault := next((run.fault for run in runs if run.fault), None)):
                        raise fault  # what is broken was not saved
                    if stop:
                        raise sigterm.saved(f"after {group.n} updates")
                    if group.over:
                        break
                    active, hosts = group.take()
                    pending = group.step(frozen, active, hosts)
                    group.log(pending)
                    bar.update(k)
            results = [run.fault or _result(group, i) for i, run in enumerate(runs)]
        if sigterm.agreed(True):  # it came after the loop looked for the last time
            raise sigterm.saved(f"after {group.n} updates")
        return results

    def _frozen_on_devices(self, workdir: str | Path) -> Any:
        """Return what is never optimised: what was given, or else what the task reads."""
        if self._frozen is not None:
            return self._frozen
        return self.step.place_frozen(*self.task.frozen(Path(workdir)))

    def _optim(self, optim: OptimConfig) -> OptimConfig:
        """Return an optimiser's settings, whose schedule ends where the run does."""
        return optim if optim.steps else replace(optim, steps=self.config.steps)

    def _given(self, given: Mapping[str, Any]) -> tuple[HParams, OptimConfig]:
        """Return all numbers, and the optimiser's settings, with those given in their place."""
        own = given.get("optim", {})
        self._refuse_unknown("hparams.", given, {**self.task.hparams, "optim": own})
        self._refuse_unknown("hparams.optim.", own, traced_numbers(self.config.optim))
        optim = replace(self.config.optim, **own)
        check_optim(self._optim(optim))
        if self.config.optim.average and optim.average < 1:
            raise UserError(
                f"hparams.optim.average={optim.average} averages nothing, and this program keeps "
                "an average; give 1 or more."
            )
        return _numbers({**self.task.hparams, **given}, self._optim(optim)), optim

    def _refuse_unknown(self, group: str, given: Mapping[str, Any], known: HParams) -> None:
        if unknown := sorted(set(given) - set(known)):
            raise UserError(
                f"{self.task.name} has no {group}{unknown[0]}; it has {', '.join(sorted(known))}."
            )

    def _metadata(
        self, given: Mapping[str, Any], seed: int, numbers: HParams, optim: OptimConfig
    ) -> dict[str, Any]:
        settings = asdict(replace(self.config, optim=optim))
        hparams = {name: np.asarray(x).tolist() for name, x in numbers.items() if name != "optim"}
        return {
            **given,
            "train": {
                **{name: x for name, x in settings.items() if name not in NOT_PART_OF_A_RUN},
                "task": self.task.name,
                "seed": seed,
                "hparams": hparams,
            },
            "mesh": {name: int(size) for name, size in self.mesh.shape.items()},
            "versions": {"jax": jax.__version__, "optax": optax.__version__},
        }


def _result(group: Members, k: int) -> FitResult:
    """Return a run's state of the best evaluation, and how it came about."""
    state, run = group.chosen(k), group.runs[k]
    return FitResult(
        state.judged, state.task_state, run.n, run.best, run.best_step, run.history, run.flops
    )


def _numbers(hparams: HParams, optim: OptimConfig) -> HParams:
    """Return all that is traced, as float32."""
    numbers = {**hparams, "optim": traced_numbers(optim)}
    return jax.tree.map(lambda x: np.asarray(x, np.float32), numbers)


def _folder(workdir: str | Path, resume: str) -> Path:
    """Return the checkpoints' folder; "never" empties it."""
    folder = Path(workdir) / "checkpoints"
    if resume == "never":
        if jax.process_index() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        multihost_utils.sync_global_devices("jmrec checkpoints removed")
    return folder
