"""Chunked softmax and KL against the dense reference, forward and backward: memory, time, numbers.

Memory is what the compiled program needs beyond its inputs and outputs, as the compiler says it.
The dense side's least is known by arithmetic too: it keeps one float32 [batch, items] array of
logits a table. Times are medians of calls that take turns. Differences are the largest of any
entry, as a share of the largest entry, between the chunked kernel and the dense reference (above
1 GB of logits, the dense reference over a few states at a time).
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.errors import UserError
from jmrec.kernels import chunked_kl, chunked_softmax_cross_entropy
from jmrec.kernels.softmax import softmax_cross_entropy_reference

Arrays = Mapping[str, jax.Array]
TIMED = 100_000
"""Tables above this are not timed: the dense side would fill the memory of a small machine."""
SLICE = 64
"""How many states the dense reference takes at a time where it would not fit."""
FITS = 1e9
APART = 1e-2
"""A larger difference from the dense reference is wrong, in any precision of an accelerator."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--items", default="10000,100000,1000000", help="table sizes, by commas")
    parser.add_argument("--batch", type=int, default=512, help="states (default: 512)")
    parser.add_argument("--width", type=int, default=128, help="of states and items (default: 128)")
    parser.add_argument("--chunk", type=int, default=4096, help="items a block (default: 4096)")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each (default: 7)")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure both kernels at every table size.

    Raises:
      UserError: if a size is no positive number.
    """
    words = args.items.split(",")
    if not all(word.strip().isdigit() and int(word) for word in words):
        raise UserError(f"--items={args.items} is no list of sizes; give one such as 10000,100000.")
    for name in ("batch", "width", "chunk", "repeats"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name}={getattr(args, name)} is too small; give 1 or more.")
    device = jax.devices()[0]
    table = [
        {"kernel": kernel, "items": int(word), **_measure(kernel, int(word), args)}
        for word in words
        for kernel in ("softmax", "kl")
    ]
    return {
        **{name: getattr(args, name) for name in ("batch", "width", "chunk", "repeats", "seed")},
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        **({"wrong": wrong} if (wrong := wrong_rows(table)) else {}),
        "table": table,
    }


def wrong_rows(table: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each row in which a kernel is not the dense reference."""
    return [
        f"{row['kernel']} over {row['items']} items: {name} is {row[name]:g}, not {APART} or less"
        for row in table
        for name in ("values_apart", "states_apart", "items_apart")
        if not row[name] <= APART  # what is no number is wrong too
    ]


def _inputs(items: int, args: argparse.Namespace) -> tuple[Arrays, Arrays]:
    """Return what is differentiated (states, items) and the rest; logits have a spread of 1."""
    keys = iter(jax.random.split(jax.random.key(args.seed), 5))

    def normal(rows: int) -> jax.Array:
        return jax.random.normal(next(keys), (rows, args.width)) * args.width**-0.25

    part = {"states": normal(args.batch), "items": normal(items)}
    rest = {"teacher_states": normal(args.batch), "teacher_items": normal(items)}
    return part, {**rest, "targets": jax.random.randint(next(keys), (args.batch,), 0, items)}


def _passes(kernel: str, chunk: int | None) -> Callable[[Arrays, Arrays], Any]:
    """Return (part, rest) -> (values [N], gradients of their sum); chunk None is dense."""

    def values(part: Arrays, rest: Arrays) -> jax.Array:
        if kernel == "softmax":
            inputs = (part["states"], part["items"], rest["targets"])
            if chunk is None:
                return softmax_cross_entropy_reference(*inputs)
            return chunked_softmax_cross_entropy(*inputs, chunk=chunk)
        both = (rest["teacher_states"], rest["teacher_items"], part["states"], part["items"])
        whole = len(part["items"])  # one block, dense
        return chunked_kl(*both, chunk=whole if chunk is None else chunk)

    def total(part: Arrays, rest: Arrays) -> tuple[jax.Array, jax.Array]:
        each = values(part, rest)
        return each.sum(), each

    def passes(part: Arrays, rest: Arrays) -> tuple[jax.Array, Arrays]:
        gradients, each = jax.grad(total, has_aux=True)(part, rest)
        return each, gradients

    return passes


def _measure(kernel: str, items: int, args: argparse.Namespace) -> dict[str, Any]:
    part, rest = _inputs(items, args)
    sides = {
        name: jax.jit(_passes(kernel, chunk)).lower(part, rest).compile()
        for name, chunk in (("chunked", args.chunk), ("dense", None))
    }
    memory = {}
    for name, compiled in sides.items():
        analysis = compiled.memory_analysis()
        memory[name] = analysis.temp_size_in_bytes if analysis else 0
    least = 4 * args.batch * items * (1 if kernel == "softmax" else 2)
    found: dict[str, Any] = {
        "chunked_mb": round(memory["chunked"] / 1e6, 1),
        "dense_mb": round(memory["dense"] / 1e6, 1),
        "dense_least_mb": round(least / 1e6, 1),
        "memory": f"1/{least / max(memory['chunked'], 1):.0f}",
    }
    if items <= TIMED:
        seconds = _take_turns({**sides, "products": _products(kernel)}, (part, rest), args.repeats)
        found |= {f"{name}_s": round(each, 4) for name, each in seconds.items()}
        found["time"] = round(seconds["chunked"] / seconds["dense"], 2)
    found |= _differences(kernel, sides["chunked"](part, rest), part, rest)
    return found


def _products(kernel: str) -> Callable[[Arrays, Arrays], Any]:
    """Return the bare matrix products that the dense passes need."""

    @jax.jit
    def products(part: Arrays, rest: Arrays) -> Any:
        states, items = part["states"], part["items"]
        logits = states @ items.T
        out = [logits @ items, logits.T @ states]
        if kernel == "kl":
            out.append(rest["teacher_states"] @ rest["teacher_items"].T)
        return out

    return products


def _take_turns(
    functions: Mapping[str, Callable[..., Any]], inputs: tuple[Any, ...], repeats: int
) -> dict[str, float]:
    """Return name -> median seconds; every function is called once before."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*inputs))
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _differences(kernel: str, ours: Any, part: Arrays, rest: Arrays) -> dict[str, Any]:
    """Compare with the dense reference, which goes over all states at once where that fits."""
    count, items = part["states"].shape[0], part["items"].shape[0]
    size = count if 4 * count * items <= FITS else min(SLICE, count)
    dense = jax.jit(_passes(kernel, None))
    values, d_states, d_items = [], [], np.zeros(part["items"].shape, np.float32)
    for start in range(0, count, size):
        few = slice(start, start + size)
        own = {**part, "states": part["states"][few]}
        own_rest = {**rest}
        for name in ("teacher_states", "targets"):
            own_rest[name] = rest[name][few]
        each, gradients = dense(own, own_rest)
        values.append(each)
        d_states.append(gradients["states"])
        d_items += np.asarray(gradients["items"])

    def apart(array: jax.Array, expected: Any) -> float:
        expected = np.asarray(expected)
        largest = np.abs(np.asarray(array) - expected).max() / np.abs(expected).max()
        return float(f"{largest:.1e}")

    return {
        "values_apart": apart(ours[0], jnp.concatenate(values)),
        "states_apart": apart(ours[1]["states"], jnp.concatenate(d_states)),
        "items_apart": apart(ours[1]["items"], d_items),
    }
