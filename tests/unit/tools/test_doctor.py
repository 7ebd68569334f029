"""`jmrec doctor` on this machine, and on machines that lack something."""

import configparser
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import jmrec
from jmrec import xla
from jmrec.tools import doctor
from jmrec.tools.doctor import LOOK, MISSING, OK, Row, look, verdict

ROOT = Path(__file__).resolve().parents[3]


def rows_of(text: str) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in json.loads(text)["rows"]}


def asked(tmp_path: Path, jax: str) -> subprocess.CompletedProcess[str]:
    """Ask where importing jax runs this code instead."""
    (tmp_path / "jax.py").write_text(jax)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from jmrec.main import entry; entry()"
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json", "--workdir", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    folder = tmp_path_factory.mktemp("doctor")
    rows = {row.name: row for row in look(folder / "not" / "there")}
    assert list(folder.iterdir()) == []
    return rows


def test_this_machine_can_run_jmrec(here: dict[str, Row]) -> None:
    import jax

    assert here["jmrec"].says.startswith(f"{jmrec.__version__} in ")
    assert here["Python"].state == here["packages"].state == here["JAX"].state == OK
    assert f"jax {jax.__version__}" in here["JAX"].says
    assert f"cpu: {jax.local_device_count()} x cpu" in here["JAX"].says
    assert here["writing"].state == OK
    assert here["the extra test"].state == OK  # else this would not run
    assert verdict(list(here.values())).startswith("jmrec can run here")


def test_every_extra_says_what_it_is_for(here: dict[str, Row]) -> None:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(ROOT / "setup.cfg")
    extras = set(parsed["options.extras_require"])
    assert doctor.EXTRAS.keys() == extras
    assert {name.removeprefix("the extra ") for name in here if name.startswith("the ex")} == extras


@pytest.mark.parametrize(
    ("jax", "says"),
    [
        ("raise RuntimeError('libcuda is of\\nanother driver')", "another driver"),
        ("import os; os.abort()", str(-signal.SIGABRT)),
        ("__version__ = '0'", "has no attribute 'devices'"),
        ("print('DEVICES none at all')", "has no attribute"),
    ],
)
def test_a_jax_that_can_not_start_is_a_line(tmp_path: Path, jax: str, says: str) -> None:
    done = asked(tmp_path, jax)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr + done.stdout
    row = rows_of(done.stdout)["JAX"]
    assert row["state"] == MISSING
    assert row["says"].startswith("it can not start: ")
    assert says in row["says"]
    assert json.loads(done.stdout)["verdict"] == "jmrec can not run here as it is: see JAX."


def test_a_jax_that_never_answers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jax.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    row = next(row for row in look(tmp_path, patience=0.5) if row.name == "JAX")
    assert (row.state, row.says) == (
        MISSING, "it names no device within 0.5 s; is one in use?"
    )  # fmt: skip


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {
        "": ["numpy>=2.1", "rich<1", "no-such-package", "other-python; python_version < '3'"],
        "serve": ["starlette", "no-such-server>=3"],
        "sweep": ["numpy"],
    }
    monkeypatch.setattr(doctor, "requirements", lambda: {n: list(e) for n, e in listed.items()})
    packages, serve, sweep = doctor._packages()
    assert packages.state == serve.state == MISSING
    assert packages.says.startswith("rich is ")
    assert "and not <1, no-such-package is missing; install" in packages.says
    assert serve.says == (
        "for jmrec serve: no-such-server is missing; pip install 'jmrec[serve]'"
    )  # fmt: skip
    assert sweep == Row("the extra sweep", OK, "for jmrec sweep --optuna")
    assert verdict([packages, serve]) == "jmrec can not run here as it is: see packages."
    assert verdict([serve, sweep]).startswith("jmrec can run here; ")


def test_an_installed_copy_knows_what_it_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "numpy>=2",
        'uvicorn<1; extra == "serve"',
        "libtpu==1; python_version < '3.12' and extra == 'tpu-plan'",
    ]
    monkeypatch.setattr(doctor, "SETUP", Path("none"))
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: lines)
    found = doctor.requirements()
    assert {name: len(each) for name, each in found.items()} == {"": 1, "serve": 1, "tpu-plan": 1}


def test_a_gpu_that_jax_does_not_use_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu: dict[str, Any] = {"backend": "cpu", "kinds": ["cpu"], "memory": [None]}
    gpu = {"backend": "gpu", "kinds": ["H200"] * 2, "memory": [100 * 2**30, 99 * 2**30]}
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(doctor, "NVIDIA", tmp_path / "version")
    assert doctor._found(cpu).state == OK
    (tmp_path / "version").write_text("1")
    assert doctor._found(cpu).state == LOOK
    found = doctor._found(gpu)
    assert found.state == OK
    assert found.says.endswith("gpu: 2 x H200 with 99 GiB each for JAX") or "99.0 GiB" in found.says


def test_a_folder_that_may_not_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", refuse)  # root may write all
    row = doctor._rights(tmp_path)
    assert row.state == MISSING
    assert row.says == f"{tmp_path}: Permission denied; name another --workdir"


def test_without_jaxlib_nothing_is_set_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(xla, "version", none)
    mine: dict[str, str] = {}
    xla.set_flags(mine)
    assert mine == {}
