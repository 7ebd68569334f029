"""Signals at random moments, and two commands at once, over every verb that writes.

A command that gets SIGTERM ends with 75, one that gets Ctrl-C with 130, from the first line of
`jmrec.main.main` on, whatever library is at work; started again it ends as if nothing had been. Of
two commands on one workdir the second says who is at work and ends with 2, and nothing is mixed.

By hand (about forty minutes on two idle cores):
  python tests/integration/signals.py --signals 40 --pairs 10 --seed 7
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from attack_bench import write_shops
from kill_and_resume import EXPERIMENT, ROOT, compare

STARTED = """
import sys
from pathlib import Path
sys.path[0] = ""
from jmrec.xla import set_flags
set_flags()
from jmrec.main import main
Path(sys.argv[1]).write_text("main")
sys.exit(main(sys.argv[2:], last=True))
"""
"""The command, which says when `main` begins: before that a signal has its own code."""
KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "TERM": ((signal.SIGTERM,), (75,)),
    "INT": ((signal.SIGINT,), (130,)),
    "INT INT": ((signal.SIGINT, signal.SIGINT), (130, -signal.SIGINT)),
    "KILL": ((signal.SIGKILL,), (-signal.SIGKILL,)),
}
"""Name -> the signals, and the exit codes that are promised; 0 where it was done before."""


class Verbs:
    """A finished run, and the commands on copies of it.

    Args:
      folder: An empty folder.
      say: Where the progress goes.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.marker = folder / "marker"
        self.env = {
            **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }  # fmt: skip
        self.env.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
        folder.mkdir(parents=True, exist_ok=True)
        write_shops(folder)
        self.whole = folder / "whole"
        self.finish("run", self.whole)
        self.seconds: dict[str, float] = {}
        self.after: dict[str, Path] = {}
        for verb in ("run", "embed", "evaluate", "export", "sweep"):
            self.after[verb] = self.fresh(verb, f"after-{verb}")
            begin = time.monotonic()
            self.finish(verb, self.after[verb])
            self.seconds[verb] = time.monotonic() - begin
            say(f"{verb}: {self.seconds[verb]:.1f} s undisturbed")

    def words(self, verb: str, workdir: Path) -> list[str]:
        """Return a command of a verb."""
        config = ["--config", f"{EXPERIMENT}:data=folder,size=tiny",
                  f"--config.data.dir={self.folder / 'shop'}"]  # fmt: skip
        at = ["--workdir", str(workdir)]
        return {
            "run": ["run", *config, *at],
            "embed": ["embed", *at, "--dir", str(self.folder / "more")],
            "evaluate": ["evaluate", *at],
            "export": ["export", *at, "--out", str(workdir.with_suffix(".serve"))],
            "sweep": ["sweep", *config, *at],
        }[verb]

    def fresh(self, verb: str, name: str) -> Path:
        """Return a workdir for a verb: empty, or a copy of the finished run."""
        workdir = self.folder / name
        if verb not in ("run", "sweep"):
            shutil.copytree(self.whole, workdir)
        return workdir

    def start(self, verb: str, workdir: Path, *more: str) -> "subprocess.Popen[str]":
        """Start a command."""
        self.marker.unlink(missing_ok=True)
        words = [*self.words(verb, workdir), *more]
        return subprocess.Popen(
            [sys.executable, "-c", STARTED, str(self.marker), *words], env=self.env, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.folder,
            start_new_session=True,
        )  # fmt: skip

    def finish(self, verb: str, workdir: Path) -> None:
        """Run a command to its end."""
        process = self.start(verb, workdir)
        _, said = process.communicate(timeout=3600)
        if process.returncode:
            raise RuntimeError(f"{verb} ended in {process.returncode}:\n{said[-3000:]}")

    def same(self, verb: str, workdir: Path) -> list[str]:
        """Return how a workdir differs from that of an undisturbed command."""
        if verb == "sweep":
            names = [sorted(p.relative_to(top).as_posix() for p in top.glob("*/evaluate/*.json"))
                     for top in (self.after[verb], workdir)]  # fmt: skip
            same = (
                bool(names[0])
                and names[0] == names[1]
                and all(
                    (workdir / name).read_bytes() == (self.after[verb] / name).read_bytes()
                    for name in names[0]
                    if name.endswith("results.json")
                )
            )
            return [] if same else ["other trials"]
        wrong = compare(self.after[verb], workdir)
        if verb == "export":
            ours, theirs = (path.with_suffix(".serve") for path in (workdir, self.after[verb]))
            wrong += [
                f"serve/{path.name}: other bytes"
                for path in sorted(theirs.iterdir())
                if path.name not in ("checksums.json", "serve.json")
                and (ours / path.name).read_bytes() != path.read_bytes()
            ]
        # What the report and its costs say of seconds is of each run.
        return [each for each in wrong if "cost.json" not in each and "workdir.lock" not in each]


