"""The vision towers of CLIP and SigLIP against transformers with torch: random weights, float32."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionModel,
)

from jmrec.convert import convert, vit
from jmrec.models.parts.encoder import EncoderBlock, Mlp, MultiHeadAttention
from jmrec.models.readers.vit import AttentionPool
from jmrec.models.readers.vit import vit as vit_model
from tests.parity.against import MODEL, MODULE, TorchModel, layer, shake, shapes, watch

TINY = {
    **{"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "image_size": 12},
    **{"num_attention_heads": 4, "patch_size": 4, "projection_dim": 10},
}
PIXELS = {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.25, 0.3]}
CASES = {
    "clip_vision_model": CLIPVisionModelWithProjection,
    "siglip_vision_model": SiglipVisionModel,
}


def normalised(picture: np.ndarray) -> torch.Tensor:
    """Return pixels as transformers' processors hand them on: [B, 3, S, S]."""
    x = (picture / 255.0 - np.array(PIXELS["image_mean"])) / np.array(PIXELS["image_std"])
    return torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)


@pytest.mark.parametrize("kind", CASES)
def test_every_module_and_the_whole_tower(kind: str) -> None:
    clip = kind.startswith("clip")
    theirs: Any = CASES[kind](AutoConfig.for_model(kind, **TINY))
    shake(theirs)
    tower = theirs.vision_model if clip else theirs
    ours = vit_model(vit.config_from_hf({"model_type": kind, **TINY}, PIXELS, projection=clip))
    prefix = "vision_model." if clip else ""
    params = convert(TorchModel(theirs), vit.table(ours.config, prefix), shapes(ours))
    picture = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)
    block = tower.encoder.layers[1]
    parts = {"attention": block.self_attn, "mlp": block.mlp, "block": block}
    parts |= {} if clip else {"head": tower.head}
    with torch.no_grad(), watch(**parts) as found:
        out = theirs(pixel_values=normalised(picture))
    c = ours.config.encoder
    one = layer(params["blocks"], 1)

    @jax.jit
    def modules(inputs: dict[str, Any]) -> dict[str, Any]:
        everything = np.ones((1, ours.config.tokens, ours.config.tokens), bool)
        made = {
            "attention": MultiHeadAttention(c).apply(
                {"params": one["attention"]}, inputs["attention"], everything
            ),
            "mlp": Mlp(c).apply({"params": one["mlp"]}, inputs["mlp"]),
            "block": EncoderBlock(c).apply({"params": one}, inputs["block"], everything)[0],
        }
        if not clip:
            made["head"] = AttentionPool(c).apply({"params": params["head"]}, inputs["head"])
        return made

    for name, got in modules({name: x for name, (x, _) in found.items()}).items():
        np.testing.assert_allclose(got, found[name][1], rtol=0, atol=MODULE, err_msg=name)
    pooled, tapped = jax.jit(ours.fns["encode_picture"], static_argnames="taps")(
        params, picture, taps=("seen",)
    )
    want = (out.image_embeds if clip else out.pooler_output).numpy()
    assert np.abs(want).mean() > 0.1, "numbers so small that any bound holds"
    np.testing.assert_allclose(pooled, want, rtol=0, atol=MODEL)
    np.testing.assert_allclose(tapped["seen"], out.last_hidden_state.numpy(), rtol=0, atol=MODEL)
