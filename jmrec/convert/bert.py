"""BERT: Hugging Face names to the parameters of `jmrec.models.readers.bert`."""

from collections.abc import Mapping
from typing import Any

from jmrec.convert.hf import (
    folder_of,
    hf_config,
    is_one_of,
    number,
    prefix_of,
    read_config,
    require,
)
from jmrec.convert.sources import Source
from jmrec.convert.table import Entry, transpose
from jmrec.models.parts.encoder import ACTIVATIONS, EncoderConfig
from jmrec.models.readers.bert import BertConfig

KINDS = ("bert",)
"""The values of "model_type" that are read."""
IGNORE = ("*pooler.*", "*embeddings.position_ids", "cls.*")
"""The heads of BERT's own training: sentence vectors are means of states."""


def config_from_hf(
    config: Mapping[str, Any], *, dtype: str = "float32", remat: bool | str = False
) -> BertConfig:
    """Return the encoder's config.

    Args:
      config: What ``config.json`` holds.
      dtype: Compute dtype.
      remat: Recompute blocks in the backward pass.

    Raises:
      UserError: The model is of another family, or has what the encoder has not.

    Example:
      >>> config_from_hf({"model_type": "bert", "num_hidden_layers": 6}).encoder.layers
      6
    """
    hf = hf_config(config, KINDS)
    require(str(hf.hidden_act) in ACTIVATIONS, f"the activation {hf.hidden_act!r}")
    require(not hf.is_decoder, "causal attention")
    places = getattr(hf, "position_embedding_type", None) or "absolute"
    require(places == "absolute", f"positions of the kind {places!r}")
    encoder = encoder_config(hf, dtype=dtype, remat=remat, pre_norm=False)
    return BertConfig(
        vocab=number(hf, "vocab_size"),
        encoder=encoder,
        context=number(hf, "max_position_embeddings"),
        types=number(hf, "type_vocab_size"),
    )


def encoder_config(
    hf: Any, *, dtype: str, remat: bool | str, pre_norm: bool = True
) -> EncoderConfig:
    """Return the config of a bidirectional encoder, of the names that its families share.

    Args:
      hf: From `hf_config`.
      dtype: Compute dtype.
      remat: Recompute blocks in the backward pass.
      pre_norm: Whether the norm comes before each part, or after it as in BERT.

    Example:
      >>> encoder_config(hf_config({"model_type": "bert"}, ("bert",)), dtype="float32", remat=False,
      ...                pre_norm=False).layers
      12
    """
    width, heads = number(hf, "hidden_size"), number(hf, "num_attention_heads")
    require(width % heads == 0, f"{heads} heads of the width {width}")
    return EncoderConfig(
        width=width,
        layers=number(hf, "num_hidden_layers"),
        heads=heads,
        mlp=number(hf, "intermediate_size"),
        activation=hf.hidden_act,
        pre_norm=pre_norm,
        eps=number(hf, "layer_norm_eps"),
        remat=remat,
        dtype=dtype,
    )


def both(target: str, source: str) -> list[Entry]:
    """Return the entries of a Dense layer with a bias."""
    return [
        Entry(f"{target}/kernel", f"{source}.weight", transpose),
        Entry(f"{target}/bias", f"{source}.bias"),
    ]


def norm(target: str, source: str) -> list[Entry]:
    """Return the entries of a layer norm."""
    return [
        Entry(f"{target}/scale", f"{source}.weight"),
        Entry(f"{target}/bias", f"{source}.bias"),
    ]


def table(prefix: str = "") -> list[Entry]:
    """Return the table; ``prefix`` stands before every name ("bert." in models with a head)."""
    layer = f"{prefix}encoder.layer.{{layer}}."
    tables = {"words": "word", "places": "position", "types": "token_type"}
    return [
        *(
            Entry(f"{target}/embedding", f"{prefix}embeddings.{name}_embeddings.weight")
            for target, name in tables.items()
        ),
        *norm("norm", f"{prefix}embeddings.LayerNorm"),
        *both("blocks/attention/query", f"{layer}attention.self.query"),
        *both("blocks/attention/key", f"{layer}attention.self.key"),
        *both("blocks/attention/value", f"{layer}attention.self.value"),
        *both("blocks/attention/out", f"{layer}attention.output.dense"),
        *norm("blocks/attention_norm", f"{layer}attention.output.LayerNorm"),
        *both("blocks/mlp/up", f"{layer}intermediate.dense"),
        *both("blocks/mlp/down", f"{layer}output.dense"),
        *norm("blocks/mlp_norm", f"{layer}output.LayerNorm"),
    ]


def recognises(source: Source) -> bool:
    """Tell whether a source is a Hugging Face folder with a BERT."""
    return is_one_of(source, KINDS)


def config_of(source: Source) -> BertConfig:
    """Return the config of a Hugging Face folder; raises UserError as `config_from_hf`."""
    return config_from_hf(read_config(folder_of(source)))


def entries(config: BertConfig, source: Source) -> list[Entry]:
    """Return the table of a Hugging Face folder."""
    del config
    return table(prefix_of(source, "bert."))
