"""The own parts of ``python -m jmrec.tools.benchmark accelerator``, each a process of its own."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.checkpoint import load_params
from jmrec.errors import REQUEUE, UserError
from jmrec.terminal import say
from jmrec.tools.benchmark.__main__ import show
from jmrec.tools.benchmark.side import matmul_rate
from jmrec.tracking.jsonl import METRICS

LOOK = 0.005
"""Seconds between two looks at a run's files."""
STAGES = ("vision", "knowledge", "transition", "distill", "student")
STUDENT = "students/student-0"
_told: list[int] = []
"""Signals that came: the time of this part is over."""


class Launch:
    """``jmrec run`` in a workdir, watched: when each line of its metrics came.

    Args:
      workdir: Where it runs.
      words: Its arguments.
      anew: Whether it compiles anew, as on a machine that never ran it.
    """

    def __init__(self, workdir: Path, words: Sequence[str], *, anew: bool = True) -> None:
        self.workdir, self.anew = workdir, anew
        self.words = [*words, "--config.seeds=(0,)", "--workdir", str(workdir)]
        self.lines: list[tuple[str, int, float]] = []
        """(stage, updates done, when it was seen in seconds) of every line of training."""
        self.said = ""

    def run(self, end: Callable[["Launch"], bool]) -> int:
        """Start it, and stop it by SIGTERM once ``end`` says so; return its exit code."""
        log = self.workdir.with_suffix(".err")
        env = {**os.environ, **({"JAX_ENABLE_COMPILATION_CACHE": "false"} if self.anew else {})}
        with log.open("wb") as err:
            child = subprocess.Popen(
                [sys.executable, "-m", "jmrec", "run", *self.words],
                env=env, stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip
            try:
                read = 0
                while child.poll() is None:
                    read = self._look(read)
                    if _told or end(self):
                        child.send_signal(signal.SIGTERM)
                        break
                    time.sleep(LOOK)
                code = child.wait()
            finally:
                child.kill()
        self.said = log.read_text(errors="replace")
        return code

    def _look(self, read: int) -> int:
        """Note the lines from a place in the file on; return where the next one begins."""
        path = self.workdir / METRICS
        if not path.is_file():
            return 0
        with path.open("rb") as file:
            file.seek(read)
            new = file.read()
        now = time.perf_counter()
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            row = json.loads(line)
            if not any(name.startswith("eval/") for name in row):
                self.lines.append((row.get("stage", ""), row["step"], now))
        return read + len(whole)

    def failure(self, code: int) -> UserError:
        """Return what to say where it ended by itself."""
        lines = self.said.strip().splitlines() or ["nothing was said"]
        return UserError(f"jmrec run ended in {code} ({lines[-1][-300:]}).")


def step_seconds(lines: Sequence[tuple[str, int, float]], stage: str) -> float | None:
    """Return the median seconds of an update, without those before the first line.

    These include compilation.

    Args:
      lines: (stage, updates done, when in seconds), in order.
      stage: Which lines count.

    Returns:
      None where there are fewer than two lines.

    Example:
      >>> step_seconds([("a", 20, 9.0), ("a", 40, 11.0), ("b", 20, 50.0), ("a", 50, 12.5)], "a")
      0.125
    """
    own = [(step, when) for name, step, when in lines if name == stage]
    each = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(own) if b[0] > a[0]]
    return float(f"{statistics.median(each):.4g}") if each else None


def differing(a: Any, b: Any) -> list[str]:
    """Return the names of the arrays whose bits differ in two trees of parameters.

    Example:
      >>> differing({"w": np.array([0.0, 1.0])}, {"w": np.array([-0.0, 1.0])})
      ["['w']"]
    """
    left, right = (
        {jax.tree_util.keystr(path): np.asarray(x) for path, x in found}
        for found in map(jax.tree_util.tree_leaves_with_path, (a, b))
    )

    def bits(x: np.ndarray) -> tuple[Any, ...]:
        return x.dtype, x.shape, x.tobytes()

    names = sorted({*left, *right})
    return [n for n in names if n not in left or n not in right or bits(left[n]) != bits(right[n])]


def is_done(workdir: Path, stage: str) -> bool:
    """Tell whether a stage of a run is finished."""
    try:
        return bool(json.loads((workdir / stage / "stage.json").read_text())["done"])
    except (OSError, ValueError):  # not there yet
        return False


def overrides(groups: Sequence[str], settings: dict[str, Any]) -> list[str]:
    """Return the arguments of `jmrec run` for a part's settings."""
    train = [f"{group}.train.{n}={x}" for group in groups for n, x in settings["train"].items()]
    return ["--config", settings["spec"],
            *(f"--config.{each}" for each in [*train, *settings.get("overrides", ())])]  # fmt: skip


