"""How large and how fast what is served is, beside its teacher."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

import jmrec
from jmrec.types import Params


class Recommends(Protocol):
    """What answers one question."""

    def recommend(self, asked: Any, /) -> Any:
        """Return what is recommended."""


CALLS, WARM = 200, 20
TIMEOUT = 600

# In a process of its own, as a server starts: nothing is imported or compiled before.
COLD_START = """
import json, sys, time
marks = [time.perf_counter()]
import jax
marks.append(time.perf_counter())
from jmrec.serving import LOAD as load
marks.append(time.perf_counter())
served = load(sys.argv[1])
marks.append(time.perf_counter())
served.recommend(ASK)
marks.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""
SESSIONS, USERS = "session", "user"
"""Whom an artefact answers."""
FIRST = {
    SESSIONS: ("load", "served.ids[:3]"),
    USERS: ("load_pairs", "(served.user_ids or [''])[0]"),
}
"""How each is loaded, and what is asked first."""
STEPS = ("import jax", "import jmrec.serving", "load", "first answer")


def cold_start(artefact: Path, asked: str = SESSIONS) -> dict[str, float]:
    """Return the seconds of each step from a new process to its first answer, on the CPU.

    Args:
      artefact: The folder.
      asked: `SESSIONS` or `USERS`.

    Raises:
      RuntimeError: The process failed: what was written can not be served.
    """
    script = COLD_START.replace("LOAD", FIRST[asked][0]).replace("ASK", FIRST[asked][1])
    root = str(Path(jmrec.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-P", "-c", script, str(artefact.resolve())],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    if done.returncode:
        raise RuntimeError(f"{artefact} was written and can not be served:\n{done.stderr[-2000:]}")
    seconds = json.loads(done.stdout.splitlines()[-1])
    return {name: round(each, 3) for name, each in zip(STEPS, seconds, strict=True)}


def latency(
    served: Sequence[Recommends], asked: Sequence[Any], calls: int = CALLS
) -> list[dict[str, float]]:
    """Time one question at a time, from ids to the titles of the ten best of the catalogue.

    All take turns, so that whatever else the machine does falls on each alike. An answer is plain
    Python, so nothing is left on the device when the clock stops.

    Args:
      served: What is timed.
      asked: Sessions or users, over and over.
      calls: How many are timed, after ``WARM`` that are not.

    Returns:
      {"median_ms", "p99_ms"} of each.
    """
    seconds = np.zeros((len(served), calls))
    for call in range(-WARM, calls):
        question = asked[call % len(asked)]
        for place, each in enumerate(served):
            begin = time.perf_counter()
            each.recommend(question)
            if call >= 0:
                seconds[place, call] = time.perf_counter() - begin
    return [
        {"median_ms": 1e3 * float(np.median(each)), "p99_ms": 1e3 * float(np.quantile(each, 0.99))}
        for each in seconds
    ]


def size(params: Params) -> dict[str, int]:
    """Return how many parameters there are and their bytes.

    Example:
      >>> size({"w": np.zeros((2, 3), np.float32)})
      {'parameters': 6, 'parameter_bytes': 24}
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "parameter_bytes": sum(leaf.nbytes for leaf in leaves),
    }


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
