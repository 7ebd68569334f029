"""Run by test_topology.py in its own process, with 8 fake devices; prints json.

    python topologies.py WORKDIR

The real tasks at test sizes, with a catalogue and a vocabulary that no mesh divides; and, from
shapes alone, how the towers of size=base lie on 8 devices.
"""

import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from eight_devices import Losses

from jmrec.config import load_config
from jmrec.features import pad_rows
from jmrec.models.dlrm import DlrmConfig
from jmrec.models.parts.lora import LoraConfig
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.assembled import AssembledConfig, fresh_backbone
from jmrec.models.readers.decoder import DecoderConfig
from jmrec.models.readers.efficientnet import BlockConfig, EfficientNetConfig
from jmrec.models.readers.knowledge import KnowledgeConfig
from jmrec.models.readers.vision import VisionConfig
from jmrec.models.sessions.student import StudentConfig
from jmrec.models.sessions.table import ENCODERS, session_config
from jmrec.models.sessions.transfer import TransferConfig, transfer_tower
from jmrec.sharding import dump_shardings, make_mesh, replicated_share, shardings
from jmrec.systems.system import Sizes
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.tasks.rank import Balance, RankTask
from jmrec.tasks.resident import ResidentTask
from jmrec.tasks.session import StudentTask, Teacher, id_table_size
from jmrec.tasks.transition import TransitionTask
from jmrec.tools.plan.shapes import Planner
from jmrec.training import OptimConfig, TrainConfig, Trainer
from jmrec.training.step import TrainStep

ROOT = Path(__file__).resolve().parents[2]
ITEMS, VOCAB, STEPS, ROWS, LENGTH = 997, 101, 20, 16, 5
TINY = StackConfig(width=16, layers=1, heads=2, kv_heads=2, mlp=16)
CONFIG = TransferConfig(features=6, stack=TINY, out=16, gaps=True, events=3)
RULES = ("dp", "fsdp", "tp", "fsdp_tp")


class Sessions:
    """Walks over the catalogue; a third of the positions masked."""

    def __init__(self, items: int = ITEMS, end: int | None = None) -> None:
        self.items, self.end = items, end

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        if n == self.end:
            raise KeyboardInterrupt
        rng = np.random.default_rng(n)
        item = rng.integers(0, self.items, (ROWS, LENGTH), np.int32)
        mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, ROWS)[:, None]
        target = np.where(mask, (item * 7 + 1) % self.items, 0).astype(np.int32)
        ok = mask & trained(self.items)[target]
        gap = np.where(mask, rng.uniform(0, 12, mask.shape), 0).astype(np.float32)
        event = np.where(mask, rng.integers(0, 3, mask.shape), 0).astype(np.int32)
        item = np.where(mask, item, 0)
        return {
            "item": item, "mask": mask, "target": target, "target_ok": ok, "gap": gap,
            "event": event,
        }  # fmt: skip


class Walks:
    """Sessions that live on the device: a batch says which events of theirs it holds."""

    def __init__(self, gathered: bool = False) -> None:
        rng = np.random.default_rng(0)
        item = rng.integers(0, ITEMS, 1100, np.int32)
        target = np.roll(item, -1)
        self.events = {
            "item": item, "target": target, "target_ok": trained(ITEMS)[target],
            "gap": rng.uniform(0, 12, len(item)).astype(np.float32),
            "event": rng.integers(0, 3, len(item), np.int32),
        }  # fmt: skip
        self.gathered = gathered

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(n)
        mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, ROWS)[:, None]
        start = rng.integers(0, len(self.events["item"]) - LENGTH, (ROWS, 1), np.int32)
        place = np.where(mask, start + np.arange(LENGTH, dtype=np.int32), 0)
        if not self.gathered:
            return {"place": place, "mask": mask}
        found = {name: np.where(mask, x[place], x.dtype.type()) for name, x in self.events.items()}
        found["gap"][:, 0] = 0
        return {**found, "place": place, "mask": mask}


class Items:
    """Items of noise, some without a picture."""

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(n)
        return {
            "row": rng.integers(0, ITEMS, ROWS, np.int32),
            "text": rng.integers(0, VOCAB, (ROWS, 9), np.int32),
            "picture": rng.integers(0, 256, (ROWS, 8, 8, 3)).astype(np.uint8),
            "picture_ok": rng.random(ROWS) < 0.8,
        }


