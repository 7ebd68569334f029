"""Training what a leaderboard compares: one seed of all, then more seeds of those that count.

Both passes are runs of one workdir. What is finished is skipped and what is half done resumes, so
that the same command goes on after a kill; nothing reads test before all is trained.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.models.sessions.table import ENCODERS
from jmrec.systems import registry
from jmrec.terminal import say
from jmrec.tools.leaderboard.board import make_board, on_validation, paths, read_board, write_board
from jmrec.tools.leaderboard.page import page

SYSTEM = "session"


def with_encoders(spec: str) -> str:
    """Return an experiment with every encoder that reads ids, where its argument names none.

    With a teacher those are left out that follow none.

    Example:
      >>> with_encoders("session:size=tiny")[:44]
      'session:size=tiny,encoder=student+sasrec+gru'
      >>> with_encoders("session:encoder=narm")
      'session:encoder=narm'
    """
    name, _, argument = spec.partition(":")
    words = argument.split(",") if argument else []
    if any(word.startswith("encoder=") for word in words):
        return spec
    taught = any(word.startswith("teacher=") and word != "teacher=none" for word in words)
    every = [
        each for each, entry in ENCODERS.items()
        if "ids" in {f.name for f in fields(entry.config)} and not (taught and entry.fills)
    ]  # fmt: skip
    return f"{name}:{','.join([*words, 'encoder=' + '+'.join(every)])}"


def with_seeds(config: ConfigDict, encoders: Sequence[str]) -> ConfigDict:
    """Return settings with all seeds for the rows of some encoders, and the first for the others.

    Args:
      config: Of the experiment.
      encoders: Names in `ENCODERS`.
    """
    own = config.copy_and_resolve_references()
    with own.unlocked():
        for student in own.students.values():
            more = student.get("encoder", own.student.encoder) in encoders
            student.seeds = tuple(config.seeds) if more else tuple(config.seeds)[:1]
    return own


def best_encoders(config: ConfigDict, workdir: Path, count: int) -> list[str]:
    """Return the encoders that are best on validation, each by its best row, the best first.

    Args:
      config: Whose rows are trained with one seed each.
      workdir: Of the run.
      count: How many.
    """
    best: dict[str, float] = {}
    for name, student in config.students.items():
        encoder = student.get("encoder", config.student.encoder)
        best[encoder] = max(best.get(encoder, 0.0), on_validation(config, workdir, name))
    return sorted(best, key=lambda each: -best[each])[:count]


def train(
    config: ConfigDict,
    workdir: Path,
    out: Path,
    *,
    best: int,
    always: Sequence[str],
    stale: str,
    command: Sequence[str],
    parallel: int = 1,
) -> None:
    """Train and evaluate what a leaderboard compares, then write its JSON and its page.

    Args:
      config: Of an experiment of the system "session"; its first seed is for all.
      workdir: Of the run.
      out: Where it goes, see `jmrec.tools.leaderboard.board.paths`.
      best: How many encoders, the best on validation, are trained with every seed.
      always: Encoders that are so too.
      stale: See `jmrec.systems.registry.run`.
      command: The command line, for the report.
      parallel: How many stages run at a time, see there too.

    Raises:
      UserError: The experiment is of another system, a setting is wrong, or what `run` raises.
    """
    if config.get("system") != SYSTEM:
        raise UserError(
            f"a leaderboard compares session encoders, and this is an experiment of the system "
            f"{config.get('system')!r}; name one like experiments/session.py."
        )
    if best < 0:
        raise UserError(f"--best={best} is not possible; make it 0 or more.")
    unknown = next((each for each in always if each not in ENCODERS), None)
    if unknown is not None:
        raise UserError(f"--always: there is no encoder {unknown!r}; it has {', '.join(ENCODERS)}.")
    run = partial(
        registry.run, workdir=workdir, resume="auto", stale=stale, parallel=parallel,
        command=command,
    )  # fmt: skip
    first = with_seeds(config, ())
    run(first, stop="evaluate")
    run(with_seeds(config, [*always, *best_encoders(first, workdir, best)]))
    board, cost = make_board(workdir)
    write_board(out, board, cost)
    write_page(out)


def write_page(out: Path) -> None:
    """Write the page of a leaderboard from its JSON alone."""
    board, cost = read_board(out)
    path = paths(out)[2]
    path.write_text(page(board, cost), encoding="utf-8")
    say(f"leaderboard: {path}")
