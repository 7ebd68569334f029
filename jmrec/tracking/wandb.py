"""The mirror of metrics in Weights & Biases."""

import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from jmrec.errors import UserError
from jmrec.tracking.jsonl import METRICS

WANDB_BEGIN, WANDB_END = 30.0, 60.0
"""How many seconds to wait for W&B to begin, and at the end; a step never waits."""
WANDB_MODES = ("disabled", "offline", "online")


class Wandb:
    """The mirror of one run: begun at the first metric, quiet after the first failure.

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
