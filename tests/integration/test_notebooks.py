"""Every notebook runs from its first cell to its last, each in a process of its own.

Four of them share one small run, which the first of these makes. What trains does so for fewer
updates and items than a reader's: here it has to run and to draw, and to have learned nothing.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "percent.py"
percent = runpy.run_path(str(SCRIPT))
NOTEBOOKS, cells = percent["NOTEBOOKS"], percent["cells"]
MOST_BYTES = 300_000
"""Of a notebook with its outputs."""
KINDS = ("stream", "display_data")
"""Of outputs: nothing went wrong when it was run."""
SHAPES = {
    name: int(value)
    for name, value in (each.removeprefix("--config.").split("=") for each in tiny.SHAPES)
}
FEWER = {
    "shared_run.py": {
        '"data.toyshop.n_items": 256,': '"data.toyshop.n_items": 96,',
        '"data.toyshop.sessions": 1200,': '"data.toyshop.sessions": 400,',
        '"data.vocab": 600,': f"**{SHAPES},",
        '"knowledge.train.batch_size": 32,': '"knowledge.train.batch_size": 16,',
        '"student.train.batch_size": 64,': '"student.train.batch_size": 16,',
        '"vision.train.steps": 100,': '"vision.train.steps": 8,',
        '"knowledge.train.steps": 40,': '"knowledge.train.steps": 8,',
        '"transition.train.steps": 80,': '"transition.train.steps": 8,',
        '"transition.train.eval_every": 40,': '"transition.train.eval_every": 4,',
        '"distill.train.steps": 40,': '"distill.train.steps": 8,',
        '"student.train.steps": 60,': '"student.train.steps": 8,',
        '"student.train.eval_every": 30,': '"student.train.eval_every": 4,',
    },
    "08_distilling_logits.py": {
        "fit(teacher, hard, 140, 3e-3)": "fit(teacher, hard, 40, 3e-3)",
        "fit(student, loss, 200, 1e-2)": "fit(student, loss, 40, 1e-2)",
    },
    "09_a_ranker_of_your_own.py": {
        '"student.train.steps": 100,': '"student.train.steps": 8,',
        "steps=200": "steps=20",
    },
}
"""File -> what it says and what the tests run in its place."""


@pytest.fixture(scope="module")
def fewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the notebooks as they are but for `FEWER`, in a checkout of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for name, changes in FEWER.items():
        path = folder / "notebooks" / name
        text = path.read_text(encoding="utf-8")
        for said, instead in changes.items():
            assert text.count(said) == 1, f"{name} has other settings: mend FEWER"
            text = text.replace(said, instead)
        path.write_text(text, encoding="utf-8")
    return folder / "notebooks"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the shared run."""
    return str(tmp_path_factory.mktemp("notebooks") / "run")


def test_there_are_nine_and_the_tutorials_name_them() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"0{number}" for number in range(1, 10)]
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
def test_runs_from_the_first_cell_to_the_last(
    path: Path, fewer: Path, run_folder: str, tmp_path: Path
) -> None:
    path, folder = fewer / path.name, tmp_path / path.stem
    folder.mkdir()
    env = {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
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
    pngs = {each.name for each in folder.glob("*.png")}
    assert len({name[:3] for name in pngs}) == sum(map(bool, drawn.values()))
    whole = percent["notebook"](path, folder)  # as percent.py writes it
    outputs = [each for cell in whole["cells"] for each in cell.get("outputs", [])]
    assert sum("data" in each for each in outputs) == len(pngs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_with_outputs_is_that_of_the_percent_file(path: Path) -> None:
    file = path.with_suffix(".ipynb")
    again = f"run python docs/percent.py {path.name[:2]} and commit {file.name}"
    assert file.is_file(), again
    assert file.stat().st_size < MOST_BYTES, "fewer or smaller figures, please"
    shown = percent["outputs"](path)
    assert shown is not None, again
    whole = json.loads(file.read_text(encoding="utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    assert re.fullmatch(r"[0-9a-f]{7}", whole["metadata"]["jmrec"]["commit"])
    assert len({cell["id"] for cell in whole["cells"]}) == len(whole["cells"])
    code = [cell for cell in whole["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(each["output_type"] in KINDS for cell in code for each in cell["outputs"])
    drawn = [png for _, pngs in shown for png in pngs]
    assert drawn
    assert all(png.startswith(b"\x89PNG") for png in drawn)
    page = percent["page"](path)
    assert all(f"({name})" in page for name in percent["figures"](path))
    assert percent["STALE"] not in page
