"""The jmrec side of ``python -m jmrec.tools.benchmark sessions``, in a process of its own."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.data.packing import packed_batches
from jmrec.data.pipeline import choose_buckets, session_batches
from jmrec.data.schema import Sessions
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers.neural import CompiledEncoder, NeuralRanker
from jmrec.models.sessions.table import ENCODERS, session_model
from jmrec.sharding import make_mesh
from jmrec.tasks.session import StudentTask, id_table_size
from jmrec.tools.benchmark.recbole_weights import from_recbole
from jmrec.tools.benchmark.turns import serve_rounds
from jmrec.training.optim import OptimConfig, traced_numbers
from jmrec.training.step import TrainStep

LENGTH = 50
DROPOUT = {"sasrec": 0.5, "gru4rec": 0.3, "narm": 0.5, "stamp": 0.0, "core": 0.2, "srgnn": 0.0}
"""RecBole's rates."""


def sessions_of(items: np.ndarray, offsets: np.ndarray) -> Sessions:
    """Return sessions of items alone."""
    nothing = np.zeros(len(items), np.int32)
    count = len(offsets) - 1
    return Sessions(
        [str(n) for n in range(count)], np.full(count, -1), offsets, items,
        np.arange(len(items), dtype=float), nothing, nothing.astype(np.float32),
    )  # fmt: skip


def training(
    data: dict[str, np.ndarray], settings: dict[str, Any], sampled: bool
) -> tuple[Iterator[list[np.ndarray]], dict[str, Any]]:
    """Return rounds of updates, and what is to be said of them."""
    train = np.bincount(data["items"], minlength=int(data["n_items"])) > 0
    encoder = ENCODERS[settings["encoder"]]
    config = encoder.config(features=0, ids=id_table_size(int(train.sum())))
    loss = {"loss": "sampled_softmax", "negatives": settings["negatives"]} if sampled else {}
    rate = DROPOUT[settings["encoder"]]
    hparams = {"dropout": rate, "id_dropout": 0.0, "learning_rate": 1e-3}
    task = StudentTask(config, None, train, None, hparams, **loss)
    optim = OptimConfig(steps=100_000, weight_decay=0.0)
    step = TrainStep(task, optim, make_mesh("dp"))
    sessions, rows = sessions_of(data["items"], data["offsets"]), settings["batch"] // LENGTH
    given: dict[str, Any] = {"seed": settings["seed"], "has_time": False}
    shapes = 1
    if encoder.packs:
        batches = packed_batches(sessions, rows=max(rows, 1), length=LENGTH, **given)
    else:
        buckets = choose_buckets(sessions, LENGTH, max(rows, 1))
        batches, shapes = session_batches(sessions, buckets=buckets, **given), len(buckets)
    facts = {"units": 0.0}

    def rounds() -> Iterator[list[np.ndarray]]:
        state, n, done = step.initialise(settings["seed"]), 0, []
        seen: set[tuple[int, ...]] = set()
        frozen = step.place_frozen(*task.frozen(Path()))
        numbers = {**task.hparams, "optim": traced_numbers(optim)}
        numbers = step.place_whole(jax.tree.map(lambda x: np.asarray(x, np.float32), numbers))
        while True:
            pairs = 0
            while pairs < settings["pairs"] or len(seen) < shapes:  # the first compiles them all
                batch = batches[n]
                state, metrics = step(state, frozen, step.place_batches(batch), numbers)
                pairs, n = pairs + int(batch["target_ok"].sum()), n + 1
                seen.add(batch["item"].shape)
            done.append(pairs)
            facts["units"] = float(np.median(done[1:] or done))
            yield [np.asarray(metrics["loss"][0] / metrics["loss"][1])]

    return rounds(), facts


def evaluating(
    data: dict[str, np.ndarray], settings: dict[str, Any]
) -> tuple[Iterator[list[np.ndarray]], dict[str, Any]]:
    """Return rounds that rank every last click, and what is to be said of them."""
    n_items = int(data["n_items"])
    name = settings["encoder"]
    model = session_model(ENCODERS[name].config(features=0, ids=n_items + 1))
    encoder = CompiledEncoder(model, np.arange(n_items, dtype=np.int32))
    size = (data["windows"] >= 0).sum(axis=1)
    lists = [[*row[:n], target] for row, n, target in zip(data["windows"], size, data["target"])]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    predictions = make_predictions(sessions_of(np.concatenate(lists).astype(np.int32), offsets))
    predictions = predictions.take(np.flatnonzero(predictions.is_last))
    facts = {"units": float(len(predictions))}

    def rounds() -> Iterator[list[np.ndarray]]:
        params, weights = model.init(jax.random.key(0)), Path(settings["weights"])
        if weights.exists():  # RecBole's first round has written them
            params = from_recbole(name, dict(np.load(weights)), params)
        ranker, few = NeuralRanker(name, encoder, params), predictions.take(slice(0, 20))
        while True:
            ranker.prepare({})
            rank(ranker, predictions, n_items=n_items, exclude_seen=False, top=20)
            yield [ranker.scores(few.prefixes, slice(0, 100))]

    return rounds(), facts


def main(kind: str, settings: dict[str, Any]) -> None:
    """Serve the rounds of one kind."""
    os.sched_setaffinity(0, {settings["core"]})
    data = dict(np.load(settings["data"]))
    if kind == "evaluate":
        rounds, facts = evaluating(data, settings)
    else:
        rounds, facts = training(data, settings, kind.endswith("sampled"))
    # What an accelerator works is no time of the processor.
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    serve_rounds(rounds, lambda: {**facts, "device": jax.devices()[0].device_kind}, clock)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
