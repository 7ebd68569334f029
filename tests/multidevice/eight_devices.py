"""Run by test_sharded_training.py in its own process, with 8 fake devices; prints json."""

import gc
import json
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.checkpoint import Checkpoints
from jmrec.errors import UserError
from jmrec.sharding import make_mesh, put_batch, replicated, shardings
from jmrec.training import OptimConfig, Silent, TrainConfig, Trainer
from tests.compilations import compiled

ITEMS, WIDTH, HIDDEN, ROWS, STEPS = 32, 16, 24, 16, 10
gc.set_threshold(50_000, 20, 100)  # as tests/conftest.py, here of a process of its own


class NextItem:
    """A one-layer next-item model, masked, with a bank as its state."""

    name = "next item"
    hparams = {"learning_rate": 0.02}  # noqa: RUF012
    couples_examples = False

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        a, b, c = jax.random.split(key, 3)
        params = {
            "table": jax.random.normal(a, (ITEMS, WIDTH)) * 0.3,
            "up": jax.random.normal(b, (WIDTH, HIDDEN)) * 0.3,
            "down": jax.random.normal(c, (HIDDEN, WIDTH)) * 0.3,
            "odd": jnp.zeros((HIDDEN, 5)),
        }
        return params, {"bank": jnp.zeros((ITEMS,))}

    def logical_axes(self) -> Any:
        return {
            "table": ("item", None),
            "up": ("embed", "mlp"),
            "down": ("mlp", "embed"),
            "odd": ("mlp", "embed"),
        }

    def state_axes(self) -> Any:
        return None

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        return {"bias": np.linspace(-1, 1, WIDTH, dtype=np.float32)}, {"bias": ("embed",)}

    def loss(self, params, state, frozen, batch, key, step, hparams):  # type: ignore[no-untyped-def]
        h = params["table"][batch["item"]] + frozen["bias"]
        h = h + jnp.tanh(h @ params["up"]) @ params["down"] + (params["odd"] ** 2).sum()
        losses = -jax.nn.log_softmax(h @ params["table"].T)
        losses = jnp.take_along_axis(losses, batch["target"][:, None], 1)[:, 0]
        bank = 0.9 * state["bank"] + jax.nn.one_hot(batch["item"], ITEMS).sum(0)
        total = jnp.where(batch["mask"], losses, 0.0).sum()
        return total, batch["mask"].sum(), {"bank": bank}, {}


class Batches:
    """Sessions on a circle with a third of the rows masked."""

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(n)
        item = rng.integers(0, ITEMS, ROWS, np.int32)
        return {"item": item, "target": (item + 1) % ITEMS, "mask": rng.random(ROWS) < 0.7}


class Losses(Silent):
    """A tracker that keeps the losses and what is said."""

    prefix = "stage"

    def __init__(self) -> None:
        self.values: list[float] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.values.append(metrics["loss"])


class Failing(Batches):
    """Ends after the first half."""

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        if n == STEPS // 2:
            raise KeyboardInterrupt
        return super().__getitem__(n)


def make_trainer(
    rules: str, devices: int, accumulate: int = 1, muon: float = 0.0, average: int = 0
) -> Trainer:
    config = TrainConfig(
        steps=STEPS,
        eval_every=100,
        save_every=STEPS // 2,
        log_every=1,
        rules=rules,
        accumulate=accumulate,
        optim=OptimConfig(weight_decay=0.01, schedule="cosine", muon=muon, average=average),
    )
    return Trainer(NextItem(), config, mesh=make_mesh(rules, jax.devices()[:devices]))


def crossed(workdir: Path, first: Trainer, then: Trainer) -> dict[str, Any]:
    """Train half of the updates on some devices, stopped by a failure, the rest on others."""
    tracker = Losses()
    with suppress(KeyboardInterrupt):
        first.fit(workdir, Failing(), seed=0)
    result = then.fit(workdir, Batches(), seed=0, tracker=tracker)
    return {
        "losses": tracker.values,
        "said": tracker.said,
        "devices": len(result.params["table"].sharding.device_set),
        "table": np.asarray(result.params["table"]).tolist(),
    }


