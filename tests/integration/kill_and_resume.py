"""Kill a tiny run at random moments, start it again until it ends, and compare it bit by bit.

One uninterrupted run is the reference. Then the same command runs in other folders and is killed
at moments drawn from a seed: a stage, a checkpoint of it, a while after that or the middle of the
next save; SIGKILL or SIGTERM. What a run leaves must not tell that it was killed: the same
parameters, feature tables and files, the same text in metrics.json, metrics.jsonl and results.json
but for seconds.

By hand (about half a minute a kill on two idle cores):
  python tests/integration/kill_and_resume.py --rounds 20 --seed 7
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.checkpoint import load_params
from jmrec.data import flat
from jmrec.errors import REQUEUE
from jmrec.features import read_features

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = ROOT / "tests" / "integration" / "kill_experiment.py"
CLOCK = {
    "stage.json": ("seconds", "peak_memory", "files"),
    "cost.json": ("stages", "rows", "evaluation", "made"),
    "test_reads.jsonl": ("time",),
}
"""File name -> fields that may differ: clock time, memory, checksums of files that hold those."""
NOT_COMPARED = ("report.html", "*.array_record-*", "workdir.lock")
"""The page shows the seconds; record files hold random ids (metadata.json has the fingerprint); the
lock says which process was the last."""
PATIENCE = 3600
"""Seconds after which a run is taken for hung, however busy the machine."""


@dataclass(frozen=True)
class Moment:
    """When to kill, and how.

    Attributes:
      stage: Its name.
      step: The checkpoint of the stage to wait for first; 0 for its start.
      share: How long to wait then, of the stage's time in the reference run. When the stage ends
        before that, the kill comes at once: between two stages.
      saving: Whether to wait, from then on, for the next save to be under way.
      signal: SIGKILL or SIGTERM.
    """

    stage: str
    step: int
    share: float
    saving: bool
    signal: signal.Signals


class Run:
    """The command in one folder, and how long each stage took.

    Args:
      folder: Its working directory; the workdir is ``folder/run``.
      cache: Where compiled programs and bytecode are kept where the environment does not name a
        place, so that a start is cheap; None compiles anew.
      experiment: What is run.
    """

    def __init__(self, folder: Path, cache: Path | None, experiment: Path = EXPERIMENT) -> None:
        self.folder, self.workdir, self.experiment = folder, folder / "run", experiment
        folder.mkdir(parents=True)
        self.said = folder / "stderr.txt"
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self._env.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
        if cache is None:
            self._env |= {"JAX_ENABLE_COMPILATION_CACHE": "false"}
        else:
            self._env.pop("PYTHONDONTWRITEBYTECODE", None)
            kept = {
                "PYTHONPYCACHEPREFIX": str(cache / "bytecode"),
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            self._env = {**kept, **self._env}

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the command, always the same one."""
        words = ["run", "--config", str(self.experiment), "--workdir", "run"]
        with self.said.open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "jmrec", *words],
                cwd=self.folder, env=self._env, stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip

    def finish(self) -> None:
        """Run to the end."""
        code = self.start().wait(PATIENCE)
        if code:
            raise RuntimeError(f"the run ended in {code}:\n{self.said.read_text()[-3000:]}")

    def stages(self) -> dict[str, float]:
        """Return stage -> seconds, in the order in which they ran."""
        found = sorted(
            (path.stat().st_mtime_ns, path.parent.relative_to(self.workdir).as_posix(), path)
            for path in self.workdir.rglob("stage.json")
        )
        return {name: json.loads(path.read_text())["seconds"] for _, name, path in found}

    def kill(self, moment: Moment, seconds: float) -> int:
        """Start, kill at a moment, and return the exit code."""
        child = self.start()
        folder = self.workdir / moment.stage
        begun = [f"{moment.stage}: {word}" for word in ("started", "resumed")]

        def wait(met: Callable[[], bool]) -> None:
            while child.poll() is None and not met():
                time.sleep(0.002)

        def over() -> bool:
            return '"done": true' in (folder / "stage.json").read_text()

        wait(lambda: any(line in self.said.read_text() for line in begun))
        steps = folder / "checkpoints"
        wait(lambda: over() or _newest(steps) >= moment.step)
        until = time.monotonic() + moment.share * seconds
        wait(lambda: over() or time.monotonic() > until)
        if moment.saving:
            wait(lambda: over() or _saves(folder))
        child.send_signal(moment.signal)
        return child.wait(PATIENCE)


def _newest(checkpoints: Path) -> int:
    """Return the newest step, 0 where there is none."""
    return max((int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()), default=0)


def _saves(folder: Path) -> bool:
    """Return whether a checkpoint or the parameters are being written just now."""
    names = ("checkpoints/*.orbax-checkpoint-tmp*", "params*tmp*")
    return any(path for name in names for path in folder.glob(name))


def draw(stages: Sequence[str], rng: random.Random) -> Iterator[Moment]:
    """Yield moments without end: all stages in a random order, then in another."""
    trained = [name for name in stages if name not in ("data", "read", "embed", "evaluate")]
    while True:
        order = list(stages)
        rng.shuffle(order)
        for stage in order:
            saves = stage in trained
            yield Moment(
                stage,
                step=rng.choice((0, 2, 4, 6)) if saves else 0,
                share=rng.random() * (0.1 if saves else 1.0),
                saving=saves and rng.random() < 0.5,
                signal=rng.choice((signal.SIGKILL, signal.SIGTERM)),
            )


