"""A run that was killed four times ends in the bits of one that was not."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from jmrec.checkpoint import save_params
from jmrec.features import write_features


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).with_name("kill_and_resume.py")
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_killed_runs_end_in_the_same_bits(script: ModuleType, tmp_path: Path) -> None:
    said: list[str] = []
    wrong = script.kill_and_resume(tmp_path, 4, 20261125, say=said.append)
    assert wrong == [], "\n".join(said)
    assert sum("exit -9" in line or "exit 75" in line for line in said) == 4


def test_killed_runs_of_mmrec_end_in_the_same_bits(script: ModuleType, tmp_path: Path) -> None:
    said: list[str] = []
    experiment = Path(__file__).with_name("kill_mmrec.py")
    wrong = script.kill_and_resume(tmp_path, 2, 7, say=said.append, experiment=experiment)
    assert wrong == [], "\n".join(said)


def test_the_comparison_finds_what_differs(script: ModuleType, tmp_path: Path) -> None:
    for name, value in (("a", 0.0), ("b", -0.0)):
        top = tmp_path / name
        (top / "s" / "checkpoints" / "3").mkdir(parents=True)
        save_params(top / "s" / "params", {"w": np.array([1.0, value])}, {})
        table = {"k": np.array([[value]], np.float32)}
        write_features(top / "s" / "f.safetensors", table, ["i"], {})
        (top / "flat").mkdir()
        save_file({"ratings": np.array([np.nan, value])}, top / "flat" / "test.safetensors")
        (top / "s" / "metrics.json").write_text(f"{value}")
        (top / "s" / "stage.json").write_text(f'{{"seconds": {value}}}')
        (top / "cost.json").write_text(f'{{"stages": {value}}}')
        (top / "results.json").write_text(f'{{"rows": [{value}]}}')
    (tmp_path / "b" / "s" / "x.tmp").write_text("")
    assert script.compare(tmp_path / "a", tmp_path / "a") == []
    assert script.compare(tmp_path / "a", tmp_path / "b") == [
        "only in one: s/x.tmp",
        "flat/test.safetensors: other bytes",
        "results.json: other bytes",
        "s/f.safetensors['k']: other bits",
        "s/metrics.json: other bytes",
        "s/params['w']: other bits",
    ]
