"""Run by test_plan.py in its own process: what 8 fake devices really hold; prints json."""

import json
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.config import ConfigDict
from jmrec.sharding import RULES
from jmrec.systems.system import Sizes
from jmrec.tools.plan.shapes import Planner


def here(tree: Any) -> int:
    """Bytes that device 0 holds of arrays that exist."""
    device = jax.devices()[0]
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == device
    )


def on_paper(trainer: Any) -> int:
    """Bytes of the parameters a device: each shape over the sizes of its axes on the mesh."""
    rules, mesh = RULES[trainer.config.rules], trainer.mesh.shape
    axes = trainer.task.logical_axes()
    total = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(trainer.abstract.params)[0]:
        names = axes
        for part in path:
            names = names[part.key]
        size = leaf.dtype.itemsize
        for name, length in zip(names, leaf.shape, strict=True):
            parts = mesh[rules[name]] if name is not None and rules[name] else 1
            size *= length // parts if length % parts == 0 else length
        total += size
    return total


def main(request: dict[str, Any]) -> dict[str, Any]:
    sizes = Sizes(request["items"], request["vocab"], tuple(request["fields"]))
    planner = Planner(ConfigDict(request["config"]), sizes, jax.devices())
    out: dict[str, Any] = {"devices": jax.device_count()}
    for stage in request["stages"]:
        step = planner.step(stage)
        state = step.trainer.step.initialise(0)
        zeros = jax.tree.map(
            lambda leaf: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding),
            (step.frozen, step.batch),
        )
        frozen, batch = zeros
        everything = here(jax.tree.map(jax.random.key_data, state.key)) + sum(
            here(tree)
            for tree in (state.opt_state, state.task_state, state.step, state.best,
                         state.best_step, state.stale)
        )  # fmt: skip
        out[stage] = {
            "held": {"parameters": here(state.params), "optimizer": everything,
                     "frozen": here(frozen), "batch": here(batch)},
            "on paper": on_paper(step.trainer),
            "whole": sum(leaf.nbytes for leaf in jax.tree.leaves(state.params)),
            "numbers": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        }  # fmt: skip
    return out


if __name__ == "__main__":
    print("RESULT" + json.dumps(main(json.load(sys.stdin))))
