"""Hugging Face folders as transformers writes them: found, read whole, or refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BertForMaskedLM,
    CLIPVisionModelWithProjection,
)

from jmrec.convert.families import first_layers, load_pretrained
from jmrec.errors import UserError
from tests.parity.against import MODEL, shake

SIZE = {
    **{"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 30},
    **{"num_attention_heads": 2, "max_position_embeddings": 32},
}
VISION = {
    **{"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "image_size": 8},
    **{"num_attention_heads": 2, "patch_size": 2, "projection_dim": 6},
}
LLAMA = {**SIZE, "num_key_value_heads": 1}
CASES: dict[str, tuple[str, dict[str, Any], Any, str]] = {
    "llama": ("llama", LLAMA, AutoModelForCausalLM, "llama"),
    "qwen3": ("qwen3", {**LLAMA, "tie_word_embeddings": True}, AutoModelForCausalLM, "llama"),
    "bert": ("bert", SIZE, AutoModel, "bert"),
    "bert with its head": ("bert", SIZE, BertForMaskedLM, "bert"),
    "clip": (
        "clip",
        {"vision_config": VISION, "text_config": SIZE, "projection_dim": 5},
        *(AutoModel, "vit"),
    ),
    "clip vision": ("clip_vision_model", VISION, CLIPVisionModelWithProjection, "vit"),
    "siglip": ("siglip", {"vision_config": VISION, "text_config": SIZE}, AutoModel, "vit"),
    "siglip vision": ("siglip_vision_model", VISION, AutoModel, "vit"),
    "smolvlm": (
        "smolvlm",
        {
            "vision_config": VISION,
            "text_config": {**LLAMA, "model_type": "llama", "pad_token_id": 0},
            **{"image_token_id": 29, "pad_token_id": 0, "tie_word_embeddings": True},
        },
        AutoModelForImageTextToText,
        "idefics3",
    ),
}


def outputs(family: str, theirs: Any, pretrained: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what jmrec and what torch says to the same text or picture."""
    rng = np.random.default_rng(0)
    text, mask = rng.integers(1, 29, (2, 7)).astype(np.int32), np.ones((2, 7), bool)
    picture = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    pixels = torch.tensor(picture.transpose(0, 3, 1, 2) / 127.5 - 1.0, dtype=torch.float32)
    fns, params = pretrained.model.fns, pretrained.params
    ids = torch.tensor(text, dtype=torch.long)
    with torch.no_grad():
        if family == "llama":
            return fns["lm_logits"](params, text, mask)[0], theirs(input_ids=ids).logits.numpy()
        if family == "bert":
            tower = getattr(theirs, "bert", theirs)
            want = tower(input_ids=ids).last_hidden_state.numpy()
            return fns["encode"](params, text, mask)[0], want
        if family == "vit":
            tower = getattr(theirs, "vision_model", theirs)
            pooled = tower(pixel_values=pixels).pooler_output
            if hasattr(theirs, "visual_projection"):
                pooled = theirs.visual_projection(pooled)
            return fns["encode_picture"](params, picture)[0], pooled.numpy()
        text[:, 1:5] = ids[:, 1:5] = 29
        seen, _ = fns["see"](params, picture)
        want = theirs(input_ids=ids, pixel_values=pixels[:, None]).logits.numpy()
        return fns["lm_logits"](params, text, mask, seen)[0], want


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_is_found_and_read_whole(case: str, tmp_path: Path) -> None:
    kind, settings, theirs_class, family = CASES[case]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    make = getattr(theirs_class, "from_config", theirs_class)
    theirs = shake(make(config))
    # Several files and an index of them, as large models have.
    theirs.save_pretrained(tmp_path, max_shard_size="8KB" if case == "llama" else "1GB")
    colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(colours))
    pretrained = load_pretrained(tmp_path)
    assert pretrained.family == family
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or case != "llama"
    got, want = outputs(family, theirs, pretrained)
    np.testing.assert_allclose(got, want, rtol=0, atol=MODEL)
    if case in ("llama", "bert"):
        # Torch without its last layer.
        stack = theirs.model if case == "llama" else theirs.encoder
        name = "layers" if case == "llama" else "layer"
        setattr(stack, name, getattr(stack, name)[:1])
        got, want = outputs(family, theirs, first_layers(pretrained, 1))
        np.testing.assert_allclose(got, want, rtol=0, atol=MODEL)
        with pytest.raises(UserError, match="this model has 2"):
            first_layers(pretrained, 3)
    if case != "clip":
        return
    # Not one tensor of the tower may be missing, strange, or of another shape.
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    renamed = {k.replace("layers.1.mlp.fc1", "layers.1.mlp.fcl"): v for k, v in tensors.items()}
    for wrong, said in [
        (renamed, f"{name}', which fills"),
        ({k: v for k, v in tensors.items() if k != name}, f"{name}'"),
        ({**tensors, "vision_model.extra": tensors[name]}, "vision_model.extra"),
        ({**tensors, name: tensors[name][:-1]}, f"{name}'.* shape"),
    ]:
        save_file(wrong, file)
        with pytest.raises(UserError, match=said):
            load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope scaling 'yarn'"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "sliding windows"),
        ({"model_type": "mamba"}, "is not one of llama, qwen2, qwen3"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(changes: dict[str, Any], said: str) -> None:
    from jmrec.convert.llama import config_from_hf

    with pytest.raises(UserError, match=said):
        config_from_hf({"model_type": "llama", **LLAMA, **changes})
