"""Run by test_notebooks.py, one notebook a process: every cell in order, then what it drew.

    python run_notebook.py NOTEBOOK [FOLDER]

FOLDER gets the figures as PNG, to be looked at. Prints json.
"""

import json
import sys
from pathlib import Path
from typing import Any


def cells(text: str) -> list[tuple[int, str, str]]:
    """Return (first line, "code" or "markdown", source) of each cell of a percent file."""
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# %%"):
            found.append((number, "markdown" if "[markdown]" in line else "code", []))
        elif found:
            found[-1][2].append(line)
        elif line.strip():
            raise ValueError(f"line {number} lies before the first cell")
    return [(number, kind, "\n".join(lines)) for number, kind, lines in found]


def run(path: Path, folder: Path | None) -> dict[str, Any]:
    # A notebook's kernel starts in its folder and finds what lies beside it.
    sys.path.insert(0, str(path.parent))
    space: dict[str, Any] = {"__name__": "__main__"}
    drawn: dict[int, list[bool]] = {}
    for number, kind, source in cells(path.read_text(encoding="utf-8")):
        if kind == "markdown":
            continue
        # Lines of a traceback are those of the file.
        exec(compile("\n" * number + source, str(path), "exec"), space)
        if "plt" not in space:
            continue
        plt = space["plt"]
        figures = [plt.figure(each) for each in plt.get_fignums()]
        drawn[number] = [axis.has_data() for figure in figures for axis in figure.axes]
        for each, figure in enumerate(figures):
            if folder is not None:
                figure.savefig(folder / f"{path.stem[:2]}-{number:03d}-{each}.png", dpi=70)
        plt.close("all")
    return {"drawn": drawn}


if __name__ == "__main__":
    print(
        "RESULT" + json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None))
    )
