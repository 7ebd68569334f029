"""A tiny GGUF file of the Llama family: config, weights, tokenizer, what is said of bad ones."""

from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
from tokenizers import Tokenizer

from jmrec.convert.families import load_pretrained
from jmrec.convert.llama import hf_of_gguf
from jmrec.convert.tokenizer import gguf_tokenizer, load_tokenizer
from jmrec.errors import UserError
from jmrec.systems.pretrained import convert_to, read_converted

TOKENS = ["<|end|>", "a", "b", "c", "ab", "1", "2", "<|user|>"]


def write(path: Path, architecture: str = "qwen3", tied: bool = True, leave: str = "") -> Path:
    """Write a decoder of two layers; ``leave`` is a tensor to leave away."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(6)
    writer.add_context_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(6)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 1, 1, 1, 1, 1, 1, 4])
    writer.add_token_merges(["a b"])
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (8, 8), "output_norm": (8,)}
    for layer in (f"blk.{n}." for n in range(2)):
        shapes |= {f"{layer}attn_norm": (8,), f"{layer}ffn_norm": (8,)}
        shapes |= {f"{layer}attn_q": (12, 8), f"{layer}attn_k": (6, 8), f"{layer}attn_v": (6, 8)}
        shapes |= {f"{layer}attn_output": (8, 12), f"{layer}ffn_down": (8, 6)}
        shapes |= {f"{layer}ffn_gate": (6, 8), f"{layer}ffn_up": (6, 8)}
        shapes |= {f"{layer}attn_{n}_norm": (6,) for n in ("q", "k") if architecture == "qwen3"}
    shapes |= {} if tied else {"output": (8, 8)}
    for name, shape in shapes.items():
        if name != leave:
            writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_converted_file_keeps_its_weights_and_its_tokenizer(tmp_path: Path) -> None:
    source = write(tmp_path / "tiny.gguf")
    convert_to(source, tmp_path / "out")
    back, direct = read_converted(tmp_path / "out"), load_pretrained(source)
    assert back.model.config == direct.model.config
    jax.tree.map(np.testing.assert_array_equal, back.params, direct.params)
    c = direct.model.config
    assert (c.vocab, c.tied, c.context) == (8, True, 16)
    assert (c.stack.head, c.stack.rope_base, c.stack.qk_norm) == (6, 5000.0, True)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    text = "<|user|>abc12<|end|>"
    assert tokenizer.encode(text).ids == [7, 4, 3, 5, 6, 0]
    assert direct.source is not None
    assert load_tokenizer(direct.source).encode(text).ids == [7, 4, 3, 5, 6, 0]


def test_rows_of_llama_are_put_in_order_and_a_head_of_its_own_is_read(tmp_path: Path) -> None:
    plain = load_pretrained(write(tmp_path / "q.gguf", "qwen3", tied=False))
    llama = load_pretrained(write(tmp_path / "l.gguf", "llama", tied=False))
    # Two heads of three interleaved pairs each: evens, then odds.
    order = np.array([0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11])
    one, other = (p.params["stack"]["blocks"]["attention"] for p in (plain, llama))
    np.testing.assert_array_equal(other["query"]["kernel"][0], one["query"]["kernel"][0][:, order])
    np.testing.assert_array_equal(other["out"]["kernel"][0], one["out"]["kernel"][0])
    assert plain.params["head"]["kernel"].shape == (8, 8)


@pytest.mark.parametrize("leave", ["blk.1.attn_q_norm", "output_norm"])
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, leave: str) -> None:
    with pytest.raises(UserError, match=leave):
        load_pretrained(write(tmp_path / "less.gguf", leave=leave))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"general.architecture": "mamba"}, "'mamba' is not one of llama"),
        ({"llama.rope.scaling.type": "yarn"}, "a rope scaling in GGUF"),
        ({"llama.block_count": None}, "does not say llama.block_count"),
    ],
)
def test_metadata_that_would_be_read_wrongly_are_refused(change: dict, said: str) -> None:
    names = ("block_count", "embedding_length", "feed_forward_length", "context_length")
    names = (*names, "attention.head_count", "attention.head_count_kv")
    metadata: dict[str, Any] = {f"llama.{name}": 2 for name in names}
    metadata |= {"general.architecture": "llama", "tokenizer.ggml.tokens": TOKENS}
    metadata |= {"llama.attention.layer_norm_rms_epsilon": 1e-5, **change}
    with pytest.raises(UserError, match=said):
        hf_of_gguf({name: value for name, value in metadata.items() if value is not None})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizer.ggml.pre": "qwen2"}, r"of kind 'gpt2' \('qwen2'\)"),
        ({"tokenizer.ggml.token_type": [3]}, "lacks its tokens or merges"),
        ({"tokenizer.ggml.merges": ["z a"]}, "tokenizer is broken"),
    ],
)
def test_tokenizers_that_would_be_read_wrongly_are_refused(change: dict, said: str) -> None:
    whole = {
        **{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"},
        **{"tokenizer.ggml.tokens": TOKENS, "tokenizer.ggml.token_type": [1] * 8},
        "tokenizer.ggml.merges": ["a b"],
    }
    assert gguf_tokenizer(whole).encode("ab").ids == [4]
    with pytest.raises(UserError, match=said):
        gguf_tokenizer({**whole, **change})
