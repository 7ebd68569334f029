"""What a run says while it runs: metrics.jsonl always, Weights & Biases when asked, the terminal.

``metrics.jsonl`` holds one line per ``log`` and no clock time, so that a run that was killed and
resumed leaves the same file as one that was not.
"""

import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from jmrec.errors import UserError
from jmrec.usage import duration

METRICS = "metrics.jsonl"
PLAIN_SECONDS = 10.0
"""How often a progress line is printed where the output is not a terminal."""
WANDB_BEGIN, WANDB_END = 30.0, 60.0
"""How many seconds to wait for W&B to begin, and at the end; a step never waits."""
WANDB_MODES = ("disabled", "offline", "online")


class Tracker:
    """Writes a run's metrics and shows its progress.

    Use it as a context manager, or call ``close``. ``stage(name)`` gives a tracker that writes
    the same files under a name; the progress bars, W&B run and console are shared.

    Args:
      workdir: The run's folder; made where it is missing.
      wandb: ``mode`` (disabled, offline, online), ``project`` and ``name``, as a ConfigDict or
        mapping. None is disabled. A failure of W&B is a warning, never the end of a run.
      config: The run's flat configuration, shown by W&B.
      console: Where progress and ``say`` go; standard error by default, so that standard output
        stays clean for results.
      prefix: The stage's name, "" for none.
      quiet: Write, show and mirror nothing: for all processes of a run but the first.

    Raises:
      UserError: If the W&B mode is unknown.

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
        config: Mapping[str, Any] | None = None,
        console: Console | None = None,
        prefix: str = "",
        quiet: bool = False,
    ) -> None:
        self.workdir = Path(workdir)
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.path = self.workdir / METRICS
        self.prefix = prefix
        self.console = console or Console(stderr=True, quiet=quiet)
        self._owner, self._quiet = True, quiet
        if not quiet:
            mend_lines(self.path)
        self._wandb = _Wandb(self.workdir, None if quiet else wandb, config, self.warn)

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
        return self._wandb.id

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and mirror it to W&B.

        Args:
          step: Updates done.
          metrics: Name -> number, bool, text, None, or a small array (written as a list). What is
            not finite is written as null, which every JSON reader accepts.
        """
        if self._quiet:
            return
        values = {name: _plain(value) for name, value in metrics.items()}
        head: dict[str, Any] = {"stage": self.prefix} if self.prefix else {}
        line = json.dumps({**head, "step": int(step), **values}, allow_nan=False)
        # Opened for each line: nothing is lost in a kill, and truncate may replace the file.
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._wandb.log(self.prefix, int(step), values)

    def truncate(self, step: int) -> None:
        """Cut metrics.jsonl back to a restored step: drop this stage's later lines.

        Args:
          step: The restored step; its own lines stay, other stages' lines too.
        """
        if self._quiet or not self.path.exists():
            return
        lines = [
            line
            for line, entry in _read(self.path)
            if entry.get("stage", "") != self.prefix or entry.get("step", 0) <= step
        ]
        temporary = self.path.with_suffix(".jsonl.tmp")
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        temporary.replace(self.path)

    @contextmanager
    def progress(
        self, total: int | None, description: str, start: int = 0
    ) -> Iterator["_Bar | _Lines"]:
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
        if not self.console.is_terminal:
            lines = _Lines(self.say, total, description, start)
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
        with Progress(*columns, console=self.console) as progress:
            yield _Bar(progress, total, description, start)

    def say(self, text: str) -> None:
        """Print one line of plain text, above a progress bar where there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print one line of warning."""
        self.console.print(
            f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )

    def close(self) -> None:
        """End the W&B run, within a time limit; only the tracker that began it does so."""
        if self._owner:
            self._wandb.finish()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_curves(workdir: str | Path) -> dict[str, dict[str, list[Any]]]:
    """Read metrics.jsonl as columns, for plots and the report.

    Args:
      workdir: The run's folder.

    Returns:
      Stage ("" where there is none) -> {"step": ascending steps, metric name -> values}; all
      columns of a stage are of one length, with None where a step has no such metric. Lines of
      the same step are merged. Empty where there is no file.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with Tracker(folder) as tracker:
      ...     for step in (1, 2):
      ...         tracker.stage("student").log(step, {"loss": 1 / step})
      ...     tracker.stage("student").log(2, {"MRR@20": 0.25})
      >>> read_curves(folder)
      {'student': {'step': [1, 2], 'loss': [1.0, 0.5], 'MRR@20': [None, 0.25]}}
    """
    path = Path(workdir) / METRICS
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for _, entry in _read(path) if path.exists() else ():
        rows = stages.setdefault(str(entry.pop("stage", "")), {})
        rows.setdefault(int(entry.pop("step", 0)), {}).update(entry)
    curves: dict[str, dict[str, list[Any]]] = {}
    for stage, rows in stages.items():
        steps = sorted(rows)
        names = list(dict.fromkeys(name for step in steps for name in rows[step]))
        curves[stage] = {"step": list(steps)}
        curves[stage].update({name: [rows[step].get(name) for step in steps] for name in names})
    return curves


class _Bar:
    """A rich progress bar."""

    def __init__(self, progress: Progress, total: int | None, description: str, start: int) -> None:
        self._progress, self._shown = progress, ""
        self._task = progress.add_task(description, total=total, completed=start, shown="")

    def update(self, n: int = 1, **shown: Any) -> None:
        """Say that n more units are done, and what to show beside the bar."""
        self._shown = _show(shown) if shown else self._shown
        self._progress.update(self._task, advance=n, shown=self._shown)


