"""Writes a run's metrics and shows its progress."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from jmrec.preemption import look
from jmrec.terminal import console as clean_console
from jmrec.tracking.jsonl import METRICS, mend_lines, plain, read_lines
from jmrec.tracking.logfile import LogFile
from jmrec.tracking.mirror import Mirror, Outcome, Writer
from jmrec.tracking.progress import Bar, Lines, progress_bar
from jmrec.tracking.tensorboard import EventFiles
from jmrec.tracking.wandb import Wandb, wandb_mode


class Tracker:
    """Writes a run's metrics and shows its progress.

    Use it as a context manager, or call ``close``. ``stage(name)`` gives a tracker that writes
    the same files under a name; the progress bars, mirrors and console are shared.

    Args:
      workdir: The run's folder; made where it is missing and written to.
      wandb: ``mode`` (disabled, offline, online), ``project``, ``name``, ``group`` and ``tags``, as
        a ConfigDict or mapping. None is disabled. A failure of W&B, or of any other mirror, is a
        warning, never the end of a run, and no step waits for one.
      mirrors: ``tensorboard`` and ``log``, whether there are event files and a log file.
      writers: Further mirrors, of your own.
      config: The run's flat configuration, shown by W&B.
      console: Where progress and ``say`` go; standard error by default, so that standard output
        stays clean for results.
      prefix: The stage's name, "" for none.
      quiet: Write, show and mirror nothing: for all processes of a run but the first.
      metrics: Where the lines go in place of ``workdir``'s metrics.jsonl: of a process that does
        a part of the run, whose lines the run takes over.
      writes: Whether it writes files. A command that only reads a workdir must not touch those of
        another that is at work there.

    Raises:
      UserError: If the W&B mode is unknown, or a package is missing for a mirror that is asked for.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with Tracker(folder) as tracker:
      ...     tracker.stage("knowledge").log(1, {"loss": 0.5})
      >>> print((Path(folder) / "metrics.jsonl").read_text())
      {"stage": "knowledge", "step": 1, "loss": 0.5}
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        wandb: Mapping[str, Any] | Any = None,
        mirrors: Mapping[str, Any] | Any = None,
        writers: Sequence[Writer] = (),
        config: Mapping[str, Any] | None = None,
        console: Console | None = None,
        prefix: str = "",
        quiet: bool = False,
        metrics: Path | None = None,
        writes: bool = True,
    ) -> None:
        self.workdir = Path(workdir)
        self.path = metrics or self.workdir / METRICS
        self.prefix = prefix
        self.console = console or clean_console(stderr=True, quiet=quiet)
        self._owner, self._writes = True, writes and not quiet
        if self._writes:
            self.workdir.mkdir(parents=True, exist_ok=True)
            mend_lines(self.path)
        self._wandb: Wandb | None = None
        self._mirrors: list[Mirror] = []
        if self._writes:
            mode = wandb_mode(wandb)
            asked = list(writers)
            if mode != "disabled":
                self._wandb = Wandb(self.workdir, wandb, config or {}, self.warn)
                asked.append(self._wandb)
            wanted = mirrors or {}
            asked += [EventFiles(self.workdir)] if wanted.get("tensorboard") else []
            asked += [LogFile(self.workdir)] if wanted.get("log") else []
            self._mirrors = [Mirror(writer, self.warn) for writer in asked]

    def stage(self, name: str) -> "Tracker":
        """Return a tracker of the same run that writes under a stage's name.

        Args:
          name: The stage; nested stages are joined by "/".

        Returns:
          A Tracker that shares everything; closing it closes nothing.
        """
        other = object.__new__(Tracker)
        other.__dict__.update(self.__dict__)
        other.prefix = f"{self.prefix}/{name}" if self.prefix else name
        other._owner = False
        return other

    @property
    def run_id(self) -> str | None:
        """The W&B run's id, None where W&B is disabled; kept in the workdir."""
        return None if self._wandb is None else self._wandb.id

    @property
    def mirrored(self) -> bool:
        """Whether anybody besides metrics.jsonl is told."""
        return bool(self._mirrors)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and mirror it.

        Args:
          step: Updates done.
          metrics: Name -> number, bool, text, None, or a small array (written as a list). What is
            not finite is written as null, which every JSON reader accepts.
        """
        if not self._writes:
            return
        values = {name: plain(value) for name, value in metrics.items()}
        head: dict[str, Any] = {"stage": self.prefix} if self.prefix else {}
        line = json.dumps({**head, "step": int(step), **values}, allow_nan=False)
        # Opened for each line: nothing is lost in a kill, and truncate may replace the file.
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        for mirror in self._mirrors:
            mirror.log(self.prefix, int(step), values)

    def conclude(self, outcome: Outcome) -> None:
        """Mirror what an evaluation found: figures, table, report, examples."""
        for mirror in self._mirrors:
            mirror.conclude(outcome)

    def truncate(self, step: int) -> None:
        """Cut metrics.jsonl back to a restored step: drop this stage's later lines.

        Args:
          step: The restored step; its own lines stay, other stages' lines too.
        """
        if not self._writes or not self.path.exists():
            return
        lines = [
            line
            for line, entry in read_lines(self.path)
            if entry.get("stage", "") != self.prefix or entry.get("step", 0) <= step
        ]
        temporary = self.path.with_suffix(".jsonl.tmp")
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        temporary.replace(self.path)

    @contextmanager
    def progress(
        self, total: int | None, description: str, start: int = 0
    ) -> Iterator[Bar | Lines]:
        """Show how far a loop is: a bar on a terminal, a line now and then elsewhere.

        Args:
          total: How many units there are in all; None where that is not known.
          description: What is being done; the stage's name is put in front.
          start: How many units are done already (after a resume).

        Yields:
          An object with ``update(n=1, **shown)``: ``n`` more units are done; ``shown`` are the
          numbers to show beside it.
        """
        if self.prefix and description != self.prefix:
            description = f"{self.prefix}: {description}"
        with progress_bar(self.console, self.say, total, description, start) as shown:
            yield shown

    def say(self, text: str) -> None:
        """Print one line of plain text, above a progress bar where there is one."""
        look()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print one line of warning."""
        self.console.print(
            f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )

    def close(self) -> None:
        """End the mirrors, within a time limit; only the tracker that began them does so."""
        if self._owner:
            for mirror in self._mirrors:
                mirror.finish()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
