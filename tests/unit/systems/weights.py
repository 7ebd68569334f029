"""Tiny random models as ``jmrec convert`` writes them, for tests of what stands on backbones."""

from collections.abc import Mapping
from pathlib import Path

import jax

from jmrec.convert.families import FAMILIES, Pretrained
from jmrec.data.text import train_tokenizer
from jmrec.models.parts.encoder import EncoderConfig
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.bert import BertConfig
from jmrec.models.readers.decoder import DecoderConfig
from jmrec.models.readers.efficientnet import BlockConfig, EfficientNetConfig
from jmrec.models.readers.idefics3 import Idefics3Config
from jmrec.models.readers.vit import ViTConfig
from jmrec.systems.pretrained import write_converted

STACK = StackConfig(width=8, layers=2, heads=2, kv_heads=1, mlp=12)
DECODER = DecoderConfig(vocab=300, stack=STACK, context=128)
EYE = ViTConfig(EncoderConfig(width=6, layers=1, heads=2, mlp=8), size=32, patch=8, pool="mean")
CONFIGS: Mapping[str, object] = {
    "bert": BertConfig(
        300, EncoderConfig(width=6, layers=2, heads=2, mlp=8, pre_norm=False), context=64
    ),
    "llama": DECODER,
    "vit": EYE,
    "idefics3": Idefics3Config(EYE, DecoderConfig(300, STACK, context=128, image_token=5)),
    "efficientnet": EfficientNetConfig(
        32, (BlockConfig(8, expand=2), BlockConfig(8, stride=2)), stem=8, head=12, classes=3
    ),
}


def write_weights(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a tiny model of a family with a tokenizer; return its folder."""
    beside = folder / "beside"
    beside.mkdir(parents=True, exist_ok=True)
    words = ["title: a red mug of wood", "details: it is round, striped and made for children"]
    train_tokenizer(words, 300).save(str(beside / "tokenizer.json"))
    model = FAMILIES[family].model(CONFIGS[family])
    params = jax.device_get(model.init(jax.random.key(seed)))
    out = folder / family
    write_converted(Pretrained(family, model, params, {"source": family}, beside), out)
    return out
