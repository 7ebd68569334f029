"""Fixtures shared by all tests."""

import atexit
import gc
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from jmrec.xla import set_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: the least optimisation, the code in one piece, and XLA's
# older way to emit loops, which compiles two to three times as fast (newer versions lack it).
_flags = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if version("jaxlib").startswith("0.10."):
    _flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_flags))
set_flags()
os.environ.setdefault("WANDB_MODE", "disabled")
# What one test compiled, another test, its child processes and the other workers read; who names a
# folder keeps it for the next run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.mkdtemp(prefix="jmrec-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    # Without bytecode each child process would parse jax and all the rest again, for seconds.
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", f"{_cache}/bytecode")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Nobody reads from which lines of Python an operation of a program comes.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# There are as many workers as cores: threads of one would only wait for the others'.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Tracing makes very many objects, hardly ever in circles, of which the tests keep more and more.
gc.set_threshold(50_000, 20, 100)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real data of ../shared/data is not here")
    return path


@pytest.fixture(scope="session", autouse=True)
def _absl_flags() -> None:
    """Grain's workers read absl flags, which nobody parses under pytest."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
