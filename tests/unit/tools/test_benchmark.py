"""The benchmark tool: its data is a good folder, made from a seed; its figures are plausible."""

import json
from pathlib import Path

import pytest

from jmrec.data.folder import read_folder
from jmrec.tools.benchmark import main
from jmrec.tools.benchmark_data import write_folder


def test_the_folder_is_made_from_its_seed(tmp_path: Path) -> None:
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_folder(tmp_path / name, 2_000, seed)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"
    ]
    assert files[0] == files[1] != files[2]
    raw = read_folder(tmp_path / "a", strict=True)
    assert len(raw.item) == 2_000
    assert raw.event_names == ["", "buy", "cart", "view"]


def test_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--rows", "2000"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert (found["benchmark"], found["rows"], found["items"]) == ("data", 2000, 40)
    assert 50 < found["prepare_peak_mb"] < 2000
    assert 0 < found["prepare_cpu_seconds"] < 180
    assert found["prepared_mb"] > 0
    assert "prepare peak mb" in out


def test_too_few_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--rows", "10"]) == 2
    assert "give 1000 or more" in capsys.readouterr().err
