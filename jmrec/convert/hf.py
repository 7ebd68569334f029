"""The configuration of a pretrained model, read by transformers."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jmrec.convert.sources import Safetensors, Source, first_line
from jmrec.errors import UserError
from jmrec.files import member

MAX_JSON = 20_000_000
"""Bytes of a configuration; those with the names of 20,000 classes have two million."""
LIMITS: Mapping[str, tuple[int, int] | tuple[float, float]] = {
    **{"hidden_size": (1, 2**17), "intermediate_size": (1, 2**20), "projection_dim": (1, 2**17)},
    **{"num_hidden_layers": (1, 2_000), "vocab_size": (1, 2**24), "type_vocab_size": (1, 2**16)},
    **{"num_attention_heads": (1, 2**12), "num_key_value_heads": (1, 2**12)},
    **{"head_dim": (1, 2**14), "max_position_embeddings": (1, 2**30)},
    **{"original_max_position_embeddings": (1, 2**30), "image_token_id": (0, 2**24)},
    **{"image_size": (1, 2**13), "patch_size": (1, 2**12), "num_channels": (1, 2**12)},
    **{"scale_factor": (1, 64), "size": (1, 2**14), "crop_size": (1, 2**14)},
    **{"height": (1, 2**14), "width": (1, 2**14)},
    **{"shortest_edge": (1, 2**14), "longest_edge": (1, 2**14)},
    **{"layer_norm_eps": (1e-20, 1.0), "rms_norm_eps": (1e-20, 1.0)},
    **{"rope_theta": (1.0, 1e12), "factor": (1e-3, 1e6), "partial_rotary_factor": (0.0, 1.0)},
    **{"low_freq_factor": (1e-3, 1e6), "high_freq_factor": (1e-3, 1e6)},
}
"""The least and the most of every number that is read; whole ones where these are whole."""
_HEADS = ("num_labels", "id2label", "label2id")
"""Of classifiers, which are not read; transformers would list every class."""


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return ``config.json`` of a Hugging Face folder.

    Raises:
      UserError: There is none, or it is no JSON object.
    """
    return _read_json(Path(folder), "config.json")


def read_pixels(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return ``preprocessor_config.json``: how pictures are made ready.

    Raises:
      UserError: There is none, or it is no JSON object.
    """
    config = _read_json(Path(folder), "preprocessor_config.json")
    try:
        check_numbers(config)
        for name, least in (("image_mean", -10.0), ("image_std", 1e-6)):
            values = config.get(name)
            require(
                values is None
                or (
                    isinstance(values, list)
                    and len(values) == 3
                    and all(type(each) in (int, float) and least <= each <= 10 for each in values)
                ),
                f"the {name} {str(values)[:80]}",
            )
    except UserError as error:
        raise UserError(f"{Path(folder) / 'preprocessor_config.json'}: {error}") from None
    return config


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    file = member(folder, name, MAX_JSON)
    if file is None:
        raise UserError(f"{folder / name} is missing; fetch the folder again.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can not be read ({error}); fetch the folder again.") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} is no JSON object; fetch the folder again.")
    return config


def number(config: Any, name: str) -> Any:
    """Return a number of a foreign configuration, which is one of its kind and in its range.

    Args:
      config: A mapping, or transformers' configuration object.
      name: A key of `LIMITS`.

    Raises:
      UserError: It is absent, a text, not whole, or outside of its limits.

    Example:
      >>> number({"patch_size": 14}, "patch_size")
      14
      >>> number({"patch_size": -1}, "patch_size")
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: patch_size is -1 and no whole number from 1 to 4096; mend the model's
      configuration, or choose another.
    """
    value: Any = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    least, most = LIMITS[name]
    whole = isinstance(least, int)
    kinds = (int,) if whole else (int, float)
    if type(value) in kinds and least <= value <= most:  # NaN is in no range
        return value
    shown = "absent" if value is None else f"{value!r:.40}"
    raise UserError(
        f"{name} is {shown} and no {'whole ' if whole else ''}number from {least} to {most}; mend "
        "the model's configuration, or choose another."
    )


def check_numbers(config: Mapping[str, Any]) -> None:
    """Check every number of a configuration that has a range, however deep it stands.

    transformers makes lists as long as some of them say, so this comes before it. What is null is
    left to its defaults.

    Raises:
      UserError: One is out of its range.
    """
    waiting: list[Any] = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            for name, value in node.items():
                if name in LIMITS and value is not None and not isinstance(value, Mapping):
                    number(node, name)
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
        elif type(node) is int and abs(node) >= 2**63:
            raise UserError("it holds a number of more than 64 bits; fetch it again.")


def folder_of(source: Source) -> Path:
    """Return the folder of a source, with its ``config.json`` if there is one."""
    return source.path if source.path.is_dir() else source.path.parent


def is_one_of(source: Source, kinds: Collection[str]) -> bool:
    """Tell whether a source is a Hugging Face folder whose "model_type" is one of ``kinds``."""
    folder = folder_of(source)
    if not isinstance(source, Safetensors) or member(folder, "config.json") is None:
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
            f"a model of type {kind!r:.80} is not one of {', '.join(kinds)}; choose a backbone of "
            "these families."
        )
    check_numbers(config)
    settings = {name: value for name, value in config.items() if name != "model_type"}
    try:
        return AutoConfig.for_model(kind, **_without_classes(settings))
    except Exception as error:  # validation errors of many kinds
        why = first_line(error)
        raise UserError(
            f"transformers refuses this configuration of {kind!r} ({why}); mend its config.json."
        ) from None


def _without_classes(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_classes(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name not in _HEADS
    }


def require(good: bool, what: str) -> None:
    """Refuse a configuration that jmrec's model would read wrongly.

    Raises:
      UserError: ``good`` is False; the message says what is not supported.
    """
    if not good:
        raise UserError(
            f"this model has {what[:160]}, which jmrec's model of its family does not; choose "
            "another."
        )
