"""Train and evaluate an encoder on sessions, beside RecBole's in an environment of its own.

All sides have one core, the same sessions, RecBole's sizes, the full softmax over the catalogue
and Adam, and take turns; rates are medians, by the time that the core was busy (of jmrec on an
accelerator by the clock). RecBole is measured twice: "shipped" pads every session to 50 items, with
the checks of gradients that importing it switches on; "cut" has neither. One pair is a session so
far and its next item. Evaluation ranks all items after the last click of each test session and
keeps the best 20; RecBole collects these for its hit rate and MRR. Both evaluate the same random
weights; scores_apart is the largest difference of their scores, as a share of the largest score.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data.prepared import prepare
from jmrec.data.schema import Dataset
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.tools.benchmark.recbole_weights import ENCODERS_OF
from jmrec.tools.benchmark.turns import Side

SIDE = f"{__package__}.sessions_side"
PEER = Path(__file__).resolve().parents[3] / "tests" / "parity" / "recbole_side.py"
"""RecBole's side: it runs where jmrec is not installed."""
LONGEST = 50
OURS = ("train", "train sampled", "evaluate")
THEIRS = ("train shipped", "train cut", "evaluate shipped", "evaluate cut")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--peer", help="a Python that has RecBole (bash launch/peer.sh makes one)")
    parser.add_argument(
        "--encoder", default="sasrec", choices=ENCODERS_OF, help="which one (default: sasrec)"
    )
    parser.add_argument("--dir", help="a catalogue folder (default: a shop made from a seed)")
    parser.add_argument("--toml", help="its dataset.toml, where it lies elsewhere")
    parser.add_argument("--batch", type=int, default=512, help="pairs in a batch (default: 512)")
    parser.add_argument("--pairs", type=int, default=8192, help="pairs a round (default: 8192)")
    parser.add_argument("--negatives", type=int, default=512, help="of the sampled softmax")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each (default: 5)")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure jmrec, and RecBole where there is one.

    Raises:
      UserError: if an option makes no sense, or a side can not run here.
    """
    if min(args.batch, args.pairs, args.rounds, args.negatives) < 1:
        raise UserError("--batch, --pairs, --rounds and --negatives must be 1 or more.")
    if args.peer and not PEER.is_file():
        raise UserError("RecBole's side lies in the tests of a checkout; run this in one.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = _dataset(args, folder)
        data = write_sessions(dataset, folder / "sessions.npz")
        settings = {
            "data": str(folder / "sessions.npz"), "weights": str(folder / "weights.npz"),
            "core": min(os.sched_getaffinity(0)), "batch": args.batch, "pairs": args.pairs,
            "negatives": args.negatives, "seed": args.seed, "encoder": args.encoder,
        }  # fmt: skip
        found = _turns(args, settings)
    return {
        "encoder": args.encoder,
        "data": args.dir or "toyshop",
        **data,
        "batch": args.batch,
        "rounds": args.rounds,
        "machine": platform.machine(),
        **_ratios(found),
        "table": [{"side": name, **row} for name, row in found.items()],
    }


def write_sessions(dataset: Dataset, path: Path) -> dict[str, int]:
    """Write the sessions of training and the last click of each of test, as plain arrays.

    Args:
      dataset: The prepared data.
      path: Of the npz file: ``offsets`` int64 [S + 1] and ``items`` int32 [N] of training;
        ``windows`` int32 [P, 50], the items before the last, padded with -1; ``target`` int32 [P];
        ``n_items``.

    Returns:
      How many items, sessions, pairs and predictions there are.
    """
    train, test = dataset.splits["train"], dataset.splits["test"]
    long = np.flatnonzero(test.lengths >= 2)
    last = test.offsets[1:][long] - 1
    size = np.minimum(test.lengths[long] - 1, LONGEST)
    column = np.arange(LONGEST)
    at = np.where(column < size[:, None], (last - size)[:, None] + column, 0)
    windows = np.where(column < size[:, None], np.asarray(test.items)[at], -1)
    n_items = len(dataset.items)
    np.savez(
        path, offsets=train.offsets, items=np.asarray(train.items, np.int32),
        windows=windows.astype(np.int32), target=np.asarray(test.items, np.int32)[last],
        n_items=n_items,
    )  # fmt: skip
    pairs = int(np.maximum(train.lengths - 1, 0).sum())
    return {"items": n_items, "sessions": len(train), "pairs": pairs, "predictions": len(long)}


def _dataset(args: argparse.Namespace, folder: Path) -> Dataset:
    if args.dir is None:
        shop = folder / "shop"
        write_toyshop(shop, ToyShopConfig(seed=args.seed, items=2000, sessions=20_000))
        return prepare(shop, None, folder / "prepared")
    toml = None if args.toml is None else Path(args.toml)
    return prepare(Path(args.dir), toml, folder / "prepared")


def _turns(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Let all sides take turns; return what each did."""
    sides: dict[str, Side] = {}
    compile_seconds: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    try:
        # RecBole comes first, for it writes the weights that both evaluate.
        for kind in THEIRS if args.peer else ():
            words = [args.peer, str(PEER), kind, json.dumps(settings)]
            sides[f"recbole {kind}"] = Side(f"RecBole ({kind})", words, "see bash launch/peer.sh.")
        for kind in OURS:
            words = [sys.executable, "-m", SIDE, kind, json.dumps(settings)]
            sides[f"jmrec {kind}"] = Side(f"jmrec ({kind})", words, "this is a bug of jmrec.")
        for name, side in sides.items():
            compile_seconds[name], seconds[name] = side.round(), []
        for _ in range(args.rounds):
            for name, side in sides.items():
                seconds[name].append(side.round())
        ends = {name: side.end() for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.kill()
    found = {}
    for name, end in ends.items():
        median = statistics.median(seconds[name])
        found[name] = {
            "per_second": round(end["units"] / median, 1),
            "first_round_seconds": round(compile_seconds[name], 1),
            "round_seconds": round(median, 2),
            "peak_mb": round(end["peak"] / 1e6),
            **{fact: end[fact] for fact in ("device",) if fact in end},
        }
    theirs = ends.get("recbole evaluate cut")
    if theirs is not None:
        scores = np.array(theirs["out"])
        apart = (
            np.abs(np.array(ends["jmrec evaluate"]["out"]) - scores).max() / np.abs(scores).max()
        )
        found["jmrec evaluate"]["scores_apart"] = float(f"{apart:.1e}")
    return found


def _ratios(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return how many times as fast as RecBole jmrec is."""
    ratios = {}
    for mine, theirs in (
        ("train", "train shipped"), ("train", "train cut"), ("train sampled", "train cut"),
        ("evaluate", "evaluate shipped"), ("evaluate", "evaluate cut"),
    ):  # fmt: skip
        if f"recbole {theirs}" in found:
            ratio = found[f"jmrec {mine}"]["per_second"] / found[f"recbole {theirs}"]["per_second"]
            ratios[f"{mine} by recbole's {theirs}"] = round(ratio, 2)
    return ratios
