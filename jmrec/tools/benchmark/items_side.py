"""What ``python -m jmrec.tools.benchmark items`` measures, in a process with so many devices."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.data.schema import Sessions
from jmrec.evaluation.policy import Correction, make_policy
from jmrec.evaluation.protocol import Predictions, make_predictions, rank
from jmrec.evaluation.rankers.neural import CompiledEncoder
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.student import StudentConfig
from jmrec.serving.artefact import Artefact, write
from jmrec.serving.index import make_index
from jmrec.serving.measure import folder_bytes
from jmrec.serving.served import load, serve
from jmrec.sharding import Batches
from jmrec.tasks.session import StudentTask, id_rows, id_table_size
from jmrec.terminal import say
from jmrec.training import OptimConfig, Silent, TrainConfig, Trainer
from jmrec.types import Batch, Params
from jmrec.usage import peak_bytes

WARM = 0.95
"""The share of items that occur in training."""
CALLS = 20
"""Recommendations that are timed."""
SESSIONS = 200
"""Predictions by which an index is chosen and measured."""


class Clicks(Batches):
    """Sessions of training items drawn evenly; batch n is a function of the seed and n."""

    def __init__(self, train: np.ndarray, rows: int, length: int, seed: int) -> None:
        self.warm, self.shape, self.seed = np.flatnonzero(train), (rows, length), seed

    def __getitem__(self, n: int) -> Batch:
        """Return batch n."""
        rng = np.random.default_rng((self.seed, n))
        item, target = rng.choice(self.warm, (2, *self.shape)).astype(np.int32)
        whole, zeros = np.ones(self.shape, bool), np.zeros(self.shape, np.int32)
        return {
            "item": item, "mask": whole, "target": target, "target_ok": whole,
            "gap": zeros.astype(np.float32), "event": zeros,
        }  # fmt: skip


class Times(Silent):
    """When the loss of each update was logged, and the losses."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.losses: list[float] = []

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Note the time."""
        self.at.append(time.perf_counter())
        self.losses.append(float(metrics["loss"]))


def greatest_share(*trees: Any, rows: int) -> float:
    """Return how much of a table with ``rows`` rows or more a device holds at most."""
    found = [
        max(shard.data.nbytes for shard in leaf.addressable_shards) / leaf.nbytes
        for leaf in jax.tree.leaves(trees)
        if leaf.ndim and leaf.shape[0] >= rows
    ]
    return round(max(found), 4)


def main(settings: dict[str, Any]) -> None:
    """Train, rank, export and recommend; print one line of JSON."""
    count, width = int(settings["items"]), int(settings["width"])
    rng = np.random.default_rng(settings["seed"])
    train = rng.random(count) < WARM
    features = rng.standard_normal((count, width), np.float32)
    stack = StackConfig(width=width, layers=1, heads=2, kv_heads=1, mlp=width)
    config = StudentConfig(width, id_table_size(int(train.sum())), stack)
    found: dict[str, Any] = {
        name: each for name, each in settings.items() if name not in ("folder", "seed")
    }
    params = _train(settings, config, features, train, found)
    _rank(settings, config, params, features, train, found)
    params = jax.device_get(params)
    _export(settings, config, params, features, train, found)
    say(json.dumps({**found, "peak_mb": round(peak_bytes() / 1e6)}))


def _train(
    settings: dict[str, Any],
    config: StudentConfig,
    features: np.ndarray,
    train: np.ndarray,
    found: dict[str, Any],
) -> Params:
    """Train for the wanted updates after a first one, which compiles."""
    task = StudentTask(config, features, train, None, {}, loss=settings["loss"])
    updates = settings["updates"] + 1
    own = TrainConfig(
        steps=updates, eval_every=updates + 1, save_every=updates + 1, log_every=1,
        rules=settings["rules"], optim=OptimConfig(),
    )  # fmt: skip
    trainer = Trainer(task, own)
    frozen, axes = task.frozen(Path())
    placed = trainer.step.place_frozen(frozen, axes)
    state = trainer.step.initialise(0)
    found["table_share_training"] = greatest_share(
        state.params, state.opt_state, placed, rows=int(train.sum())
    )
    found["tables_mb"] = round(
        sum(
            leaf.nbytes
            for leaf in jax.tree.leaves((state.params, state.opt_state, placed))
            if leaf.ndim and leaf.shape[0] >= train.sum()
        )
        / 1e6
    )
    del state, placed, frozen
    batches = Clicks(train, settings["batch"], settings["length"], settings["seed"])
    log, begin = Times(), time.perf_counter()
    params = trainer.fit(Path(settings["folder"]), batches, seed=0, tracker=log).params
    found["first_update_seconds"] = round(log.at[0] - begin, 1)
    found["update_seconds"] = round((log.at[-1] - log.at[0]) / settings["updates"], 2)
    found["losses"] = [round(loss, 4) for loss in log.losses]
    return params


def _rank(
    settings: dict[str, Any],
    config: StudentConfig,
    params: Params,
    features: np.ndarray,
    train: np.ndarray,
    found: dict[str, Any],
) -> None:
    """Rank the targets of sessions drawn evenly, with a top list of 20."""
    model = StudentTask(config, features[:1], train[:1], None, {}).model
    begin = time.perf_counter()
    encoder = CompiledEncoder(model, id_rows(train, config.ids), settings["rules"])
    ranker = encoder.ranker("student", params)
    ranker.prepare({"features": features})
    found["prepare_seconds"] = round(time.perf_counter() - begin, 1)
    held = (ranker.params, ranker.rows)
    found["table_share_evaluation"] = greatest_share(held, rows=int(train.sum()))
    asked = _asked(settings, len(train), settings["predictions"])
    begin = time.perf_counter()
    ranked = rank(ranker, asked, n_items=len(train), exclude_seen=False)
    found["rank_seconds"] = round(time.perf_counter() - begin, 1)
    found["mean_rank"] = round(float(ranked.ranks.mean()), 1)


def _asked(settings: dict[str, Any], items: int, count: int) -> Predictions:
    """Return so many predictions of sessions drawn evenly."""
    rng = np.random.default_rng((settings["seed"], 1))
    length = settings["length"]
    sessions = -(-count // (length - 1)) if length > 1 else 1
    clicks = rng.integers(0, items, sessions * length).astype(np.int32)
    nothing = np.zeros(len(clicks))
    return make_predictions(
        Sessions(
            [str(n) for n in range(sessions)], np.full(sessions, -1),
            np.arange(sessions + 1) * length, clicks, np.arange(len(clicks), dtype=float),
            nothing, nothing,
        )
    ).take(slice(0, count))  # fmt: skip


def _export(
    settings: dict[str, Any],
    config: StudentConfig,
    params: Params,
    features: np.ndarray,
    train: np.ndarray,
    found: dict[str, Any],
) -> None:
    """Write the artefact, load it and recommend from it."""
    ids = [f"item-{row:08d}" for row in range(len(train))]
    out, begin = Path(settings["folder"]) / "serve", time.perf_counter()
    artefact = Artefact(
        "student", config, params, {"features": features}, id_rows(train, config.ids), ids, ids,
        make_policy(ids, False, Correction()), {}, [""],
    )  # fmt: skip
    write(artefact, out)
    found["export_seconds"] = round(time.perf_counter() - begin, 1)
    found["export_mb"] = round(folder_bytes(out) / 1e6)
    begin = time.perf_counter()
    served = load(out)
    found["load_seconds"] = round(time.perf_counter() - begin, 1)
    found["recommend_ms"] = _recommend_ms(served, ids, settings["seed"])
    if settings["index"]:
        ranker: Any = served.ranker
        states = ranker.states(_asked(settings, len(ids), SESSIONS).prefixes)
        begin = time.perf_counter()
        index = make_index(ranker.items[: len(ids)], states, settings["index"])
        found["index_seconds"] = round(time.perf_counter() - begin, 1)
        found |= {"index_recall": index.recall, "index_cells": len(index.centres)}
        found["index_look"] = index.look
        served = serve(replace(artefact, index=index), "")
        found["index_recommend_ms"] = _recommend_ms(served, ids, settings["seed"])


def _recommend_ms(served: Any, ids: list[str], seed: int) -> float:
    """Return the median milliseconds of an answer."""
    rng = np.random.default_rng((seed, 2))
    seconds = []
    for rows in rng.integers(0, len(ids), (CALLS + 1, 5)):
        begin = time.perf_counter()
        served.recommend([ids[row] for row in rows], top=20)
        seconds.append(time.perf_counter() - begin)
    return round(1e3 * float(np.median(seconds[1:])), 1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