def disturb(verbs: Verbs, verb: str, kind: str, share: float, name: str) -> list[str]:
    """Start a command, send it signals at a moment, start it again; return what went wrong."""
    workdir = verbs.fresh(verb, name)
    process = verbs.start(verb, workdir)
    while not verbs.marker.exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(share * verbs.seconds[verb])
    numbers, codes = KINDS[kind]
    for number in numbers:
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(0.3 if len(numbers) > 1 else 0)
    begin = time.monotonic()
    _, said = process.communicate(timeout=300)
    code, took = process.returncode, time.monotonic() - begin
    verbs.say(f"{verb}, {kind} at {share:.2f}: exit {code} after {took:.1f} s")
    wrong = []
    if code not in (*codes, 0):
        wrong.append(f"{verb}, {kind} at {share:.2f}: exit {code}: {said[-800:]}")
    if "Traceback" in said or "ignored" in said:
        wrong.append(f"{verb}, {kind} at {share:.2f}: {said[-800:]}")
    verbs.finish(verb, workdir)
    wrong += [f"{verb}, {kind} at {share:.2f}: {each}" for each in verbs.same(verb, workdir)]
    litter = [p.name for p in verbs.folder.glob(f".{name}*")]
    if litter and kind != "KILL":
        wrong.append(f"{verb}, {kind} at {share:.2f}: left {litter}")
    shutil.rmtree(workdir, ignore_errors=True)
    return wrong


PAIRS = (("run", "run"), ("embed", "embed"), ("run", "rerun"), ("rerun", "export"))


def together(verbs: Verbs, pair: tuple[str, str], delay: float, name: str) -> list[str]:
    """Start two commands on one workdir; return what went wrong."""
    started = pair[0] == "run"
    workdir = verbs.folder / name if started else verbs.fresh("embed", name)

    def begin(word: str) -> "subprocess.Popen[str]":
        more = ["--stale=rerun", "--config.student.train.steps=6"] if word == "rerun" else []
        return verbs.start("run" if word == "rerun" else word, workdir, *more)

    first = begin(pair[0])
    time.sleep(delay)
    second = begin(pair[1])
    said = [each.communicate(timeout=3600)[1] for each in (first, second)]
    codes = [first.returncode, second.returncode]
    verbs.say(f"{' and '.join(pair)}, {delay:.1f} s apart: exit {codes}")
    wrong = []
    for code, text in zip(codes, said):
        if "Traceback" in text or code not in (0, 2) or (code == 2 and "jmrec: " not in text):
            wrong.append(f"{pair}: exit {code}: {text[-800:]}")
    if 0 not in codes:
        wrong.append(f"{pair}: none came to its end: {said}")
    if pair in (("run", "run"), ("embed", "embed")):
        wrong += [f"{pair}: {each}" for each in verbs.same(pair[0], workdir)]
    elif codes[0] == 0 and codes[1] == 2 and started:
        wrong += [f"{pair}: {each}" for each in verbs.same("run", workdir)]
    shutil.rmtree(workdir, ignore_errors=True)
    return wrong


def attack(
    folder: Path, signals: int, pairs: int, seed: int, say: Callable[[str], None] = print
) -> list[str]:
    """Send signals and start pairs; return what went wrong."""
    rng = random.Random(seed)
    verbs = Verbs(folder, say)
    wrong: list[str] = []
    order = [(verb, kind) for verb in verbs.seconds for kind in KINDS]
    rng.shuffle(order)
    for number in range(signals):
        verb, kind = order[number % len(order)]
        wrong += disturb(verbs, verb, kind, rng.random(), f"d{number}")
    for number in range(pairs):
        for pair in PAIRS:
            wrong += together(verbs, pair, rng.random() * 8, f"p{number}-{'-'.join(pair)}")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 where anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signals", type=int, default=40, help="how many signals in all")
    parser.add_argument("--pairs", type=int, default=10, help="how often each pair is started")
    parser.add_argument("--seed", type=int, help="of the moments; random by default")
    parser.add_argument("--folder", type=Path, help="an empty folder to keep; else a temporary one")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        wrong = attack(
            args.folder or Path(temporary) / "signals", args.signals, args.pairs, seed,
            say=lambda text: print(text, flush=True),
        )  # fmt: skip
    print("\n".join(wrong) if wrong else "all as promised")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
