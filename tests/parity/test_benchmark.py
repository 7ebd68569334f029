"""``python -m jmrec.tools.benchmark backbone``: both sides run, and read the same."""

import json

import pytest

from jmrec.tools.benchmark.__main__ import main


def test_both_sides_read_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "minilm", "--lengths", "4,6", "--batch", "2", "--rounds", "1"]
    assert main(["backbone", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["table"]
    assert row["same"] < 1e-5
    assert row["jmrec_rate"] > 0
    assert row["torch_peak_mb"] > 100
