"""Keep Beam from writing to the terminal what nobody can act on."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keep imports from logging what is not installed, which would set up logging for all."""
    root, before = logging.getLogger(), logging.root.manager.disable
    nothing = logging.NullHandler()
    root.addHandler(nothing)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(nothing)


@contextlib.contextmanager
def quiet_workers() -> Iterator[None]:
    """Send what processes write to their errors into a file; it is shown if the work fails.

    Workers in processes of their own greet there, whatever level of logging they are told.
    """
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception:
            file.seek(0)
            os.write(before, file.read()[-10_000:])
            raise
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
