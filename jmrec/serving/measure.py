"""How large and how fast what is served is, beside its teacher."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import jmrec
from jmrec.serving.served import Served
from jmrec.types import Params

CALLS, WARM = 200, 20
TIMEOUT = 600

# In a process of its own, as a server starts: nothing is imported or compiled before.
COLD_START = """
import json, sys, time
marks = [time.perf_counter()]
import jax
marks.append(time.perf_counter())
from jmrec.serving import load
marks.append(time.perf_counter())
served = load(sys.argv[1])
marks.append(time.perf_counter())
served.recommend(served.ids[:3])
marks.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""
STEPS = ("import jax", "import jmrec.serving", "load", "first answer")


def cold_start(artefact: Path) -> dict[str, float]:
    """Return the seconds of each step from a new process to its first answer, on the CPU.

    Args:
      artefact: The folder.

    Raises:
      RuntimeError: The process failed: what was written can not be served.
    """
    root = str(Path(jmrec.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-P", "-c", COLD_START, str(artefact.resolve())],
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
    served: Sequence[Served], sessions: Sequence[Sequence[str]], calls: int = CALLS
) -> list[dict[str, float]]:
    """Time one session at a time, from item ids to the titles of the ten best of the catalogue.

    All take turns, so that whatever else the machine does falls on each alike. An answer is plain
    Python, so nothing is left on the device when the clock stops.

    Args:
      served: What is timed.
      sessions: What is asked, over and over.
      calls: How many are timed, after ``WARM`` that are not.

    Returns:
      {"median_ms", "p99_ms"} of each.
    """
    seconds = np.zeros((len(served), calls))
    for call in range(-WARM, calls):
        session = sessions[call % len(sessions)]
        for place, each in enumerate(served):
            begin = time.perf_counter()
            each.recommend(session)
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
