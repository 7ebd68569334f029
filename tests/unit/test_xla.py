"""Products with constants are right under the flag that jmrec sets; who lacks it is warned."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from jmrec import xla
from jmrec.errors import UserError
from jmrec.xla import DETERMINISTIC, FAULTY, FLAG, set_cache, set_deterministic, set_flags

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = """
import itertools, sys
from jmrec.xla import set_flags
if "set" in sys.argv:
    set_flags()
import numpy as np, jax, jax.numpy as jnp

wrong = []
for (m, k, n), name, axis in itertools.product(
    ((64, 20, 256), (16, 16, 16), (128, 64, 512), (3, 5, 7)), ("sum", "mean", "max"), (None, 0)
):
    y = np.random.default_rng(0).normal(size=(m, k)).astype(np.float32)
    reduced, known = getattr(jnp, name), getattr(np, name)
    cases = {
        "right, ones": (lambda y: y @ jnp.ones((k, n)), y, np.float64(y) @ np.ones((k, n))),
        "left, full": (lambda y: jnp.full((n, m), 2.0) @ y, y, np.full((n, m), 2) @ np.float64(y)),
        "left, turned": (lambda y: jnp.ones((n, k)) @ y.T, y, np.ones((n, k)) @ np.float64(y.T)),
    }
    for what, (product, given, true) in cases.items():
        found = jax.jit(lambda given: reduced(product(given), axis=axis))(given)
        error = np.abs(np.asarray(found, np.float64) - known(true, axis=axis)).max()
        if not error < 1e-5 * np.abs(true).max() * (true.size if name == "sum" else 1):
            wrong.append((what, m, k, n, name, axis, float(error)))
print(*wrong, sep="\\n")
"""


def run(code: str, *words: str, flags: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # what is tested is the compiler
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=env, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip


def test_products_with_constants_are_right() -> None:
    assert run(PATTERNS, "set").stdout.split() == []


@pytest.mark.skipif(version("jaxlib") not in FAULTY, reason="this jaxlib is not said to be wrong")
def test_without_the_flag_they_are_wrong() -> None:
    # Where this fails the flag is needed no more.
    assert "right, ones" in run(PATTERNS).stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"{FLAG}="),
        ("", f"{FLAG}="),
        ("--xla_a=1", f"--xla_a=1 {FLAG}="),
        (f"{FLAG}=2 --xla_a=1", f"{FLAG}=2 --xla_a=1"),
        (f"--xla_a=1 {FLAG}=", f"--xla_a=1 {FLAG}="),
        (f"{FLAG}_more=1", f"{FLAG}_more=1 {FLAG}="),
        ("flags.txt", "flags.txt"),  # a file of flags
    ],
)
def test_the_flag_is_added_once_to_what_is_there(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xla, "version", lambda _: FAULTY[0])
    environ = {} if before is None else {"XLA_FLAGS": before}
    for _ in range(2):
        set_flags(environ)
        assert environ == {"XLA_FLAGS": after}


@pytest.mark.parametrize("other", ["0.10.1", "0.12.1", "0.13.0"])
def test_a_version_that_may_not_know_the_flag_gets_none(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xla, "version", lambda _: other)
    environ: dict[str, str] = {}
    set_flags(environ)
    assert environ == {}


ON = f"{DETERMINISTIC}=true"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ON),
        ("--xla_a=1", f"--xla_a=1 {ON}"),
        (f"--xla_a=1 {DETERMINISTIC}=false", f"--xla_a=1 {DETERMINISTIC}=false"),  # the user's own
        (DETERMINISTIC, DETERMINISTIC),
        (f"{DETERMINISTIC}_more=1", f"{DETERMINISTIC}_more=1 {ON}"),
    ],
)
def test_deterministic_is_added_once_to_what_is_there(before: str | None, after: str) -> None:
    environ = {} if before is None else {"XLA_FLAGS": before}
    for _ in range(2):
        set_deterministic(environ)
        assert environ == {"XLA_FLAGS": after}


def test_a_file_of_flags_is_to_name_it_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "flags.txt"
    for text in (None, "", "--xla_a=1\n"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(UserError, match=r"flags.txt\.$"):
            set_deterministic({"XLA_FLAGS": str(file)})
    file.write_text(f"--xla_a=1\n{ON}\n")
    environ = {"XLA_FLAGS": str(file)}
    set_deterministic(environ)
    assert environ == {"XLA_FLAGS": str(file)}


@pytest.mark.parametrize(
    ("device", "flags", "late"),
    [("cpu", "", False), ("gpu", "", True), ("gpu", "--xla_a=1", True), ("gpu", ON, False)],
)
def test_on_a_gpu_that_runs_already_it_comes_too_late(
    device: str, flags: str, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    jax.devices()  # started
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    environ = {"XLA_FLAGS": flags}
    if late:
        with pytest.raises(UserError, match="comes too late"):
            set_deterministic(environ)
        assert environ == {"XLA_FLAGS": flags}
    else:
        set_deterministic(environ)
        assert ON in environ["XLA_FLAGS"]


RUNS = """
import os, sys
from jmrec.main import main
from jmrec.systems import registry