class _Lines:
    """The same for a log file: a plain line every ten seconds, and one at the end."""

    def __init__(self, say: Any, total: int | None, description: str, start: int) -> None:
        self._say, self._total, self._description = say, total, description
        self._done = start
        self._begin = self._last = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._shown = ""

    def update(self, n: int = 1, **shown: Any) -> None:
        """Say that n more units are done, and what to show on the next line."""
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


class _Wandb:
    """The mirror in Weights & Biases: begun at the first metric, quiet after the first failure.

    A thread of its own talks to W&B, so that a training step never waits for it.
    """

    def __init__(self, workdir: Path, settings: Any, config: Any, warn: Any) -> None:
        self._settings = dict(settings) if settings is not None else {}
        self._config = dict(config) if config is not None else {}
        self._workdir, self._warn = workdir, warn
        self._lines: SimpleQueue[tuple[str, int, Mapping[str, Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._run: Any = None
        self._stages: set[str] = set()
        mode = str(self._settings.get("mode") or "disabled")
        if mode not in WANDB_MODES:
            raise UserError(f'--config.wandb.mode="{mode}" is not one of {", ".join(WANDB_MODES)}.')
        self._mode = mode
        self.id: str | None = None if mode == "disabled" else self._kept_id()

    def _kept_id(self) -> str:
        """Return the run's id of an earlier start, or make one and keep it."""
        path = self._workdir / "wandb_id"
        if path.exists() and (kept := path.read_text(encoding="utf-8").strip()):
            return kept
        # An agent of a W&B sweep has chosen the id already.
        made = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12]
        path.write_text(made, encoding="utf-8")
        return made

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Mirror one line, at some time; steps count per stage, so each has a step of its own."""
        if self._mode == "disabled":
            return
        self._lines.put((stage, step, values))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """End the run and wait until it is written, but not for ever."""
        if self._thread is None:
            return
        self._lines.put(None)
        self._thread.join(WANDB_END)
        if self._thread.is_alive():
            self._warn(
                f"Weights & Biases took more than {WANDB_END:g} s to end; "
                f"it may lack the last metrics, which are in {METRICS}."
            )
        self._thread = None

    def _work(self) -> None:
        """Mirror line after line; W&B may fail in any way, and the run is worth more."""
        try:
            self._start()
            while (line := self._lines.get()) is not None:
                self._mirror(*line)
            self._run.finish()
        except Exception as error:
            self._mode = "disabled"
            self._warn(
                f"Weights & Biases failed ({_first_line(error)}); "
                f"the run goes on without it, metrics are in {METRICS}."
            )

    def _start(self) -> None:
        """Begin the run; offline where W&B cannot be reached within the time limit."""
        try:
            self._run = self._begin(self._mode)
        except Exception as error:
            if self._mode == "offline":
                raise
            self._run = self._begin("offline")
            self._warn(
                f"Weights & Biases cannot be reached ({_first_line(error)}); its run is written "
                f"offline, `wandb sync {self._workdir / 'wandb'}/offline-run-*` brings it there."
            )

    def _begin(self, mode: str) -> Any:
        """Return what wandb.init returns; raise what it raises, or TimeoutError."""
        begun: list[Any] = []
        late = threading.Event()

        def begin() -> None:
            try:
                import wandb  # half a second to import, and not needed where it is disabled

                run = wandb.init(
                    id=self.id,
                    # Offline there is nobody to ask for the earlier part: the id joins the two.
                    resume="allow" if mode == "online" else None,
                    mode=mode,  # type: ignore[arg-type]
                    project=self._settings.get("project") or "jmrec",
                    name=self._settings.get("name") or None,
                    dir=str(self._workdir),
                    config=self._config,
                    settings=wandb.Settings(silent=True, console="off", init_timeout=WANDB_BEGIN),
                )
                if late.is_set():
                    run.finish()
                begun.append(run)
            except Exception as error:
                begun.append(error)

        # Its own limit does not hold for everything that it does.
        thread = threading.Thread(target=begin, name="wandb-init", daemon=True)
        thread.start()
        thread.join(1.2 * WANDB_BEGIN)
        if not begun:
            late.set()
            raise TimeoutError(f"no answer within {WANDB_BEGIN:g} s")
        if isinstance(begun[0], Exception):
            raise begun[0]
        return begun[0]

    def _mirror(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        prefix = f"{stage}/" if stage else ""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{prefix}step")
            self._run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")
        self._run.log(
            {f"{prefix}{name}": each for name, each in values.items() if each is not None}
            | {f"{prefix}step": step}
        )


def _first_line(error: Exception) -> str:
    """Return the error's kind and the first line of what it says."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}"


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (line, entry) of every whole line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield line, entry


def mend_lines(path: Path) -> None:
    """Drop a last line that a kill or a full disk left half written; no file is no harm."""
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _plain(value: Any) -> Any:
    """Return what JSON can hold: arrays as numbers or lists, null for what is not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return _plain(float(value))


def _show(shown: Mapping[str, Any]) -> str:
    """Return "loss 0.123, lr 1e-03"."""
    parts = []
    for name, value in shown.items():
        value = value.tolist() if hasattr(value, "tolist") else value
        parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)
