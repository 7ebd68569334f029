"""A signal is not lost, whenever it comes, and no library's callback swallows it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import jax
import numpy as np
import pytest

from jmrec.errors import Preempted
from jmrec.preemption import GRACE, Sigterm, Stoppable, look


class Last:
    """Something that is finalised just when the signal comes."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_what_a_finaliser_or_a_callback_would_swallow_is_seen_when_it_is_looked_for() -> None:
    last, survived = [Last()], []

    def run() -> None:
        with Stoppable():
            last.clear()
            with suppress(BaseException):
                signal.raise_signal(signal.SIGTERM)
                survived.append("nothing was raised here")
            look()
            survived.append("the run went on")

    with pytest.raises(Preempted):
        run()
    assert survived == ["nothing was raised here"]


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C has a handler, which a shell takes from what it starts in the background."""
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, own)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_is_looked_for_too_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def run() -> None:
        with Stoppable() as signals:
            look()
            signal.raise_signal(signal.SIGINT)
            assert signals.received == signal.SIGINT
            look()

    with pytest.raises(KeyboardInterrupt):
        run()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    look()  # nobody is stopped any more


def test_what_saves_by_itself_does_not_begin_after_a_signal() -> None:
    """Else it would train to its end, or be ended in the midst of it."""
    with Stoppable() as command:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Preempted), Sigterm():
            pytest.fail("it began")
        assert signal.getsignal(signal.SIGTERM) == command.note


def test_what_saves_by_itself_is_not_disturbed_and_a_late_signal_is_handed_on() -> None:
    seen = []

    def run() -> None:
        with Stoppable():
            with Sigterm(keyboard=True) as noted:
                signal.raise_signal(signal.SIGTERM)
                look()
                seen.append(noted.received)
            look()
            seen.append("went on")

    with pytest.raises(Preempted):
        run()
    assert seen == [signal.SIGTERM]


DEAF = """
import os, signal, sys, time
from jmrec.preemption import Stoppable
signal.signal(signal.SIGINT, signal.default_int_handler)
with Stoppable():
    for number in sys.argv[1:]:
        os.kill(os.getpid(), int(number))
        time.sleep(0.1)
    end = time.monotonic() + 60
    while time.monotonic() < end:  # never looks
        try:
            time.sleep(1)
        except BaseException:
            print("raised")
"""


@pytest.mark.parametrize(
    ("numbers", "code", "least", "most"),
    [
        ([signal.SIGTERM], 75, GRACE, GRACE + 5),
        ([signal.SIGINT], 130, GRACE, GRACE + 5),
        ([signal.SIGINT, signal.SIGINT], 130, 0, GRACE),
    ],
)
def test_a_command_that_never_looks_is_ended(
    numbers: list[int], code: int, least: float, most: float
) -> None:
    begin = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", DEAF, *map(str, map(int, numbers))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - begin
    assert found.returncode == code, found.stderr
    assert "raised" not in found.stdout
    assert "Start" in found.stderr or "start the same command again" in found.stderr
    assert least <= seconds < most + 30  # Python's own start on a busy machine


TWICE = """
import os, signal, sys, time
from jmrec.preemption import Sigterm, Stoppable
signal.signal(signal.SIGINT, signal.default_int_handler)
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
def fit():
    with Sigterm(keyboard=True) as noted:
        interrupt()
        print(noted.received == signal.SIGINT, flush=True)
        try:
            interrupt()
        except KeyboardInterrupt:
            print("KeyboardInterrupt", flush=True)
with Sigterm():
    fit()  # as a notebook does
with Stoppable():
    try:
        fit()
    finally:
        print("never said", flush=True)
"""


def test_a_second_interrupt_ends_a_command_on_the_spot_and_no_notebook() -> None:
    found = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == -signal.SIGINT
    assert found.stdout.split() == ["True", "KeyboardInterrupt", "True"]
    assert found.stderr.count("Ctrl-C once more ends at once") == 2


def test_a_signal_that_comes_while_all_are_asked_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the processes agree on is what each had when it was asked; the next time sees more."""
    from jax.experimental import multihost_utils

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with Sigterm() as sigterm:

        def gather(own: np.ndarray) -> np.ndarray:
            if not sigterm.received:
                signal.raise_signal(signal.SIGTERM)  # after its word was given
            return np.array([own, 0])

        monkeypatch.setattr(multihost_utils, "process_allgather", gather)
        assert not sigterm.agreed(True)
        assert not sigterm.agreed(False)
        assert sigterm.agreed(True)
        assert sigterm.received == signal.SIGTERM
