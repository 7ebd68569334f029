"""Mistyped settings, by the command: each is answered by a sentence before anything runs.

    python tests/integration/slips.py --count 100      # of all experiments, seed 0

A slip is a setting of a shipped experiment with a value that its line does not allow. The command
has to end with code 2 and one line, and to leave no workdir; by hand also to use at most
--seconds of a processor, from which another program that runs beside it takes little.
"""

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jmrec.config import flatten, load_config

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ("tpad", "session", "losses_on_gaussians", "mmrec")
FREE = ("name", "project", "dir", "toml", "verdicts", "from", "text", "picture", "source", "prompt")
"""Settings of any text."""


@dataclass(frozen=True)
class Slip:
    """What was typed.

    Attributes:
      spec: The experiment.
      override: ``--config.NAME=VALUE``.
    """

    spec: str
    override: str


def slips(spec: str) -> Iterator[Slip]:
    """Yield wrong values of every setting: by its type, or below and above any range."""
    for name, value in flatten(load_config(spec)).items():
        if name.rsplit(".", 1)[-1] in FREE or value is None or value == {}:
            continue
        if isinstance(value, bool):
            wrong = ["perhaps", "3", ""]
        elif isinstance(value, int):
            wrong = ["-1", str(10**12), "some", "", "1.5"]
        elif isinstance(value, float):
            wrong = ["-1.0", "1e30", "nan", "some", ""]
        elif isinstance(value, str):
            wrong = ["nosuchword", f"{value}x", "-1"]
        else:
            wrong = ["(-1,)", "(None,)"]
        for each in wrong:
            yield Slip(spec, f"--config.{name}={each}")


def drawn(count: int, seed: int) -> list[Slip]:
    """Return some slips of all experiments, the same for a seed."""
    every = [slip for name in EXPERIMENTS for slip in slips(f"{name}:size=tiny")]
    return random.Random(seed).sample(every, count)


def fault(slip: Slip, folder: Path, most: float = math.inf) -> str | None:
    """Type a slip; return what is wrong with the answer, or None.

    Args:
      slip: What is typed.
      folder: An empty folder.
      most: The most seconds of a processor.
    """
    workdir = folder / "run"
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "jmrec", "run", "--config", slip.spec, slip.override,
         "--workdir", str(workdir)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    after = os.times()
    took = after.children_user - before.children_user
    said = done.stderr.strip()
    if done.returncode != 2 or workdir.exists():
        return f"it ends with {done.returncode}: {said[-300:]}"
    if "\n" in said or not said.startswith("jmrec: ") or not said.endswith((".", "?")):
        return f"no sentence: {said[-300:]}"
    return None if took <= most else f"it takes {took:.1f} s of a processor"


def main() -> int:
    """Type so many, print those that are answered wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    wrong = 0
    for number, slip in enumerate(drawn(args.count, args.seed)):
        with tempfile.TemporaryDirectory() as folder:
            found = fault(slip, Path(folder), args.seconds)
        wrong += found is not None
        print(f"{number}: {slip.spec} {slip.override}: {found or 'a sentence'}", flush=True)
    print(f"{args.count - wrong} of {args.count} slips are answered by a sentence.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
