"""A bench to attack jmrec on: a finished run, its artefact, and a process that answers commands.

As a program it is the worker: it reads commands from standard input, a line each, and answers.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = ROOT / "tests" / "integration" / "kill_experiment.py"
SECONDS, BYTES = 10.0, 2**30
"""What a case may take beyond the undamaged command."""
MARK = "JMREC_ATTACK_MARK"
"""The environment's name of the file that a stranger's code would write."""
PLANTED = "import os, pathlib\npathlib.Path(os.environ['JMREC_ATTACK_MARK']).write_text(__name__)\n"
SENTENCES = "jmrec: "


@dataclass
class Case:
    """One attack.

    Attributes:
      name: What is broken, and how.
      words: The command after ``jmrec``.
      good: What the undamaged command printed; None where only a refusal will do.
      cost: Seconds that the undamaged command takes.
      prepare: Breaks the files.
      restore: Mends them.
      shows: Whether the command prints what stands in the broken file.
      part: What an answer has in it that may be given too, "" for none.
    """

    name: str
    words: list[str]
    good: str | None
    cost: float
    prepare: Callable[[], None] = lambda: None
    restore: Callable[[], None] = lambda: None
    shows: bool = False
    part: str = ""


@dataclass
class Answer:
    """How a command ended: exit code (None: it hung or crashed), what it printed, what it took."""

    code: int | None
    out: str
    err: str
    seconds: float
    grown: int


class Worker:
    """A process that answers commands one after the other, begun anew where it dies.

    Args:
      folder: Its working folder, in which modules of strangers lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, folder / "ran"
        self._process: subprocess.Popen[str] | None = None

    def ask(self, words: Sequence[str], limit: float) -> Answer:
        """Run ``jmrec WORDS``."""
        process = self._begun()
        assert process.stdin is not None
        assert process.stdout is not None
        begin = time.monotonic()
        process.stdin.write(json.dumps(list(words)) + "\n")
        process.stdin.flush()
        os.set_blocking(process.stdout.fileno(), False)
        line = ""
        while not line.endswith("\n") and time.monotonic() - begin < limit:
            line += process.stdout.readline() or ""
            if process.poll() is not None:
                break
            time.sleep(0.005)
        seconds = time.monotonic() - begin
        if not line.endswith("\n"):
            self.end()
            return Answer(None, "", (self.folder / "err").read_text(errors="replace"), seconds, 0)
        return Answer(**json.loads(line), seconds=seconds)

    def _begun(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
            env.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__))],
                cwd=self.folder, env={**env, MARK: str(self.mark)}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == "ready\n"
        return self._process

    def end(self) -> None:
        """End the process."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


def work() -> None:
    """Answer commands from standard input: the worker's side."""
    from jmrec.xla import set_flags

    set_flags()
    import jmrec.systems.registry  # noqa: F401
    from jmrec.main import main

    ours = os.dup(1)
    os.write(ours, b"ready\n")
    for line in sys.stdin:
        before = _memory()
        Path("/proc/self/clear_refs").write_text("5")
        with Path("out").open("wb") as out, Path("err").open("wb") as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            try:
                code: int | None = main(json.loads(line))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
        told = {
            "code": code,
            "out": Path("out").read_text(errors="replace"),
            "err": Path("err").read_text(errors="replace"),
            "grown": max(_memory() - before, 0),
        }
        os.write(ours, (json.dumps(told) + "\n").encode())


