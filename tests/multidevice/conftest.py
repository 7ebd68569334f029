"""What runs on 8 fake devices is a script in a process of its own: devices are fixed at start."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# No test modules; pytest would import them for their doctests.
collect_ignore = [
    "catalogue.py",
    "eight_devices.py",
    "keeper_of_two.py",
    "member_of_two.py",
    "parallel_kernels.py",
    "plan_eight_devices.py",
    "populations.py",
    "topologies.py",
    "writers.py",
]

OnEight = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def on_eight() -> OnEight:
    """Run a script of this folder on 8 fake devices; return what it printed, and "stderr".

    ``flags`` are the compiler's; by default those of all tests.
    """

    def run(
        name: str, *words: object, said: str | None = None, flags: str = os.environ["XLA_FLAGS"]
    ) -> dict[str, Any]:
        here = Path(__file__).parent
        flags = f"--xla_force_host_platform_device_count=8 {flags}"
        env = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(here.parents[1])}
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # hundreds of slices are alike
        done = subprocess.run(
            [sys.executable, str(here / name), *map(str, words)],
            env={**os.environ, **env}, input=said, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout.split("RESULT")[1])
        return {**found, "stderr": done.stderr}

    return run
