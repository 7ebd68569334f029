"""SIGTERM and Ctrl-C, noted instead of died of.

What a signal's handler raises is raised wherever Python happens to be: in a library's callback it
is printed and forgotten, in the midst of an import it becomes an ImportError. So no handler here
raises. It notes the signal, and the command looks (`look`) wherever something is finished: at each
message, each step of a progress bar, each block of scores. One that does not look for `GRACE`
seconds is ended on the spot, which loses nothing: every file appears by being renamed.
"""

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

from jmrec.errors import Interrupted, Preempted, explain

GRACE = 3.0
"""Seconds in which a command is to look whether a signal came."""
LAST_WORDS = 150.0
"""Seconds in which a command is to end once it has looked: what it started ends first."""


class Sigterm:
    """A context in which SIGTERM is noted; the old handler comes back at the end.

    For what saves by itself and takes the time that needs. Only the main thread can do this;
    elsewhere nothing is ever received. Whoever opens it must look at ``received`` once more after
    it: a signal may come late.

    Args:
      keyboard: Whether the first Ctrl-C is noted too. The second ends a command on the spot; in a
        notebook it is KeyboardInterrupt again.

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
            own = signal.getsignal(signal.SIGINT)
            if keyboard and (own is signal.default_int_handler or _stoppable(own)):
                self._noted.append(signal.SIGINT)

    def __enter__(self) -> "Sigterm":
        """Take the signals over; one that came to the command before ends it here."""
        look()
        for each in self._noted:
            self._old[each] = signal.signal(each, self._note)
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = self.received or signum
        if signum == signal.SIGINT:
            # A command loses nothing by dying, whatever it waits for; a notebook's kernel does.
            command = _stoppable(self._old[signal.SIGTERM])
            signal.signal(signum, signal.SIG_DFL if command else self._old[signum])
            # print is not to be called where it may itself be interrupted.
            os.write(2, b"\njmrec: saving the state; Ctrl-C once more ends at once.\n")

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for each, old in self._old.items():
            signal.signal(each, old or signal.SIG_DFL)
            if (command := _stoppable(old)) is not None:  # who has saved may say so no more
                command.received = command.received or self.received

    def saved(self, what: str) -> BaseException:
        """Return what is raised once the state is saved.

        Args:
          what: How far it came, such as "after 20 updates"; "" says nothing of that.
        """
        of = f" {what}" if what else ""
        if self.received == signal.SIGINT:
            return Interrupted(f"interrupted{of}; the state is saved; the same command goes on")
        return Preempted(f"SIGTERM{of}; the state is saved.")

    def agreed(self, ask: bool) -> bool:
        """Return whether any process has received one, the same answer in all of them.

        Args:
          ask: With several processes only asked when True (they must all ask at once, and
            asking costs a round trip); with one process it does not matter.
        """
        # Imported here, so that a sweep, which notes SIGTERM too, needs none of it.
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


class Stoppable:
    """A context in which a whole command ends by the first SIGTERM or Ctrl-C; see `look`.

    The second Ctrl-C ends it at once. Outside of the main thread it does nothing.

    Args:
      last: Whether the process does nothing after it: then later signals are ignored.

    Attributes:
      received: The number of the first signal that came, 0 before.

    Example:
      >>> with Stoppable():
      ...     signal.raise_signal(signal.SIGTERM)
      ...     look()
      Traceback (most recent call last):
      ...
      jmrec.errors.Preempted: SIGTERM; what was finished is kept.
    """

    def __init__(self, last: bool = False) -> None:
        self.received = 0
        self._last, self._looked = last, False
        self._old: dict[int, Any] = {}
        self._written: socket.socket | None = None
        self._old_fd = -1

    def __enter__(self) -> "Stoppable":
        """Take the signals over."""
        if threading.current_thread() is not threading.main_thread():
            return self
        # The system's own handler writes into it at once, whatever Python is doing.
        ours, self._written = socket.socketpair()
        self._written.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(ours,), name="signals", daemon=True).start()
        for each in (signal.SIGTERM, signal.SIGINT):
            # Ignored where a script starts a command by "&": then it stays so.
            if signal.getsignal(each) is not signal.SIG_IGN:
                self._old[each] = signal.signal(each, self.note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for each, old in self._old.items():
            signal.signal(each, signal.SIG_IGN if self._last else old or signal.SIG_DFL)
        if self._written is not None:
            signal.set_wakeup_fd(self._old_fd)
            self._written.close()

    def note(self, signum: int, frame: FrameType | None) -> None:
        """Note a signal: the handler."""
        if not self.received and signum == signal.SIGINT:
            # print is not to be called where it may itself be interrupted.
            os.write(2, b"\njmrec: stopping; Ctrl-C once more ends at once.\n")
        self.received = self.received or signum

    def why(self) -> BaseException:
        """Return what the signal that came is as an exception."""
        if self.received == signal.SIGINT:
            return KeyboardInterrupt()
        return Preempted("SIGTERM; what was finished is kept.")

    def raise_if_received(self) -> None:
        """Raise what came, from now on with time for last words."""
        if self.received:
            self._looked = True
            raise self.why()

    def _watch(self, ours: socket.socket) -> None:
        """End the process where it does not look at a signal; in a thread of its own."""
        came: list[int] = []
        begin = 0.0
        with ours:
            while True:
                ours.settimeout(0.05 if came else None)
                try:
                    numbers = ours.recv(16)
                    if not numbers:  # the command is done
                        return
                except TimeoutError:
                    numbers = b""
                # Of others what saves takes note.
                own = [each for each in numbers if signal.getsignal(each) == self.note]
                if own and not came:
                    begin = time.monotonic()
                came += own
                limit = LAST_WORDS if self._looked else GRACE
                if came and (time.monotonic() - begin > limit or came.count(signal.SIGINT) > 1):
                    self._end(came[0])

    def _end(self, signum: int) -> None:
        self.received = self.received or signum
        code, sentence = explain(self.why()) or (1, "")
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        os.write(2, f"{show_cursor}jmrec: {sentence}\n".encode())
        os._exit(code)


def _stoppable(handler: Any) -> Stoppable | None:
    """Return the command whose handler this is, None where it is no command's."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Stoppable) else None


def look() -> None:
    """Raise what a signal asks for, in a command to which one came; else do nothing.

    For places where what was begun is finished, in the main thread.

    Raises:
      Preempted: SIGTERM came.
      KeyboardInterrupt: Ctrl-C came.
    """
    if threading.current_thread() is threading.main_thread():
        command = _stoppable(signal.getsignal(signal.SIGTERM))
        if command is not None:
            command.raise_if_received()
