"""The Llama family: Hugging Face names and GGUF names to the parameters of a decoder."""

from collections.abc import Mapping
from typing import Any

from jmrec.convert.gguf_file import Gguf
from jmrec.convert.hf import (
    LIMITS,
    folder_of,
    hf_config,
    is_one_of,
    number,
    prefix_of,
    read_config,
    require,
)
from jmrec.convert.sources import Source
from jmrec.convert.table import Entry, Transform, chain, halves, identity, transpose
from jmrec.errors import UserError
from jmrec.models.parts.rope import RopeScaling
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.decoder import DecoderConfig

KINDS = ("llama", "qwen2", "qwen3")
"""The values of "model_type" that are read."""
IGNORE = ("*rotary_emb.inv_freq", "lm_head.weight")
"""What is computed here; and the head where it is the token table, which some files hold twice.

A head of its own is in the table, and so not left out.
"""


def config_from_hf(
    config: Mapping[str, Any], *, dtype: str = "float32", remat: bool | str = False
) -> DecoderConfig:
    """Return the decoder's config.

    Args:
      config: What ``config.json`` holds.
      dtype: Compute dtype.
      remat: Recompute blocks in the backward pass.

    Raises:
      UserError: The model is of another family, or has what the decoder has not (another
        activation, sliding windows, a rope scaling other than linear and llama3).

    Example:
      >>> got = config_from_hf({"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 4,
      ...                       "num_key_value_heads": 2, "num_hidden_layers": 3})
      >>> got.stack.qkv_bias, got.stack.out_bias, got.stack.layers
      (True, False, 3)
    """
    hf = hf_config(config, KINDS)
    require(hf.hidden_act == "silu", f"the activation {hf.hidden_act!r}")
    require(not getattr(hf, "use_sliding_window", False), "sliding windows")
    bias = hf.model_type == "qwen2" or bool(getattr(hf, "attention_bias", False))
    width, heads = number(hf, "hidden_size"), number(hf, "num_attention_heads")
    head = width // heads
    if getattr(hf, "head_dim", None) is not None:
        head = number(hf, "head_dim")
    require(head > 0, f"{heads} heads of the width {width}")
    stack = StackConfig(
        width=width,
        layers=number(hf, "num_hidden_layers"),
        heads=heads,
        kv_heads=number(hf, "num_key_value_heads"),
        mlp=number(hf, "intermediate_size"),
        rope_base=float(number(hf.rope_parameters, "rope_theta")),
        rope_scaling=_scaling(hf.rope_parameters),
        remat=remat,
        dtype=dtype,
        head=head,
        eps=float(number(hf, "rms_norm_eps")),
        qkv_bias=bias,
        out_bias=bias and hf.model_type != "qwen2",
        mlp_bias=bool(getattr(hf, "mlp_bias", False)),
        qk_norm=hf.model_type == "qwen3",
    )
    return DecoderConfig(
        vocab=number(hf, "vocab_size"),
        stack=stack,
        tied=bool(hf.tie_word_embeddings),
        context=number(hf, "max_position_embeddings"),
    )


def _scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", "default")
    require(kind in ("default", "linear", "llama3"), f"the rope scaling {kind!r}")
    require(rope.get("partial_rotary_factor", 1.0) == 1.0, "a partial rotation")
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(number(rope, "factor")))
    low, high = number(rope, "low_freq_factor"), number(rope, "high_freq_factor")
    require(low < high, f"a rope scaling from {low} to {high}")
    return RopeScaling(
        "llama3",
        float(number(rope, "factor")),
        low=float(low),
        high=float(high),
        context=number(rope, "original_max_position_embeddings"),
    )


def table(config: DecoderConfig, prefix: str = "model.", head: str = "lm_head") -> list[Entry]:
    """Return the table of a Hugging Face model's tensors.

    Args:
      config: The decoder's.
      prefix: What comes before the names of the decoder's tensors.
      head: The name of the language head.
    """
    names = {
        "embed": f"{prefix}embed_tokens",
        "layer": f"{prefix}layers.{{layer}}.",
        "norm": f"{prefix}norm",
        "head": head,
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.o_proj",
        "query_norm": "self_attn.q_norm",
        "key_norm": "self_attn.k_norm",
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }
    return _entries(config, names)


