"""The mirror of a run as a plain log file, for ``tail -f`` and grep."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from jmrec.terminal import clean
from jmrec.tracking.mirror import Outcome

LOG = "run.log"


class LogFile:
    """One line of text for each line of metrics, with the time; see `Writer`.

    Args:
      workdir: The run's folder; lines are added to ``run.log`` there.
    """

    title = f"the log file {LOG}"
    patience = 60.0

    def __init__(self, workdir: Path) -> None:
        self._path = workdir / LOG
        self._file: TextIO | None = None

    def begin(self) -> None:
        """Open the file."""
        self._file = self._path.open("a", encoding="utf-8")
        self._say("start")

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one line."""
        told = (f"{name}={_text(each)}" for name, each in values.items() if each is not None)
        self._say(f"{stage or 'run'} step {step}: {', '.join(told)}")

    def conclude(self, outcome: Outcome) -> None:
        """Write the figures and the table, a line each."""
        for name, value in outcome.summary.items():
            self._say(f"{outcome.split} {name}={_text(value)}")
        for row in outcome.rows:
            cells = (f"{n}={_text(x)}" for n, x in zip(outcome.columns, row) if x is not None)
            self._say(f"{outcome.split} results: {', '.join(cells)}")
        for number, card in enumerate(outcome.cards, 1):
            self._say(f"{outcome.split} example {number}: {card.caption}")
        self._say(f"{outcome.split} report: {outcome.report}")

    def end(self) -> None:
        """Close the file."""
        assert self._file is not None
        self._say("end")
        self._file.close()

    def _say(self, text: str) -> None:
        assert self._file is not None
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        self._file.write(f"{now} {' '.join(clean(text).split())}\n")
        self._file.flush()


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
