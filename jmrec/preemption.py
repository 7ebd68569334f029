"""SIGTERM, and Ctrl-C during a fit, noted instead of died of."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jmrec.errors import Interrupted, Preempted


class Sigterm:
    """A context in which SIGTERM is noted; the old handler comes back at the end.

    Only the main thread can do this; elsewhere nothing is ever received. Whoever opens it must
    look at ``received`` once more after it: a signal may come late.

    Args:
      keyboard: Whether the first Ctrl-C is noted too, where Ctrl-C would raise KeyboardInterrupt.
        The second ends a command on the spot; in a notebook it is KeyboardInterrupt again.

    Attributes:
      received: The number of the first signal that came, 0 before.

    Example:
      >>> with Sigterm() as sigterm:
      ...     signal.raise_signal(signal.SIGTERM)
      ...     sigterm.received == signal.SIGTERM
      True
    """

    def __init__(self, keyboard: bool = False) -> None:
        self.received = 0
        self._old: dict[int, Any] = {}
        self._noted: list[int] = []
        if threading.current_thread() is threading.main_thread():
            self._noted.append(signal.SIGTERM)
            # Ignored where a script starts a command by "&": then it stays so.
            if keyboard and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._noted.append(signal.SIGINT)

    def __enter__(self) -> "Sigterm":
        """Take the signals over."""
        for each in self._noted:
            self._old[each] = signal.signal(each, self._note)
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = self.received or signum
        if signum == signal.SIGINT:
            # A command loses nothing by dying, whatever it waits for; a notebook's kernel does.
            command = self._old[signal.SIGTERM] is _stop
            signal.signal(signum, signal.SIG_DFL if command else self._old[signum])
            # print is not to be called where it may itself be interrupted.
            os.write(2, b"\njmrec: saving the state; Ctrl-C once more ends at once.\n")

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for each, old in self._old.items():
            signal.signal(each, old or signal.SIG_DFL)

    def saved(self, updates: int) -> BaseException:
        """Return what a fit raises once it has saved its state."""
        if self.received == signal.SIGINT:
            return Interrupted(
                f"interrupted after {updates} updates; the state is saved; the same command goes on"
            )
        return Preempted(f"SIGTERM after {updates} updates; the state is saved.")

    def agreed(self, ask: bool) -> bool:
        """Return whether any process has received one, the same answer in all of them.

        Args:
          ask: With several processes only asked when True (they must all ask at once, and
            asking costs a round trip); with one process it does not matter.
        """
        # Imported here, so that a command is deaf to SIGTERM for no longer than it must; and a
        # sweep, which notes SIGTERM too, needs none of it.
        import jax
        import numpy as np
        from jax.experimental import multihost_utils

        if jax.process_count() == 1:
            return bool(self.received)
        if not ask:
            return False
        # All must end alike: where both signals came, by SIGTERM.
        found = int(multihost_utils.process_allgather(np.int32(self.received)).max())
        # One that came meanwhile is kept for the next time that all ask.
        self.received = found or self.received
        return bool(found)


@contextmanager
def hold_sigterm() -> Iterator[None]:
    """Let a SIGTERM wait until the block, or the decorated function, has ended.

    For calls that run an event loop of their own, such as orbax's: what a signal raises in there
    may end there, after a traceback.

    Example:
      >>> with stop_on_sigterm(), hold_sigterm():
      ...     signal.raise_signal(signal.SIGTERM)
      Traceback (most recent call last):
      ...
      jmrec.errors.Preempted: SIGTERM; what was finished is kept.
    """
    sigterm = Sigterm()
    try:
        with sigterm:
            yield
    finally:
        if sigterm.received:
            signal.raise_signal(signal.SIGTERM)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Preempted("SIGTERM; what was finished is kept.")


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Turn a SIGTERM into `Preempted` where no training loop takes care of it.

    Stages write to side names and rename, so between two updates there is nothing to save.

    Python swallows what is raised while it calls a finaliser or a weak reference's callback. A
    signal that comes just then is sent once more.

    Example:
      >>> with stop_on_sigterm():
      ...     signal.raise_signal(signal.SIGTERM)
      Traceback (most recent call last):
      ...
      jmrec.errors.Preempted: SIGTERM; what was finished is kept.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    old_hook = sys.unraisablehook

    def swallowed(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Preempted):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            old_hook(unraisable)

    old = signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = swallowed
    try:
        yield
    finally:
        sys.unraisablehook = old_hook
        signal.signal(signal.SIGTERM, old or signal.SIG_DFL)
