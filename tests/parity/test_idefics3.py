"""Idefics3 and SmolVLM against transformers with torch: random weights, pictures and text."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from jmrec.convert import convert, idefics3
from jmrec.generate import make_generator
from jmrec.models.readers.idefics3 import idefics3 as idefics3_model
from jmrec.types import Model
from tests.parity.against import MODEL, MODULE, TorchModel, shake, shapes

IMAGE = 39
TINY = {
    "vision_config": {
        **{"hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 2, "image_size": 16},
        **{"num_attention_heads": 2, "patch_size": 4},
    },
    "text_config": {
        **{"model_type": "llama", "hidden_size": 16, "intermediate_size": 20, "vocab_size": 40},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"pad_token_id": 0, "max_position_embeddings": 64},
    },
    **{"image_token_id": IMAGE, "scale_factor": 2, "pad_token_id": 0},
}


@dataclass
class Pair:
    torch: Any
    jax: Model
    params: Any
    picture: np.ndarray
    text: np.ndarray
    mask: np.ndarray

    def normalised(self) -> torch.Tensor:
        """Return frames as transformers' processors hand them on; the ones that pad are zeros."""
        x = self.picture.transpose(0, 1, 4, 2, 3) / 127.5 - 1.0
        x[1, 1] = 0.0
        return torch.tensor(x, dtype=torch.float32)


@pytest.fixture(scope="module", params=idefics3.KINDS)
def pair(request: pytest.FixtureRequest) -> Pair:
    kind = request.param
    settings = {**TINY, "tie_word_embeddings": kind == "smolvlm"}
    torch.manual_seed(0)
    theirs = shake(AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **settings)))
    ours = idefics3_model(idefics3.config_from_hf({"model_type": kind, **settings}))
    params = convert(
        TorchModel(theirs),
        idefics3.table(ours.config),
        shapes(ours),
        ignore=idefics3.IGNORE,
    )
    # Two frames of four tokens in the first row, one in the second.
    rng = np.random.default_rng(0)
    text = rng.integers(1, 39, (2, 16)).astype(np.int32)
    text[0, [2, 3, 4, 5, 8, 9, 10, 11]] = IMAGE
    text[1, 1:5] = IMAGE
    mask = np.arange(16) < np.array([[16], [9]])
    picture = rng.integers(0, 256, (2, 2, 16, 16, 3)).astype(np.uint8)
    return Pair(theirs, ours, params, picture, np.where(mask, text, 0), mask)


@pytest.fixture(scope="module")
def seen(pair: Pair) -> Any:
    return jax.jit(pair.jax.fns["see"])(pair.params, pair.picture)[0]


def test_the_image_path(pair: Pair, seen: Any) -> None:
    with torch.no_grad():
        out = pair.torch.model.get_image_features(pair.normalised())
        wide = pair.torch.model.vision_model(
            pair.normalised()[0], torch.ones((2, 4, 4), dtype=torch.bool)
        ).last_hidden_state
        connected = pair.torch.model.connector(wide).numpy()
    for row, want in zip(seen, out.pooler_output):
        np.testing.assert_allclose(row[: len(want)], want.numpy(), rtol=0, atol=MODEL)
    # The connector alone, on torch's own states.
    merged = wide.numpy().reshape(2, 2, 2, 2, 2, 12).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 48)
    got = merged @ np.asarray(pair.params["connector"]["kernel"])
    np.testing.assert_allclose(got, connected, rtol=0, atol=MODULE)
    assert np.abs(connected).mean() > 0.1


def test_text_with_and_without_pictures(pair: Pair, seen: Any) -> None:
    logits = jax.jit(pair.jax.fns["lm_logits"])
    inputs = {"attention_mask": torch.tensor(pair.mask), "use_cache": False}
    with torch.no_grad():
        want = pair.torch(
            input_ids=torch.tensor(pair.text, dtype=torch.long),
            pixel_values=pair.normalised(),
            **inputs,
        ).logits.numpy()
        words = np.where(pair.text == IMAGE, 1, pair.text)
        alone = pair.torch(input_ids=torch.tensor(words, dtype=torch.long), **inputs).logits.numpy()
    got, _ = logits(pair.params, pair.text, pair.mask, seen)
    np.testing.assert_allclose(got[pair.mask], want[pair.mask], rtol=0, atol=MODEL)
    got, _ = logits(pair.params, words, pair.mask)
    np.testing.assert_allclose(got[pair.mask], alone[pair.mask], rtol=0, atol=MODEL)


def test_pictures_permuted_across_rows_change_what_is_said(pair: Pair, seen: Any) -> None:
    logits = jax.jit(pair.jax.fns["lm_logits"])
    base, _ = logits(pair.params, pair.text, pair.mask, seen)
    other, _ = logits(pair.params, pair.text, pair.mask, seen[::-1])
    after = np.cumsum(pair.text == IMAGE, 1) > 0
    changed = np.abs(base - other).max(-1) > 1e-3
    assert changed[after & pair.mask].all()
    assert not changed[~after].any()


@pytest.mark.parametrize("pair", ["smolvlm"], indirect=True)
def test_it_writes_about_pictures_what_torch_writes(pair: Pair, seen: Any) -> None:
    prompts = [row[real].tolist() for row, real in zip(pair.text, pair.mask)]
    got = make_generator(pair.jax, max_new=6)(pair.params, prompts, seen=seen)
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        out = pair.torch.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pair.normalised()[i : i + 1],
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert got[i] == out[0, len(prompt) :].tolist()