def compare(reference: Path, other: Path) -> list[str]:
    """Return how the workdir of a killed run differs from an uninterrupted one's."""
    names = [
        {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}
        for top in (reference, other)
    ]
    # Orbax gives its files random names: what they hold is compared instead.
    orbax = ("/checkpoints/", "/params/")
    plain = [{name for name in each if not any(p in name for p in orbax)} for each in names]
    wrong = [f"only in one: {name}" for name in sorted(plain[0] ^ plain[1])]
    for name in sorted(plain[0] & plain[1]):
        a, b = reference / name, other / name
        if a.suffix == ".safetensors" and a.parent.name != flat.FOLDER:  # sessions may hold NaN
            tables = [read_features(path) for path in (a, b)]
            wrong += _trees(name, *[{**table.arrays} for table in tables])
            if tables[0].provenance != tables[1].provenance:
                wrong.append(f"{name}: another provenance")
        elif a.name in CLOCK:
            if _timeless(a) != _timeless(b):
                wrong.append(f"{name}: other content")
        elif any(a.match(pattern) for pattern in NOT_COMPARED):
            continue
        elif a.read_bytes() != b.read_bytes():
            wrong.append(f"{name}: other bytes")
    for path in sorted(reference.rglob("params")):
        name = path.relative_to(reference).as_posix()
        found = [load_params(top / name) for top in (reference, other)]
        wrong += _trees(name, found[0][0], found[1][0])
        if found[0][1] != found[1][1]:
            wrong.append(f"{name}: other metadata")
    for path in sorted(reference.rglob("checkpoints")):
        steps = [
            {each.name for each in (top / path.relative_to(reference)).iterdir()}
            for top in (reference, other)
        ]
        # A save at a SIGTERM may stand among the last ones; the final one is in every run.
        if max(steps[0], key=int) not in steps[1] or not all(s.isdigit() for s in steps[1]):
            wrong.append(f"{path.relative_to(reference)}: {sorted(steps[1])}")
    return wrong


def _timeless(path: Path) -> str:
    """Return the text of a JSON or JSON-lines file without its clock fields."""
    text = path.read_text()
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else []
    rows = rows or [json.loads(text)]
    kept = [{k: v for k, v in row.items() if k not in CLOCK[path.name]} for row in rows]
    return json.dumps(kept)


def _trees(name: str, a: Any, b: Any) -> list[str]:
    """Return the leaves whose bits differ."""
    pairs = [dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (a, b)]
    if pairs[0].keys() != pairs[1].keys():
        return [f"{name}: other arrays"]

    def bits(leaf: Any) -> tuple[Any, ...]:
        leaf = np.asarray(leaf)
        return leaf.dtype, leaf.shape, leaf.tobytes()

    return [
        f"{name}{jax.tree_util.keystr(path)}: other bits"
        for path in pairs[0]
        if bits(pairs[0][path]) != bits(pairs[1][path])
    ]


def kill_and_resume(
    folder: Path,
    rounds: int,
    seed: int,
    *,
    cache: bool = True,
    say: Callable[[str], None] = print,
    experiment: Path = EXPERIMENT,
) -> list[str]:
    """Kill runs ``rounds`` times in all; return what differs from the uninterrupted run.

    Args:
      folder: An empty folder.
      rounds: Kills.
      seed: Of the moments.
      cache: Whether compiled programs are kept between starts.
      say: Where the progress goes.
      experiment: What is run.
    """
    say(f"seed {seed}, {rounds} kills")
    where = folder / "cache" if cache else None
    whole = Run(folder / "whole", where, experiment)
    whole.finish()
    stages = whole.stages()
    say("uninterrupted: " + ", ".join(f"{name} {t:.1f} s" for name, t in stages.items()))
    order = list(stages)
    moments = draw(order, random.Random(seed))
    wrong: list[str] = []
    done = number = 0
    while done < rounds:
        number += 1
        run = Run(folder / f"killed-{number}", where, experiment)
        # At most one kill a stage, so that a run comes to its end.
        some = [next(moments) for _ in range(min(rounds - done, 5))]
        for moment in sorted(some, key=lambda m: (order.index(m.stage), m.step)):
            code = run.kill(moment, stages[moment.stage])
            how = f"{', in the next save' if moment.saving else ''}: exit {code}"
            label = f"run {number}: {moment.signal.name} in {moment.stage} after {moment.step}{how}"
            done += 1
            say(f"kill {done}, {label}")
            said = run.said.read_text()
            if code != (REQUEUE if moment.signal == signal.SIGTERM else -signal.SIGKILL):
                wrong.append(f"{label}: {said[-500:]}")
            if "Traceback" in said:
                wrong.append(f"{label}: a traceback: {said[-2000:]}")
        run.finish()
        found = compare(whole.workdir, run.workdir)
        say(f"run {number}: {'; '.join(found) or 'the same bits'}")
        wrong += [f"run {number}: {each}" for each in found]
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 where anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", type=Path, default=EXPERIMENT, help="what is run")
    parser.add_argument("--rounds", type=int, default=20, help="kills in all")
    parser.add_argument("--seed", type=int, help="of the moments; random by default")
    parser.add_argument("--folder", type=Path, help="an empty folder to keep; else a temporary one")
    parser.add_argument("--no-cache", action="store_true", help="compile anew at every start")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        say: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
        wrong = kill_and_resume(folder, args.rounds, seed, cache=not args.no_cache, say=say,
                                experiment=args.experiment.resolve())  # fmt: skip
    print("\n".join(wrong) if wrong else f"{args.rounds} kills: all the same bits")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
