"""Every trial of a sweep in one table on the terminal, renewed as it runs."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jmrec.processes import last_line
from jmrec.terminal import clean, say
from jmrec.terminal import console as clean_console
from jmrec.tools.sweep.run import Job
from jmrec.tools.sweep.table import OPEN, cell, settings, short_names
from jmrec.tools.sweep.trials import Record, Sweep, Trial
from jmrec.usage import duration

SECONDS = 1.0
"""How often the table is renewed, at most."""
AROUND = 6
"""Lines of the terminal that the table leaves to others."""
RUNNING = "running"


class Board:
    """The table. Where the output is no terminal it shows nothing, and lines are said as ever.

    Args:
      sweep: What is swept.
      console: Where to; standard error by default.
    """

    def __init__(self, sweep: Sweep, console: Console | None = None) -> None:
        self._sweep, self._ended = sweep, dict[str, Record]()
        self._console = console or clean_console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._seen = -SECONDS

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print one line, above the table where there is one."""
        if self._live.is_started:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text, sys.stderr)

    def show(self, jobs: Sequence[Job]) -> None:
        """Renew the table, if that is due.

        Args:
          jobs: The trials that run here.
        """
        if self._live.is_started and time.monotonic() - self._seen >= SECONDS:
            self._live.update(self.table(jobs), refresh=True)
            self._seen = time.monotonic()

    def table(self, jobs: Sequence[Job]) -> Table:
        """Return the table: of all trials, or of those that run where the terminal is too low."""
        names = settings(self._sweep)
        shown = Table("trial", *short_names(names), "state", "best so far, %", "time", "now")
        running = {job.trial.name: job for job in jobs}
        states = {each.name: self._state(each, running) for each in self._sweep.trials}
        counted = Counter(states.values())
        shown.caption = ", ".join(f"{count} {state}" for state, count in counted.items())
        few = len(states) <= self._console.size.height - AROUND
        for trial in self._sweep.trials:
            if few or trial.name in running:
                cells = [cell(trial.overrides, name) for name in names]
                row = [trial.name, *cells, states[trial.name], *self._figures(trial, running)]
                texts = (Text(clean(each), no_wrap=True, overflow="ellipsis") for each in row)
                shown.add_row(*texts)  # cleaned here: what is alive passes by the console's own
        return shown

    def _state(self, trial: Trial, running: dict[str, Job]) -> str:
        if trial.name in running:
            return RUNNING
        if trial.name not in self._ended and (record := trial.record()) is not None:
            self._ended[trial.name] = record
        known = self._ended.get(trial.name)
        return known.state if known else OPEN

    def _figures(self, trial: Trial, running: dict[str, Job]) -> tuple[str, str, str]:
        """Return the best validation figure so far, how long it runs, and what it last said."""
        job, record = running.get(trial.name), self._ended.get(trial.name)
        if job is None:
            if record is None:
                return "", "", ""
            score = "" if record.score is None else f"{100 * record.score:.2f}"
            return score, duration(record.seconds), record.message
        curve = trial.curve()
        score = f"{100 * max(curve.values()):.2f}" if curve else ""
        return score, duration(time.monotonic() - job.begin), last_line(job.log or trial.log)
