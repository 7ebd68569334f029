"""``jmrec recommend``: next items for one session."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jmrec.commands.command import Command
from jmrec.commands.options import add_json, add_policy, add_student, check_finished, output
from jmrec.errors import UserError
from jmrec.terminal import console, say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=Path, help="the workdir of a run")
    source.add_argument("--serve", type=Path, metavar="DIR", help="what jmrec export wrote")
    parser.add_argument("--items", required=True, help="item ids of the session, oldest first")
    parser.add_argument("--top", type=int, default=10, help="how many items to recommend")
    parser.add_argument(
        "--at", metavar="TIME",
        help="for items that are available for a while: a date, or unix seconds (default: now)",
    )  # fmt: skip
    parser.add_argument(
        "--times", help="when each item of the session was clicked, for a student that reads pauses"
    )
    parser.add_argument("--events", help="what each click was, for one that reads event types")
    add_student(parser)
    add_policy(parser)
    add_json(parser)


def listed(words: str | None) -> list[str] | None:
    """Return the words between commas.

    Example:
      >>> listed("12, 57,"), listed(None)
      (['12', '57'], None)
    """
    return None if words is None else [word.strip() for word in words.split(",") if word.strip()]


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Recommend from a workdir, or from what was exported."""
    session = listed(args.items)
    if not session:
        raise UserError("name at least one item of the session (--items).")
    if args.top < 1:
        raise UserError("ask for 1 item or more (--top).")
    if args.workdir is not None:
        check_finished(args.workdir)
    if sys.stderr.isatty():  # jax and a compilation: seconds
        say(f"loading {args.workdir or args.serve} ...", sys.stderr)
    from jmrec.evaluation.policy import read_time

    clicked, events = listed(args.times), listed(args.events)
    times = None if clicked is None else [read_time(each) for each in clicked]
    at = None if args.at is None else read_time(args.at)
    if args.serve is not None:
        from jmrec.serving import load

        if args.student is not None:
            raise UserError("--serve has one student; leave out --student, or name a --workdir.")
        found = load(args.serve, args.policy).recommend(session, args.top, at, times, events)
    else:
        from jmrec.systems import serve

        found = serve.recommend(
            args.workdir, session, args.top, args.student, args.policy, at, times, events
        )
    output(found, args.json, show)


def show(found: Sequence[dict[str, Any]]) -> None:
    """Print what is recommended, best first."""
    from rich.markup import escape
    from rich.table import Table

    if not found:
        say("No item may be recommended: session, policy and availability leave none.")
        return
    table = Table("", "item", "title", "score")
    for place, each in enumerate(found, 1):
        mark = f"{place} pinned" if each["pinned"] else str(place)
        named = map(escape, (each["item_id"], each["title"]))
        table.add_row(mark, *named, f"{each['score']:.3f}")
    console().print(table)


COMMAND = Command(
    help="Recommend next items for a session.",
    example="jmrec recommend --workdir runs/shop --items 12,57,3 --top 10\n"
    "  jmrec recommend --serve serve --items 12,57,3 --policy policy.toml",
    options=options,
    action=action,
)
