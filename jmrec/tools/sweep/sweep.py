"""``jmrec sweep``: many runs of one experiment, to one table and one plot."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jmrec.errors import UserError
from jmrec.terminal import say
from jmrec.tools.sweep.live import Board
from jmrec.tools.sweep.population import train_groups, train_here
from jmrec.tools.sweep.report import conclusion, print_table, wandb_yaml, write
from jmrec.tools.sweep.run import Grid, Source, run_trials
from jmrec.tools.sweep.study import Study
from jmrec.tools.sweep.table import best, settings
from jmrec.tools.sweep.trials import Sweep, expand, keep
from jmrec.tools.terminal import wide_console

RUNNER = (sys.executable, "-m", "jmrec", "run")
ARRAYS = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")
"""Where SLURM and Kubernetes say which task of an array this is."""


def sweep(
    spec: str,
    overrides: Sequence[str],
    workdir: Path,
    *,
    parallel: int | None = None,
    population: int | None = None,
    index: int | None = None,
    study: str | None = None,
    count: int | None = None,
    wandb_file: Path | None = None,
    runner: Sequence[str] = RUNNER,
    prune: bool = True,
    share: bool = True,
    every_row: bool = False,
    at_once: Sequence[int] = (),
    pruner: Any = None,
    poll: float = 0.5,
) -> None:
    """Expand an experiment's get_hyper and run its trials, or one of them, or write W&B's YAML.

    Args:
      spec: The experiment, as ``jmrec run`` takes it.
      overrides: ``--config.name=value`` arguments for all trials.
      workdir: Where trials.json, the trials' folders, table and plot go.
      parallel: Trials at a time; None is one.
      population: So many trials that differ in numbers alone share one program; None is 1.
      index: Run this trial only. None takes it from an array task's environment where there is
        one and none of ``parallel``, ``population`` and ``study`` is given.
      study: Run as the Optuna study of this name.
      count: How many trials the study may have; None is all.
      prune: Whether the study may end trials early.
      share: Whether trials share finished stages, see `jmrec.systems.shared`.
      every_row: Whether a trial also trains the rows that it is not judged by.
      at_once: Do no more than to train these trials at once, for the sweep that started this one.
      wandb_file: Write this YAML and run nothing.
      runner: The command that runs a trial, before its arguments.
      pruner: An Optuna pruner in place of the default.
      poll: Seconds between two looks at the trials.

    Raises:
      UserError: The sweep is not sound, differs from the workdir's, or a trial failed.
      Preempted: SIGTERM; what ran has saved its state.
    """
    numbers = {"--parallel": parallel, "--trials": count, "--population": population}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UserError(f"{name}={number} is not possible; make it 1 or more.")
    _check_together(study, prune and count is None, population, index)

    found = expand(spec, overrides, workdir.resolve(), every_row=every_row)
    if wandb_file is not None:
        wandb_file.parent.mkdir(parents=True, exist_ok=True)
        wandb_file.write_text(wandb_yaml(found, share, every_row), encoding="utf-8")
        how = f"start them with wandb sweep {wandb_file}"
        say(f"{wandb_file}: {len(found.trials)} trials; {how}", sys.stderr)
        return
    if at_once:
        train_here(found, at_once, share=share)
        return
    index = _one_of(found, index, array=parallel is None and study is None and population is None)
    keep(found)
    source: Source = Grid(found.trials if index is None else [found.trials[index]])
    if study is not None:
        source = Study(found, study, count or len(found.trials), prune, pruner)
    here = "" if index is None else f", of which trial {index} is run here"
    say(f"{found.workdir}: {len(found.trials)} trials{here}{_trained(found)}", sys.stderr)
    with Board(found) as board:
        shown: dict[str, Any] = {"say": board.say, "show": board.show, "poll": poll}
        if population is not None:
            train_groups(found, population, share=share, **shown)
        runner = [*runner, "--share"] if share else runner
        run_trials(found, source, parallel=parallel or 1, runner=runner, **shown)
    table = write(found)
    if all(row["state"] in ("done", "pruned") for row in table):
        from jmrec.systems.shared import drop  # which loads jax

        drop(found.trials[0].folder)  # nobody is left who could take anything
    _conclude(found, table, index)


def _check_together(
    study: str | None, to_the_end: bool, population: int | None, index: int | None
) -> None:
    """Refuse what does not go together."""
    if study is None and not to_the_end:
        raise UserError(
            "--trials and --no-prune go with --optuna; without it every trial is run to its end."
        )
    if population is not None and (study is not None or index is not None):
        other = "--index runs one trial" if study is None else "Optuna chooses one after another"
        raise UserError(f"--population trains several trials at once, and {other}; leave one away.")


def _one_of(found: Sweep, index: int | None, array: bool) -> int | None:
    """Return which trial alone is run here: the one asked for, or that of an array's task."""
    if index is None and array:
        index = array_index(os.environ)
    if index is not None and not 0 <= index < len(found.trials):
        raise UserError(f"there is no trial {index}; the sweep has 0 to {len(found.trials) - 1}.")
    return index


def array_index(environment: Mapping[str, str]) -> int | None:
    """Return which task of a SLURM array or an indexed Kubernetes job this is.

    Args:
      environment: Of this process.

    Returns:
      The index, None outside of both.

    Example:
      >>> array_index({"SLURM_ARRAY_TASK_ID": "3"})
      3
    """
    found = [environment[name] for name in ARRAYS if environment.get(name, "").isdigit()]
    return int(found[0]) if found else None


def _trained(found: Sweep) -> str:
    """Say which rows are trained, where not every one is."""
    rows = sorted({row for trial in found.trials for row in trial.only})
    what = f"; of what can be trained, {' and '.join(rows)} alone, by which trials are judged"
    return f"{what} (--every-row trains the others too)" if rows else ""


def _conclude(found: Sweep, table: Sequence[dict[str, Any]], index: int | None) -> None:
    """Print the table; a failed trial is an error of the whole."""
    print_table(table, settings(found), wide_console(), found.judge())
    winner = best(table)
    if winner is not None:
        arguments = " ".join(found.trials[table.index(winner)].arguments())
        say(f"best: {winner['trial']}, {100 * winner['score']:.2f} % ({arguments})")
        for sentence in conclusion(table):
            say(sentence)
    say(f"table: {found.workdir / 'sweep.csv'}, plot: {found.workdir / 'sweep.png'}")
    mine = table if index is None else [table[index]]
    failed = [row for row in mine if row["state"] == "failed"]
    if failed:
        what = "; ".join(f"{row['trial']}: {row['message']}" for row in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise UserError(
            f"{len(failed)} of {len(mine)} trials failed ({what}{more}); their log.txt says more, "
            "and the same command tries them again."
        )
