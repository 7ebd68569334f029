"""Parity tests need torch, which is no dependency of jmrec: they skip without it, but not in CI."""

import os
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("torch", "gguf") if find_spec(name) is None]
# No test modules; pytest would import them for their doctests.
collect_ignore = ["against.py", "torch_efficientnet.py", "torch_side.py"]


class WithoutTorch(pytest.Module):
    """A file of tests that is not even imported."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(f"{', '.join(MISSING)} is not installed; bash launch/test.sh does that")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: Any) -> Generator[None, Any, Any]:
    found = yield
    # In CI a missing package fails, in pytest's own way: at its import.
    if not MISSING or not found or os.environ.get("CI"):
        return found
    return [WithoutTorch.from_parent(parent, path=file_path)]
