"""``jmrec inspect``: what a checkpoint holds."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import add_json, output


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("path", type=Path, help="a workdir, a stage, its checkpoints or its params")
    parser.add_argument("other", type=Path, nargs="?", help="what to compare it with")
    parser.add_argument("--step", type=int, help="which checkpoint (default: the newest)")
    parser.add_argument(
        "--all", action="store_true",
        help="of two workdirs: every array and setting that differs, not a line a stage",
    )  # fmt: skip
    add_json(parser)


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Print one, or how two differ."""
    from jmrec.tools import inspect

    if args.other is None:
        output(inspect.inspect(args.path, args.step), args.json, inspect.show)
    else:
        found = inspect.compare(args.path, args.other, args.step)
        output(found, args.json, lambda found: inspect.show_comparison(found, args.all))


COMMAND = Command(
    help="Print a checkpoint of any mesh, or compare two: settings, arrays, metrics, versions.",
    example="jmrec inspect runs/shop/knowledge\n  jmrec inspect runs/shop runs/other",
    options=options,
    action=action,
)
