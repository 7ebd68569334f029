"""The metadata of a checkpoint: what it says of the run, and whether that is this run."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from jmrec.errors import UserError

FORMAT = 1
"""The version of what is written; a greater one is refused. None given is 1."""

CHECKED = ("fingerprint", "config", "train")
"""The metadata fields that must not change between a run and its resumption."""


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


# Orbax logs a failed write with a traceback for each of its threads, and raises it as well.
logging.getLogger("absl").addFilter(_is_news)


def _differences(stored: Any, expected: Any, name: str) -> list[str]:
    if isinstance(stored, Mapping) and isinstance(expected, Mapping):
        out: list[str] = []
        for key in sorted({*stored, *expected}, key=str):
            field = f"{name}.{key}"
            if key not in stored:
                out.append(f"{field} (was absent, now {expected[key]!r})")
            elif key not in expected:
                out.append(f"{field} (was {stored[key]!r}, now absent)")
            else:
                out += _differences(stored[key], expected[key], field)
        return out
    same = stored == expected or (stored != stored and expected != expected)
    return [] if same else [f"{name} (was {stored!r}, now {expected!r})"]


def check_metadata(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse to resume a run whose data or settings changed.

    Args:
      stored: The metadata of a checkpoint.
      expected: The metadata of the run that would go on from it. Of both, the fields
        "fingerprint", "config" and "train" are compared, those that ``expected`` has.

    Raises:
      UserError: A field differs; the message names it with its old and new value.

    Example:
      >>> check_metadata({"config": {"lr": 0.1}}, {"config": {"lr": 0.1}})
      >>> check_metadata({"config": {"lr": 0.1}}, {"config": {"lr": 0.2}})
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: the checkpoint is of another run: config.lr (was 0.1, now 0.2)
      changed; restore the old setting, or train again in another workdir.
    """
    # Through json, because that is how the stored side came: tuples are lists by now.
    plain = json.loads(json.dumps({name: expected[name] for name in CHECKED if name in expected}))
    changed: list[str] = []
    for name, value in plain.items():
        changed += _differences(stored.get(name), value, name)
    if changed:
        raise UserError(
            f"the checkpoint is of another run: {'; '.join(changed[:5])} changed; "
            "restore the old setting, or train again in another workdir."
        )


def own_metadata(described: Any) -> dict[str, Any]:
    """Return our metadata from orbax's; orbax says nothing where its file is broken.

    Raises:
      UserError: A newer jmrec wrote it.
      ValueError: It is broken, or no jmrec wrote it.
    """
    custom = described.custom_metadata
    if not isinstance(custom, Mapping) or not isinstance(custom.get("metadata"), Mapping):
        raise ValueError("its metadata are broken or not jmrec's")
    if not isinstance(custom.get("format", 1), int):
        raise ValueError("its metadata name no format")
    if custom.get("format", 1) > FORMAT:
        raise UserError(
            f"{described.path}: format {custom['format']} is of a newer jmrec, this one reads "
            f"format {FORMAT}; use the version that wrote it, or another --workdir."
        )
    return dict(custom["metadata"])


def one_line(error: BaseException) -> str:
    """Return the first line of the first cause: orbax wraps what tensorstore says."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
