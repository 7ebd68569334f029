"""What jax traces and compiles in a block, by the names of the functions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

EVENTS = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration")
CHEAP = {"key_data"}
"""Of a checkpoint, which keeps a key as its numbers."""


@contextmanager
def compiled() -> Iterator[set[str]]:
    """Note what is traced or compiled, `CHEAP` things apart."""
    found: set[str] = set()

    def note(event: str, seconds: float, **about: Any) -> None:
        if event in EVENTS:
            found.update({str(about.get("fun_name"))} - CHEAP)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
