"""What every verb states of itself, and how a parser is made of it."""

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jmrec import __version__
from jmrec.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors."""

    def error(self, message: str) -> Any:
        """Raise instead of printing the whole usage."""
        raise UserError(f"{message} (see {self.prog} --help).")


@dataclass(frozen=True)
class Command:
    """One verb.

    Attributes:
      help: What it does; the first paragraph is shown by ``jmrec --help``.
      example: Command lines that end its help.
      options: Adds its options to its parser.
      action: Does it, given the options and the overrides; returns an exit code, None for 0.
      takes_overrides: Whether ``--config.name=value`` words may follow.
    """

    help: str
    example: str
    options: Callable[[Parser], None]
    action: Callable[[argparse.Namespace, Sequence[str]], int | None]
    takes_overrides: bool = False


def load(verb: str) -> Command:
    """Return the command of a verb, from the file of its name."""
    command: Command = importlib.import_module(f"jmrec.commands.{verb}").COMMAND
    return command


def add_parser(within: Any, name: str, help_text: str, example: str) -> Parser:
    """Return a parser for one more verb; its help ends in a worked example."""
    made: Parser = within.add_parser(
        name,
        help=help_text.partition("\n\n")[0],
        description=help_text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return made


def parser(verbs: Sequence[str]) -> Parser:
    """Return the parser of these verbs; the one that was asked for is named in ``verb``."""
    top = Parser(
        prog="jmrec",
        description="Multimodal session recommendation: teachers that read, a light student.",
        epilog="example:\n  jmrec run --config experiments/tpad.py:size=tiny --workdir runs/toy",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"jmrec {__version__}")
    within = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb in verbs:
        command = load(verb)
        command.options(add_parser(within, verb, command.help, command.example))
    return top
