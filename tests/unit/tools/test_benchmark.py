"""The benchmark tool: its data is a good folder, made from a seed; its figures are plausible."""

import json
from pathlib import Path

import pytest

from jmrec.data.folder import read_folder
from jmrec.tools.benchmark.__main__ import main
from jmrec.tools.benchmark.data import write_folder


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


def test_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--items", "40,300", "--batch", "6", "--width", "8", "--chunk", "64", "--repeats", "1"]
    assert main(["kernels", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {(row["kernel"], row["items"]): row for row in found["table"]}
    assert set(rows) == {(k, n) for k in ("softmax", "kl") for n in (40, 300)}
    for (kernel, items), row in rows.items():
        assert row["values_apart"] < 1e-5
        assert row["states_apart"] < 1e-5
        assert row["items_apart"] < 1e-5
        arrays = 1 if kernel == "softmax" else 2
        assert row["dense_least_mb"] == round(4 * 6 * items * arrays / 1e6, 1)
        assert row["time"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kernels", "--items", "many"], "--items=many is no list of sizes"),
        (["kernels", "--batch", "0"], "--batch=0 is too small"),
        (
            ["backbone", "--models", "bert"],
            "'bert' is none of minilm, smollm2, ",
        ),
        (["backbone", "--lengths", "1"], "--lengths=1 are no lengths"),
        (["backbone", "--size", "8"], "--size 32 or more"),
    ],
)
def test_what_makes_no_sense_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
