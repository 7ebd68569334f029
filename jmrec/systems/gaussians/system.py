"""The system "gaussians": estimators of mutual information where the answer is known.

For each value of I(x; y), each seed and each objective one critic (or conditional) is trained; then
every estimator is asked on fresh pairs, with what was trained and with the true critic.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.checkpoint import load_params
from jmrec.cluster.member import is_first
from jmrec.config import ConfigDict, flatten
from jmrec.data.gaussians import FRESH, Gaussians, PairBatches, stream_key
from jmrec.evaluation.estimates import caption, check, summarise, table
from jmrec.evaluation.results import (
    ESTIMATION,
    FORMAT,
    Results,
    kinds_of,
    write_results,
)
from jmrec.models.readers.critics import CriticConfig
from jmrec.sharding import process_rows
from jmrec.systems.costs import cost_of, facts_by_stage
from jmrec.systems.outcome import show
from jmrec.systems.planned import shape
from jmrec.systems.stages import Stage
from jmrec.systems.system import PlannedStep, Sizes
from jmrec.systems.work import Work
from jmrec.tasks.gaussians import ESTIMATORS, CriticTask, reads_critic
from jmrec.tracking import read_curves
from jmrec.training import Trainer

Estimates = dict[str, jax.Array]
"""Estimator -> the estimate of each batch, float32 [batches]."""


class GaussianStudy:
    """The study on one workdir.

    Args:
      work: The run, with a config of experiments/losses_on_gaussians.py.
    """

    name: ClassVar[str] = "gaussians"
    since: ClassVar[tuple[str, ...]] = ()

    def __init__(self, work: Work) -> None:
        self.work, self.config = work, work.config
        self._trainers: dict[str, Trainer] = {}

    @property
    def batch_size(self) -> int:
        """Pairs in a batch, in training as in estimation."""
        return int(self.config.train.batch_size)

    @property
    def batches(self) -> int:
        """Batches of fresh pairs: those that hold the samples wanted, the last one whole."""
        return -(-int(self.config.evaluate.samples) // self.batch_size)

    @cached_property
    def objectives(self) -> list[str]:
        """What is trained, for the estimators wanted."""
        return objectives(self.config)

    def stages(self, command: Sequence[str] = ()) -> list[Stage]:
        """Return a stage for each fit, and the one that estimates and reports.

        Args:
          command: What was typed, for the report.
        """
        c = self.config
        stages = [
            Stage(
                fit_name(objective, nats, seed),
                # Not the estimators: which of them read a critic does not change it.
                {"objective": objective, "dimensions": c.dimensions, "nats": nats, "seed": seed,
                 "critic": c.critic, "hparams": c.hparams, "train": c.train},
                (),
                self._train(objective, nats, seed),
                group=fit_group(objective, nats),
                seed=seed,
            )
            for nats in c.nats for objective in self.objectives for seed in c.seeds
        ]  # fmt: skip
        settings = {
            **{name: c[name] for name in ("dimensions", "evaluate", "hparams")},
            **{name: list(c[name]) for name in ("estimators", "nats", "seeds")},
            "batch_size": self.batch_size,
        }
        inputs = tuple(stage.name for stage in stages)

        def last(folder: Path) -> None:
            self.evaluate(folder, inputs, command)

        return [*stages, Stage("evaluate", settings, inputs, last, shared=False)]

    def _train(self, objective: str, nats: float, seed: int) -> Callable[[Path], None]:
        """Return the stage that trains one critic or conditional."""

        def run(folder: Path) -> None:
            c, name = self.config, fit_name(objective, nats, seed)
            trainer = self.trainer(objective)
            batches = PairBatches(
                Gaussians(c.dimensions, nats), self.batch_size, seed, process_rows(trainer.mesh)
            )
            self.work.fit(
                folder, name, trainer, c.train, batches, seed=seed,
                fingerprint=f"gaussians {c.dimensions} {nats} {seed}",
            )  # fmt: skip

        return run

    def task(self, objective: str) -> CriticTask:
        """Return what an objective trains."""
        return critic_task(self.config, objective)

    def trainer(self, objective: str) -> Trainer:
        """Return an objective's trainer, compiled once for all seeds and values of I(x; y)."""
        if objective not in self._trainers:
            task = self.task(objective)
            self._trainers[objective] = self.work.trainer(task, self.config.train)
        return self._trainers[objective]

    @classmethod
    def plan_steps(
        cls, config: ConfigDict, sizes: Sizes
    ) -> Mapping[str, Callable[[], PlannedStep]]:
        """Return a step an objective from shapes alone; see `jmrec.systems.system.System`."""
        rows, wide = int(config.train.batch_size), int(config.dimensions)
        batch = {name: shape((rows, wide)) for name in ("x", "y")}

        def step(objective: str) -> PlannedStep:
            return PlannedStep(critic_task(config, objective), config.train, batch, (rows,))

        return {f"critics/{name}": partial(step, name) for name in objectives(config)}

    # ---- estimates ------------------------------------------------------------------------

    def evaluate(self, folder: Path, fits: Sequence[str], command: Sequence[str] = ()) -> None:
        """Estimate on fresh pairs; write results.json and the report.

        Args:
          folder: The stage's.
          fits: The stages that trained.
          command: What was typed.
        """
        c = self.config
        trained = {objective: self._with_trained(objective) for objective in self.objectives}
        true = self._with_truth()
        rows = []
        every = [(nats, seed) for nats in c.nats for seed in c.seeds]
        with self.work.tracker.stage("evaluate").progress(len(every), "estimate") as bar:
            for nats, seed in every:
                # The same fresh pairs for all: estimators differ by nothing else.
                key = stream_key(seed, FRESH)
                best = jax.device_get(true(key, nats))
                found: dict[str, np.ndarray] = {}
                for objective, estimate in trained.items():
                    params, _ = load_params(
                        self.work.workdir / fit_name(objective, nats, seed) / "params"
                    )
                    found |= jax.device_get(estimate(params, key, nats))
                for name in c.estimators:
                    mine = found.get(name, best[name])  # CLUB reads the truth and nothing else
                    rows.append(
                        {"nats": nats, "seed": seed, "name": name, "kind": ESTIMATORS[name].kind,
                         "objective": (objective := ESTIMATORS[name].objective),
                         "group": fit_group(objective, nats) if objective else "",
                         **summarise(mine), "true": summarise(best[name])}
                    )  # fmt: skip
                bar.update(1)
        if not is_first():
            return
        study = {
            "dimensions": c.dimensions,
            "critic": flatten(c.critic),
            "hparams": flatten(c.hparams),
            "train": flatten(c.train),
            "samples": self.batches * self.batch_size,
            "batches": self.batches,
            "batch_size": self.batch_size,
            "seeds": list(c.seeds),
            "closed_form": {f"{n:g}": float(Gaussians(c.dimensions, n).club) for n in c.nats},
        }
        results: Results = {
            "format": FORMAT,
            "system": c.system,
            "primary": ESTIMATION,
            "caption": caption(study),
            "dataset": {"name": "correlated Gaussians"},
            "kinds": kinds_of([row["kind"] for row in rows]),
            "rows": table(rows),
            "comparisons": [],
            "best_rule": None,
            "served": None,
            "test_reads": 0,
            "stages": facts_by_stage(self.work.workdir, fits),
            "curves": {n: c for n, c in read_curves(self.work.workdir).items() if n in fits},
            "study": study,
            "checks": check(rows, self.batch_size),
        }
        cost = cost_of(self.work.workdir, fits, command)
        write_results(folder, results, cost)
        show(self.work, folder, results, cost)

    def _over_batches(self, one: Callable[[jax.Array], Any], key: Any) -> Estimates:
        """Return the estimate of each batch: the mean of its per-example values."""

        def batch(n: jax.Array) -> Estimates:
            values = one(jax.random.fold_in(key, n))
            return {name: each.mean() for name, each in values.items()}

        return jax.lax.map(batch, jnp.arange(self.batches))

    def _with_trained(self, objective: str) -> Callable[..., Estimates]:
        """Return ``(params, key, nats) -> Estimates`` of an objective's estimators."""
        task, clip = self.task(objective), self.config.hparams.clip

        @jax.jit
        def run(params: Any, key: jax.Array, nats: jax.Array) -> Estimates:
            pairs = Gaussians(self.config.dimensions, nats)

            def one(key: jax.Array) -> Any:
                return task.values(task.read(params, *pairs.draw(key, self.batch_size)), clip)

            return self._over_batches(one, key)

        return run

    def _with_truth(self) -> Callable[..., Estimates]:
        """Return ``(key, nats) -> Estimates`` with the true critic and conditional."""
        clip = self.config.hparams.clip

        @jax.jit
        def run(key: jax.Array, nats: jax.Array) -> Estimates:
            pairs = Gaussians(self.config.dimensions, nats)

            def one(key: jax.Array) -> Any:
                x, y = pairs.draw(key, self.batch_size)
                scores, given = pairs.log_ratio(x, y), (*pairs.conditional(x), y)
                return {
                    name: ESTIMATORS[name].values(scores + ESTIMATORS[name].best, clip)
                    if reads_critic(name)
                    else ESTIMATORS[name].values(*given)
                    for name in self.config.estimators
                }

            return self._over_batches(one, key)

        return run


def objectives(config: ConfigDict) -> list[str]:
    """Return what is trained, for the estimators that an experiment wants."""
    wanted = (ESTIMATORS[name].objective for name in config.estimators)
    return [name for name in dict.fromkeys(wanted) if name]


def critic_task(config: ConfigDict, objective: str) -> CriticTask:
    """Return what an objective trains."""
    sizes = CriticConfig(x=config.dimensions, y=config.dimensions, **config.critic)
    numbers = {"learning_rate": config.train.learning_rate, **config.hparams}
    return CriticTask(objective, sizes, config.estimators, numbers)


def fit_group(objective: str, nats: float) -> str:
    """Return what the stages of all seeds have in common that train for an objective."""
    return f"critics/{objective}-{nats:g}"


def fit_name(objective: str, nats: float, seed: int) -> str:
    """Return the stage that trains for an objective.

    Example:
      >>> fit_name("nwj", 0.5, 3)
      'critics/nwj-0.5-3'
    """
    return f"{fit_group(objective, nats)}-{seed}"
