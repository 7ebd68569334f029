"""SIGTERM, noted instead of died of."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jmrec.errors import Preempted


class Sigterm:
    """A context in which SIGTERM is noted; the old handler comes back at the end.

    Only the main thread can do this; elsewhere nothing is ever received. Whoever opens it must
    look at ``received`` once more after it: a signal may come late.

    Attributes:
      received: True once a SIGTERM came.

    Example:
      >>> with Sigterm() as sigterm:
      ...     signal.raise_signal(signal.SIGTERM)
      ...     sigterm.received
      True
    """

    def __init__(self) -> None:
        self.received = False
        self._old: Any = None
        self._armed = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Sigterm":
        """Take the signal over."""
        if self._armed:
            self._old = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = True

    def __exit__(self, *_: object) -> None:
        """Give the signal back."""
        if self._armed:
            signal.signal(signal.SIGTERM, self._old or signal.SIG_DFL)

    def agreed(self, ask: bool) -> bool:
        """Return whether any process has received it, the same answer in all of them.

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
            return self.received
        return ask and bool(multihost_utils.process_allgather(np.bool_(self.received)).any())


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

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Preempted("SIGTERM; what was finished is kept.")

    old_hook = sys.unraisablehook

    def swallowed(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Preempted):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            old_hook(unraisable)

    old = signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = swallowed
    try:
        yield
    finally:
        sys.unraisablehook = old_hook
        signal.signal(signal.SIGTERM, old or signal.SIG_DFL)
