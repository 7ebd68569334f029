"""The configuration of a pretrained model, read by transformers."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jmrec.convert.sources import Safetensors, Source
from jmrec.errors import UserError


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return ``config.json`` of a Hugging Face folder.

    Raises:
      UserError: There is none, or it is no JSON object.
    """
    return _read_json(Path(folder) / "config.json")


def read_pixels(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return ``preprocessor_config.json``: how pictures are made ready.

    Raises:
      UserError: There is none, or it is no JSON object.
    """
    return _read_json(Path(folder) / "preprocessor_config.json")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can not be read ({error}); fetch the folder again.") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} is no JSON object; fetch the folder again.")
    return config


def folder_of(source: Source) -> Path:
    """Return the folder of a source, with its ``config.json`` if there is one."""
    return source.path if source.path.is_dir() else source.path.parent


def is_one_of(source: Source, kinds: Collection[str]) -> bool:
    """Tell whether a source is a Hugging Face folder whose "model_type" is one of ``kinds``."""
    folder = folder_of(source)
    if not isinstance(source, Safetensors) or not (folder / "config.json").is_file():
        return False
    return read_config(folder).get("model_type") in kinds


def prefix_of(source: Source, prefix: str) -> str:
    """Return ``prefix`` where tensors have it: a model saved with its head has, one without not."""
    return prefix if any(name.startswith(prefix) for name in source.names()) else ""


def hf_config(config: Mapping[str, Any], kinds: Collection[str]) -> Any:
    """Return transformers' configuration object, with its defaults filled in.

    Args:
      config: What ``config.json`` holds.
      kinds: The values of "model_type" that the caller understands.

    Raises:
      UserError: The model is of another kind, or transformers refuses the configuration.

    Example:
      >>> hf_config({"model_type": "llama", "hidden_size": 64}, ("llama",)).hidden_size
      64
    """
    from transformers import AutoConfig

    kind = str(config.get("model_type"))
    if kind not in kinds:
        raise UserError(
            f"a model of type {kind!r} is not one of {', '.join(kinds)}; choose a backbone of "
            "these families."
        )
    settings = {name: value for name, value in config.items() if name != "model_type"}
    try:
        return AutoConfig.for_model(kind, **settings)
    except Exception as error:  # validation errors of many kinds
        why = (str(error).splitlines() or [""])[0][:160]
        raise UserError(
            f"transformers refuses this configuration of {kind!r} ({why}); mend its config.json."
        ) from None


def require(good: bool, what: str) -> None:
    """Refuse a configuration that jmrec's model would read wrongly.

    Raises:
      UserError: ``good`` is False; the message says what is not supported.
    """
    if not good:
        raise UserError(
            f"this model has {what}, which jmrec's model of its family does not; choose another."
        )
