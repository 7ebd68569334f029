"""``jmrec forget``: users and sessions are taken out of what a workdir keeps."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.errors import UserError
from jmrec.terminal import say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--workdir", type=Path, required=True,
        help="the workdir of a run, of --origins or of a sweep; or what jmrec data prepare wrote",
    )  # fmt: skip
    parser.add_argument(
        "--user", action="append", default=[], metavar="ID",
        help="whose rows and sessions go; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--session", action="append", default=[], metavar="ID",
        help="a session that goes; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--dir", type=Path,
        help="the catalogue folder, if it is not the one of the run: where sessions have ids of "
        "their own it alone says whose they are; it is only read",
    )  # fmt: skip


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Take them out and say what still holds something of them."""
    if not args.user and not args.session:
        raise UserError("nobody is named; give --user ID or --session ID.")
    if not args.workdir.is_dir():
        raise UserError(f"{args.workdir} is no folder; name the workdir of a run.")
    from jmrec.systems.forget import forget

    for taken in forget(args.workdir, args.user, args.session, args.dir):
        for sentence in taken.sentences():
            say(sentence)


COMMAND = Command(
    help="Take users or sessions out of the data and caches of a workdir, and say what was trained "
    "with them.",
    example="jmrec forget --workdir runs/shop --user 4711\n"
    "  jmrec forget --workdir runs/shop --session s17 --session s18",
    options=options,
    action=action,
)
