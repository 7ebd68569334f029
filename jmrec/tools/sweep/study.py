"""A sweep as an Optuna study: which trials are worth their time, and which end early.

The space is the sweep's own finite list, so a trial of the study is a numbered trial of the
sweep, and none is run twice. The study is a journal file in the workdir: any number of
workers, on any number of machines that see the folder, share it. A trial whose worker was killed
stays RUNNING in the study; whoever gets its lock takes it up and ends it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmrec.config.hyper import Overrides, same
from jmrec.errors import UserError
from jmrec.lock import locked, try_lock
from jmrec.tools.sweep.run import Job
from jmrec.tools.sweep.trials import Record, Sweep
from jmrec.tracking import mend_lines

if TYPE_CHECKING:
    import optuna

WHOLE = "trial"
"""The one axis of a list that is no product: the trial's number."""


def axes(trials: Sequence[Overrides]) -> dict[str, list[Any]]:
    """Return the settings whose every combination is a trial, each with its values.

    Args:
      trials: All different.

    Returns:
      Setting -> values in order of appearance, settings with one value left out; empty where the
      trials are no full product (or there is only one).

    Example:
      >>> axes([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 4, "b": 2}, {"a": 4, "b": 3}])
      {'a': [1, 4], 'b': [2, 3]}
      >>> axes([{"a": 1, "b": 2}, {"a": 4, "b": 3}])
      {}
    """
    values: dict[str, list[Any]] = {name: [] for name in trials[0]}
    for trial in trials:
        if trial.keys() != values.keys():
            return {}
        for name, value in trial.items():
            if not any(same(value, known) for known in values[name]):
                values[name].append(value)
    count = 1
    for each in values.values():
        count *= len(each)
    return {n: each for n, each in values.items() if len(each) > 1} if count == len(trials) else {}


