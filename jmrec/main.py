"""The command line: dispatches to the verbs of `jmrec.commands`, turns errors into one sentence.

Exit codes: 0 done; 2 something that the user can correct; 75 stopped by SIGTERM after saving, or by
the loss of another process of the run, to be started again with the same command; 130 interrupted
by the keyboard (a fit saves first; a second Ctrl-C ends it at once), not to be started again; 141
whoever read what it prints has gone, as ``head`` does.
"""

import os
import select
import signal
import sys
from collections.abc import Sequence

from jmrec.commands import VERBS, load, parser
from jmrec.commands.options import with_file
from jmrec.errors import Preempted, UserError, explain
from jmrec.preemption import Stoppable
from jmrec.terminal import complain
from jmrec.xla import set_up

UNREAD = 128 + signal.SIGPIPE


def main(argv: Sequence[str] | None = None, *, last: bool = False) -> int:
    """Run one command; return its exit code.

    Args:
      argv: The arguments after ``jmrec``; the process's own where None.
      last: Whether the process ends with it; see `jmrec.preemption.Stoppable`.

    Returns:
      0, or one of the codes in the module's docstring.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with Stoppable(last) as signals:
        try:
            code = dispatch(arguments)
            signals.raise_if_received()
            return code
        except (Exception, KeyboardInterrupt, Preempted) as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                return UNREAD
            stopped = isinstance(error, Preempted | KeyboardInterrupt)
            # What else went wrong after a signal may be its echo.
            known = explain(signals.why() if signals.received and not stopped else error)
            if known is None:
                raise
            complain(known[1])
            return known[0]


def _nobody_reads() -> bool:
    """Return whether standard output leads nowhere any more, as in ``jmrec ... | head``.

    Then it is led away, so that the interpreter does not fail on it at its end.
    """
    try:
        out = sys.stdout.fileno()
    except (OSError, ValueError):  # no file at all, as in a notebook
        return False
    ask = select.poll()
    ask.register(out, select.POLLOUT)
    if not any(state & select.POLLERR for _, state in ask.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return True


def dispatch(arguments: Sequence[str]) -> int:
    """Parse the arguments after ``jmrec`` and run the verb; return the exit code.

    Raises:
      UserError: What was typed is not understood, or the verb says so.
    """
    args, rest = parser(VERBS).parse_known_args(arguments)
    args.typed = list(arguments)
    command = load(args.verb)
    if rest and not command.takes_overrides:
        raise UserError(f"{rest[0]!r} is not understood here (see jmrec {args.verb} --help).")
    if command.takes_overrides:
        rest = with_file(args, rest)
    return command.action(args, rest) or 0


def entry() -> None:
    """Run the console command."""
    set_up()
    sys.exit(main(last=True))
