"""Run by test_population.py in its own process, with 8 fake devices; prints json.

python populations.py WORKDIR

Two seeds of the distilled student of topologies.py: each alone on one device, and both at once on
one and on eight, by the parallel program of an accelerator and by the one of a CPU.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from eight_devices import Losses
from topologies import Sessions, distilled, trainer

from jmrec.training import Member
from jmrec.training.population import PopulationStep

SEEDS = (0, 1)
EVERY = {
    "one": ("dp", 1, True),
    "dp": ("dp", 8, True),
    "fsdp_tp": ("fsdp_tp", 8, True),
    "fsdp_tp, one after another": ("fsdp_tp", 8, False),
}


class Own(Sessions):
    """Batch n is a function of the seed and n."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        return super().__getitem__(1000 * self.seed + n)


def members(workdir: Path) -> tuple[list[Member], list[Losses]]:
    logs = [Losses() for _ in SEEDS]
    return [Member(workdir / str(s), Own(s), s, tracker=log) for s, log in zip(SEEDS, logs)], logs


def main(workdir: Path) -> dict[str, Any]:
    one = trainer(distilled(), "dp", 1)
    given, logs = members(workdir / "alone")
    ends = [one.fit_members([each])[0] for each in given]
    want = [jax.device_get(end.params) for end in ends]
    out: dict[str, Any] = {"alone": [log.values for log in logs], "losses": {}, "apart": {}}
    out["flops"], out["compilations"] = {"alone": ends[0].flops}, {}
    for label, (rules, devices, at_once) in EVERY.items():
        each = trainer(distilled(), rules, devices)
        step = PopulationStep(each.step, len(SEEDS), at_once=at_once)
        each.step.populations[len(SEEDS)] = step
        given, logs = members(workdir / label)
        found = each.fit_members(given)
        out["losses"][label] = [log.values for log in logs]
        out["apart"][label] = [
            max(
                float(np.abs(np.asarray(a) - b).max())
                for a, b in zip(jax.tree.leaves(end.params), jax.tree.leaves(solo), strict=True)
            )
            for end, solo in zip(found, want)
        ]
        out["flops"][label] = found[0].flops
        out["compilations"][label] = step.compilations + each.compilations
        spread = step.join([each.step.initialise(seed) for seed in SEEDS])
        out.setdefault("share", {})[label] = sum(
            leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(spread.params)
        ) / sum(leaf.nbytes for leaf in jax.tree.leaves(spread.params))
    return out


if __name__ == "__main__":
    print("RESULT" + json.dumps(main(Path(sys.argv[1]))))
