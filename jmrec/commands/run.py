"""``jmrec run``: every stage of an experiment."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from jmrec.api.start import start
from jmrec.commands.command import Command
from jmrec.commands.options import add_config, add_overrides
from jmrec.errors import explain


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--workdir", type=Path, required=True, help="where everything is written")
    parser.add_argument(
        "--resume", choices=("auto", "never"), default="auto",
        help="auto goes on from what the workdir holds; never refuses a workdir that is not empty",
    )  # fmt: skip
    parser.add_argument(
        "--stale", choices=("stop", "rerun"), default="stop",
        help="what to do with a stage that was made with other settings",
    )  # fmt: skip
    parser.add_argument(
        "--data", choices=("compare", "as-prepared", "continue"), default="compare",
        help="what to do with a catalogue folder that was prepared before: compare it and stop "
        "where it has changed (--stale=rerun makes all anew); go on with what was prepared; or "
        "take the rows and items that are new and train students over ids on with them",
    )  # fmt: skip
    parser.add_argument(
        "--origins", type=int, default=1, metavar="N",
        help="rolling-origin evaluation: run all anew before each of the last N test windows, in "
        "workdirs of their own, and report them together",
    )  # fmt: skip
    parser.add_argument(
        "--share", action="store_true",
        help="share finished stages with the runs in the folders beside the workdir, as the trials "
        "of jmrec sweep do: what is equal is made once, and kept in shared-stages beside them",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N",
        help="so many stages at a time that need not wait for each other, such as students, each "
        "in a process with its share of the cores and memory of its own; on a CPU (default: 1)",
    )  # fmt: skip
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # what --parallel starts
    parser.add_argument(
        "--only", type=lambda text: text.split(","), metavar="ROW[,ROW]",
        help="train these of the students (or rankers) alone, as jmrec sweep does with the row by "
        "which it judges",
    )  # fmt: skip
    add_config(parser)
    add_overrides(parser)


def action(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Run here, or as one of the processes of a cluster."""
    if args.stage:
        from jmrec.systems.registry import run_stage

        run_stage(args.workdir, args.stage)
        return 0
    from jmrec.cluster.settings import KEPT, read_settings

    settings = read_settings()
    if settings is not None and KEPT not in os.environ:
        from jmrec.cluster.keeper import keep

        return keep(args.typed)

    def work() -> None:
        start(
            args.config, args.workdir, overrides, origins=args.origins, resume=args.resume,
            stale=args.stale, data=args.data, share=args.share, parallel=args.parallel,
            only=args.only, sources=args.sources,
        )  # fmt: skip

    if settings is None:
        work()
        return 0
    from jmrec.cluster import member

    return member.together(settings, work, explain)


COMMAND = Command(
    help="Run every stage of an experiment in a workdir; started again, it goes on.",
    example="jmrec run --config experiments/tpad.py:data=folder,size=small \\\n"
    "    --config.data.dir=SHOP --workdir runs/shop",
    options=options,
    action=action,
    takes_overrides=True,
)
