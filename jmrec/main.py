"""The command line: dispatches to the verbs of `jmrec.commands`, turns errors into one sentence.

Exit codes: 0 done; 2 something that the user can correct; 75 stopped by SIGTERM after saving, or by
the loss of another process of the run, to be started again with the same command; 130 interrupted
by the keyboard (a fit saves first; a second Ctrl-C ends it at once), not to be started again.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from jmrec.commands import VERBS, load, parser
from jmrec.errors import Preempted, UserError, explain
from jmrec.preemption import stop_on_sigterm


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    Args:
      argv: The arguments after ``jmrec``; the process's own where None.

    Returns:
      0, or one of the codes in the module's docstring.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return dispatch(arguments)
    except (Exception, KeyboardInterrupt, Preempted) as error:
        known = explain(error)
        if known is None:
            raise
        print(f"jmrec: {known[1]}", file=sys.stderr)
        return known[0]


def dispatch(arguments: Sequence[str]) -> int:
    """Parse the arguments after ``jmrec`` and run the verb; return the exit code.

    Raises:
      UserError: What was typed is not understood, or the verb says so.
    """
    args, rest = parser(VERBS).parse_known_args(arguments)
    args.typed = list(arguments)
    command = load(args.verb)
    with nullcontext() if command.handles_signals else stop_on_sigterm():
        if rest and not command.takes_overrides:
            raise UserError(f"{rest[0]!r} is not understood here (see jmrec {args.verb} --help).")
        return command.action(args, rest) or 0


def entry() -> None:
    """Run the console command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    sys.exit(main())


if __name__ == "__main__":
    entry()
