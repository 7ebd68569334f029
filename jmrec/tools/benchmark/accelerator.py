"""All that no CPU can show, part by part within some minutes, for a machine with one accelerator.

The parts are other benchmarks, and two of their own: "resume" trains a small student with
deterministic=true once whole and once stopped by SIGTERM and started again, which must end in the
same bits, and measures what that costs; "stages" does a few updates of each stage of TPAD and holds
its FLOP/s against those of a large product of matrices. Each part is a process of its own with a
limit of time; one that fails, or can not run here, ends no other, and a sentence says why. --out
gets accelerator.json, accelerator.txt (the tables of all parts) and what each part said.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from jmrec.errors import UserError
from jmrec.files import write_json
from jmrec.terminal import say, warn
from jmrec.tools.benchmark.backbone import MODELS
from jmrec.tools.benchmark.data import write_folder

SIDE = f"{__package__}.accelerator_side"
GRACE = 15.0
"""Seconds that a part gets to say what it has, once its time is over."""
LEAST = 10.0
"""With fewer seconds left no part is started."""
SIZES = ("full", "toy")
STEPS = {"full": 2000, "toy": 80}
"""Updates of the small student."""
SHOP = ("data.toyshop.n_items=60", "data.toyshop.sessions=160")
SMALL_TOWERS = (
    *SHOP, "data.vocab=320", "data.max_tokens=8", "data.picture_size=16", "data.window=12",
    "knowledge.vision.merge=1",
    *(f"{owner}.stack.{size}"
      for owner in ("knowledge", "knowledge.vision", "transition", "student")
      for size in ("width=32", "layers=1", "mlp=64")),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
      name: What it is called.
      words: What Python is to run; its last line of standard output that is JSON with a
        "benchmark" is what was found, and "wrong" in it sentences about wrong results.
      most: Seconds that it may take, where so many are left.
      remark: What is to be said beside its result.
    """

    name: str
    words: Sequence[str]
    most: float
    remark: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is found")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="how long all may take (default: 8)"
    )
    parser.add_argument(
        "--size", choices=SIZES, default="full", help="toy tries all of it in little, on any CPU"
    )


