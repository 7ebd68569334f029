"""``jmrec embed``: items that came after training."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import add_workdir, check_finished
from jmrec.terminal import say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--dir", type=Path, help="the folder, if it is not the one of the run")
    add_workdir(parser)


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Read the new items and say how many there were."""
    check_finished(args.workdir)
    from jmrec.evaluation.results import RESULTS, read_results
    from jmrec.report.decision import of_new_items
    from jmrec.systems import runs

    new = runs.embed(args.workdir, args.dir)
    say(f"{new} new items were read." if new else "There are no new items.")
    results = read_results(args.workdir / "evaluate" / RESULTS)
    served = results["served"]
    if new and served and (said := of_new_items(results, served["row"])):
        say(said)


COMMAND = Command(
    help="Read items that were added to the catalogue folder after training; nothing is trained.",
    example="jmrec embed --workdir runs/shop",
    options=options,
    action=action,
)
