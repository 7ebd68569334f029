"""Check and prepare a large folder, made from a seed: seconds and peak memory of each command.

Commands run in processes of their own, and their seconds count imports. Sessions are then read here
from the files, checksums compared; --records reads the same sessions from a record for each too.
With --polars a Python that has polars makes and splits the same sessions from the same file, and no
more than that: no checks, items, fingerprints or checksums.
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
    parser.add_argument(
        "--pictures", type=int, default=0, help="items that have one, 224 pixels wide (default: 0)"
    )
    parser.add_argument(
        "--polars", type=Path, metavar="PYTHON", help="a Python that has polars, to run beside it"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make a folder, then check and prepare it in processes of their own.

    Raises:
      UserError: if a command fails.
    """
    if args.rows < 1_000:
        raise UserError(f"--rows={args.rows} is too few to be split; give 1000 or more.")
    if not 0 <= args.pictures <= _items(args.rows):
        raise UserError(
            f"--pictures={args.pictures} is not from 0 to the {_items(args.rows):,} items that "
            f"--rows={args.rows} makes."
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shop"
        write_folder(folder, args.rows, args.seed)
        write_pictures(folder, args.pictures, args.seed)
        size = sum(path.stat().st_size for path in folder.rglob("*"))
        check = _measure("data", "check", str(folder), "--strict")
        prepare = _measure("data", "prepare", str(folder), "--out", f"{name}/out")
        out = Path(name) / "out"
        written = sum(path.stat().st_size for path in out.rglob("*"))
        load = {"sessions_load_seconds": min(_load_seconds(out) for _ in range(3))}
        if args.records:
            load |= _records_seconds(folder, out)
        peer = _polars(args.polars, folder, out) if args.polars else {}
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
        **peer,
    }


POLARS = """
import sys, polars as pl
folder, out = sys.argv[1:]
events = pl.read_csv(f"{folder}/interactions.csv", schema_overrides={"timestamp": pl.Float64})
items = pl.read_csv(f"{folder}/items.csv", columns=["item_id"]).with_row_index("row")
events = events.join(items, on="item_id").sort(["session_id", "timestamp"], maintain_order=True)
events = events.with_columns(pl.len().over("session_id").alias("length"))
events = events.filter(pl.col("length") >= 2)
begin = events.group_by("session_id").agg(pl.col("timestamp").min().alias("begin"))
begin = begin.sort(["begin", "session_id"]).with_row_index("place")
cuts = [int(len(begin) * share) for share in (0.8, 0.9)]
split = sum((pl.col("place") >= cut).cast(pl.Int8) for cut in cuts)
whole = events.join(begin.with_columns(split.alias("split")), on="session_id")
whole = whole.sort(["place", "timestamp"], maintain_order=True)
for number, name in enumerate(("train", "validation", "test")):
    part = whole.filter(pl.col("split") == number)
    kept = part.select("session_id", "user_id", "row", "timestamp", "event")
    kept.write_parquet(f"{out}/{name}.parquet")
    print(name, part["session_id"].n_unique(), len(part), file=sys.stderr)
"""


def _polars(python: Path, folder: Path, out: Path) -> dict[str, Any]:
    """Have polars make and split the sessions; return its seconds, memory, and what it found."""
    with tempfile.TemporaryDirectory() as place:
        begin = time.monotonic()
        done = measured([str(python), "-c", POLARS, str(folder), place])
        seconds = time.monotonic() - begin
    if done.code:
        raise UserError(f"{python} could not run polars: {done.said.strip()[-300:]}")
    said = [line.split() for line in done.said.splitlines()]
    own = {split: flat.read_sessions(out, split) for split in SPLITS}
    wanted = [[name, str(len(each)), str(len(each.items))] for name, each in own.items()]
    return {
        "polars_seconds": round(seconds, 1),
        "polars_cpu_seconds": round(done.cpu_seconds, 1),
        "polars_peak_mb": round(done.peak_bytes / 1e6, 1),
        "polars_counts_alike": said == wanted,
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


def write_pictures(folder: Path, count: int, seed: int) -> None:
    """Write a JPEG of 224 pixels for each of the first ``count`` items, no two alike."""
    from PIL import Image

    if not count:
        return
    (folder / "images").mkdir()
    random = np.random.default_rng([seed, 1])
    for row in range(count):
        pixels = random.integers(0, 256, (14, 14, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)
        picture.save(folder / "images" / f"item-{row:06d}.jpg", quality=90)


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
