"""Run by test_catalogue.py in its own process, with 8 fake devices; prints json.

    python catalogue.py LOSS ...

A student over features and ids of a catalogue that no mesh divides: trained, and then as a ranker,
on one device and with all tables cut over eight.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from eight_devices import Losses

from jmrec.data.schema import Sessions
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers.neural import CompiledEncoder
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.student import StudentConfig
from jmrec.sharding import make_mesh
from jmrec.tasks.session import CachedTeacher, StudentTask, id_rows, id_table_size
from jmrec.training import OptimConfig, TrainConfig, Trainer

ITEMS, WIDTH, FEATURES, EVENTS, TOP = 8000, 64, 24, 4096, 5
ROWS, LENGTH, STEPS = 16, 6, 3
STACK = StackConfig(width=WIDTH, layers=1, heads=2, kv_heads=1, mlp=16)
TRAIN = np.arange(ITEMS) % 10 < 9
WAYS = {"one": ("dp", 1), "fsdp_tp": ("fsdp_tp", 8), "tp": ("tp", 8)}
LOSSES = tuple(sys.argv[1:])


class Batches:
    """Walks over the catalogue; some positions masked."""

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(n)
        warm = np.flatnonzero(TRAIN)
        item = rng.choice(warm, (ROWS, LENGTH)).astype(np.int32)
        mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, ROWS)[:, None]
        target = np.where(mask, rng.choice(warm, item.shape), 0).astype(np.int32)
        return {
            "item": np.where(mask, item, 0), "mask": mask, "target": target, "target_ok": mask,
            "gap": np.zeros(item.shape, np.float32), "event": np.zeros(item.shape, np.int32),
            "place": rng.integers(0, EVENTS, item.shape, np.int32),
        }  # fmt: skip


def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ITEMS, FEATURES)).astype(np.float32)


def teacher() -> CachedTeacher:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, ITEMS, (EVENTS, TOP), np.int32)
    logits = np.sort(rng.normal(size=rows.shape), 1)[:, ::-1].astype(np.float32)
    return CachedTeacher(rows, logits, np.full(EVENTS, 3.0, np.float32))


def config() -> StudentConfig:
    return StudentConfig(FEATURES, id_table_size(int(TRAIN.sum())), STACK)


def trainer(way: str, loss: str = "full_softmax", taught: bool = True) -> Trainer:
    rules, devices = WAYS[way]
    task = StudentTask(
        config(), features(), TRAIN, teacher() if taught else None, {"logit": 0.5}, "topk_kl",
        loss=loss,
    )  # fmt: skip
    settings = TrainConfig(
        steps=STEPS, eval_every=100, save_every=100, log_every=1, rules=rules, optim=OptimConfig(),
    )  # fmt: skip
    mesh = make_mesh(rules, jax.devices()[:devices])
    return Trainer(task, settings, mesh=mesh, frozen=task.frozen(Path()))


def shares(tree: Any) -> dict[str, float]:
    """Return, of every array with a row an item or event, the most that a device holds of it."""
    found = {}
    for path, array in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if array.ndim and len(array) >= EVENTS:
            most = max(shard.data.nbytes for shard in array.addressable_shards)
            found[jax.tree_util.keystr(path, simple=True, separator="/")] = most / array.nbytes
    return found


def sessions() -> Sessions:
    rng = np.random.default_rng(2)
    lengths = rng.integers(2, 9, 60)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    count = int(offsets[-1])
    return Sessions(
        ids=[str(n) for n in range(len(lengths))], users=np.full(len(lengths), -1),
        offsets=offsets, items=rng.integers(0, ITEMS, count).astype(np.int32),
        times=np.arange(count, dtype=float), events=np.zeros(count), ratings=np.zeros(count),
    )  # fmt: skip


def main() -> dict[str, Any]:
    out: dict[str, Any] = {"losses": {}, "shares": {}, "ranks": {}, "top": {}, "scores": {}}
    params: Any = None
    for way in WAYS:
        for loss in LOSSES if way in ("one", "fsdp_tp") else LOSSES[:1]:
            made, log = trainer(way, loss, loss == LOSSES[0]), Losses()
            end = made.fit(tempfile.mkdtemp(), Batches(), seed=0, tracker=log)
            out["losses"][f"{loss} {way}"] = log.values
            if loss == LOSSES[0] and way == "one":
                params = jax.device_get(end.params)
            elif loss == LOSSES[0]:
                state = made.step.initialise(0)
                own = {"params": end.params, "opt": state.opt_state, "frozen": made._frozen}
                out["shares"][way] = shares(own)
                if way == "fsdp_tp":
                    traced = made.trace(
                        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype,
                                     sharding=x.sharding), made._frozen),
                        made.step.place_batches(Batches()[0]),
                    )  # fmt: skip
                    text = traced.lower().compile().as_text()
                    out["whole"] = text.count(f"f32[{8192},{WIDTH}]")
    asked = make_predictions(sessions())
    ids = id_rows(TRAIN, config().ids)
    for way, rules in (("one", None), ("fsdp_tp", "fsdp_tp")):
        made = trainer("one").task.model
        ranker = CompiledEncoder(made, ids, rules).ranker("student", params)
        ranker.prepare({"features": features()})
        ranked = rank(
            ranker, asked, n_items=ITEMS, exclude_seen=True, cold=~TRAIN, offsets=(0.0, 0.1),
            item_chunk=3000, batch=128,
        )  # fmt: skip
        out["ranks"][way], out["top"][way] = ranked.ranks.tolist(), ranked.top_ids.tolist()
        out["scores"][way] = ranked.top_scores.tolist()
        if rules == "fsdp_tp":
            held = {"vectors": ranker._vectors, "rows": ranker.rows, "params": ranker.params}
            out["shares"]["ranker"] = shares(held)
    return out


if __name__ == "__main__":
    print("RESULT" + json.dumps(main()))
    sys.stdout.flush()
