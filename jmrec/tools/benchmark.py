"""Measure jmrec on this machine: ``python -m jmrec.tools.benchmark WHAT [--help]``.

Each benchmark makes its own data from a seed, prints a table, and ends with one line of JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from jmrec.errors import UserError
from jmrec.tools import benchmark_data
from jmrec.tools.text import wide_console

BENCHMARKS = {"data": benchmark_data}
"""Name -> module with ``add_arguments(parser)`` and ``run(args) -> {name: plain value}``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; return the exit code.

    Args:
      argv: The words after the module's name; the process's own where None.
    """
    parser = argparse.ArgumentParser(prog="python -m jmrec.tools.benchmark", description=__doc__)
    which = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, module in BENCHMARKS.items():
        about = (module.__doc__ or "").partition("\n")[0]
        module.add_arguments(which.add_parser(name, help=about, description=about))
    args = parser.parse_args(argv)
    try:
        found = BENCHMARKS[args.what].run(args)
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    show(args.what, found)
    return 0


def show(title: str, found: dict[str, Any]) -> None:
    """Print a benchmark's figures as a table, then as one line of JSON."""
    table = Table(title=f"benchmark: {title}", title_justify="left", show_header=False)
    for name, value in found.items():
        table.add_row(
            name.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else str(value)
        )
    wide_console().print(table)
    print(json.dumps({"benchmark": title, **found}))


if __name__ == "__main__":
    sys.exit(main())
