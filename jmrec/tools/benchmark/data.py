"""Check and prepare a large folder, made from a seed: seconds and peak memory of each command.

Commands run in processes of their own, and their seconds count imports. Sessions are then read here
from the files, checksums compared; --records reads the same sessions from a record for each too.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from jmrec.data import flat, records
from jmrec.data.prepared import METADATA
from jmrec.data.schema import SPLITS
from jmrec.errors import UserError
from jmrec.files import read_json
from jmrec.usage import measured

WORDS = ("red", "blue", "small", "large", "light", "warm", "soft", "round", "old", "new")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--rows", type=int, default=1_000_000, help="interactions (default: 10^6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--records",
        action="store_true",
        help="write sessions as ArrayRecord too and read them, for comparison (minutes)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make a folder, then check and prepare it in processes of their own.

    Raises:
      UserError: if a command fails.
    """
    if args.rows < 1_000:
        raise UserError(f"--rows={args.rows} is too few to be split; give 1000 or more.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shop"
        write_folder(folder, args.rows, args.seed)
        size = sum(path.stat().st_size for path in folder.iterdir())
        check = _measure("data", "check", str(folder), "--strict")
        prepare = _measure("data", "prepare", str(folder), "--out", f"{name}/out")
        out = Path(name) / "out"
        written = sum(path.stat().st_size for path in out.rglob("*"))
        load = {"sessions_load_seconds": min(_load_seconds(out) for _ in range(3))}
        if args.records:
            load |= _records_seconds(folder, out)
    return {
        "rows": args.rows,
        "items": _items(args.rows),
        "seed": args.seed,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "folder_mb": round(size / 1e6, 1),
        "prepared_mb": round(written / 1e6, 1),
        **{f"check_{key}": value for key, value in check.items()},
        **{f"prepare_{key}": value for key, value in prepare.items()},
        **{key: float(f"{value:.3g}") for key, value in load.items()},
    }


def _load_seconds(out: Path) -> float:
    """Return how long reading the sessions of prepared data takes, as jmrec does it."""
    begin = time.monotonic()
    sums = read_json(out / METADATA)["checksums"]
    if said := flat.fault(out, sums, ratings=False, value=False):
        raise UserError(f"{out}: {said}.")
    for split in SPLITS:
        flat.read_sessions(out, split)
    return time.monotonic() - begin


def _records_seconds(folder: Path, out: Path) -> dict[str, float]:
    """Return how long the same sessions take as a record each, written and read."""
    wrote = _measure("data", "prepare", str(folder), "--out", str(out), "--records")
    begin = time.monotonic()
    for split in SPLITS:
        records.read_sessions(out, split)
    return {
        "records_write_seconds": wrote["seconds"],
        "records_load_seconds": time.monotonic() - begin,
    }


def write_folder(folder: Path, rows: int, seed: int) -> None:
    """Write a shop of ``rows`` interactions, about five a session, over ``rows / 50`` items."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    count = _items(rows)
    ids = np.array([f"item-{i:06d}" for i in range(count)])
    words = np.array(WORDS)[random.integers(len(WORDS), size=(count, 20))]
    items = {
        "item_id": ids,
        "title": [" ".join(line[:4]) for line in words],
        "description": [" ".join(line) for line in words],
        "brand": [f"brand {b}" for b in random.integers(200, size=count)],
        "price": random.gamma(2.0, 20.0, count).round(2),
    }
    session = np.cumsum(random.random(rows) < 0.2)
    item = (count * random.random(rows) ** 3).astype(int)  # some items are far more popular
    after = np.cumsum(random.exponential(20.0, rows)).round()
    events = {
        "session_id": [f"session-{s:07d}" for s in session],
        "user_id": [f"user-{s % (rows // 20):06d}" for s in session],
        "item_id": ids[item],
        "timestamp": 1.7e9 - after[-1] + after,  # the last one is past, however many there are
        "event": np.array(["view", "cart", "buy"])[random.choice(3, rows, p=[0.8, 0.15, 0.05])],
    }
    for name, columns in [("items", items), ("interactions", events)]:
        pa.csv.write_csv(
            pa.table({k: pa.array(v) for k, v in columns.items()}), folder / f"{name}.csv"
        )
    (folder / "dataset.toml").write_text(
        '[items]\ncategory_columns = ["brand"]\nnumber_columns = ["price"]\n'
    )


def _items(rows: int) -> int:
    return max(rows // 50, 20)


def _measure(*words: str) -> dict[str, float]:
    """Run a jmrec command; return its seconds and peak resident memory in MB."""
    begin = time.monotonic()
    run = measured([sys.executable, "-m", "jmrec", *words])
    if run.code:
        raise UserError(f"jmrec {' '.join(words[:2])} failed: {run.said.strip()[-500:]}")
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "cpu_seconds": round(run.cpu_seconds, 1),
        "peak_mb": round(run.peak_bytes / 1e6, 1),
    }