def resume(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train a student whole, and killed and started again, with deterministic=true; compare.

    Raises:
      UserError: A run failed, or was over before it could be stopped.
    """
    words, updates = overrides(["student"], settings), settings["train"]["steps"]
    fixed, anew = [*words, "--config.deterministic=true"], settings["anew"]

    def trained(launch: Launch) -> bool:
        return is_done(launch.workdir, STUDENT)

    def begun(launch: Launch) -> bool:
        return bool(launch.lines)

    def whole(name: str, words: list[str]) -> Launch:
        launch = Launch(folder / name, words, anew=anew)
        code = launch.run(trained)
        if not trained(launch):
            raise launch.failure(code)
        return launch

    def params(name: str) -> Any:
        return load_params(folder / name / STUDENT / "params")[0]

    first, free = whole("whole", fixed), whole("free", words)
    killed = Launch(folder / "killed", fixed, anew=anew)
    code = killed.run(begun)
    if trained(killed):
        raise UserError(f"{updates} updates were over before the signal came; give more.")
    if not killed.lines:
        raise killed.failure(code)
    wrong = [] if code == REQUEUE else [f"stopped by SIGTERM it ended in {code}, not {REQUEUE}."]
    again = Launch(folder / "killed", fixed, anew=anew)
    code = again.run(trained)
    if not trained(again):
        wrong.append(f"started again it failed: {again.failure(code)}")
        return {"updates": updates, "wrong": wrong}
    place = re.search(r"resumed at (\d+)", again.said)
    if place is None or not 0 < int(place[1]) < updates:
        wrong.append("started again it did not go on from where it was stopped.")
    kept = params("whole")
    if apart := differing(kept, params("killed")):
        wrong.append(f"{len(apart)} arrays have other bits after a resume, {apart[0]} among them.")
    slow, quick = step_seconds(first.lines, STUDENT), step_seconds(free.lines, STUDENT)
    return {
        "device": jax.devices()[0].device_kind,
        "updates": updates,
        "stopped_after": int(place[1]) if place else 0,
        "arrays": len(jax.tree.leaves(kept)),
        "bit_equal": not apart,
        "same_bits_without_deterministic": not differing(kept, params("free")),
        "step_seconds_deterministic": slow,
        "step_seconds": quick,
        **({"times_as_long": round(slow / quick, 2)} if slow and quick else {}),
        **({"wrong": wrong} if wrong else {}),
    }


def stages(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do a few updates of each stage of TPAD; hold each against a large product of matrices.

    Raises:
      UserError: The run failed before any stage was done.
    """
    rates = {name: matmul_rate(name, settings.get("rate")) for name in ("float32", "bfloat16")}
    launch = Launch(folder / "run", overrides(STAGES, settings), anew=settings["anew"])
    last = "students/distilled-0"
    code = launch.run(lambda launch: is_done(launch.workdir, last))
    found = [stage_row(launch, stage, rates) for stage in (*STAGES[:-1], last)
             if is_done(launch.workdir, stage)]  # fmt: skip
    if not found or not (_told or is_done(launch.workdir, last)):
        raise launch.failure(code)
    return {
        "device": jax.devices()[0].device_kind,
        **{f"{name}_tflop_per_second": float(f"{x / 1e12:.4g}") for name, x in rates.items()},
        "table": found,
    }


def stage_row(launch: Launch, stage: str, rates: dict[str, float]) -> dict[str, Any]:
    """Return what a finished stage did, beside the rates of products of matrices in FLOP/s."""
    folder = launch.workdir / stage
    metrics = json.loads((folder / "metrics.json").read_text())
    seconds = json.loads((folder / "stage.json").read_text())["seconds"]
    step = step_seconds(launch.lines, stage)
    row = {
        "stage": stage, "updates": metrics["step"], "flops": metrics["flops"],
        "stage_seconds": seconds, "step_seconds": step,
    }  # fmt: skip
    if step:
        rate = metrics["flops"] / metrics["step"] / step
        row |= {"gflop_per_second": round(rate / 1e9, 2)}
        row |= {f"of_{name}": round(rate / each, 4) for name, each in rates.items()}
    return row


PARTS = {"resume": resume, "stages": stages}


def main(name: str, settings: dict[str, Any]) -> int:
    """Run one part; return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: _told.append(number))
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = PARTS[name](settings, Path(folder))
        except UserError as error:
            say(f"benchmark: {error}", sys.stderr)
            return 1
    show(name, found)
    return 2 if found.get("wrong") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
