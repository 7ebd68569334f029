"""Writing text: stop tokens, budgets, sampling; greedy parity with transformers is in parity/."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.generate import make_generator, pad_prompts, pick
from jmrec.models.parts.encoder import EncoderConfig
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.bert import BertConfig, bert
from jmrec.models.readers.decoder import DecoderConfig, decoder
from jmrec.sharding import make_mesh

CONFIG = DecoderConfig(
    vocab=12,
    stack=StackConfig(width=8, layers=2, heads=2, kv_heads=1, mlp=8),
    context=40,
    image_token=11,
)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1, 2, 3]]


@pytest.fixture(scope="module")
def tower():
    model = decoder(CONFIG)
    key = iter(jax.random.split(jax.random.key(0), 99))
    return model, jax.tree.map(
        lambda p: 0.7 * jax.random.normal(next(key), p.shape), model.init(jax.random.key(0))
    )


@pytest.fixture(scope="module")
def by_hand(tower):
    """The best token again and again, each time from one pass over everything so far."""
    model, params = tower
    logits = jax.jit(model.fns["lm_logits"])
    texts = []
    for prompt in PROMPTS:
        text = np.zeros((1, 24), np.int32)
        text[0, : len(prompt)] = prompt
        for n in range(len(prompt), len(prompt) + 8):
            out, _ = logits(params, text, np.arange(24)[None] < n)
            text[0, n] = int(jnp.argmax(out[0, n - 1]))
        texts.append(text[0, len(prompt) : len(prompt) + 8].tolist())
    return texts


@pytest.fixture(scope="module")
def write(tower):
    return make_generator(tower[0], max_new=8)


def test_the_best_token_again_and_again(tower, write, by_hand) -> None:
    assert write(tower[1], PROMPTS) == by_hand
    assert write(tower[1], []) == []


def test_a_stop_token_ends_its_own_text_only_on_a_mesh_too(tower, by_hand) -> None:
    counts = Counter(token for text in by_hand for token in set(text))
    stop = next(token for token, count in counts.items() if count < len(by_hand))
    write = make_generator(tower[0], max_new=8, stop=[stop], mesh=make_mesh())
    want = [text[: text.index(stop)] if stop in text else text for text in by_hand]
    assert write(tower[1], PROMPTS) == want
    assert len({len(text) for text in want}) > 1


def test_sampling_follows_key_and_temperature(tower, write, by_hand) -> None:
    _, params = tower
    one, two = (write(params, PROMPTS, key=jax.random.key(k), temperature=2.0) for k in (0, 1))
    assert one == write(params, PROMPTS, key=jax.random.key(0), temperature=2.0)
    assert one != two
    # Almost no mass, or almost no heat: the best token.
    key = jax.random.key(5)
    assert write(params, PROMPTS, key=key, temperature=2.0, top_p=1e-6) == by_hand
    assert write(params, PROMPTS, key=key, temperature=1e-4) == by_hand


def test_top_p_samples_the_renormalised_nucleus() -> None:
    share = np.array([0.05, 0.4, 0.3, 0.25])
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(share)) * 2.0, (40_000, 4))
    draw = np.asarray(pick(logits, jax.random.key(0), 2.0, 0.75))
    got = np.bincount(draw, minlength=4) / len(draw)
    # 0.4 + 0.3 falls short of 0.75, so the third joins them, and the fourth does not.
    np.testing.assert_allclose(got, np.array([0, 0.4, 0.3, 0.25]) / 0.95, atol=0.01)
    assert got[0] == 0


def test_what_does_not_fit_is_said_before_anything_runs(tower, write) -> None:
    _, params = tower
    with pytest.raises(UserError, match=r"prompt 1 has 45 tokens and there is room for 32: 13 of "
                       r"its 45 image tokens would be cut"):  # fmt: skip
        write(params, [[1], [11] * 45])
    with pytest.raises(UserError, match="it is 1 too long"):
        write(params, [[1] * 33])
    with pytest.raises(UserError, match="prompt 0 has 3 image tokens and 2 picture tokens"):
        write(params, [[11] * 3], seen=np.zeros((1, 2, 8), np.float32))
    with pytest.raises(UserError, match="prompt 0 has no token"):
        write(params, [[]])
    text, mask = pad_prompts([[11, 11, *range(9)]], 8, image_token=11, cut=True)
    assert text.tolist() == [[11, 11, 0, 1, 2, 3, 4, 5]]
    assert mask.all()


def test_an_encoder_without_a_head_says_so() -> None:
    size = EncoderConfig(width=8, layers=1, heads=2, mlp=8, pre_norm=False)
    with pytest.raises(UserError, match="no language head"):
        make_generator(bert(BertConfig(vocab=9, encoder=size)), max_new=3)
