"""``jmrec doctor``: what this machine has, and what it lacks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import add_json, output


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--workdir", type=Path, default=Path(),
        help="where runs are to be written; it need not exist (default: this folder)",
    )  # fmt: skip
    add_json(parser)


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Look and print; what is missing is a result, and no error."""
    from jmrec.tools.doctor import look, show, verdict

    rows = look(args.workdir)
    if args.json:
        found = {"rows": [row._asdict() for row in rows], "verdict": verdict(rows)}
        output(found, True, print)
    else:
        show(rows)


COMMAND = Command(
    help="Print versions, devices, disk and rights, and what is missing for which verb; seconds.",
    example="jmrec doctor\n  jmrec doctor --workdir /scratch/runs --json",
    options=options,
    action=action,
)
