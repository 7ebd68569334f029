"""What importing jmrec pulls in, what it is called, and what its files must not hold."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jmrec

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("tensorflow", "torch", "torchvision")
SLOW = ("apache_beam", "grain", "matplotlib", "pandas", "scipy.stats", "sklearn", "transformers")
"""What takes a second to load, and no command needs before its settings are checked."""


def modules() -> list[str]:
    names = []
    for path in sorted((ROOT / "jmrec").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def loaded(names: list[str], folder: Path) -> list[str]:
    """Return which of the heavy packages importing ``names`` loads, in a process of its own.

    Stand-ins of that name come after the installed packages: without them the test could not
    fail where the packages are not installed, which is everywhere.
    """
    for name in HEAVY:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    code = (
        f"import importlib, sys; sys.path.append({str(folder)!r})\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_importing_everything_loads_neither_tensorflow_nor_torch(tmp_path: Path) -> None:
    assert len(modules()) > 20
    assert loaded(modules(), tmp_path) == []


def test_a_heavy_import_would_be_seen(tmp_path: Path) -> None:
    assert loaded(["jmrec", "torch"], tmp_path) == ["torch"]


def test_settings_are_checked_before_anything_slow_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from jmrec.main import main\n"
        "slip = '--config.student.train.steps=0'\n"
        "assert main(['run', '--config', 'tpad:size=tiny', slip, '--workdir', 'run']) == 2\n"
        f"print(*sorted(set({SLOW!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert done.stdout.split() == []
    assert done.stderr.startswith("jmrec: ")
    assert not (tmp_path / "run").exists()


def test_what_can_be_refused_at_once_is_refused_without_jax_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    code = (
        "import sys\n"
        "from jmrec.main import main\n"
        "ask = ['recommend', '--workdir']\n"
        "for words in (['none', '--items', 'a'], ['.', '--items', 'a'], ['.', '--items', ' , '],\n"
        "              ['.', '--items', 'a', '--top', '0']):\n"
        "    assert main([*ask, *words]) == 2\n"
        "print('jax' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"
    said = done.stderr.splitlines()
    for sentence, says in zip(said, ("no folder", "no finished run", "at least one", "--top")):
        assert says in sentence
    assert len(said) == 4
    assert list(tmp_path.iterdir()) == []


# Addresses that tie a file to one machine or one package index. Written in pieces, so that this
# file does not hold them either.
FORBIDDEN = {
    "a package index": re.compile(
        r"index[-_]url\s*[=:]|/simp" + r"le/?\b|files\.python" + r"hosted|\bpypi\." + r"org",
        re.IGNORECASE,
    ),
    "a machine's path": re.compile(r"(?<![\w.])/(?:wo" + r"rk|ro" + r"ot|opt/py" + r"pi)(?:/|\b)"),
}
TEXT = {".py", ".cfg", ".toml", ".txt", ".md", ".sh", ".html", ".json", ".yaml", ".yml", ".ipynb"}


def tracked(root: Path) -> list[Path]:
    """Return the files that are committed or about to be: all but the ignored."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [root / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def forbidden(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        if path.suffix not in TEXT and path.parent.name != ".ci":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            found += [
                f"{path}:{number}: {what}: {match.group()}"
                for what, pattern in FORBIDDEN.items()
                if (match := pattern.search(line))
            ]
    return found


def test_no_file_names_a_registry_or_this_machine() -> None:
    paths = tracked(ROOT)
    assert len(paths) > 20
    assert forbidden(paths) == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-" + "url x",
        "extra-index-" + "url = https://x/y",
        "pip install -i https://x/simp" + "le numpy",
        "https://files.python" + "hosted.org/packages/x.whl",
        "cd /wo" + "rk/main",
        'Path("/ro' + 'ot/.cache")',
    ],
)
def test_a_planted_address_is_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text("fine\n" + line + "\n")
    if line.startswith("--"):
        path.write_text("fine\n" + line.replace(" x", "=x") + "\n")
    assert forbidden([path])


@pytest.mark.parametrize(
    "line", ["a network/work", "https://arxiv.org/abs/2504.10538", "the /item"]
)
def test_ordinary_text_is_let_through(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(line)
    assert forbidden([path]) == []


def test_its_names_are_stated_once_for_mypy_and_once_for_python() -> None:
    tree = ast.parse((ROOT / "jmrec/__init__.py").read_text())
    typed = {}
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for each in node.body:
                assert isinstance(each, ast.ImportFrom)
                module = "" if each.module == "jmrec" else each.module
                typed |= {alias.asname: module for alias in each.names}
    assert typed == jmrec._FROM  # type: ignore[attr-defined]
    assert {*jmrec.__all__} == {*typed, "__version__"} - {"open"}
    assert {*typed, "__version__"} <= {*dir(jmrec)}
    for name in typed:
        assert len(getattr(jmrec, name).__doc__) > 40, name
    with pytest.raises(AttributeError, match="no attribute 'lod_folder'"):
        getattr(jmrec, "lod_folder")  # noqa: B009


def test_a_star_import_leaves_open_alone() -> None:
    space: dict[str, Any] = {}
    exec("from jmrec import *", space)
    assert "open" not in space
    assert space["run"] is jmrec.run
    assert space["losses"] is jmrec.losses
