"""What several verbs share: options of one meaning, and how their words are read."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jmrec.api.start import check_finished as check_finished
from jmrec.terminal import say


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config", required=True, help="experiment file, with arguments after a colon"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add ``--overrides``, for verbs that take ``--config.name=value`` too."""
    parser.add_argument(
        "--overrides", type=Path, metavar="FILE",
        help="YAML with settings, such as student: {train: {steps: 500}}; what the command line "
        "sets as --config.name=value counts more",
    )  # fmt: skip


def with_file(args: argparse.Namespace, typed: Sequence[str]) -> list[str]:
    """Return the overrides of the file of ``--overrides``, if any, then those that were typed.

    ``args.sources`` then says of each setting that is set so where its value is from.
    """
    from jmrec.config import OVERRIDE, overridden, override_words, read_overrides

    file = getattr(args, "overrides", None)
    values = {} if file is None else read_overrides(file)
    args.sources = {
        **dict.fromkeys(values, str(file)),
        **dict.fromkeys(overridden(typed), OVERRIDE),
    }
    return [*override_words(values), *typed]


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """Add ``--workdir`` of a finished run."""
    parser.add_argument("--workdir", type=Path, required=True, help="the workdir of a run")


def add_row(parser: argparse.ArgumentParser) -> None:
    """Add ``--row``."""
    parser.add_argument(
        "--row",
        help="which row of the run's table of results, a student or a rule (default: the run's "
        "choice, evaluate.serve)",
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``."""
    parser.add_argument(
        "--policy", type=Path, metavar="FILE",
        help="TOML with lists of item ids: allow (only these), block, pin (these first)",
    )  # fmt: skip


def add_verdicts(parser: argparse.ArgumentParser) -> None:
    """Add ``--verdicts``."""
    parser.add_argument(
        "--verdicts", type=Path, metavar="FILE",
        help="where users are asked for: CSV with item_id, user_id (empty for all) and verdict, "
        "keep or drop",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def output(found: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """Print what was found, for machines or by ``show`` for people."""
    if as_json:
        from jmrec.files import plain

        say(json.dumps(plain(found), indent=2, allow_nan=False))
    else:
        show(found)
