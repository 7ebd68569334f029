"""``jmrec recommend``: next items for one session, or items for one user."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmrec.commands.command import Command
from jmrec.commands.options import (
    add_json,
    add_policy,
    add_row,
    add_verdicts,
    check_finished,
    output,
)
from jmrec.errors import UserError
from jmrec.terminal import console, say, warn

if TYPE_CHECKING:  # jax and a second: not for --help
    from jmrec.serving import Answer


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=Path, help="the workdir of a run")
    source.add_argument("--serve", type=Path, metavar="DIR", help="what jmrec export wrote")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--items",
        help="item ids of the session, oldest first; one that holds a comma in double quotes",
    )
    asked.add_argument("--user", help="a user id, for a run that ranks items for users")
    parser.add_argument("--top", type=int, default=10, help="how many items to recommend")
    parser.add_argument(
        "--at", metavar="TIME",
        help="for items that are available for a while: a date, or unix seconds (default: now)",
    )  # fmt: skip
    parser.add_argument(
        "--times", help="when each item of the session was clicked, for a student that reads pauses"
    )
    parser.add_argument("--events", help="what each click was, for one that reads event types")
    parser.add_argument(
        "--unknown", choices=("skip", "refuse"), default="skip",
        help="what is done with an item or user that is not known: an item is left out, a user is "
        "served as a new one (default), or it is an error",
    )  # fmt: skip
    add_row(parser)
    add_policy(parser)
    add_verdicts(parser)
    add_json(parser)


def listed(words: str | None) -> list[str] | None:
    """Return the words between commas.

    A word that holds a comma stands in double quotes, as in a CSV.

    Example:
      >>> listed("12, 57,"), listed('"shoe, red",57'), listed(None)
      (['12', '57'], ['shoe, red', '57'], None)
    """
    if words is None:
        return None
    cells = next(csv.reader([words], skipinitialspace=True), [])
    return [word.strip() for word in cells if word.strip()]


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Recommend from a workdir, or from what was exported."""
    session = listed(args.items)
    if args.user is None and not session:
        raise UserError("name at least one item of the session (--items).")
    for name in ("times", "events") if session is None else ("verdicts",):
        if getattr(args, name) is not None:
            asked = "--user" if session is None else "--items"
            raise UserError(f"--{name} says nothing of what {asked} asks for; leave it out.")
    if args.top < 1:
        raise UserError("ask for 1 item or more (--top).")
    if args.workdir is not None:
        check_finished(args.workdir)
    elif args.row is not None:
        raise UserError("--serve has one row; leave out --row, or name a --workdir.")
    if sys.stderr.isatty():  # jax and a compilation: seconds
        say(f"loading {args.workdir or args.serve} ...", sys.stderr)
    from jmrec.evaluation.policy import read_time

    at = None if args.at is None else read_time(args.at)
    if session is None:
        _for_user(args, at)
    else:
        found = _for_session(args, session, at)
        if found.unknown:
            named = ", ".join(map(repr, dict.fromkeys(found.unknown)))
            warn(
                f"{len(found.unknown)} of {len(session)} items of the session are not in the "
                f"catalogue and are left out: {named}."
            )
        output(found, args.json, show)


def _for_session(args: argparse.Namespace, session: Sequence[str], at: float | None) -> "Answer":
    from jmrec.evaluation.policy import read_time

    clicked, events = listed(args.times), listed(args.events)
    times = None if clicked is None else [read_time(each) for each in clicked]
    if args.serve is not None:
        from jmrec.serving import load

        served = load(args.serve, args.policy)
        return served.recommend(session, args.top, at, times, events, args.unknown)
    from jmrec.systems import serve

    return serve.recommend(
        args.workdir, session, args.top, args.row, args.policy, at, times, events, args.unknown
    )


def _for_user(args: argparse.Namespace, at: float | None) -> None:
    if args.serve is not None:
        from jmrec.serving import load_pairs

        served = load_pairs(args.serve, args.policy, args.verdicts)
        found = served.recommend(args.user, args.top, at, args.unknown)
    else:
        from jmrec.systems import serve_pairs

        found = serve_pairs.recommend(
            args.workdir, args.user, args.top, args.row, args.policy, args.verdicts, at,
            args.unknown,
        )  # fmt: skip
    if not found["known"]:
        near = f"; did you mean {found['nearest']!r}?" if found["nearest"] else "."
        warn(f"user {args.user!r} is not known and is served as a new one{near}")
    output(found, args.json, show_for_user)


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


def show_for_user(found: dict[str, Any]) -> None:
    """Print what is recommended to a user, best first, and what was left out."""
    from rich.markup import escape
    from rich.table import Table

    avoid = found["label_means"] == "avoid"
    if found["items"]:
        table = Table("", "item", "title", "probability", "flag")
        for place, each in enumerate(found["items"], 1):
            named = map(escape, (each["item_id"], each["title"]))
            table.add_row(str(place), *named, f"{each['probability']:.3f}", each["flag"])
        console().print(table)
        say(f"{'Least' if avoid else 'Most'} probable first: {found['label']}.")
    else:
        say("No item may be recommended: ratings, policy, threshold and verdicts leave none.")
    if found["left_out"]:
        say(
            f"{found['left_out']:,} more are left out: {found['label']} is as probable as "
            f"{found['threshold']:.3f} or more."
        )


COMMAND = Command(
    help="Recommend next items for a session, or items that a user has not rated.",
    example="jmrec recommend --workdir runs/shop --items 12,57,3 --top 10\n"
    "  jmrec recommend --serve serve --items 12,57,3 --policy policy.toml\n"
    "  jmrec recommend --workdir runs/mmrec --user eve --top 10 --verdicts verdicts.csv",
    options=options,
    action=action,
)
