"""Towers and students as pure functions; the only package that imports flax.linen.

`build` gives a session encoder by its name, for a training loop of one's own.
"""

from jmrec.models.sessions.alone import SessionModel as SessionModel
from jmrec.models.sessions.alone import build as build

__all__ = ["SessionModel", "build"]
