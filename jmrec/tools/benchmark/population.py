"""Seeds of a student trained at once against as many trained one after another, in one process.

The student reads ids and has the full softmax over the catalogue; sessions are random. Batches lie
in memory, so that the time is that of the updates and of placing their batches; of a CPU it is the
time that it was busy. first_call_seconds is tracing, compilation and one update; the other times
are medians of rounds that take turns, of --updates each. losses_apart is the largest difference of
any loss of a member from the same update of its own run, as a share of that.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.data.packing import packed_batches
from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.student import StudentConfig
from jmrec.sharding import make_mesh
from jmrec.tasks.session import StudentTask, id_table_size
from jmrec.training import OptimConfig, TrainStep
from jmrec.training.optim import traced_numbers
from jmrec.training.population import PopulationStep
from jmrec.types import Batch, HParams

LENGTH, ROWS_OF = 50, 20
"""Positions of a row, and for how many rows there are sessions, a row of a batch."""
APART = 1e-3
"""A larger difference of a loss is wrong, in any precision of an accelerator."""
STEPS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--members", type=int, default=8, help="seeds (default: 8)")
    parser.add_argument("--items", type=int, default=10_000, help="catalogue (default: 10000)")
    parser.add_argument("--batch", type=int, default=64, help="rows of 50 clicks (default: 64)")
    parser.add_argument("--width", type=int, default=64, help="of the student (default: 64)")
    parser.add_argument("--updates", type=int, default=20, help="in a round (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each (default: 3)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure both ways.

    Raises:
      UserError: if a number is too small.
    """
    for name, least in (
        ("members", 2), ("items", 2), ("batch", 1), ("width", 2), ("updates", 1), ("rounds", 1),
    ):  # fmt: skip
        if getattr(args, name) < least:
            raise UserError(f"--{name}={getattr(args, name)} is too small; give {least} or more.")
    task = _task(args)
    optim = OptimConfig(steps=STEPS)
    alone = TrainStep(task, optim, make_mesh("dp"))
    fits = _Fits(task, alone, optim, [_batches(args, seed) for seed in range(args.members)])
    at_once = PopulationStep(alone, args.members)
    first, seconds, losses = {}, {"alone": list[float](), "at once": list[float]()}, {}
    for n in range(1 + args.rounds):
        for way, step in (("alone", alone), ("at once", at_once)):
            took, began, found = fits.run(step)
            if n == 0:
                first[way], losses[way] = began, found
            else:
                seconds[way].append(took)
    apart = float(np.abs(losses["at once"] / losses["alone"] - 1).max())
    each = {way: statistics.median(rounds) / args.members for way, rounds in seconds.items()}
    table = [
        {"way": way, "first_call_seconds": round(first[way], 2),
         "seconds_a_member": float(f"{spent:.4g}")}
        for way, spent in each.items()
    ]  # fmt: skip
    wrong = f"a loss of a member is {apart:.1e} of it away from that of its own run."
    return {
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        **{name: getattr(args, name) for name in ("members", "items", "batch", "width", "updates")},
        "of_one_alone": round(each["at once"] / each["alone"], 3),
        "losses_apart": float(f"{apart:.1e}"),
        **({} if apart < APART else {"wrong": [wrong]}),
        "table": table,
    }


class _Fits:
    """Fits of several seeds, from their beginning, by either step."""

    def __init__(
        self, task: StudentTask, alone: TrainStep, optim: OptimConfig, hosts: list[list[Batch]]
    ) -> None:
        self.alone, self.hosts = alone, hosts
        # What an accelerator works is no time of the processor.
        self.clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
        self.frozen = alone.place_frozen(*task.frozen(Path()))
        numbers = {**task.hparams, "optim": traced_numbers(optim)}
        self.numbers: HParams = jax.tree.map(lambda x: np.asarray(x, np.float32), numbers)

    def run(self, step: TrainStep | PopulationStep) -> tuple[float, float, np.ndarray]:
        """Do all updates of all members; return the seconds without and of the first, and losses.

        Returns:
          (seconds of the updates after the first, of the first, float64 [members, updates]).
        """
        size, later, first = len(self.hosts), 0.0, 0.0
        losses = np.zeros((size, len(self.hosts[0]) - 1))
        groups = [[k] for k in range(size)] if step is self.alone else [[*range(size)]]
        for group in groups:
            state = step.join([self.alone.initialise(k) for k in group])
            numbers = step.place_numbers([self.numbers] * len(group))
            found, start = [], self.clock()
            for n in range(len(self.hosts[0])):
                hosts = [self.hosts[k][n] for k in group]
                done = step.advance(state, self.frozen, hosts, numbers, [True] * len(group))
                state = done[0]
                found.append(done[1]["loss"])
                if n == 0:
                    jax.block_until_ready(state.params)
                    begun = self.clock()
            jax.block_until_ready(state.params)
            later += self.clock() - begun
            first = max(first, begun - start)  # of several alone the first one compiles
            for n, (total, count) in enumerate(found[1:]):
                losses[group, n] = np.asarray(total, float) / np.asarray(count, float)
        return later, first, losses


def _task(args: argparse.Namespace) -> StudentTask:
    train = np.ones(args.items, bool)
    stack = StackConfig(width=args.width, layers=1, heads=2, kv_heads=2, mlp=2 * args.width)
    config = StudentConfig(features=0, ids=id_table_size(args.items), stack=stack)
    return StudentTask(config, None, train, None, {"id_dropout": 0.0})


def _batches(args: argparse.Namespace, seed: int) -> list[Batch]:
    """Return the first batches of a seed, one more than the updates that are timed."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, LENGTH, ROWS_OF * args.batch)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    count = int(offsets[-1])
    nothing = np.zeros(count, np.int32)
    sessions = Sessions(
        [str(n) for n in range(len(lengths))], np.full(len(lengths), -1), offsets,
        rng.integers(0, args.items, count).astype(np.int32), np.arange(count, dtype=float), nothing,
        nothing.astype(np.float32),
    )  # fmt: skip
    batches = packed_batches(sessions, rows=args.batch, length=LENGTH, seed=seed, has_time=False)
    return [batches[n] for n in range(1 + args.updates)]
