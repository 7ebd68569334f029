"""How far a loop is: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from jmrec.preemption import look
from jmrec.usage import duration

PLAIN_SECONDS = 10.0
"""How often a progress line is printed where the output is not a terminal."""


class Bar:
    """A rich progress bar."""

    def __init__(self, progress: Progress, total: int | None, description: str, start: int) -> None:
        self._progress, self._shown = progress, ""
        self._task = progress.add_task(description, total=total, completed=start, shown="")

    def update(self, n: int = 1, **shown: Any) -> None:
        """Say that n more units are done, and what to show beside the bar."""
        look()
        self._shown = _show(shown) if shown else self._shown
        self._progress.update(self._task, advance=n, shown=self._shown)


class Lines:
    """The same for a log file: a plain line every ten seconds, and one at the end."""

    def __init__(self, say: Any, total: int | None, description: str, start: int) -> None:
        self._say, self._total, self._description = say, total, description
        self._done = start
        self._begin = self._last = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._shown = ""

    def update(self, n: int = 1, **shown: Any) -> None:
        """Say that n more units are done, and what to show on the next line."""
        look()
        self._done += n
        self._shown = _show(shown) if shown else self._shown
        now = time.monotonic()
        # The first step of this process includes compilation, so the time left is counted after it.
        self._first = self._first or (self._done, now)
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            self._say(self._line(now))

    def finish(self) -> None:
        """Print the last line."""
        seconds = time.monotonic() - self._begin
        of = "" if self._total is None else f"/{self._total}"
        parts = [f"{self._description}: {self._done}{of} in {duration(seconds)}", self._shown]
        self._say(", ".join(part for part in parts if part))

    def _line(self, now: float) -> str:
        done, since = self._first or (self._done, now)
        rate = (self._done - done) / max(now - since, 1e-9)
        parts = [f"{self._description}: {self._done}"]
        if self._total:
            parts[0] += f"/{self._total} ({100 * self._done / self._total:.0f} %)"
            if rate > 0:
                parts.append(f"{duration(max(self._total - self._done, 0) / rate)} left")
        parts.append(self._shown)
        return ", ".join(part for part in parts if part)


@contextmanager
def progress_bar(
    console: Console, say: Any, total: int | None, description: str, start: int
) -> Iterator[Bar | Lines]:
    """Show how far a loop is on a console; see `Tracker.progress`."""
    if not console.is_terminal:
        lines = Lines(say, total, description, start)
        yield lines
        lines.finish()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, total, description, start)


def _show(shown: Mapping[str, Any]) -> str:
    """Return "loss 0.123, lr 1e-03"."""
    parts = []
    for name, value in shown.items():
        value = value.tolist() if hasattr(value, "tolist") else value
        parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)
