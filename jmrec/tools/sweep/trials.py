"""The trials of a sweep: expanded, numbered, kept in the workdir, and what became of each.

A workdir holds ``trials.json`` (what is swept, written once) and a folder for each trial, the
workdir of its ``jmrec run``, with three files of the sweep's own: ``log.txt``, ``trial.json`` (how
it ended) and ``trial.lock``. The lock is held by the trial's process itself, so that a trial whose
sweep was killed is never run twice at once.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jmrec.config import (
    TRAINED,
    ConfigDict,
    config_hash,
    difference,
    flatten,
    load_config,
    load_hyper,
)
from jmrec.config.hyper import Overrides, same
from jmrec.errors import UserError
from jmrec.evaluation.results import (
    BEST,
    RANKING,
    RESULTS,
    Primary,
    ResultRow,
    Results,
    mixed_name,
    primary_of,
    read_results,
    spoken,
)
from jmrec.files import read_json, write_json
from jmrec.lock import locked
from jmrec.tracking import read_curves

SPLIT = "evaluate.split"
VALIDATION = f"--config.{SPLIT}=validation"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      index: Its number, from 0.
      overrides: Dotted setting -> value.
      folder: The workdir of its run.
      rows: Whose best validation figure is its score: the row that is served; all that are trained
        where ``evaluate.serve`` names none of those.
      stages: The stages that train them with the first seed; their curves are watched.
      only: Those rows, where others would be trained beside them for nothing; else empty.
    """

    index: int
    overrides: Overrides
    folder: Path
    rows: tuple[str, ...]
    stages: tuple[str, ...]
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its folder's name, such as "trial-0003"."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """What its run says."""
        return self.folder / "log.txt"

    def arguments(self) -> list[str]:
        """Return its overrides as arguments of the command line."""
        return [argument(name, value) for name, value in self.overrides.items()]

    def record(self) -> "Record | None":
        """Return how it ended, None where it has not."""
        path = self.folder / "trial.json"
        return Record(**read_json(path)) if path.is_file() else None

    def end(self, record: "Record") -> None:
        """Keep how it ended."""
        write_json(self.folder / "trial.json", asdict(record))

    def results(self) -> Results | None:
        """Return what its finished run found on validation, None where there is nothing."""
        path = self.folder / "evaluate" / RESULTS
        if not path.is_file():
            return None
        results = read_results(path)
        return results if results["dataset"].get("split") == "validation" else None

    def score(self) -> float | None:
        """Return the primary figure of its finished run on validation, None where there is none."""
        results = self.results()
        row = None if results is None else self.judged(results)
        return None if results is None or row is None else primary_of(results, row["name"])

    def judged(self, results: Results) -> ResultRow | None:
        """Return the row of its results that its score is of: the best of its rows."""
        found = [(value, name) for name in self.rows
                 if (value := primary_of(results, name)) is not None]  # fmt: skip
        best = max(found, key=lambda each: each[0], default=(0.0, ""))[1]
        return next((row for row in results["rows"] if row["name"] == best), None)

    def curve(self) -> dict[int, float]:
        """Return step -> the best validation score so far of the stages that are watched."""
        best: dict[int, float] = {}
        curves = read_curves(self.folder)
        for curve in (curves.get(stage, {}) for stage in self.stages):
            for step, score in zip(curve.get("step", []), curve.get("eval/score", [])):
                if score is not None:
                    best[int(step)] = max(score, best.get(int(step), score))
        return best


@dataclass(frozen=True)
class Record:
    """How a trial ended.

    Attributes:
      state: "done", "pruned" (stopped early by the study) or "failed".
      score: Of a trial that is done, or the last of one that was pruned.
      seconds: The last start's.
      failures: How often it failed.
      message: Why it failed.
    """

    state: str
    score: float | None = None
    seconds: float = 0.0
    failures: int = 0
    message: str = ""


@dataclass(frozen=True)
class Sweep:
    """A sweep, expanded.

    Attributes:
      spec: ``--config``.
      overrides: The command line's, the same for all trials.
      workdir: Its folder.
      base: The flat configuration without the trials' overrides.
      trials: In order.
    """

    spec: str
    overrides: tuple[str, ...]
    workdir: Path
    base: dict[str, Any]
    trials: tuple[Trial, ...]

    def judge(self) -> Primary:
        """Return what trials are judged by: the primary figure of the first that is done."""
        for trial in self.trials:
            # Only of one that is done are the results known to be sound.
            done = (record := trial.record()) is not None and record.state == "done"
            if done and (results := trial.results()) is not None:
                return results["primary"]
        return RANKING

    def command(self, trial: Trial, runner: Sequence[str]) -> list[str]:
        """Return the command that runs a trial; it never evaluates on test."""
        where = ["--config", self.spec, "--workdir", str(trial.folder)]
        where += [f"--only={','.join(trial.only)}"] if trial.only else []
        return [*runner, *where, *self.overrides, *trial.arguments(), VALIDATION]


def called(judge: Primary) -> str:
    """Return what a score is, in words.

    Example:
      >>> called(RANKING)
      'validation MRR@20, session average'
    """
    return f"validation {spoken(judge)}"