def run(config, workdir, **how):
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized(), "too late for flags"
    import jax
    print(jax.jit(lambda x: x + 1)(1), config.deterministic, os.environ["XLA_FLAGS"], sep=",")

registry.run = run
sys.exit(main(["run", "--config", "session:size=tiny", *sys.argv[1:], "--workdir", "unused"]))
"""


def test_a_run_sets_it_before_a_device_is_started_and_a_cpu_knows_it() -> None:
    word, own = "--config.deterministic=true", f"{DETERMINISTIC}=false"
    assert run(RUNS, word).stdout == f"2,True,{ON}\n"
    assert run(RUNS, word, flags=own).stdout == f"2,True,{own}\n"
    assert run(RUNS).stdout == "2,False,\n"


AS_A_LIBRARY = """
import sys, jmrec
assert not {"jax", "importlib.metadata"} & set(sys.modules), "import jmrec is to be quick"
import jax
jax.devices()
import jmrec.losses, jmrec.serving, jmrec.training, os
print(os.environ["XLA_FLAGS"])
"""


def test_a_library_warns_once_and_changes_nothing() -> None:
    done = run(AS_A_LIBRARY)
    assert done.stdout == "\n"
    assert done.stderr.count("RuntimeWarning") == (version("jaxlib") in FAULTY)
    assert ("set_flags" in done.stderr) == (version("jaxlib") in FAULTY)


@pytest.mark.parametrize("module", ["jmrec", "jmrec.tools.losses"])
def test_jmrecs_own_programs_set_it_before_jax_starts(module: str) -> None:
    code = (
        "import os, runpy, sys\n"
        f"sys.argv = ['program', *{['plan', '--help'] if 'losses' not in module else []}]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(os.environ['XLA_FLAGS'], 'end')\n"
    )
    done = run(code)
    expected = f"{FLAG}= end" if version("jaxlib") in FAULTY else " end"
    assert done.stdout.splitlines()[-1] == expected
    assert "Warning" not in done.stderr


def test_what_is_compiled_is_kept_in_a_folder_of_the_user(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    set_cache(environ)
    folder = Path(environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_relative_to(tmp_path / "jmrec")
    assert version("jaxlib") in folder.name
    assert folder.stat().st_mode & 0o777 == 0o700
    code = "import jax; print(jax.jit(lambda x: x @ x)(jax.numpy.ones((3, 3)))[0, 0])"
    quick = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    for _ in range(2):
        env = {**os.environ, **environ, **quick, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert float(done.stdout) == 3
        kept = {each.name: each.stat().st_mtime_ns for each in folder.glob("*-cache")}
        assert kept
    assert all("jit" in name for name in kept)


def test_the_users_own_cache_and_refusal_stay(tmp_path: Path) -> None:
    for own in (
        {"JAX_COMPILATION_CACHE_DIR": "mine"},
        {"JAX_ENABLE_COMPILATION_CACHE": "false"},
    ):
        environ = {"XDG_CACHE_HOME": str(tmp_path), **own}
        set_cache(environ)
        assert environ == {"XDG_CACHE_HOME": str(tmp_path), **own}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    set_cache(environ)
    Path(environ["JAX_COMPILATION_CACHE_DIR"]).chmod(0o777)
    again = {"XDG_CACHE_HOME": str(tmp_path)}
    set_cache(again)
    assert again == {"XDG_CACHE_HOME": str(tmp_path)}
    file = tmp_path / "file"
    file.write_text("")
    for home in (file, "", "relative"):
        environ = {"XDG_CACHE_HOME": str(home), "HOME": ""}
        set_cache(environ)
        assert "JAX_COMPILATION_CACHE_DIR" not in environ