def knowledge() -> KnowledgeTask:
    vision = VisionConfig(size=8, patch=4, stack=TINY)
    config = KnowledgeConfig(vocab=VOCAB, fields=(3, 4, 2), vision=vision, stack=TINY)
    return KnowledgeTask(config, {})


def assembled() -> KnowledgeTask:
    """Return the same on a backbone under low-rank updates, which lies cut over the mesh too."""
    net = EfficientNetConfig(8, (BlockConfig(16, expand=2),), stem=8, head=16, classes=4)
    config = AssembledConfig((3, 4, 2), net, DecoderConfig(VOCAB, TINY), 8, lora=LoraConfig(rank=4))
    backbone = jax.device_get(fresh_backbone(config, jax.random.key(5)))
    return KnowledgeTask(config, {}, backbone=backbone)


def trained(items: int) -> np.ndarray:
    """Return which items occur in training: nine of ten."""
    return np.arange(items) % 10 < 9


def tables(items: int = ITEMS) -> tuple[np.ndarray, np.ndarray]:
    e = np.random.default_rng(0).normal(size=(items, 6)).astype(np.float32)
    return e, trained(items)


def transition(items: int = ITEMS) -> TransitionTask:
    e, train = tables(items)
    return TransitionTask(CONFIG, e, train, {})


def distilled() -> StudentTask:
    e, train = tables()
    teacher = transfer_tower(CONFIG)
    params = jax.device_get(jax.jit(teacher.init)(jax.random.key(3)))
    config = StudentConfig(6, id_table_size(int(train.sum())), TINY, gaps=True, events=3)
    return StudentTask(config, e, train, Teacher(teacher, params, e), {})


def encoder(name: str) -> StudentTask:
    """Return a session encoder of the table on features and ids, without a teacher."""
    e, train = tables()
    ids = id_table_size(int(train.sum()))
    stack = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "mlp": 16}
    config = session_config(name, {"stack": stack}, features=6, ids=ids, gaps=True, events=3)
    if hasattr(config, "layers"):
        config = replace(config, layers=1)
    return StudentTask(config, e, train, None, {})


class Pairs:
    """Pairs of noise, one of eight of the rare class."""

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(n)
        return {
            "numbers": rng.normal(size=(ROWS, 3)).astype(np.float32),
            "item_id": rng.integers(0, ITEMS, ROWS, np.int32),
            "user_id": rng.integers(0, ITEMS, ROWS, np.int32),
            "category": rng.integers(0, 5, (ROWS, 1), np.int32),
            "part_row": rng.integers(0, ITEMS, (ROWS, 2), np.int32),
            "past": rng.integers(0, ITEMS, (ROWS, LENGTH), np.int32),
            "past_label": rng.integers(0, 3, (ROWS, LENGTH), np.int32),
            "past_mask": rng.random((ROWS, LENGTH)) < 0.7,
            "label": (rng.random(ROWS) < 0.3).astype(np.int32),
        }


def ranker() -> RankTask:
    """Return a DLRM, whose tables of ids lie cut over the mesh by their rows."""
    e, there = tables()
    read = {f"part/{p}": pad_rows(e) for p in range(2)}
    read |= {f"part_ok/{p}": pad_rows(there) for p in range(2)}
    read["past/item"] = pad_rows(e)
    for by in ("item", "user"):
        own = by == "item"
        read[f"empty/{by}"] = np.full(3, 0.5, np.float32)
        read[f"of/{by}"] = np.array([own, not own, False])
        read[f"hides/{by}"] = np.array([own, not own])
    config = DlrmConfig(3, 1024, 1024, (5,), (6, 6), past=6, width=16, bottom=(16,), top=(16,))
    return RankTask(config, Balance("pairwise", 940, 60), read, {})


def trainer(
    task: Any, rules: str, devices: int, save_every: int = STEPS, step: TrainStep | None = None
) -> Trainer:
    config = TrainConfig(
        steps=STEPS, eval_every=100, save_every=save_every, log_every=1, rules=rules,
        optim=OptimConfig(weight_decay=0.01, schedule="cosine"),
    )  # fmt: skip
    return Trainer(task, config, mesh=make_mesh(rules, jax.devices()[:devices]), step=step)


