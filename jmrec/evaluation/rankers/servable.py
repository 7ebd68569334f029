"""The classes of rules that can be served, by their names: what was exported says its own."""

from typing import Any, TypeVar

SERVABLE: dict[str, type[Any]] = {}
"""Name -> class, of all modules that are imported."""
Rule = TypeVar("Rule", bound=type[Any])


def servable(cls: Rule) -> Rule:
    """Let a rule's dataclass be written and read; see `jmrec.evaluation.rankers.codec`.

    Example:
      >>> from dataclasses import dataclass
      >>> @servable
      ... @dataclass
      ... class Mine:
      ...     prior: float
      >>> SERVABLE.pop("Mine")(0.5)
      Mine(prior=0.5)
    """
    SERVABLE[cls.__name__] = cls
    return cls
