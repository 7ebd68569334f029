"""A SIGTERM is not lost, whenever it comes."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from jmrec.errors import Preempted
from jmrec.preemption import hold_sigterm, stop_on_sigterm


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
