"""A short run of the load test: 64 clients, a renewed artefact, 200 malformed requests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def loader() -> ModuleType:
    path = Path(__file__).with_name("load_serve.py")
    spec = importlib.util.spec_from_file_location("load_serve", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["load_serve"] = module
    spec.loader.exec_module(module)
    return module


def test_sixty_four_clients(loader: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--clients", "64", "--seconds", "3", "--renew", "1", "--items", "200"]
    code = loader.main(words)
    told = capsys.readouterr().out
    assert code == 0, told
    assert "to 64 clients in 3 s, 0 errors" in told
    assert " 1 artefacts taken over" in told
    assert "200 of 200 malformed requests refused by a sentence" in told


def test_malformed_requests_are_two_hundred_and_differ(loader: ModuleType) -> None:
    found = loader.malformed("i0")
    assert len(found) == 200
    assert len(set(found)) > 190