def fit(made: Trainer, workdir: Path, batches: Any) -> list[float]:
    losses = Losses()
    with suppress(KeyboardInterrupt):
        made.fit(workdir, batches, seed=0, tracker=losses)
    return losses.values


def base() -> dict[str, Any]:
    """Return dumps of the towers of size=base by rules, and the replicated share of each."""
    out: dict[str, Any] = {"dumps": {}, "replicated": {}}
    experiment = f"{ROOT / 'experiments/tpad.py'}:data=folder,size=base"
    config = load_config(experiment, ["--config.evaluate.serve=distilled"])
    sizes = Sizes(10_000, config.data.vocab, (16, 32))
    planner = Planner(config, sizes, jax.devices())
    trainers = {stage: planner.step(stage).trainer for stage in planner.stages}
    axes = {stage: each.task.logical_axes() for stage, each in trainers.items()}
    shapes = {stage: each.abstract.params for stage, each in trainers.items()}
    for rules in RULES:
        mesh = make_mesh(rules, jax.devices())
        out["dumps"][rules] = dump_shardings(axes, shapes, mesh, rules)
        placement = shardings(axes, shapes, mesh, rules)
        shares = {stage: replicated_share(shapes[stage], placement[stage]) for stage in shapes}
        out["replicated"][rules] = {**shares, "all": replicated_share(shapes, placement)}
    return out


def main(workdir: Path) -> dict[str, Any]:
    out: dict[str, Any] = {"losses": {}, "compilations": {}, **base()}
    tasks: dict[str, tuple[Callable[[], Any], Any]] = {
        "knowledge": (knowledge, Items()),
        "transition": (transition, Sessions()),
        "student": (distilled, Sessions()),
        "assembled": (assembled, Items()),
        "ranker": (ranker, Pairs()),
    }
    made: dict[str, Trainer] = {}
    for name, (task, batches) in tasks.items():
        out["losses"][name] = {}
        # Of a backbone the rules ask what they ask of a tower: the one that cuts most will do.
        every = RULES[-1:] if name == "assembled" else RULES
        for rules, devices in [("dp", 1), *((rules, 8) for rules in every)]:
            label = rules if devices == 8 else "one"
            each = trainer(task(), rules, devices, 5 if name == "transition" else STEPS)
            out["losses"][name][label] = fit(each, workdir / name / label, batches)
            out["compilations"][f"{name} {label}"] = each.compilations
            if name == "transition":
                made[label] = each
    gathered, said = Walks(gathered=True), Walks()
    resident = trainer(ResidentTask(transition(), said.events), "fsdp_tp", 8)
    out["losses"]["resident"] = {
        "one": fit(trainer(transition(), "dp", 1), workdir / "gathered", gathered),
        "fsdp_tp": fit(resident, workdir / "resident", said),
    }
    out["compilations"]["resident"] = resident.compilations
    made["four"] = trainer(transition(), "fsdp", 4, 5)
    way = [("fsdp", 5), ("four", 10), ("one", 15), ("fsdp_tp", None)]
    out["8 4 1 8"] = []
    for label, end in way:
        out["8 4 1 8"].append(fit(made[label], workdir / "way", Sessions(end=end)))
    for name in (name for name in ENCODERS if name not in ("student", "transfer")):
        meshes = ("dp", 1), ("fsdp_tp", 8)
        one, eight = (trainer(encoder(name), rules, devices, 3) for rules, devices in meshes)
        place, few = workdir / name, Sessions(end=6)
        out[f"{name} one"] = fit(one, place / "one", few)
        # Eight devices begin, and one goes on from what they have saved.
        first = fit(eight, place / "both", Sessions(end=3))
        out[f"{name} eight, one"] = [first, fit(one, place / "both", few)]
    # Tables are padded to 1,024 rows: these catalogues go through the programs of the first one.
    for items in (1, 7):
        few = Sessions(items)
        out[f"{items} items"] = [
            fit(
                trainer(transition(items), rules, devices, step=made[label].step),
                workdir / f"{items} {rules}", few,
            )
            for label, rules, devices in (("one", "dp", 1), ("fsdp_tp", "fsdp_tp", 8))
        ]  # fmt: skip
    return out


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    print("RESULT" + json.dumps(main(Path(sys.argv[1]))))
