"""Idefics3 and SmolVLM: Hugging Face names to the parameters of `jmrec.models.readers.idefics3`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jmrec.convert import llama, vit
from jmrec.convert.hf import (
    folder_of,
    hf_config,
    is_one_of,
    number,
    read_config,
    read_pixels,
    require,
)
from jmrec.convert.sources import Source
from jmrec.convert.table import Entry, transpose
from jmrec.models.readers.idefics3 import Idefics3Config

KINDS = ("idefics3", "smolvlm")
"""The values of "model_type" that are read."""
IGNORE = llama.IGNORE
_VISION, _TEXT = "model.vision_model.", "model.text_model."


def config_from_hf(
    config: Mapping[str, Any],
    pixels: Mapping[str, Any] | None = None,
    *,
    dtype: str = "float32",
    remat: bool | str = False,
) -> Idefics3Config:
    """Return the model's config.

    Args:
      config: What ``config.json`` holds.
      pixels: What ``preprocessor_config.json`` holds: "image_mean" and "image_std".
      dtype: Compute dtype.
      remat: Recompute blocks in the backward pass.

    Raises:
      UserError: The model is of another family, or has what the towers have not.

    Example:
      >>> small = {"model_type": "smolvlm", "vision_config": {"image_size": 64, "patch_size": 16}}
      >>> config_from_hf(small).tokens
      4
    """
    hf = hf_config(config, KINDS)
    decoder = llama.config_from_hf(hf.text_config.to_dict(), dtype=dtype, remat=remat)
    vision = vit.config_from_hf(hf.vision_config.to_dict(), pixels, dtype=dtype, remat=remat)
    merge = number(hf, "scale_factor")
    require(vision.side % merge == 0, f"{vision.side} patches a side, merged by {merge}")
    return Idefics3Config(
        vision=vision,
        decoder=replace(
            decoder, tied=bool(hf.tie_word_embeddings), image_token=number(hf, "image_token_id")
        ),
        merge=merge,
    )


def table(config: Idefics3Config) -> list[Entry]:
    """Return the table of a Hugging Face model's tensors."""
    parts = {
        "vision": vit.table(config.vision, _VISION),
        "decoder": llama.table(config.decoder, _TEXT),
    }
    connector = "model.connector.modality_projection.proj.weight"
    return [
        Entry("connector/kernel", connector, transpose),
        *(
            replace(entry, target=f"{part}/{entry.target}")
            for part, entries in parts.items()
            for entry in entries
        ),
    ]


def recognises(source: Source) -> bool:
    """Tell whether a source is a Hugging Face folder with an Idefics3 or SmolVLM."""
    return is_one_of(source, KINDS)


def config_of(source: Source) -> Idefics3Config:
    """Return the config of a Hugging Face folder; raises UserError as `config_from_hf`."""
    folder = folder_of(source)
    return config_from_hf(read_config(folder), read_pixels(folder))
