"""A short run of the fuzzer, and that it finds what it is for."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from jmrec.data import events as events_module
from jmrec.data import splits as splits_module
from jmrec.data.folder import Raw
from jmrec.data.schema import Sessions
from jmrec.data.sessions import take


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    path = Path(__file__).with_name("fuzz_folders.py")
    spec = importlib.util.spec_from_file_location("fuzz_folders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_folders"] = module
    spec.loader.exec_module(module)
    return module


def test_forty_folders(fuzzer: ModuleType) -> None:
    answers = fuzzer.fuzz(40, 1, lambda line: None)
    assert sum(answers.values()) >= 40
    assert min(answers.values()) > 0


def test_a_planted_traceback_is_found(
    fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(events_module, "_known_items", broken)
    assert fuzzer.main(["--folders", "10", "--seed", "5"]) == 1
    out = capsys.readouterr().out
    assert "planted" in out
    assert "fuzz_folders.py --folders 10 --seed 5" in out


def test_fifteen_folders_are_read_right(fuzzer: ModuleType) -> None:
    wrong: list[str] = []
    count = fuzzer.right(15, 4, fuzzer.ask, wrong.append)
    assert not wrong
    assert count["read"] >= 10


def test_a_planted_misreading_is_found(
    fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sessions that begin at one moment change places: nothing else is wrong with them."""
    before = splits_module.sessionise

    def swapped(raw: Raw) -> Sessions:
        sessions = before(raw)
        return take(sessions, np.arange(len(sessions))[::-1])

    monkeypatch.setattr(splits_module, "sessionise", swapped)
    assert fuzzer.main(["--right", "--folders", "2", "--seed", "4"]) == 1
    assert "--right --seed 4 --only 0" in capsys.readouterr().out
