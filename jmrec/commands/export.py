"""``jmrec export``: what is served."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jmrec.commands.command import Command
from jmrec.commands.options import (
    add_json,
    add_policy,
    add_row,
    add_verdicts,
    add_workdir,
    check_finished,
    output,
)
from jmrec.terminal import say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--stablehlo", action="store_true",
        help="add the scores as one StableHLO program, for servers without Python",
    )  # fmt: skip
    parser.add_argument(
        "--updatable", action="store_true",
        help="of a rule: add what jmrec remember --serve needs to count new sessions into it; it "
        "holds ids of sessions and users",
    )  # fmt: skip
    parser.add_argument(
        "--index", type=float, metavar="RECALL",
        help="of a student: answers look at a part of a large catalogue only, such that this share "
        "of the exact best 20 is found on training sessions, such as 0.95 (default: exact)",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=int, metavar="N",
        help="of a rule: of what each item says of others keep the N largest entries, in half "
        "precision; a much smaller folder, and what it costs on validation is said (default: all)",
    )  # fmt: skip
    add_row(parser)
    add_policy(parser)
    add_verdicts(parser)
    add_json(parser)
    add_workdir(parser)


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Write the folder and say what it holds."""
    check_finished(args.workdir)
    from jmrec.systems.serve import export
    from jmrec.systems.serve_agree import describe

    section = export(
        args.workdir, args.out, row=args.row, policy=args.policy,
        stablehlo=args.stablehlo, verdicts=args.verdicts, updatable=args.updatable,
        index=args.index, keep=args.keep,
    )  # fmt: skip

    def show(section: dict[str, Any]) -> None:
        for sentence in describe(section):
            say(sentence)

    output(section, args.json, show)


COMMAND = Command(
    help="Write what is served: a folder that recommends without workdir, teacher or backbone. "
    "Its\nsize and speed beside the teacher's go into the run's report.",
    example="jmrec export --workdir runs/shop --out serve\n"
    "  jmrec recommend --serve serve --items 12,57,3 --top 10",
    options=options,
    action=action,
)
