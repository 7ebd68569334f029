"""The wheel and the sdist: each is installed into a fresh environment and used from elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import jmrec

ROOT = Path(__file__).resolve().parents[2]
FEW = (
    "--config.train.steps=2", "--config.train.eval_every=2", "--config.train.save_every=2",
    "--config.evaluate.samples=128",
)  # fmt: skip
# What would lead an installed copy back to the checkout.
HIDING = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def outside() -> dict[str, str]:
    """Return an environment in which nothing leads to the checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in HIDING}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}


def ran(words: list[str], folder: Path) -> str:
    done = subprocess.run(
        words, cwd=folder, env=outside(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def source_files() -> list[str]:
    """Return the files of the checkout that are committed or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheel and sdist, made of a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("built")
    for name in source_files():
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "copy" / name)
    build = "from setuptools import build_meta as b; b.build_sdist('..'); b.build_wheel('..')"
    ran([sys.executable, "-c", build], folder / "copy")
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


@pytest.fixture(params=["wheel", "sdist"])
def python(request: pytest.FixtureRequest, built: dict[str, Path], tmp_path: Path) -> Path:
    """The Python of a fresh environment: jmrec as built, the packages of the tests' environment."""
    venv = tmp_path / "venv"
    ran([sys.executable, "-m", "venv", "--without-pip", str(venv)], tmp_path)
    python = venv / "bin" / "python"
    own = ran([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], venv)
    # Behind its own packages; .pth files there, such as one of the checkout, are not read.
    (Path(own.strip()) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ran(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--ignore-installed", "--no-compile", str(built[request.param])],
        tmp_path,
    )  # fmt: skip
    return python


def test_what_is_installed_runs_from_another_folder(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    where = "import jmrec; print(jmrec.__file__, jmrec.__version__)"
    file, version = ran([str(python), "-c", where], folder).split()
    assert Path(file).is_relative_to(python.parents[1])
    assert version == jmrec.__version__

    command = str(python.with_name("jmrec"))
    assert ran([command, "--version"], folder) == f"jmrec {version}\n"
    said = ran([command, "--help"], folder)
    assert "jmrec run --config" in said
    assert ran([str(python), "-m", "jmrec", "--help"], folder) == said
    words = ["--config", "losses_on_gaussians:size=tiny,estimators=infonce", *FEW]
    ran([command, "run", *words, "--workdir", "run"], folder)
    assert json.loads((folder / "run/evaluate/results.json").read_text())
    assert "</html>" in (folder / "run/evaluate/report.html").read_text()

    # From Python the same, with what marks its types.
    code = (
        "import jmrec\n"
        "from pathlib import Path\n"
        "assert Path(jmrec.__file__).with_name('py.typed').is_file()\n"
        "few = {'data.toyshop.n_items': 60, 'data.toyshop.sessions': 100}\n"
        "dataset = jmrec.prepare('session:size=tiny', 'prepared', few)\n"
        "model = jmrec.models.build('gru4rec', items=len(dataset.items), width=8)\n"
        "print(len(dataset.items), model.items, 'truth' in jmrec.open('run').table())\n"
    )
    assert ran([str(python), "-c", code], folder) == "60 60 True\n"

    # The other experiment, as a path and with a description that is shipped beside it.
    code = (
        "from jmrec.config import load_config, resolve_path\n"
        "assert load_config('experiments/tpad.py:size=tiny') == load_config('tpad:size=tiny')\n"
        "print(resolve_path('experiments/data/movies.toml'), resolve_path('losses'))\n"
    )
    toml, given = ran([str(python), "-c", code], folder).split()
    assert Path(toml).is_file()
    assert given == "losses"  # a folder of the user's that is missing, and not the package's


def test_both_hold_all_that_is_in_the_checkout(built: dict[str, Path]) -> None:
    wanted = [name for name in source_files() if name.startswith(("jmrec/", "experiments/"))]
    assert len(wanted) > 100
    inside = {name.replace("experiments/", "jmrec/experiments/", 1) for name in wanted}
    names = set(zipfile.ZipFile(built["wheel"]).namelist())
    assert {name for name in names if ".dist-info/" not in name} == inside
    assert any(name.endswith("licenses/LICENSE") for name in names)

    with tarfile.open(built["sdist"]) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    assert not {*wanted, "LICENSE", "README.md", "setup.cfg", "setup.py", "pyproject.toml"} - held


def test_what_the_wheel_says_of_itself(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as packed:
        name = next(each for each in packed.namelist() if each.endswith("/METADATA"))
        said = packed.read(name).decode().splitlines()
    for line in ("License-Expression: Apache-2.0", "Author: The jmrec authors"):
        assert line in said
    assert not [line for line in said if line.startswith(("Author-email", "Home-page"))]
