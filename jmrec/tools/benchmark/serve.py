"""Answer one session at a time among many items: each rule, a student, and a blend of them all.

The folder is drawn from a seed, and answers are timed from ids to the titles of the ten best. Rules
have the first of the settings that a run tries, the student (SASRec over ids, width 64) is not
trained, and in the blend each has the weight 1: how long an answer takes is measured, not how good
it is.
"""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.csv

from jmrec.data.folder import read_folder
from jmrec.data.prepared import build
from jmrec.data.schema import Dataset
from jmrec.errors import UserError
from jmrec.evaluation.policy import make_policy
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.neural import CompiledEncoder
from jmrec.evaluation.rankers.rules import RULES
from jmrec.models.sessions.sasrec import SasrecConfig
from jmrec.models.sessions.table import session_model
from jmrec.serving.measure import latency
from jmrec.serving.served import Served
from jmrec.tasks.session import id_rows, id_table_size

VOCABULARY, TITLE, TEXT = 6000, 4, 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--items", type=int, default=100_000, help="of the catalogue (100000)")
    parser.add_argument("--sessions", type=int, default=120_000, help="(default: 120000)")
    parser.add_argument(
        "--ease-items", type=int, default=8_000, help="of which EASE holds weights (8000)"
    )
    parser.add_argument("--calls", type=int, default=200, help="answers that are timed (200)")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Draw the folder, fit, and time one answer of each in turns.

    Raises:
      UserError: An option makes no sense.
    """
    least = {"items": 60, "sessions": 100, "ease_items": 1, "calls": 1}
    for name, low in least.items():
        if getattr(args, name) < low:
            option = name.replace("_", "-")
            raise UserError(f"--{option}={getattr(args, name)} is too small; give {low} or more.")
    with tempfile.TemporaryDirectory() as name:
        write_folder(Path(name), args.items, args.sessions, args.seed)
        dataset = build(read_folder(Path(name)))
    rankers, seconds = fitted(dataset, args.ease_items)
    every = Blend([*rankers], [1.0] * len(rankers), len(dataset.items), name="blend of all")
    rankers.append(every)
    items, policy = dataset.items, make_policy(dataset.items.ids, False)
    served = [Served(each, items.ids, items.titles, policy, each.name) for each in rankers]
    asked = [[items.ids[row] for row in each] for each in islice(dataset.splits["validation"], 500)]
    rows = latency(served, asked, args.calls)
    return {
        **{name: getattr(args, name) for name in (*least, "seed")},
        "mean_length": round(float(np.mean([len(each) for each in asked])), 2),
        "table": [
            {"row": each.name, **{name: float(f"{ms:.3g}") for name, ms in found.items()},
             "fit_seconds": float(f"{seconds.get(each.name, 0.0):.3g}")}
            for each, found in zip(rankers, rows)
        ],
    }  # fmt: skip


def fitted(dataset: Dataset, ease_items: int) -> tuple[list[Ranker], dict[str, float]]:
    """Return each rule under its first settings and a student with drawn parameters, prepared.

    Args:
      dataset: What they are fitted on.
      ease_items: Of how many items EASE holds weights at most.

    Returns:
      (The rankers, name -> seconds that fitting took.)
    """
    known, rankers, seconds = Known(dataset, ease_items), list[Ranker](), dict[str, float]()
    for name, grid in RULES.items():
        begin = time.monotonic()
        rule = next(iter(grid(known)))
        rule.prepare({})
        rankers.append(rule)
        seconds[name] = time.monotonic() - begin
    owners = np.flatnonzero(known.seen)
    size = id_table_size(len(owners))
    model = session_model(SasrecConfig(features=0, ids=size, layers=1, mlp=128))
    student = CompiledEncoder(model, id_rows(known.seen, size)).ranker(
        "sasrec", model.init(jax.random.key(0))
    )
    student.prepare({})
    return [*rankers, student], seconds


def write_folder(folder: Path, items: int, sessions: int, seed: int) -> None:
    """Write a shop in which few items and words are frequent, and items near by follow each other.

    Args:
      folder: Where.
      items: V.
      sessions: Of about five clicks.
      seed: Of all draws.
    """
    random = np.random.default_rng(seed)

    def often_first(count: int, power: float) -> np.ndarray:
        share = np.arange(1, count + 1) ** -power
        return share / share.sum()

    ids = np.array([f"item-{i:07d}" for i in range(items)])
    words = np.array([f"word{i}" for i in range(VOCABULARY)])
    texts = random.choice(words, (items, TEXT), p=often_first(VOCABULARY, 0.9))
    table = {
        "item_id": ids,
        "title": [" ".join(line[:TITLE]) for line in texts],
        "description": [" ".join(line[TITLE:]) for line in texts],
    }
    lengths = np.minimum(1 + random.geometric(0.25, sessions), 50)
    begin = np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.arange(lengths.sum()) - begin
    first = np.repeat(random.choice(items, sessions, p=often_first(items, 0.8)), lengths)
    steps = np.where(place > 0, random.integers(1, 40, len(place)), 0)
    walked = np.cumsum(steps)
    near = (first + walked - walked[begin]) % items
    session = np.repeat(np.arange(sessions), lengths)
    events = {
        "session_id": [f"session-{s:07d}" for s in session],
        "item_id": ids[random.permutation(items)[near]],
        "timestamp": 1.6e9 + session * 60 + place,
    }
    for name, columns in [("items", table), ("interactions", events)]:
        pa.csv.write_csv(
            pa.table({key: pa.array(value) for key, value in columns.items()}),
            folder / f"{name}.csv",
        )