@dataclass(frozen=True)
class Space:
    """The sweep's list as Optuna sees it: a place on each axis.

    Attributes:
      places: For each trial, axis -> place among its values.
      sizes: Axis -> how many values.
      ordered: The axes of ascending or descending numbers, where near places are alike.
    """

    places: list[dict[str, int]]
    sizes: dict[str, int]
    ordered: frozenset[str]

    @classmethod
    def of(cls, trials: Sequence[Overrides]) -> "Space":
        """Build it."""
        found = axes(trials)
        if not found:
            return cls([{WHOLE: i} for i in range(len(trials))], {WHOLE: len(trials)}, frozenset())
        places = [
            {
                name: next(p for p, value in enumerate(values) if same(value, trial[name]))
                for name, values in found.items()
            }
            for trial in trials
        ]
        ordered = frozenset(
            name
            for name, values in found.items()
            if all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
            and values in (sorted(values), sorted(values, reverse=True))
        )
        return cls(places, {name: len(values) for name, values in found.items()}, ordered)

    def index(self, params: dict[str, int]) -> int | None:
        """Return the number of the trial at a place, None where a trial was never fully asked."""
        return self.places.index(params) if params in self.places else None

    def distributions(self) -> "dict[str, optuna.distributions.BaseDistribution]":
        """Return what Optuna draws from."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return {
            name: IntDistribution(0, size - 1)
            if name in self.ordered
            else CategoricalDistribution(tuple(range(size)))
            for name, size in self.sizes.items()
        }


@dataclass
class _Watched:
    """A running trial of the study."""

    trial: "optuna.Trial"
    reported: set[int] = field(default_factory=set)
    seen: Any = None


class Study:
    """A source of trials that asks Optuna.

    Args:
      sweep: What is swept.
      name: The study's name; its file is ``optuna-NAME.journal`` in the workdir.
      count: How many trials the study may have; at most all.
      prune: Whether trials may end early.
      pruner: Ends them by their curves; by default the median of the others at the same
        step, after five trials.

    Raises:
      UserError: If Optuna is not installed, or the name is no file name.
    """

    def __init__(
        self, sweep: Sweep, name: str, count: int, prune: bool = True, pruner: Any = None
    ) -> None:
        optuna = import_optuna()
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UserError(f"--optuna={name} is no study's name; use letters, digits, - _ and .")
        self._sweep, self._count = sweep, min(count, len(sweep.trials))
        self._space = Space.of([trial.overrides for trial in sweep.trials])
        self._lock = sweep.workdir / f"optuna-{name}.lock"
        self._prune = prune
        self._tried: set[int] = set()
        self._states = optuna.trial.TrialState
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = (sweep.workdir / f"optuna-{name}.journal").resolve()
        # Optuna's own numbers, 10 trials at random and 5 unpruned, are for studies of a hundred.
        learn = min(10, max(2, self._count // 3))
        with locked(self._lock):
            self._study = optuna.create_study(
                storage=_open_journal(path),
                study_name=name,
                direction="maximize",
                sampler=_sampler(self._space, learn),
                pruner=pruner or optuna.pruners.MedianPruner(n_startup_trials=min(5, learn)),
                load_if_exists=True,
            )
            # What failed in an earlier start may be asked again in this one.
            failed = self._trials(self._states.FAIL)
            self._study.sampler.forget = self._failed_before = {t.number for t in failed}

    def _trials(self, *states: Any) -> list[Any]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def take(self) -> Job | None:
        """Take up what a killed worker left, else ask for a new trial."""
        with locked(self._lock):
            for left in self._trials(self._states.RUNNING):
                index = self._space.index(left.params)
                if index is None:  # killed while it asked
                    self._study.tell(left.number, state=self._states.FAIL)
                elif index not in self._tried and (job := self._job(index, left.number)):
                    return job
            known = (t for t in self._trials() if t.number not in self._failed_before)
            if sum(self._space.index(each.params) is not None for each in known) >= self._count:
                return None
            new = self._study.ask(self._space.distributions())
            index = self._space.index(new.params)
            assert index is not None
            trial = self._sweep.trials[index]
            new.set_user_attr("trial", trial.name)
            for name, value in trial.overrides.items():
                new.set_user_attr(name, value)
            return self._job(index, new.number)

    def _job(self, index: int, number: int) -> Job | None:
        """Lock a trial of the study; None where its worker lives, or has just ended it."""
        import optuna

        trial = self._sweep.trials[index]
        lock = try_lock(trial.folder / "trial.lock")
        if lock is None:
            return None
        frozen = self._study.get_trials(deepcopy=False)[number]
        if frozen.state.is_finished():
            os.close(lock)
            return None
        self._tried.add(index)
        handle = optuna.Trial(self._study, frozen._trial_id)
        return Job(trial, lock, _Watched(handle, set(frozen.intermediate_values)))

    def watch(self, job: Job) -> bool:
        """Report new points of the trial's curve; return whether the pruner ends it."""
        new = self._report(job)
        return new and self._prune and bool(job.handle.trial.should_prune())

    def _report(self, job: Job) -> bool:
        """Report points that the study does not have; return whether there is anything to judge."""
        path = job.trial.folder / "metrics.jsonl"
        if not path.is_file():
            return False
        watched: _Watched = job.handle
        facts = path.stat()
        if watched.seen == (state := (facts.st_size, facts.st_mtime_ns)):
            return False
        watched.seen = state
        for step, score in sorted(job.trial.curve().items()):
            if step not in watched.reported:
                watched.trial.report(score, step)
                watched.reported.add(step)
        return bool(watched.reported)

    def ended(self, job: Job, record: Record) -> None:
        """Tell the study, once."""
        self._report(job)
        state = {
            "done": self._states.COMPLETE,
            "pruned": self._states.PRUNED,
            "failed": self._states.FAIL,
        }[record.state]
        value = record.score if record.state == "done" else None
        self._study.tell(job.handle.trial.number, value, state=state)

    def waiting(self) -> bool:
        """Whether a worker elsewhere runs a trial of the study."""
        running = self._trials(self._states.RUNNING)
        return any(self._space.index(each.params) not in self._tried for each in running)


def import_optuna() -> Any:
    """Import Optuna.

    Raises:
      UserError: If it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError(
            "--optuna needs the package optuna, which is not installed; "
            "pip install 'jmrec[sweep]' brings it."
        ) from None
    return optuna


def _open_journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class Lock:
        """Ends with the process that holds it; Optuna's own links outlive a kill."""

        def acquire(self) -> bool:
            self._held = locked(path.with_suffix(".journal-lock"))
            self._held.__enter__()
            return True

        def release(self) -> None:
            self._held.__exit__(None, None, None)

    lock = Lock()
    lock.acquire()
    mend_lines(path)
    lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]


def _sampler(space: Space, learn: int) -> Any:
    """Return the sampler of a space, which draws at random until ``learn`` trials have ended."""
    from optuna.samplers import TPESampler

    class Untried(TPESampler):
        """TPE on the sweep's list, that never asks for one trial twice."""

        forget: frozenset[int] | set[int] = frozenset()

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return space.distributions()

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            taken = [
                each.params
                for each in study.get_trials(deepcopy=False)
                if each.number != trial.number and each.number not in self.forget
            ]
            left = [place for place in space.places if place not in taken]
            wide = {name: each for name, each in search_space.items() if not each.single()}
            for _ in range(20):
                found = super().sample_relative(study, trial, wide)
                if not found:  # nothing is learned yet
                    break
                found = {name: int(place) for name, place in found.items()}
                if found in left:
                    return found
            return left[self._rng.rng.randint(len(left))] if left else {}

    return Untried(multivariate=True, constant_liar=True, n_startup_trials=learn)
