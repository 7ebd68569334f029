"""Where metrics go besides metrics.jsonl: a writer behind a thread, so that no step waits for it.

A `Writer` talks to one place: W&B, TensorBoard's event files, a log file. Whatever it does, however
slowly, a run goes on: lines wait in a queue, a failure is one warning, and the end has a limit.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Full, Queue
from typing import Any, Protocol

from jmrec.tracking.jsonl import METRICS

BACKLOG = 100_000
"""Lines that may wait for a slow writer; what comes on top of them is left out there."""


@dataclass(frozen=True)
class Card:
    """An example of what was recommended: a picture (PNG, b"" for none) and what it shows."""

    caption: str
    picture: bytes


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found.

    Attributes:
      split: "validation" or "test".
      summary: Figure -> value, such as "served/session MRR@20" -> 0.31.
      columns: Of the results table.
      rows: One each, as long as ``columns``.
      report: The report, an HTML page.
      cards: Examples.
    """

    split: str
    summary: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    report: Path
    cards: Sequence[Card] = field(default=())


class Writer(Protocol):
    """One place. All methods are called by one thread, which may wait."""

    title: str
    """Its name, in sentences."""

    @property
    def patience(self) -> float:
        """How many seconds a run waits for it at its end."""

    def begin(self) -> None:
        """Begin: called once, before the first line."""

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Take one line of metrics: numbers, texts, lists or None by name."""

    def conclude(self, outcome: Outcome) -> None:
        """Take what an evaluation found."""

    def end(self) -> None:
        """Write all that is left; called once, after the last line."""


class Mirror:
    """A writer behind a thread, begun at the first line, quiet after the first failure.

    Args:
      writer: The place.
      warn: Prints one warning.

    Example:
      >>> class Paper(list):
      ...     title, patience = "paper", 5.0
      ...     def begin(self): self.append("begins")
      ...     def log(self, stage, step, values): self.append((stage, step, values))
      ...     def end(self): self.append("ends")
      >>> paper = Paper()
      >>> mirror = Mirror(paper, print)
      >>> mirror.log("tower", 1, {"loss": 0.5})
      >>> mirror.finish()
      >>> paper
      ['begins', ('tower', 1, {'loss': 0.5}), 'ends']
    """

    def __init__(self, writer: Writer, warn: Callable[[str], None]) -> None:
        self._writer, self._warn = writer, warn
        self._queue: Queue[Callable[[], None] | None] = Queue(BACKLOG)
        self._thread: threading.Thread | None = None
        self._left_out, self._failed = 0, False

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Mirror one line, at some time."""
        self._put(lambda: self._writer.log(stage, step, values))

    def conclude(self, outcome: Outcome) -> None:
        """Mirror what an evaluation found, at some time."""
        self._put(lambda: self._writer.conclude(outcome))

    def finish(self) -> None:
        """End and wait until all is written, but not for ever."""
        if self._thread is None:
            return
        patience = self._writer.patience
        self._queue.maxsize = 0  # the end always finds room
        self._queue.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._warn(
                f"{self._writer.title} took more than {patience:g} s to end; "
                f"it may lack the last metrics, which are in {METRICS}."
            )
        elif self._left_out:
            self._warn(
                f"{self._writer.title} was too slow for {self._left_out:,} lines, which are in "
                f"{METRICS} alone."
            )
        self._thread = None

    def _put(self, work: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            self._queue.put_nowait(work)
        except Full:
            self._left_out += 1
        if self._thread is None:
            name = f"mirror {self._writer.title}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Mirror line after line; a writer may fail in any way, and the run is worth more."""
        try:
            self._writer.begin()
            while (work := self._queue.get()) is not None:
                work()
            self._writer.end()
        except Exception as error:
            self._failed = True
            self._warn(
                f"{self._writer.title} failed ({first_line(error)}); "
                f"the run goes on without it, metrics are in {METRICS}."
            )


def first_line(error: Exception) -> str:
    """Return the error's kind and the first line of what it says."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}"
