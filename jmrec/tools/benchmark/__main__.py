"""Measure jmrec on this machine: ``python -m jmrec.tools.benchmark WHAT [--help]``.

Each benchmark makes its own data from a seed, prints a table, and ends with one line of JSON. The
exit code is 2 where it can not run, and where a result is wrong.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from rich.table import Table

from jmrec.errors import UserError
from jmrec.terminal import say
from jmrec.tools.terminal import wide_console
from jmrec.xla import set_flags

BENCHMARKS = (
    *("accelerator", "backbone", "data", "items", "kernels", "population", "serve", "sessions"),
)
"""Modules with ``add_arguments(parser)`` and ``run(args) -> {name: plain value}``; "table" may hold
a list of such dicts, and "wrong" sentences about results that are. They are imported after XLA's
flags are set."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; return the exit code.

    Args:
      argv: The arguments after the module's name; the process's own where None.
    """
    parser = argparse.ArgumentParser(prog="python -m jmrec.tools.benchmark", description=__doc__)
    which = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    modules = {name: import_module(f"{__package__}.{name}") for name in BENCHMARKS}
    for name, module in modules.items():
        about = (module.__doc__ or "").partition("\n")[0]
        module.add_arguments(which.add_parser(name, help=about, description=about))
    args = parser.parse_args(argv)
    try:
        found = modules[args.what].run(args)
    except UserError as error:
        say(f"benchmark: {error}", sys.stderr)
        return 2
    show(args.what, found)
    return 2 if found.get("wrong") else 0


def show(title: str, found: dict[str, Any]) -> None:
    """Print a benchmark's figures as tables, then as one line of JSON."""
    measured = found.get("table", [])
    plain = {name: value for name, value in found.items() if name != "table"}
    table = Table(title=f"benchmark: {title}", title_justify="left", show_header=False)
    for name, value in plain.items():
        table.add_row(name.replace("_", " "), _text(value))
    wide_console().print(table)
    if measured:
        table = Table()
        names = list(dict.fromkeys(name for row in measured for name in row))
        for name in names:
            table.add_column(name.replace("_", " "), justify="right")
        for row in measured:
            table.add_row(*(_text(row.get(name, "")) for name in names))
        wide_console().print(table)
    say(json.dumps({"benchmark": title, **found}))


def _text(value: Any) -> str:
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:,}" if number else str(value)


if __name__ == "__main__":
    set_flags()
    # The sides of a benchmark share one device: none takes all its memory at its start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sys.exit(main())
