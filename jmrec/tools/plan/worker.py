"""The process that plans: it sees the devices that are planned for, which are not here.

Started by `jmrec.tools.plan.plan` with the environment that those devices need; reads a request
from standard input and prints one line of JSON for each message.
"""

import json
import logging
import math
import resource
import sys
import time
from dataclasses import asdict, replace
from typing import Any

import jax
from jax.experimental import topologies

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.flops import matmul_flops
from jmrec.sharding import replicated_share
from jmrec.systems.registry import check_settings
from jmrec.systems.system import Sizes
from jmrec.terminal import say
from jmrec.tools.plan.hlo import collectives
from jmrec.tools.plan.shapes import Planner, Step
from jmrec.tools.plan.verdict import StagePlan


def send(kind: str, value: Any) -> None:
    """Print a message to the process that started this one."""
    say(json.dumps({kind: value}))


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    logging.disable(logging.WARNING)  # what is replicated is reported
    try:
        config = ConfigDict(request["config"])
        check_settings(config)
        devices = jax.devices()
        if request["tpu"]:
            name = request["tpu"]
            try:
                described = topologies.get_topology_desc(platform="tpu", topology_name=name)
            except Exception as error:
                raise UserError(f"libtpu does not know {name} ({first_line(error)}).") from error
            devices = described.devices
        sizes = Sizes(request["items"], request["vocab"], tuple(request["fields"]))
        if "interactions" in request:
            sizes = replace(sizes, events=request["interactions"])
        planner = Planner(config, sizes, devices, request["kind"])
        for stage in request["stages"] or planner.stages:
            send("progress", f"{stage}: compiling for {len(devices)} devices ...")
            send("stage", asdict(plan(planner.step(stage), stage, bool(request["tpu"]))))
            jax.clear_caches()  # or the memory of every stage adds up
    except UserError as error:
        send("error", str(error))
        return
    send("peak", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def plan(step: Step, stage: str, tpu: bool) -> StagePlan:
    """Compile one step and measure it.

    Args:
      step: The stage's.
      stage: Its name.
      tpu: Whether the TPU compiler does it.

    Returns:
      What it needs; where it does not compile, what is known without.
    """
    start = time.monotonic()
    state = step.trainer.abstract
    groups = {
        "parameters": state.params,
        "optimizer": replace(state, params=None),
        "frozen": step.frozen,
        "batch": step.batch,
    }
    facts: dict[str, Any] = {
        "stage": stage,
        "parameters": step.parameters,
        "held": {name: bytes_here(tree) for name, tree in groups.items()},
        "whole": {name: bytes_whole(tree) for name, tree in groups.items()},
        "replicated": {
            name: replicated(groups[name]) for name in ("parameters", "optimizer", "frozen")
        },
        "rows": math.ceil(next(iter(step.batch.values())).shape[0] / step.parts),
        "flops": 0,
        "misfit": step.misfit,
        "group": step.planned.group,
        "stacks": step.planned.stacks,
        "positions": step.batch["mask"].size if "mask" in step.batch else 0,
    }
    if step.divides:
        traced = step.trace()
        facts["flops"] = matmul_flops(traced.jaxpr)
        # Machine code is not what is asked for; the buffers are the same without it.
        options = {} if tpu else {"xla_backend_optimization_level": 0}
        try:
            compiled = traced.lower().compile(options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise UserError(f"{stage} does not compile: {first_line(error)}") from error
            facts["out_of_memory"] = first_line(error).removeprefix("RESOURCE_EXHAUSTED: ")
        else:
            memory = compiled.memory_analysis()
            facts["compiled"] = {
                "arguments": memory.argument_size_in_bytes,
                "activations": memory.temp_size_in_bytes
                + max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0),
                "code": memory.generated_code_size_in_bytes,
            }
            facts["collectives"] = collectives(compiled.as_text())
    return StagePlan(**facts, seconds=round(time.monotonic() - start, 1))


def bytes_here(tree: Any) -> int:
    """Return the bytes of a tree of shapes on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def bytes_whole(tree: Any) -> int:
    """Return the bytes of a tree of shapes, each array once."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def replicated(tree: Any) -> dict[str, Any]:
    """Return what every device holds whole: bytes, their share, and the largest's paths."""
    found = sorted(
        (-leaf.size * leaf.dtype.itemsize, jax.tree_util.keystr(path, simple=True, separator="/"))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if leaf.sharding.is_fully_replicated
    )
    share = replicated_share(tree, jax.tree.map(lambda leaf: leaf.sharding, tree))
    largest = [path for _, path in found[:3]]
    return {"bytes": -sum(size for size, _ in found), "share": share, "largest": largest}


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


if __name__ == "__main__":
    main()