def _memory() -> int:
    """Return the most bytes of memory since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def judge(case: Case, answer: Answer, mark: Path) -> str | None:
    """Return what is wrong with an answer, None where it is well answered."""
    if mark.exists():
        ran = mark.read_text()
        mark.unlink()
        return f"ran the code of a stranger ({ran})"
    if answer.code is None:
        return f"hung or crashed after {answer.seconds:.0f} s: {answer.err[-300:]}"
    if "Traceback" in answer.err + answer.out:
        return f"a traceback: {answer.err[-600:]}"
    if answer.seconds > case.cost + SECONDS:
        return f"took {answer.seconds:.1f} s, undamaged {case.cost:.1f} s"
    if answer.grown > BYTES:
        return f"took {answer.grown / 2**30:.1f} GB more"
    if answer.code == 2:
        lines = [line for line in answer.err.splitlines() if line.startswith(SENTENCES)]
        return None if lines else f"exit 2 without a sentence: {answer.err[-300:]}"
    if answer.code != 0:
        return f"exit {answer.code}: {answer.err[-300:]}"
    if case.part and case.part in answer.out:
        return None
    if case.good is None:
        return f"accepted it: {answer.out[:300]}"
    # A report may say what it lacks.
    same = answer.out == case.good or case.shows or '"damaged"' in answer.out
    return None if same else f"another answer: {answer.out[:300]}"


@dataclass
class Bench:
    """What is attacked: a finished run, its artefact, and a worker.

    Attributes:
      folder: Where all lies.
      worker: Answers.
      rng: Draws.
      bases: Words of a command -> what it prints undamaged, and its seconds.
    """

    folder: Path
    worker: Worker
    rng: random.Random
    bases: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """The workdir."""
        return self.folder / "run"

    def base(self, words: Sequence[str]) -> tuple[str, float]:
        """Return what a command prints undamaged, and how long it takes."""
        key = " ".join(words)
        if key not in self.bases:
            self.worker.ask(words, 600)  # compiles
            answer = self.worker.ask(words, 600)
            if answer.code != 0:
                raise RuntimeError(f"{key} ended in {answer.code}:\n{answer.err[-2000:]}")
            self.bases[key] = answer.out, answer.seconds
        return self.bases[key]


def write_shops(folder: Path) -> None:
    """Write a catalogue folder, ``shop``, and the same with three more items, ``more``."""
    from jmrec.data.toyshop import ToyShopConfig, write_toyshop

    write_toyshop(folder / "shop", ToyShopConfig(seed=5, items=60, sessions=160))
    (folder / "shop" / "truth.npz").unlink()
    shutil.copytree(folder / "shop", folder / "more")
    items = folder / "more" / "items.csv"
    lines = items.read_text().splitlines()
    new = [line.replace(line.split(",")[0], f"new{n}", 1) for n, line in enumerate(lines[1:4])]
    items.write_text("\n".join([*lines, *new]) + "\n")


def make(folder: Path, worker: Worker, rng: random.Random, say: Callable[[str], None]) -> Bench:
    """Make a run with added items, another of other data, and artefacts of a student and a rule."""
    bench = Bench(folder, worker, rng)

    def do(*words: str) -> None:
        say("making: jmrec " + " ".join(words)[:90])
        answer = worker.ask(words, 1200)
        if answer.code != 0:
            raise RuntimeError(f"{words} ended in {answer.code}:\n{answer.err[-3000:]}")

    write_shops(folder)
    config = ["--config", f"{EXPERIMENT}:data=folder,size=tiny"]
    for name, seed in (("run", 0), ("other", 1)):
        where = [f"--config.data.dir={folder / 'shop'}", f"--config.seed={seed}"]
        do("run", *config, *where, "--workdir", str(folder / name))
    do("embed", "--workdir", str(bench.run), "--dir", str(folder / "more"))
    for row, out in (("distilled", "serve"), ("blend of rules", "rule")):
        do("export", "--workdir", str(bench.run), "--row", row, "--out", str(folder / out))
    return bench


def plant(bench: Bench) -> None:
    """Lay a module under every dotted name that a metadata file mentions."""
    names = {"features", "evil", "common", "conftest", "sitecustomize"}
    tops = (bench.run, bench.folder / "serve", bench.folder / "rule")
    for path in (path for top in tops for path in top.rglob("*.json")):
        for word in path.read_text(errors="replace").replace('"', " ").split():
            parts = word.strip(",").split(".")
            if len(parts) > 1 and all(part.isidentifier() for part in parts):
                names |= {parts[0], parts[-1]}
    for where in (bench.worker.folder, bench.run):
        for name in sorted(names - set(sys.stdlib_module_names)):
            (where / f"{name}.py").write_text(PLANTED)


if __name__ == "__main__":
    work()
