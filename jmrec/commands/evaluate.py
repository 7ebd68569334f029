"""``jmrec evaluate``: every row of a run's table, on either split."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import add_policy, add_workdir, check_finished


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument(
        "--by", choices=("day", "week", "month"),
        help="report every row by the day, week (from Monday, UTC) or month of what is predicted "
        "too, to see it age",
    )  # fmt: skip
    parser.add_argument(
        "--counts", choices=("frozen", "weekly", "live", "all"), default="frozen",
        help="beside the rows of training alone (frozen), live: every rule and its blend with the "
        "student, with counts of all that was before each prediction, as a server has them; "
        "weekly: the served row and the best rule, counted anew every Monday as by jmrec remember; "
        "all: both",
    )  # fmt: skip
    parser.add_argument(
        "--parts", action="store_true",
        help="where a blend is served, report it without each of its members too: what each is "
        "worth",
    )  # fmt: skip
    parser.add_argument("--dump-topk", type=Path, help="folder for what was recommended, npz")
    add_policy(parser)
    add_workdir(parser)


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Evaluate and write the report."""
    check_finished(args.workdir)
    from jmrec.systems import runs

    runs.evaluate(
        args.workdir, args.split, args.dump_topk, args.policy, args.by, args.counts, args.parts
    )


COMMAND = Command(
    help="Rank every rule, student and teacher of a run, and write the report.",
    example="jmrec evaluate --workdir runs/shop --split=validation --dump-topk runs/shop/topk\n"
    "  jmrec evaluate --workdir runs/shop --split=test --by week --counts=all",
    options=options,
    action=action,
)