def _entries(
    config: DecoderConfig,
    names: Mapping[str, str],
    turn: tuple[Transform, Transform] = (identity, identity),
) -> list[Entry]:
    """Return the table; ``turn`` puts the rows of queries and keys in order."""
    c = config.stack
    layer = names["layer"]
    found = [
        Entry("embed/embedding", f"{names['embed']}.weight"),
        Entry("stack/norm/scale", f"{names['norm']}.weight"),
    ]
    if not config.tied:
        found.append(Entry("head/kernel", f"{names['head']}.weight", transpose))
    for name in ("attention_norm", "mlp_norm"):
        found.append(Entry(f"stack/blocks/{name}/scale", f"{layer}{names[name]}.weight"))
    for name in ("query_norm", "key_norm") if c.qk_norm else ():
        found.append(Entry(f"stack/blocks/attention/{name}/scale", f"{layer}{names[name]}.weight"))
    order = {"query": turn[0], "key": turn[1]}
    biases = {"query": c.qkv_bias, "key": c.qkv_bias, "value": c.qkv_bias, "out": c.out_bias}
    for name in ("query", "key", "value", "out", "gate", "up", "down"):
        place = f"attention/{name}" if name in biases else name
        step = order.get(name, identity)
        target, source = f"stack/blocks/{place}", f"{layer}{names[name]}"
        found.append(Entry(f"{target}/kernel", f"{source}.weight", chain(step, transpose)))
        if biases.get(name, c.mlp_bias):
            found.append(Entry(f"{target}/bias", f"{source}.bias", step))
    return found


def hf_of_gguf(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``config.json`` would hold, from the metadata of a GGUF file.

    Raises:
      UserError: The file is of another family, or a number of the model's size is missing.
    """
    kind = metadata.get("general.architecture")
    if kind not in KINDS:
        raise UserError(
            f"a GGUF file of {kind!r:.80} is not one of {', '.join(KINDS)}; choose another."
        )

    def need(name: str) -> Any:
        if f"{kind}.{name}" not in metadata:
            raise UserError(f"the GGUF file does not say {kind}.{name}; convert it again.")
        return metadata[f"{kind}.{name}"]

    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        raise UserError("the GGUF file has no list of tokens; convert it again.")
    require(f"{kind}.rope.scaling.type" not in metadata, "a rope scaling in GGUF")
    config = {
        "model_type": kind,
        "hidden_size": need("embedding_length"),
        "intermediate_size": need("feed_forward_length"),
        "num_hidden_layers": need("block_count"),
        "num_attention_heads": need("attention.head_count"),
        "num_key_value_heads": need("attention.head_count_kv"),
        "rms_norm_eps": need("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": need("context_length"),
        "rope_theta": metadata.get(f"{kind}.rope.freq_base", 10_000.0),
        "vocab_size": len(tokens),
    }
    if (head := metadata.get(f"{kind}.attention.key_length")) is not None:
        config["head_dim"] = head
    for name in config:
        if name in LIMITS:
            number(config, name)
    return config


def config_from_gguf(
    metadata: Mapping[str, Any], *, tied: bool, dtype: str = "float32", remat: bool | str = False
) -> DecoderConfig:
    """Return the decoder's config from a GGUF file.

    Args:
      metadata: Of the file.
      tied: The file holds no "output.weight".
      dtype: Compute dtype.
      remat: Recompute blocks in the backward pass.

    Raises:
      UserError: As `config_from_hf`, or the metadata lack a size.
    """
    config = {**hf_of_gguf(metadata), "tie_word_embeddings": tied}
    return config_from_hf(config, dtype=dtype, remat=remat)


def gguf_table(config: DecoderConfig, kind: str) -> list[Entry]:
    """Return the table of a GGUF file's tensors.

    Args:
      config: The decoder's.
      kind: "general.architecture" of the file; llama's queries and keys are in another order.
    """
    names = {
        "embed": "token_embd",
        "layer": "blk.{layer}.",
        "norm": "output_norm",
        "head": "output",
        "query": "attn_q",
        "key": "attn_k",
        "value": "attn_v",
        "out": "attn_output",
        "query_norm": "attn_q_norm",
        "key_norm": "attn_k_norm",
        "attention_norm": "attn_norm",
        "mlp_norm": "ffn_norm",
        "gate": "ffn_gate",
        "up": "ffn_up",
        "down": "ffn_down",
    }
    if kind != "llama":
        return _entries(config, names)
    return _entries(config, names, (halves(config.stack.heads), halves(config.stack.kv_heads)))


def recognises(source: Source) -> bool:
    """Tell whether a source is a decoder of the Llama family."""
    return source.metadata.get("general.architecture") in KINDS or is_one_of(source, KINDS)


def config_of(source: Source) -> DecoderConfig:
    """Return the config of a Hugging Face folder or a GGUF file.

    Raises:
      UserError: As `config_from_hf`.
    """
    if isinstance(source, Gguf):
        return config_from_gguf(source.metadata, tied="output.weight" not in source.names())
    return config_from_hf(read_config(folder_of(source)))


def entries(config: DecoderConfig, source: Source) -> list[Entry]:
    """Return the table of a Hugging Face folder or a GGUF file."""
    if isinstance(source, Gguf):
        return gguf_table(config, source.metadata["general.architecture"])
    return table(config, prefix_of(source, "model."))