def main(workdir: Path) -> dict[str, Any]:
    out: dict[str, Any] = {"devices": jax.device_count(), "losses": {}, "specs": {}}
    trainers: dict[str, Trainer] = {}
    for name, rules, devices, accumulate in (
        ("one", "dp", 1, 1),
        ("dp", "dp", 8, 1),
        ("fsdp", "fsdp", 8, 1),
        ("fsdp_tp", "fsdp_tp", 8, 1),
        ("accumulated", "fsdp", 8, 2),
    ):
        trainer, tracker = make_trainer(rules, devices, accumulate), Losses()
        trainers[name] = trainer
        result = trainer.fit(workdir / name, Batches(), seed=0, tracker=tracker)
        out["losses"][name] = tracker.values
        out["specs"][name] = {k: str(tuple(p.sharding.spec)) for k, p in result.params.items()}
        out.setdefault("compilations", {})[name] = trainer.compilations
        out.setdefault("bank", {})[name] = np.asarray(result.task_state["bank"]).tolist()
        state = trainer.step.initialise(1)
        out.setdefault("born", {})[name] = float(
            jnp.sum(jnp.abs(jax.device_get(state.params["up"])))
        )
        mu = next(s for s in state.opt_state if hasattr(s, "mu")).mu
        out.setdefault("moments", {})[name] = {
            k: str(tuple(m.sharding.spec)) for k, m in mu.items()
        }
        whole = sum(p.nbytes for p in state.params.values())
        here = sum(p.addressable_shards[0].data.nbytes for p in state.params.values())
        out.setdefault("share", {})[name] = here / whole
    out["muon"] = {}
    for rules, devices in (("dp", 1), ("dp", 8), ("fsdp_tp", 8)):
        tracker = Losses()
        trainer = make_trainer(rules, devices, muon=5.0)
        trainer.fit(workdir / f"muon {rules} {devices}", Batches(), seed=0, tracker=tracker)
        out["muon"][f"{rules} {devices}"] = tracker.values
    tensor = make_trainer("fsdp_tp", 8, muon=5.0)
    out["muon 8 to 1"] = crossed(workdir / "muon 8 to 1", tensor, make_trainer("dp", 1, muon=5.0))
    averaged = {1: make_trainer("dp", 1, average=4), 8: make_trainer("fsdp_tp", 8, average=4)}
    out["average"] = {}
    for devices, trainer in averaged.items():
        result = trainer.fit(workdir / f"average {devices}", Batches(), seed=0)
        out["average"][devices] = np.asarray(result.params["table"]).tolist()
        out["average spec"] = str(tuple(result.params["table"].sharding.spec))
    out["average 8 to 1"] = crossed(workdir / "average 8 to 1", averaged[8], averaged[1])["table"]
    out["8 to 1"] = crossed(workdir / "8 to 1", trainers["fsdp_tp"], trainers["one"])
    out["1 to 8"] = crossed(workdir / "1 to 8", trainers["one"], trainers["fsdp_tp"])
    # Of a shape that nothing has saved before.
    state = {"w": jax.device_put(np.ones((16, 40)), replicated(make_mesh("dp")))}
    with compiled() as programs, Checkpoints(workdir / "small") as checkpoints:
        checkpoints.save(1, state, metadata={})
    out["programs of a save"] = sorted(programs)
    mesh = make_mesh("fsdp")
    try:
        put_batch({"item": np.zeros((12, 3), np.int32)}, mesh)
    except UserError as error:
        out["does not divide"] = str(error)
    stacked = put_batch({"item": np.zeros((2, 16, 3), np.int32)}, mesh, lead=1)["item"]
    out["stacked"] = list(stacked.addressable_shards[0].data.shape)
    shapes = {"w": jax.ShapeDtypeStruct((6, 16), np.float32)}
    found = shardings({"w": ("embed", None)}, shapes, mesh, "fsdp")
    out["odd"] = str(tuple(found["w"].spec))
    return out


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    print("RESULT" + json.dumps(main(Path(sys.argv[1]))))
