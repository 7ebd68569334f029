"""Llama, Qwen2 and Qwen3 against transformers with torch: random weights, float32."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from jmrec.convert import convert, llama
from jmrec.generate import make_generator
from jmrec.models.parts.basic import RMSNorm
from jmrec.models.parts.transformer import Attention, Block, causal, positions_of
from jmrec.models.readers.decoder import decoder
from jmrec.types import Model
from tests.parity.against import MODEL, MODULE, TorchModel, layer, shake, shapes, watch

TINY = {
    **{"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "vocab_size": 37},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
}
LLAMA3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 16,
}
CASES: dict[str, dict[str, Any]] = {
    "llama3": {
        **{"model_type": "llama", "head_dim": 8, "attention_bias": True, "mlp_bias": True},
        **{"rms_norm_eps": 1e-3, "rope_theta": 100.0, "rope_scaling": LLAMA3},
    },
    "llama": {
        **{"model_type": "llama", "tie_word_embeddings": True, "rope_theta": 1e5},
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "qwen2": {"model_type": "qwen2", "rope_theta": 1e6, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 10, "rope_theta": 1e4},
}


@dataclass
class Pair:
    torch: Any
    jax: Model
    params: Any


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest) -> Pair:
    config = {**TINY, **CASES[request.param]}
    torch.manual_seed(0)
    kind = config["model_type"]
    settings = {k: v for k, v in config.items() if k != "model_type"}
    theirs = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **settings), attn_implementation="eager"
    )
    ours = decoder(llama.config_from_hf(config))
    params = convert(
        TorchModel(shake(theirs)),
        llama.table(ours.config),
        shapes(ours),
        ignore=llama.IGNORE,
    )
    return Pair(theirs, ours, params)


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    text = rng.integers(0, 37, (3, 40)).astype(np.int32)
    return text, np.arange(40) < np.array([[40], [17], [1]])


def test_every_module_and_the_whole_model(pair: Pair) -> None:
    text, mask = batch()
    block = pair.torch.model.layers[1]
    with (
        torch.no_grad(),
        watch(
            norm=block.input_layernorm,
            attention=block.self_attn,
            block=block,
            last=pair.torch.model.norm,
        ) as seen,
    ):
        want = pair.torch(
            input_ids=torch.tensor(text), attention_mask=torch.tensor(mask), use_cache=False
        ).logits.numpy()
    assert np.abs(want).mean() > 0.5, "numbers so small that any bound holds"
    c = pair.jax.config.stack
    one = layer(pair.params["stack"]["blocks"], 1)
    positions, allowed = positions_of(mask), causal(mask)

    @jax.jit
    def modules(inputs: dict[str, Any]) -> dict[str, Any]:
        norm, attention = RMSNorm(c.eps), Attention(c)
        return {
            "norm": norm.apply({"params": one["attention_norm"]}, inputs["norm"]),
            "attention": attention.apply(
                {"params": one["attention"]}, inputs["attention"], positions, allowed
            )[0],
            "block": Block(c).apply({"params": one}, inputs["block"], positions, allowed, 0.0)[0],
        }

    # Torch looks at every key of a row that has none but padding before it; no real one has.
    inputs = {
        "norm": seen["norm"][0], "attention": seen["norm"][1], "block": seen["block"][0]
    }  # fmt: skip
    for name, got in modules(inputs).items():
        np.testing.assert_allclose(
            got[mask], seen[name][1][mask], rtol=0, atol=MODULE, err_msg=name
        )
    got, tapped = jax.jit(pair.jax.fns["lm_logits"], static_argnames="taps")(
        pair.params, text, mask, taps=("states",)
    )
    np.testing.assert_allclose(got[mask], want[mask], rtol=0, atol=MODEL)
    np.testing.assert_allclose(tapped["states"][mask], seen["last"][1][mask], rtol=0, atol=MODEL)


@pytest.mark.parametrize("pair", ["llama3"], indirect=True)
def test_greedy_generation_on_20_prompts_of_mixed_length(pair: Pair) -> None:
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 37, n).tolist() for n in [*range(1, 20), 40]]
    write = make_generator(pair.jax, max_new=12)
    got = write(pair.params, prompts)
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    for prompt, text in zip(prompts, got):
        # One by one: no padding of torch's own.
        ids = torch.tensor([prompt])
        out = pair.torch.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        assert text == out[0, len(prompt) :].tolist()
    assert len({tuple(text) for text in got}) > 10
