"""``jmrec leaderboard``: session encoders beside the rules, as one JSON and one page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import add_overrides
from jmrec.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--config",
        help="experiment of the system session, with arguments after a colon; without encoder= "
        "every encoder that reads ids",
    )
    parser.add_argument("--workdir", type=Path, help="where everything is trained")
    parser.add_argument(
        "--out", type=Path, help="name of the JSON and the page (default: WORKDIR/leaderboard)"
    )
    parser.add_argument(
        "--best", type=int, default=3, metavar="N",
        help="so many encoders, the best on validation, are trained with every seed; the others "
        "with the first (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--always", default="sasrec,student", metavar="NAMES",
        help="encoders that are trained with every seed too (default: sasrec,student)",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N",
        help="train so many at a time, as jmrec run --parallel does (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--stale", choices=("stop", "rerun"), default="stop",
        help="what to do with a stage that was made with other settings",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, metavar="JSON", help="write the page of this leaderboard, run nothing"
    )
    add_overrides(parser)


def action(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Train and compare, or write a page again."""
    if args.page is None and (args.config is None or args.workdir is None):
        raise UserError(
            "jmrec leaderboard needs --config and --workdir, or --page (see jmrec leaderboard "
            "--help)."
        )
    from jmrec.config import load_config
    from jmrec.tools.leaderboard.train import train, with_encoders, write_page
    from jmrec.xla import set_deterministic

    if args.page is not None:
        write_page(args.page)
        return
    config = load_config(with_encoders(args.config), list(overrides))
    if config.get("deterministic", False):
        set_deterministic()  # before anything starts a device
    command = ["jmrec", *args.typed]
    train(
        config, args.workdir, args.out or args.workdir / "leaderboard", best=args.best,
        always=[each for each in args.always.split(",") if each], stale=args.stale,
        parallel=args.parallel, command=command,
    )  # fmt: skip


COMMAND = Command(
    help="Train session encoders by one loop and compare them with the rules: one seed of all,\n"
    "then every seed of those that are best on validation. It ends with a JSON, its costs beside\n"
    "it, and a page made of them; started again, it goes on.",
    example="jmrec leaderboard --config session:data=folder,items=ids+both \\\n"
    "    --config.data.dir=SHOP --config.features.from=runs/shop --workdir runs/board\n"
    "  jmrec leaderboard --page runs/board/leaderboard.json",
    options=options,
    action=action,
    takes_overrides=True,
)
