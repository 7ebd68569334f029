"""The process that outlives jax: starts the member, passes signals on, tells how it ended.

The coordination service of jax lives in process 0. When it is gone, jax aborts every other process
on the spot, with a stack trace and no exit code to requeue on; nothing inside such a process can
report its end. So the command starts itself once more as a child, and waits.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

from jmrec.cluster.settings import KEPT
from jmrec.errors import REQUEUE
from jmrec.terminal import complain

SAID = (0, 1, 2, REQUEUE, 130)
"""Exit codes with which a member has said all there is to say."""
FATAL = re.compile(rb"F\d{4} ")
"""How a line begins after which absl prints a stack trace and aborts."""


PROGRAM = ("-m", "jmrec")


def keep(words: Sequence[str], program: Sequence[str] = PROGRAM) -> int:
    """Run ``jmrec WORDS`` as a member of the cluster; return the exit code.

    Args:
      words: What was typed after ``jmrec``.
      program: What Python is to run; it must call `jmrec.cluster.member.together`.

    Returns:
      The member's exit code; 75 where it ended because process 0 is gone or by a SIGTERM.
    """
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, *program, *words],
        env={**os.environ, KEPT: str(theirs.fileno())},
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
        # Ctrl-C reaches the keeper alone, which passes it on once.
        start_new_session=True,
    )
    theirs.close()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: child.send_signal(number))
    held: list[bytes] = []
    assert child.stderr is not None
    pump = threading.Thread(target=_pass_on, args=(child.stderr, held), daemon=True)
    pump.start()
    code = child.wait()
    pump.join(5)  # a process that the child left behind may hold it open
    if code in SAID:
        _show(held)
        return code
    place = _place(ours)
    if code == -signal.SIGTERM:
        complain(
            "SIGTERM; what was finished is kept. Start the same command again to go on.",
        )
        return REQUEUE
    if place.get("process", 0) > 0 and not _answers(place["coordinator"]):
        complain(
            f"process 0 of {place['processes']} is gone; start the same command again, in "
            "all processes, to go on.",
        )
        return REQUEUE
    if place and "process" not in place:
        complain(
            f"the processes of this run did not come together ({place['waited']} s); look "
            "that all were started and reach each other, then start the same command again.",
        )
        return REQUEUE
    _show(held)
    return code if code >= 0 else 128 - code


def _pass_on(lines: IO[bytes], held: list[bytes]) -> None:
    """Pass the child's messages on, and hold back what comes with an abort."""
    for line in lines:
        if held or FATAL.match(line):
            held.append(line)
        else:
            _show([line])


def _show(lines: Sequence[bytes]) -> None:
    sys.stderr.write(b"".join(lines).decode(errors="replace"))
    sys.stderr.flush()


def _place(ours: socket.socket) -> dict[str, Any]:
    """Return the last place in the cluster that the child reported."""
    ours.setblocking(False)
    try:
        lines = ours.recv(65536).splitlines()
    except OSError:
        return {}
    return dict(json.loads(lines[-1])) if lines else {}


def _answers(address: str) -> bool:
    """Return whether anybody listens there."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except OSError:
        return False
