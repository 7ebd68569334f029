"""A SIGTERM is not lost, whenever it comes."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import jax
import numpy as np
import pytest

from jmrec.errors import Preempted
from jmrec.preemption import Sigterm, hold_sigterm, stop_on_sigterm


class Last:
    """Something that is finalised just when the signal comes."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_sigterm_that_a_finaliser_swallows_stops_the_run_all_the_same() -> None:
    last, survived = [Last()], []

    def run() -> None:
        with stop_on_sigterm():
            last.clear()
            survived.append(True)
            time.sleep(20)

    with pytest.raises(Preempted):
        run()
    assert survived


def test_a_sigterm_waits_for_what_would_swallow_it() -> None:
    survived = []

    @hold_sigterm()
    def swallow() -> None:
        with suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
            survived.append("the signal interrupted nothing")

    def run() -> None:
        with stop_on_sigterm():
            swallow()
            survived.append("the run went on")

    with pytest.raises(Preempted):
        run()
    assert survived == ["the signal interrupted nothing"]


def test_a_held_sigterm_comes_before_the_error_of_what_held_it() -> None:
    def run() -> None:
        with stop_on_sigterm(), hold_sigterm():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError

    with pytest.raises(Preempted):
        run()


TWICE = """
import os, signal, sys, time
from jmrec.preemption import Sigterm, stop_on_sigterm
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
with stop_on_sigterm():
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
