"""What a kill would leave, without one: a folder as it is before each step on its files."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def copied_at_each_step(folder: Path, copies: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copy a folder before each file is moved, made or removed: what a kill would leave."""
    busy = [False]

    def watched(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            if not busy[0]:
                busy[0] = True  # copying moves files too
                copies.mkdir(exist_ok=True)
                shutil.copytree(folder, copies / f"{len(list(copies.iterdir())):05d}")
                busy[0] = False
            return real(*args, **more)

        return call

    with patch.context() as inner:
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            inner.setattr(os, name, watched(getattr(os, name)))
        yield