def argument(name: str, value: Any) -> str:
    """Return a setting as an argument of the command line.

    Example:
      >>> argument("clip", None), argument("rate", 1e-3), argument("widths", ["a", "b"])
      ('--config.clip=none', '--config.rate=0.001', "--config.widths=['a', 'b']")
    """
    return f"--config.{name}={'none' if value is None else value}"


def expand(spec: str, overrides: Sequence[str], workdir: Path, *, every_row: bool = False) -> Sweep:
    """Read an experiment and check every trial, before anything runs.

    Args:
      spec: The experiment, as ``jmrec run`` takes it.
      overrides: ``--config.name=value`` arguments for all trials.
      workdir: The sweep's folder.
      every_row: Whether a trial also trains the rows that it is not judged by.

    Raises:
      UserError: If a trial sets what is not there, does not fit, is swept and set at once, is the
        same as another, or would read the test split.
    """
    from jmrec.systems.fit import seeded
    from jmrec.systems.registry import check_settings  # which loads jax

    base = load_config(spec, list(overrides))
    flat = flatten(base)
    for name in (SPLIT, "evaluate.serve", "seeds"):
        if name not in flat:
            raise UserError(f"{spec} has no setting {name}, which a sweep needs; add it.")
    given = {each.split("=")[0].lstrip("-").removeprefix("noconfig.").removeprefix("config.")
             for each in overrides}  # fmt: skip
    trials, seen = [], dict[str, int]()
    for index, each in enumerate(load_hyper(spec)):
        if SPLIT in given or SPLIT in each:
            raise UserError(
                f"{SPLIT} cannot be set in a sweep, which reads validation only; leave it away."
            )
        if twice := sorted(given & set(each)):
            raise UserError(
                f"--config.{twice[0]} is swept by get_hyper and set on the command line; leave "
                "one of the two away."
            )
        arguments = [argument(name, value) for name, value in each.items()]
        config = load_config(spec, [*overrides, *arguments, VALIDATION])
        found = flatten(config)
        for name, value in each.items():
            if not same(found.get(name), value):
                raise UserError(
                    f"trial {index} sets {name} to {value!r}, which the command line reads as "
                    f"{found.get(name)!r}; use another value."
                )
        if (first := seen.setdefault(config_hash(config), index)) != index:
            raise UserError(f"trials {first} and {index} of get_hyper are the same; drop one.")
        if "system" in config:  # else it is not jmrec that runs it
            check_settings(config)
        table, rows = _judged(config, str(config.evaluate.serve))
        firsts = {row: config[table][row].get("seeds", config.seeds)[0] for row in rows}
        stages = tuple(seeded(f"{table}.{row}", int(firsts[row])).name for row in rows)
        fewer = table in TRAINED and len(rows) < len(config[table])
        only = rows if fewer and not every_row else ()
        trials.append(Trial(index, each, workdir / f"trial-{index:04d}", rows, stages, only))
    return Sweep(spec, tuple(overrides), workdir, {**flat, SPLIT: "validation"}, tuple(trials))


def _judged(config: ConfigDict, row: str) -> tuple[str, tuple[str, ...]]:
    """Return the rows that a trial is judged by, and where their settings are, as in "students".

    It is the row that is served; where that is a rule, or the best, the rules are the same in all
    trials and say nothing of them: then those that are trained.
    """
    parts = {name: part for name, part in config.items() if isinstance(part, ConfigDict)}
    for name, part in parts.items():
        for own in part:
            if row in (own, mixed_name(own)):  # what is blended is best where its student is
                return str(name), (own,)
    for name in TRAINED:
        if parts.get(name) and (
            row == BEST or "system" in config
        ):  # a row that is no model: a rule
            return name, tuple(parts[name])
    raise UserError(
        f"evaluate.serve={row!r} names nothing that the experiment trains; choose what has "
        "settings of its own."
    )


def keep(sweep: Sweep) -> None:
    """Write trials.json once; a workdir that holds another sweep is refused.

    Raises:
      UserError: Naming what changed.
    """
    path = sweep.workdir / "trials.json"
    fresh = {
        "config": sweep.spec,
        "overrides": list(sweep.overrides),
        "base": sweep.base,
        "trials": [trial.overrides for trial in sweep.trials],
        "only": [list(trial.only) for trial in sweep.trials],
    }
    sweep.workdir.mkdir(parents=True, exist_ok=True)
    with locked(sweep.workdir / "sweep.lock"):
        if not path.is_file():
            if (sweep.workdir / "config.json").is_file():
                raise UserError(f"{sweep.workdir} holds a run, no sweep; name another --workdir.")
            write_json(path, fresh)
            return
        known = read_json(path)
    changed = difference(known["base"], fresh["base"])
    if len(known["trials"]) != len(fresh["trials"]):
        changed.append(f"the number of trials: {len(known['trials'])} -> {len(fresh['trials'])}")
    for index, (old, new) in enumerate(zip(known["trials"], fresh["trials"])):
        changed += [f"trial {index}, {line}" for line in difference(old, new)]
    only = [list(trial.only) for trial in sweep.trials]
    trained = known.get("only", [[]] * len(only))  # once every row was
    if not changed and trained != only:
        before, now = (", ".join(each[0]) or "every one" for each in (trained, only))
        changed.append(f"the rows that are trained: {before} -> {now}; see --every-row")
    if changed:
        raise UserError(
            f"{sweep.workdir} holds another sweep ({'; '.join(changed[:3])}); use another "
            "--workdir, or change it back."
        )
