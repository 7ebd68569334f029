"""Run by test_two_processes.py: a tiny fit, alone or as one process of several.

    python member_of_two.py WORKDIR [END STEP PROCESS]   # alone
    python keeper_of_two.py WORKDIR [END STEP PROCESS]   # one of several

END is what happens when PROCESS is to read the batch of STEP: "kill-member" and "kill-keeper" end
one of its two Pythons by SIGKILL, "sigterm" is what a launcher sends to one of them, "mistake" and
"bug" raise there alone, "stop" everywhere.
"""

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from eight_devices import ITEMS, ROWS, NextItem

from jmrec.cluster.member import first, is_first, together
from jmrec.cluster.settings import read_settings
from jmrec.errors import Preempted, UserError, explain
from jmrec.sharding import make_mesh, process_local, process_rows
from jmrec.tracking import Tracker
from jmrec.training import OptimConfig, TrainConfig, Trainer

STEPS = 12
RULES = "fsdp"


class Batches:
    """The batches of eight_devices.py, of which each process reads its rows."""

    def __init__(self, end: str, step: int, process: int) -> None:
        self.end, self.step, self.process = end, step, process
        self.rows = process_rows(make_mesh(RULES))

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        if n == self.step and (self.end == "stop" or jax.process_index() == self.process):
            self.stop()
        rng = np.random.default_rng(n)
        item = rng.integers(0, ITEMS, ROWS, np.int32)
        batch = {"item": item, "target": (item + 1) % ITEMS, "mask": rng.random(ROWS) < 0.7}
        if self.rows is None:
            return batch
        rows = self.rows(ROWS)
        assert len(rows) == ROWS // jax.process_count()
        return {name: array[rows] for name, array in batch.items()}

    def stop(self) -> None:
        if self.end == "kill-member":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.end == "kill-keeper":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        if self.end == "sigterm":
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(2)  # no update before it has come
        if self.end == "mistake":
            raise UserError("the batch is bad; bring a better one.")
        if self.end == "bug":
            raise KeyError("bug")
        if self.end == "stop":
            raise Preempted("Stopped.")


def evaluate(params: Any, state: Any) -> dict[str, float]:
    return {"score": float(np.abs(np.asarray(params["up"])).mean() + len(state))}


def work(workdir: Path, batches: Any) -> None:
    config = TrainConfig(
        steps=STEPS,
        eval_every=4,
        save_every=2,
        log_every=1,
        rules=RULES,
        optim=OptimConfig(weight_decay=0.01, schedule="cosine"),
    )
    trainer = Trainer(NextItem(), config)
    with Tracker(workdir, quiet=not is_first()) as tracker:
        result = trainer.fit(workdir, batches(), seed=0, evaluate=evaluate, tracker=tracker)
    params = jax.device_get(process_local(result.params, trainer.mesh))

    def write() -> None:
        text = json.dumps(
            {
                "params": {name: x.tolist() for name, x in params.items()},
                "history": result.history,
                "devices": len(result.params["up"].sharding.device_set),
            }
        )
        (workdir / "result.json").write_text(text)

    first(write)


def main(words: list[str]) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    settings = read_settings()
    end, step, process = words[1:] or ("", "-1", "-1")

    def run() -> None:
        work(Path(words[0]), lambda: Batches(end, int(step), int(process)))

    if settings is not None:
        return together(settings, run, explain)
    try:
        run()
    except Preempted:
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
