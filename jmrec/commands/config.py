"""``jmrec config``: the settings of an experiment, to be found."""

import argparse
from collections.abc import Sequence

from jmrec.commands.command import Command, Parser, add_parser
from jmrec.commands.options import add_json, add_overrides, output

SHOW = """Print every setting: its value, what it means and may be, and which stages read it.

A stage reads a setting whose change makes the stage another one: a workdir in which it is done
stops at such a change, and --stale=rerun does it again with all that read it. Settings without a
stage may change from start to start. Settings of the command line and of --overrides are shown as
they would be run. Nothing is read but the experiment file, and weights that it names."""
EXAMPLE = """jmrec config show tpad:size=small
  jmrec config show tpad:size=small --find learning_rate
  jmrec config show tpad:size=small --diff tpad:size=tiny
  jmrec config show runs/shop --diff tpad:data=folder,size=tiny"""


def options(parser: Parser) -> None:
    """Add the step "show"."""
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True, parser_class=Parser)
    show = add_parser(steps, "show", SHOW, EXAMPLE)
    show.add_argument(
        "experiment", help="as jmrec run takes it, such as tpad:size=small; or a finished run"
    )
    show.add_argument(
        "--find", default="", metavar="TEXT", help="only settings with this in name or meaning"
    )
    show.add_argument(
        "--diff", metavar="OTHER", help="only settings that differ from this experiment or run"
    )
    add_overrides(show)
    add_json(show)


def action(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Print the settings of one, or how it differs from another."""
    from jmrec.config import load_config
    from jmrec.tools.settings import describe, open_config, show

    if overrides:
        load_config(args.experiment, list(overrides))  # a slip needs no models to be seen
    config = open_config(args.experiment, overrides)
    other = None if args.diff is None else open_config(args.diff)
    found = describe(config, args.sources, other, args.find)
    output(found, args.json, lambda found: show(found, args.diff or ""))


COMMAND = Command(
    help="Print the settings of an experiment or a run: values, meanings, ranges, who reads them.",
    example=EXAMPLE,
    options=options,
    action=action,
    takes_overrides=True,
)
