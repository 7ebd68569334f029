"""Notebooks as pages: the cells of a percent file, what they printed and drew, and Markdown.

    python docs/percent.py                    # run all of them, for the tutorials of the site
    python docs/percent.py NOTEBOOK FOLDER    # run one; what it printed and drew goes to FOLDER

Needs jmrec. All of them take two or three minutes of processor time; what they give is kept in
docs/tutorials/outputs, out of git, until a notebook changes.
"""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.py"))
OUTPUTS = ROOT / "docs" / "tutorials" / "outputs"
HASH = "source.sha256"


def cells(text: str) -> list[tuple[int, str, str]]:
    """Return (first line, "code" or "markdown", source) of each cell of a percent file.

    Example:
      >>> cells("# %% [markdown]\\n# # Title\\n# %%\\nprint(1)")
      [(1, 'markdown', '# # Title'), (3, 'code', 'print(1)')]
    """
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# %%"):
            found.append((number, "markdown" if "[markdown]" in line else "code", []))
        elif found:
            found[-1][2].append(line)
        elif line.strip():
            raise ValueError(f"line {number} lies before the first cell")
    return [(number, kind, "\n".join(lines)) for number, kind, lines in found]


def page(path: Path, outputs: Path = OUTPUTS) -> str:
    """Return the Markdown of a notebook, with what `run` has left of it, unless it has changed."""
    text = path.read_text(encoding="utf-8")
    folder = outputs / path.stem
    fresh = (folder / HASH).is_file() and (folder / HASH).read_text() == digest(text)
    parts = []
    for number, kind, source in cells(text):
        if kind == "markdown":
            parts.append(
                "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.splitlines())
            )
            continue
        parts.append(f"```python\n{source.strip()}\n```")
        printed = folder / f"{number:03d}.txt"
        if fresh and printed.is_file():
            parts.append(f"```text\n{printed.read_text(encoding='utf-8').strip()}\n```")
        if fresh:
            parts += [
                f"![What the cell above draws](outputs/{path.stem}/{each.name})"
                for each in sorted(folder.glob(f"{number:03d}-*.png"))
            ]
    note = (
        f"This page is `notebooks/{path.name}`. Open it as a notebook to change a cell and see what"
        " happens ([how](index.md#run-them-yourself))."
    )
    if not fresh:
        note += " The code was not run for this copy of the page, so that its figures are missing."
    title, rest = parts[0].strip().split("\n", 1)
    return "\n\n".join([title, f"*{note}*", rest.strip(), *parts[1:]]) + "\n"


def digest(text: str) -> str:
    """Return what tells one text of a notebook from another."""
    return hashlib.sha256(text.encode()).hexdigest()


def run(path: Path, folder: Path) -> dict[str, Any]:
    """Run every cell in order; write what each printed and drew; return which plots hold data."""
    # A notebook's kernel starts in its folder and finds what lies beside it.
    sys.path.insert(0, str(path.parent))
    space: dict[str, Any] = {"__name__": "__main__"}
    drawn: dict[int, list[bool]] = {}
    text = path.read_text(encoding="utf-8")
    for number, kind, source in cells(text):
        if kind == "markdown":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # Lines of a traceback are those of the file.
            exec(compile("\n" * number + source, str(path), "exec"), space)
        if printed.getvalue().strip():
            (folder / f"{number:03d}.txt").write_text(printed.getvalue(), encoding="utf-8")
        if "plt" not in space:
            continue
        plt = space["plt"]
        figures = [plt.figure(each) for each in plt.get_fignums()]
        drawn[number] = [axis.has_data() for figure in figures for axis in figure.axes]
        for each, figure in enumerate(figures):
            figure.savefig(folder / f"{number:03d}-{each}.png", dpi=70)
        plt.close("all")
    (folder / HASH).write_text(digest(text))
    return {"drawn": drawn}


def run_all() -> None:
    """Run each notebook in a process of its own, into `OUTPUTS`."""
    with tempfile.TemporaryDirectory() as shared:
        env = {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
        env["JMREC_NOTEBOOKS_RUN"] = os.environ.get("JMREC_NOTEBOOKS_RUN") or f"{shared}/run"
        for path in NOTEBOOKS:
            folder = OUTPUTS / path.stem
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            print(f"running {path.name}", flush=True)
            subprocess.run(
                [sys.executable, __file__, str(path), str(folder)],
                env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) == 1:
        run_all()
    else:
        print("RESULT" + json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]))))
