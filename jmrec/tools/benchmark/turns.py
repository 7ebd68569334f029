"""Two sides of a benchmark, each in a process of its own, that work in turns."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jmrec.errors import UserError
from jmrec.terminal import say
from jmrec.usage import peak_bytes


class Side:
    """A process that runs a round whenever it gets a line.

    Args:
      what: What it does, for the sentence where it can not.
      words: The command.
      remedy: What to do where it can not.
    """

    def __init__(self, what: str, words: Sequence[str], remedy: str) -> None:
        self.what, self.remedy = what, remedy
        self.child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _answer(self) -> Any:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if line.startswith("{"):
                return json.loads(line)
        assert self.child.stderr is not None
        said = self.child.stderr.read().strip().splitlines() or ["nothing was said"]
        raise UserError(f"{self.what} did not run ({said[-1][:300]}); {self.remedy}")

    def round(self) -> float:
        """Run one round; return its seconds."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write("go\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return float(self._answer()["seconds"])

    def end(self) -> Any:
        """Return the peak memory and what came out."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        return self._answer()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self.child.kill()


def serve_rounds(
    rounds: Iterator[list[np.ndarray]],
    facts: Callable[[], dict[str, Any]] = dict,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Be one side: run a round for every line of input, then say what came out and what it took.

    Args:
      rounds: Runs one whenever it is asked for the next.
      facts: What more is said; a "peak" of its own takes the place of the process's, in bytes.
      clock: What a round's seconds are read from.
    """
    out: list[np.ndarray] = []
    for _ in sys.stdin:
        start = clock()
        out = next(rounds)
        say(json.dumps({"seconds": clock() - start}))
    flat = np.concatenate([each.reshape(-1)[:2000].astype(float) for each in out])
    say(json.dumps({"peak": peak_bytes(), **facts(), "out": flat.tolist()}))
