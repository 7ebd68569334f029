"""The verbs of ``jmrec``: one file each, with its options, its help and its action.

A new verb is a file here that has a `COMMAND`, and its name in `VERBS`. What an action needs is
imported inside it, so that ``--help`` and a mistyped verb are answered at once.
"""

from jmrec.commands.command import Command, load, parser

__all__ = ["VERBS", "Command", "load", "parser"]

VERBS = (
    "data",
    "run",
    "sweep",
    "leaderboard",
    "embed",
    "remember",
    "evaluate",
    "recommend",
    "export",
    "serve",
    "convert",
    "config",
    "plan",
    "inspect",
    "doctor",
    "forget",
)
"""The names of the files, in the order in which ``jmrec --help`` lists them."""
