"""Notebooks: the cells of a percent file, what they printed and drew, as .ipynb and as pages.

    python docs/percent.py                    # run all of them; write notebooks/*.ipynb
    python docs/percent.py 02 08              # run these
    python docs/percent.py NOTEBOOK FOLDER    # run one; what it printed and drew goes to FOLDER

Needs jmrec. All of them take some minutes of processor time. The site shows what the .ipynb files
hold, as long as their cells are those of the percent files; a test says where they are not.
"""

import base64
import contextlib
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
STALE = "The code was not run since it changed, so that its figures are missing."
Output = tuple[str, list[bytes]]
"""What a cell printed, and its figures as PNG."""


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


def markdown(source: str) -> str:
    """Return the Markdown of a cell without the signs of comments.

    Example:
      >>> markdown("# # Title\\n#\\n# Words.")
      '# Title\\n\\nWords.'
    """
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.splitlines())


def notebook(path: Path, folder: Path) -> dict[str, Any]:
    """Return a notebook with outputs, format 4.5, of a percent file and what `run` left of it."""
    text = path.read_text(encoding="utf-8")
    made: list[dict[str, Any]] = []
    for place, (number, kind, source) in enumerate(cells(text)):
        shown = markdown(source).strip() if kind == "markdown" else source.strip()
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{place}", "metadata": {}}
        cell["source"] = shown.splitlines(keepends=True)
        if kind == "code":
            printed = folder / f"{number:03d}.txt"
            outputs: list[dict[str, Any]] = []
            if printed.is_file():
                said = printed.read_text(encoding="utf-8").splitlines(keepends=True)
                outputs.append({"output_type": "stream", "name": "stdout", "text": said})
            for each in sorted(folder.glob(f"{number:03d}-*.png")):
                data = {"image/png": base64.b64encode(smaller(each.read_bytes())).decode()}
                outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
            cell |= {"execution_count": len([c for c in made if c["cell_type"] == "code"]) + 1}
            cell |= {"outputs": outputs}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    how = {"command": f"python docs/percent.py {path.name[:2]}", "commit": commit()}
    meta = {"kernelspec": kernel, "language_info": {"name": "python"}, "jmrec": how}
    return {"cells": made, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}


def smaller(png: bytes) -> bytes:
    """Return a picture in the 256 colours that it needs most."""
    from PIL import Image

    made = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return min(made.getvalue(), png, key=len)


def commit() -> str:
    """Return the commit that is checked out, "unknown" without git."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short=7", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def outputs(path: Path) -> list[Output] | None:
    """Return what each code cell gave, from the .ipynb beside; None if that is stale."""
    beside = path.with_suffix(".ipynb")
    if not beside.is_file():
        return None
    found = json.loads(beside.read_text(encoding="utf-8"))["cells"]
    ours = [
        (kind, markdown(source).strip() if kind == "markdown" else source.strip())
        for _, kind, source in cells(path.read_text(encoding="utf-8"))
    ]
    if ours != [(each["cell_type"], "".join(each["source"])) for each in found]:
        return None
    shown: list[Output] = []
    for cell in found:
        if cell["cell_type"] == "code":
            said = [each for each in cell["outputs"] if each["output_type"] == "stream"]
            drawn = [each["data"]["image/png"] for each in cell["outputs"] if "data" in each]
            text = "".join("".join(each["text"]) for each in said)
            shown.append((text, [base64.b64decode(each) for each in drawn]))
    return shown


def figures(path: Path) -> dict[str, bytes]:
    """Return the figures that `page` shows: their paths in the site's tutorials, and the files."""
    return {
        f"outputs/{path.stem}/{place:02d}-{number}.png": data
        for place, (_, drawn) in enumerate(outputs(path) or ())
        for number, data in enumerate(drawn)
    }


def page(path: Path) -> str:
    """Return the Markdown of a notebook, with what its code gave, unless it has changed."""
    known, parts, place = outputs(path), [], 0
    drawn = figures(path)
    for _, kind, source in cells(path.read_text(encoding="utf-8")):
        if kind == "markdown":
            parts.append(markdown(source))
            continue
        parts.append(f"```python\n{source.strip()}\n```")
        if known is not None:
            if printed := known[place][0].strip():
                parts.append(f"```text\n{printed}\n```")
            here = f"outputs/{path.stem}/{place:02d}-"
            parts += [f"![What the cell above draws]({n})" for n in drawn if n.startswith(here)]
        place += 1
    note = (
        f"This page is `notebooks/{path.name}`, and with outputs `notebooks/{path.stem}.ipynb`. "
        "Open it to change a cell and see what happens ([how](index.md#run-them-yourself))."
    )
    title, rest = parts[0].strip().split("\n", 1)
    note += "" if known is not None else f" {STALE}"
    return "\n\n".join([title, f"*{note}*", rest.strip(), *parts[1:]]) + "\n"


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
    return {"drawn": drawn}


def run_all(paths: list[Path]) -> None:
    """Run each notebook in a process of its own, and write it with its outputs."""
    with tempfile.TemporaryDirectory() as shared:
        env = {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
        env["JMREC_NOTEBOOKS_RUN"] = os.environ.get("JMREC_NOTEBOOKS_RUN") or f"{shared}/run"
        for path in paths:
            folder = Path(shared) / path.stem
            folder.mkdir()
            print(f"running {path.name}", flush=True)
            subprocess.run(
                [sys.executable, __file__, str(path), str(folder)],
                env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            made = json.dumps(notebook(path, folder), indent=1, ensure_ascii=False)
            path.with_suffix(".ipynb").write_text(f"{made}\n", encoding="utf-8")


if __name__ == "__main__":
    if all(word.isdigit() for word in sys.argv[1:]):
        run_all([path for path in NOTEBOOKS if path.name[:2] in (sys.argv[1:] or path.name[:2])])
    else:
        print("RESULT" + json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]))))
