"""``jmrec remember``: sessions that came after training are counted into what is served."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import check_finished
from jmrec.errors import UserError
from jmrec.terminal import say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--workdir", type=Path, help="the workdir of a run")
    where.add_argument(
        "--serve", type=Path, metavar="DIR", help="what jmrec export --updatable wrote"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--interactions", type=Path, metavar="FILE",
        help="the new events, with the columns of the run's own table; sessions may go on in it",
    )  # fmt: skip
    what.add_argument(
        "--undo", action="store_true", help="take the last file back, as if it had never been read"
    )
    parser.add_argument(
        "--items", type=Path, metavar="FILE",
        help="a table of items, of which the new ones are added; rules of texts know them at once",
    )  # fmt: skip
    parser.add_argument(
        "--solve", action="store_true",
        help="solve the weights of EASE anew too, which takes its time (it is told); else they "
        "stay as they are",
    )  # fmt: skip
    parser.add_argument(
        "--dir", type=Path,
        help="the catalogue folder, if it is not the one of the run: its dataset.toml says how "
        "files are read (the first time; then it is known)",
    )  # fmt: skip


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Count them, or take the last file back, and say what became of it."""
    if args.undo and (args.items or args.solve or args.dir):
        raise UserError("--undo takes the last file back and reads none; leave the others out.")
    if args.serve is not None and args.dir is not None:
        raise UserError("--serve knows how files are read; leave out --dir.")
    if args.serve is not None:
        said = _serve(args)
    else:
        check_finished(args.workdir)
        from jmrec.systems import runs

        if args.undo:
            said = runs.undo_remember(args.workdir)
        else:
            said = runs.remember(
                args.workdir, args.interactions, args.items, folder=args.dir, solve=args.solve
            )
    for sentence in said:
        say(sentence)


def _serve(args: argparse.Namespace) -> list[str]:
    from jmrec.serving.remember import remember, undo

    if args.undo:
        return undo(args.serve)
    return remember(args.serve, args.interactions, args.items, solve=args.solve)


COMMAND = Command(
    help="Count sessions that came after training into the rules that are served: nothing is "
    "trained,\nand each event is counted once, however often it is given. Figures of the run stay "
    "as they are.",
    example="jmrec remember --workdir runs/shop --interactions week32.csv --items new_items.csv\n"
    "  jmrec remember --serve serve --interactions week32.csv\n"
    "  jmrec remember --workdir runs/shop --undo",
    options=options,
    action=action,
)
