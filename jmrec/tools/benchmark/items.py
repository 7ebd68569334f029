"""Train, evaluate and export a student of a large catalogue on pretended devices of this CPU.

Features and ids of items are drawn from a seed, and so are sessions: what is measured is whether a
catalogue of that size goes through, what a device holds of each of its tables, and how long each
part takes. The devices share the cores of this machine, so the seconds are those of one machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from typing import Any

from jmrec.config import choose
from jmrec.errors import UserError
from jmrec.sharding import RULES
from jmrec.tools.plan.plan import environment

SIDE = f"{__package__}.items_side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--items", type=int, default=100_000, help="of the catalogue (100000)")
    parser.add_argument("--width", type=int, default=64, help="of item vectors and features (64)")
    parser.add_argument("--devices", type=int, default=8, help="pretended ones (8)")
    parser.add_argument("--rules", default="fsdp_tp", help="dp, fsdp, tp or fsdp_tp (fsdp_tp)")
    parser.add_argument("--batch", type=int, default=16, help="sessions of an update (16)")
    parser.add_argument("--length", type=int, default=10, help="clicks of a session (10)")
    parser.add_argument("--updates", type=int, default=3, help="that are timed (3)")
    parser.add_argument("--predictions", type=int, default=256, help="that are ranked (256)")
    parser.add_argument(
        "--index", type=float, default=0.0, metavar="RECALL",
        help="measure an approximate index that shall find this share too (0: none)",
    )  # fmt: skip
    parser.add_argument("--loss", default="full_softmax", help="the next-item loss (full_softmax)")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own, which sees so many devices.

    Raises:
      UserError: if an option makes no sense, or the process fails.
    """
    choose("--rules", args.rules, tuple(RULES))
    names = ("items", "width", "devices", "batch", "length", "updates", "predictions")
    settings = {name: getattr(args, name) for name in (*names, "rules", "index", "loss", "seed")}
    if low := [name for name in names if settings[name] < 1]:
        raise UserError(f"--{low[0]} must be 1 or more.")
    if not 0 <= args.index <= 1:
        raise UserError(f"--index={args.index:g} is no share; give a number from 0 to 1.")
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", SIDE, json.dumps({**settings, "folder": folder})]
        env = environment(args.devices, tpu=False)
        done = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(
            f"the process that measures ended with {done.returncode}; what it said stands above "
            "(a negative number is a signal: -9 often means that memory ran out)."
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))
