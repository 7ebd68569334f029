"""Parity tests need torch, which is no dependency of jmrec: they skip where it is not."""

import os
import sys
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# In CI, on the Python for which launch/test.sh installs it, a missing torch fails in pytest's own
# way: at its import.
SKIP = find_spec("torch") is None and (not os.environ.get("CI") or sys.version_info >= (3, 12))
# No test modules; pytest would import them for their doctests.
collect_ignore = ["against.py", "recbole_side.py", "torch_efficientnet.py", "torch_side.py"]


class WithoutTorch(pytest.Module):
    """A file of tests that is not even imported."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip("torch is not installed; bash launch/test.sh does that, on Python 3.11")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: Any) -> Generator[None, Any, Any]:
    found = yield
    if not found or not SKIP:
        return found
    return [WithoutTorch.from_parent(parent, path=file_path)]
