"""A SIGTERM is not lost, whenever it comes."""

import signal
import time
from contextlib import suppress

import pytest

from jmrec.errors import Preempted
from jmrec.preemption import stop_on_sigterm


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


def test_a_sigterm_that_a_library_swallows_comes_again() -> None:
    def run() -> None:
        with stop_on_sigterm():
            with suppress(BaseException):
                signal.raise_signal(signal.SIGTERM)
            time.sleep(30)

    with pytest.raises(Preempted):
        run()
