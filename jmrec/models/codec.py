"""Configs of models as plain values, by the model's name: what export keeps beside parameters."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jmrec.config import config_from
from jmrec.errors import UserError
from jmrec.models.sessions.table import ENCODERS, encoder_name


def encode(config: Any) -> dict[str, Any]:
    """Return a registered model's config as plain values.

    Args:
      config: The config of a session encoder.

    Returns:
      {"model": its name, "config": {field: value}}, which JSON can hold.

    Raises:
      ValueError: The config is of no registered model.

    Example:
      >>> from jmrec.models.sessions.student import StudentConfig
      >>> plain = encode(StudentConfig(features=3, ids=0))
      >>> plain["model"], plain["config"]["stack"]["width"]
      ('student', 128)
      >>> decode(plain) == StudentConfig(features=3, ids=0)
      True
    """
    return {"model": encoder_name(config), "config": asdict(config)}


def decode(plain: Mapping[str, Any]) -> Any:
    """Return the config that `encode` was given, also after it has been through JSON.

    Raises:
      UserError: The model is not known, or the values are not those of its config.
    """
    name, known = plain["model"], ", ".join(ENCODERS)
    if name not in ENCODERS:
        raise UserError(
            f"there is no model {name!r}, known are {known}; use the version of jmrec that has it."
        )
    return config_from(ENCODERS[name].config, plain["config"], name)
