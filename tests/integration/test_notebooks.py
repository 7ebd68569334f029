"""Every notebook runs from its first cell to its last, each in a process of its own.

Four of them share one small run, which the first of these makes.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "percent.py"
percent = runpy.run_path(str(SCRIPT))
NOTEBOOKS, cells = percent["NOTEBOOKS"], percent["cells"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the shared run; who writes a notebook may name one that is made already."""
    return os.environ.get("JMREC_NOTEBOOKS_RUN") or str(
        tmp_path_factory.mktemp("notebooks") / "run"
    )


def test_there_are_seven_and_the_tutorials_name_them() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]
    page = (ROOT / "docs" / "tutorials" / "index.md").read_text()
    assert all(f"({path.stem}.md)" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_a_percent_notebook_for_a_student(path: Path) -> None:
    found = cells(path.read_text(encoding="utf-8"))
    first, last = found[0], found[-1]
    assert first[1] == "markdown"
    assert first[2].startswith(f"# # {path.name[:2]} · ")
    assert "**Needs** " in first[2]
    assert re.search(r"\*\*Takes\*\*\s(#\s)?about", first[2])
    assert last[1] == "markdown"
    assert "## Limits" in last[2]
    assert re.search(r"## Questions to try\n# 1\. ", last[2])
    for number, kind, source in found:
        lines = [line for line in source.splitlines() if line]
        assert lines, f"line {number}: an empty cell"
        if kind == "markdown":
            assert all(line.startswith("#") for line in lines), f"line {number}: no markdown"
        else:  # few lines a cell; a magic or a stored output is no Python
            assert len(lines) <= 30, f"line {number}: {len(lines)} lines of code"
            compile(source, str(path), "exec")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_the_first_cell_to_the_last(path: Path, run_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / path.stem
    folder.mkdir()
    env = {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    # They train for a while: unoptimised code would cost more than it saves.
    flags = os.environ["XLA_FLAGS"].split()
    env["XLA_FLAGS"] = " ".join(each for each in flags if "optimization_level" not in each)
    env |= {"JMREC_NOTEBOOKS_RUN": run_folder}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(path), str(folder)],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]
    drawn = json.loads(done.stdout.split("RESULT")[1])["drawn"]
    for number, kind, source in cells(path.read_text(encoding="utf-8")):
        shows = re.search(
            r"^(figure|drawn), .*subplots|^(show|forest|draw)\(", source, re.MULTILINE
        )
        if kind == "code" and shows:
            assert drawn[str(number)], f"line {number}: the cell drew nothing"
            assert all(drawn[str(number)]), f"line {number}: an empty plot"
    assert any(drawn.values())
    figures = {each.name for each in folder.glob("*.png")}
    assert len({name[:3] for name in figures}) == sum(map(bool, drawn.values()))
    shown = percent["page"](path, tmp_path)  # of the tutorials
    assert all(f"(outputs/{path.stem}/{name})" in shown for name in figures)
