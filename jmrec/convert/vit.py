"""Vision towers of CLIP, SigLIP and Idefics3: Hugging Face names to `jmrec.models.readers.vit`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jmrec.convert.bert import both, encoder_config, norm
from jmrec.convert.hf import (
    folder_of,
    hf_config,
    is_one_of,
    number,
    prefix_of,
    read_config,
    read_pixels,
    require,
)
from jmrec.convert.sources import Source
from jmrec.convert.table import Entry, Transform, chain, conv, transpose
from jmrec.models.parts.encoder import ACTIVATIONS
from jmrec.models.readers.vit import ViTConfig

POOLS = {
    "clip_vision_model": "class",
    "siglip_vision_model": "attention",
    "idefics3_vision": "mean",
    "smolvlm_vision": "mean",
}
"""The "model_type" of vision towers -> how they pool."""
WHOLE = ("clip", "siglip")
"""Those of models that have a tower for texts too."""
KINDS = (*WHOLE, *POOLS)
IGNORE = (
    *("text_model.*", "text_projection.weight", "logit_scale", "logit_bias"),
    *("visual_projection.weight", "*embeddings.position_ids"),
)
"""The tower for texts; a projection that is wanted is in the table."""


def config_from_hf(
    config: Mapping[str, Any],
    pixels: Mapping[str, Any] | None = None,
    *,
    projection: bool = False,
    dtype: str = "float32",
    remat: bool | str = False,
) -> ViTConfig:
    """Return the vision tower's config.

    Args:
      config: What ``config.json`` holds, of a vision tower or of a whole CLIP or SigLIP.
      pixels: What ``preprocessor_config.json`` holds: "image_mean" and "image_std".
      projection: With CLIP's projection onto the space that it shares with texts.
      dtype: Compute dtype.
      remat: Recompute blocks in the backward pass.

    Raises:
      UserError: The model is of another family, or has what the tower has not.

    Example:
      >>> config_from_hf({"model_type": "siglip", "vision_config": {"image_size": 32}}).tokens
      4
    """
    kind = config.get("model_type")
    whole = hf_config(config, KINDS)
    hf = whole.vision_config if kind in WHOLE else whole
    require(hf.model_type in POOLS, f"a vision tower of type {hf.model_type!r}")
    pool = POOLS[hf.model_type]
    require(str(hf.hidden_act) in ACTIVATIONS, f"the activation {hf.hidden_act!r}")
    require(hf.num_channels == 3, f"{hf.num_channels} colours")
    require(pool == "class" or not projection, "no projection")
    if pool == "attention" and not getattr(hf, "vision_use_head", True):
        pool = "mean"
    encoder = encoder_config(hf, dtype=dtype, remat=remat)
    colours = {
        ours: tuple(map(float, pixels[theirs]))
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
        if pixels and theirs in pixels
    }
    size, patch = number(hf, "image_size"), number(hf, "patch_size")
    require(size % patch == 0, f"patches of {patch} in pictures of {size} pixels")
    return ViTConfig(
        encoder,
        size=size,
        patch=patch,
        pool=pool,
        projection=number(whole, "projection_dim") if projection else 0,
        **colours,  # type: ignore[arg-type]
    )


def _flat(kernel: np.ndarray) -> np.ndarray:
    return kernel.reshape(-1, kernel.shape[-1])


def _third(number: int, turn: bool) -> Transform:
    """Return the transform that takes queries, keys or values out of a fused matrix or bias."""

    def apply(x: np.ndarray) -> np.ndarray:
        size = x.shape[0] // 3
        part = x[number * size : (number + 1) * size]
        return part.T if turn else part

    return apply


def table(config: ViTConfig, prefix: str = "vision_model.") -> list[Entry]:
    """Return the table.

    Args:
      config: The tower's.
      prefix: What comes before every name except that of CLIP's projection.
    """
    layer = f"{prefix}encoder.layers.{{layer}}."
    found = [
        Entry(
            "patches/kernel", f"{prefix}embeddings.patch_embedding.weight", chain(conv, _flat)
        ),
        Entry("position", f"{prefix}embeddings.position_embedding.weight"),
        *both("blocks/attention/query", f"{layer}self_attn.q_proj"),
        *both("blocks/attention/key", f"{layer}self_attn.k_proj"),
        *both("blocks/attention/value", f"{layer}self_attn.v_proj"),
        *both("blocks/attention/out", f"{layer}self_attn.out_proj"),
        *norm("blocks/attention_norm", f"{layer}layer_norm1"),
        *both("blocks/mlp/up", f"{layer}mlp.fc1"),
        *both("blocks/mlp/down", f"{layer}mlp.fc2"),
        *norm("blocks/mlp_norm", f"{layer}layer_norm2"),
        *norm("norm", f"{prefix}post_layernorm"),
    ]  # fmt: skip
    if config.pool == "class":
        found.append(Entry("token", f"{prefix}embeddings.class_embedding"))
        found += norm("pre_norm", f"{prefix}pre_layrnorm")  # CLIP's own spelling
    else:
        found.append(Entry("patches/bias", f"{prefix}embeddings.patch_embedding.bias"))
    if config.pool == "attention":
        head = f"{prefix}head."
        for number, name in enumerate(("query", "key", "value")):
            place = f"head/attention/{name}"
            fused = f"{head}attention.in_proj_"
            found.append(Entry(f"{place}/kernel", f"{fused}weight", _third(number, turn=True)))
            found.append(Entry(f"{place}/bias", f"{fused}bias", _third(number, turn=False)))
        found += [
            Entry("head/probe", f"{head}probe", lambda x: x[0]),
            *both("head/attention/out", f"{head}attention.out_proj"),
            *norm("head/norm", f"{head}layernorm"),
            *both("head/mlp/up", f"{head}mlp.fc1"),
            *both("head/mlp/down", f"{head}mlp.fc2"),
        ]
    if config.projection:
        found.append(Entry("project/kernel", "visual_projection.weight", transpose))
    return found


def recognises(source: Source) -> bool:
    """Tell whether a source is a Hugging Face folder with a CLIP or SigLIP."""
    return is_one_of(source, KINDS)


def config_of(source: Source) -> ViTConfig:
    """Return the config of a Hugging Face folder; raises UserError as `config_from_hf`.

    CLIP's projection is taken where the folder holds it.
    """
    folder = folder_of(source)
    projection = "visual_projection.weight" in source.names()
    return config_from_hf(read_config(folder), read_pixels(folder), projection=projection)


def entries(config: ViTConfig, source: Source) -> list[Entry]:
    """Return the table of a Hugging Face folder."""
    return table(config, prefix_of(source, "vision_model."))
