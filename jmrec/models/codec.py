"""Configs of models as plain values, by the model's name: what export keeps beside parameters."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jmrec.config import config_from
from jmrec.errors import UserError
from jmrec.models.dlrm import DlrmConfig
from jmrec.models.sessions.table import ENCODERS, encoder_name

RANKERS: dict[str, type] = {"dlrm": DlrmConfig}
"""Models that rank pairs, by name: their configs."""


def encode(config: Any) -> dict[str, Any]:
    """Return a registered model's config as plain values.

    Args:
      config: The config of a session encoder, or of a ranker of pairs.

    Returns:
      {"model": its name, "config": {field: value}}, which JSON can hold.

    Raises:
      ValueError: The config is of no registered model.

    Example:
      >>> from jmrec.models.sessions.student import StudentConfig
      >>> plain = encode(StudentConfig(features=3, ids=0))
      >>> plain["model"], plain["config"]["stack"]["width"]
      ('student', 128)
      >>> encode(DlrmConfig(numbers=3))["model"]
      'dlrm'
      >>> decode(plain) == StudentConfig(features=3, ids=0)
      True
    """
    ranker = next((name for name, each in RANKERS.items() if type(config) is each), None)
    return {"model": ranker or encoder_name(config), "config": asdict(config)}


def decode(plain: Mapping[str, Any]) -> Any:
    """Return the config that `encode` was given, also after it has been through JSON.

    Raises:
      UserError: The model is not known, or the values are not those of its config.
    """
    configs = {**{name: each.config for name, each in ENCODERS.items()}, **RANKERS}
    name, known = plain["model"], ", ".join(configs)
    if name not in configs:
        raise UserError(
            f"there is no model {name!r}, known are {known}; use the version of jmrec that has it."
        )
    return config_from(configs[name], plain["config"], name)
