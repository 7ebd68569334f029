"""A SIGTERM is not lost, whenever it comes."""

import signal
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