def parts(size: str, out: Path) -> list[Part]:
    """Return the parts in their order; a new one is one more entry here."""
    toy = size == "toy"
    benchmark, side = ("-m", __package__), ("-m", SIDE)
    kernels: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    population: tuple[str, ...] = ()
    reading: tuple[str, ...] = ("--precision", "bfloat16")
    train = {"steps": STEPS[size], "eval_every": STEPS[size], "save_every": STEPS[size]}
    anew = {"anew": not toy}  # toy compiles what is not kept of before
    resume: dict[str, Any] = {"spec": "session:size=tiny,items=ids", "train": train, **anew}
    few = {"steps": 30, "eval_every": 30, "save_every": 30}
    stages: dict[str, Any] = {"spec": "tpad:size=base,students=served", "train": few, **anew}
    if toy:
        kernels = ("--items", "40,300", "--batch", "6", "--width", "8", "--repeats", "1")
        write_folder(out / "shop", 2_000, 0)
        sessions = ("--dir", str(out / "shop"), "--pairs", "60", "--batch", "60", "--rounds", "1")
        population = ("--members", "2", "--items", "40", "--batch", "2", "--width", "8")
        population += ("--updates", "2", "--rounds", "1")
        reading += ("--lengths", "8", "--batch", "1", "--size", "32", "--rounds", "1")
        train["batch_size"] = few["batch_size"] = 16
        resume["overrides"] = SHOP
        stages |= {"spec": "tpad:size=tiny,students=served", "overrides": SMALL_TOWERS, "rate": 256}
    remark = ""
    if importlib.util.find_spec("torch") is None:
        reading += ("--alone",)
        remark = "torch is not installed, so that jmrec was measured alone."
    read = [*benchmark, "backbone", *reading]
    found = [
        Part("kernels", [*benchmark, "kernels", *kernels], 100),
        Part("resume", [*side, "resume", json.dumps(resume)], 180),
        Part("stages", [*side, "stages", json.dumps(stages)], 180),
        Part("population", [*benchmark, "population", *population], 60),
        Part("sessions", [*benchmark, "sessions", *sessions], 100),
        *(Part(f"backbone {name}", [*read, "--models", name], 90, remark) for name in MODELS),
    ]
    return [replace(each, most=math.inf) for each in found] if toy else found


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run every part for which there is time.

    Raises:
      UserError: if there is no time at all, or the folder can not be written.
    """
    if not args.minutes > 0:
        raise UserError(f"--minutes={args.minutes:g} is no time; give 8.")
    begin = time.monotonic()
    try:
        (args.out / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={args.out} can not be made ({error.strerror}).") from error
    found: dict[str, dict[str, Any]] = {}
    facts: dict[str, Any] = {"size": args.size, "minutes": args.minutes}
    with _ended_by_sigterm():
        for part in parts(args.size, args.out):
            left = 60 * args.minutes - (time.monotonic() - begin)
            say(f"{part.name} ...", sys.stderr)
            found[part.name] = run_part(part, left, args.out / "parts")
            facts |= {"seconds": round(time.monotonic() - begin, 1), "device": _device(found)}
            # After each: what was found is not lost with the machine.
            write_json(args.out / "accelerator.json", {**facts, "parts": found})
    if facts["device"] == "cpu" and args.size == "full":
        warn("JAX sees no accelerator here; these are figures of a CPU.")
    _write_tables(args.out, [name for name, row in found.items() if "found" in row])
    wrong = [f"{name}: {each}" for name, row in found.items() for each in row.get("wrong", ())]
    table = [
        {"part": name, **{key: row[key] for key in ("state", "seconds", "why")}}
        for name, row in found.items()
    ]
    return {**facts, **({"wrong": wrong} if wrong else {}), "table": table}


def run_part(part: Part, left: float, folder: Path) -> dict[str, Any]:
    """Run one part, whatever comes of it.

    Args:
      part: It.
      left: Seconds that are left for all.
      folder: Where what it says is written, as NAME.txt and NAME.err.

    Returns:
      "state": done, wrong (it ran and a result is not right), skipped (it can not run here, or
      there is no time) or failed; "seconds"; "why", a sentence, "" where there is none; "found",
      the part's own figures, where there are any; "wrong", its sentences, where it is.
    """
    limit = min(part.most, left - GRACE)
    if limit < LEAST:
        return _row("skipped", 0.0, f"of the time for all {max(left, 0):.0f} s were left.")
    begin = time.monotonic()
    said = folder / f"{part.name.replace(' ', '-')}.txt"
    code = _run(part.words, limit, said)
    seconds = round(time.monotonic() - begin, 1)
    over = f"it was ended after {limit:.0f} s." if code is None else ""
    results = _results(said)
    if results is not None:
        wrong = results.get("wrong", [])
        why = " ".join([*wrong, *(each for each in (over, part.remark) if each)])
        row = _row("wrong" if wrong else "done", seconds, why)
        return {**row, "found": results, **({"wrong": wrong} if wrong else {})}
    if code is None:
        return _row("failed", seconds, over)
    if code < 0:
        return _row("failed", seconds, f"signal {-code} ended it (9 is often a lack of memory).")
    # A sentence of the benchmark's own says what is not there.
    return _row("skipped" if code == 2 else "failed", seconds, _last_words(said, code))


def _device(found: dict[str, dict[str, Any]]) -> str:
    """Return what a part said of the device, "" before any did."""
    said = (row.get("found", {}).get("device", "") for row in found.values())
    return next((each for each in said if each), "")


def _row(state: str, seconds: float, why: str) -> dict[str, Any]:
    return {"state": state, "seconds": seconds, "why": why}


def _run(words: Sequence[str], limit: float, said: Path) -> int | None:
    """Run Python within a time; return its exit code, None where the time was over."""
    with said.open("w") as out, said.with_suffix(".err").open("w") as err:
        child = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,  # so that what it starts ends with it
        )  # fmt: skip
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            _signal(child, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
            return None
        finally:
            _signal(child, signal.SIGKILL)
            child.wait()


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End by SIGTERM as by an exception, so that no part is left running."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _results(said: Path) -> dict[str, Any] | None:
    """Return the last line that is a benchmark's JSON."""
    for line in reversed(said.read_text(errors="replace").splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and "benchmark" in found:
                return found
    return None


def _last_words(said: Path, code: int) -> str:
    lines = said.with_suffix(".err").read_text(errors="replace").strip().splitlines()
    for start in ("benchmark: ", "jmrec: "):
        lines = [line.removeprefix(start) for line in lines]
    return lines[-1][:400] if lines else f"it ended in {code} and said nothing."


def _write_tables(out: Path, names: Sequence[str]) -> None:
    """Write the tables of all parts into one file, without their lines of JSON."""
    texts = []
    for name in names:
        said = out / "parts" / f"{name.replace(' ', '-')}.txt"
        lines = said.read_text(errors="replace").splitlines()
        texts += [line for line in lines if not line.startswith("{")]
    (out / "accelerator.txt").write_text("\n".join(texts) + "\n")
