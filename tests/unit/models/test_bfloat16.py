"""Pretrained models in bfloat16: near what they say in float32, with float32 parameters."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.models.parts.encoder import EncoderConfig
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.bert import BertConfig, bert
from jmrec.models.readers.decoder import DecoderConfig, decoder
from jmrec.models.readers.efficientnet import BlockConfig, EfficientNetConfig, efficientnet
from jmrec.models.readers.vit import ViTConfig, vit

NEAR = 0.03
"""Largest difference by the size of the outputs: bfloat16 has eight bits."""
ENCODER = EncoderConfig(width=16, layers=2, heads=2, mlp=24)
RNG = np.random.default_rng(0)
WORDS = RNG.integers(1, 20, (2, 6)), np.arange(6) < np.array([[6], [4]])
PICTURE = (RNG.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8),)
CASES: dict[str, tuple[Callable[..., Any], Callable[[str], Any], str, tuple[Any, ...]]] = {
    "decoder": (
        decoder,
        lambda dtype: DecoderConfig(20, StackConfig(16, 2, 2, 1, 24, dtype=dtype)),
        "sentence", WORDS,
    ),
    "bert": (
        bert,
        lambda dtype: BertConfig(20, replace(ENCODER, pre_norm=False, dtype=dtype)),
        "sentence", WORDS,
    ),
    "clip": (
        vit, lambda dtype: ViTConfig(replace(ENCODER, dtype=dtype), 16, 4, projection=8),
        "encode_picture", PICTURE,
    ),
    "siglip": (
        vit, lambda dtype: ViTConfig(replace(ENCODER, dtype=dtype), 16, 4, "attention"),
        "encode_picture", PICTURE,
    ),
    "efficientnet": (
        efficientnet,
        lambda dtype: EfficientNetConfig(
            16, (BlockConfig(8, expand=2), BlockConfig(8)), stem=8, head=16, dtype=dtype
        ),
        "pooled", PICTURE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_near_float32(name: str) -> None:
    make, config, fn, given = CASES[name]
    wide, narrow = make(config("float32")), make(config("bfloat16"))
    params = wide.init(jax.random.key(0))
    shapes = jax.eval_shape(narrow.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    want, got = (np.asarray(jax.jit(model.fns[fn])(params, *given)[0]) for model in (wide, narrow))
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    assert 0 < np.abs(got - want).max() < NEAR * np.abs(want).max()
