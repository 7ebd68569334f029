"""What the towers promise: hidden things stay hidden, shown things count, axes fit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.models.parts.encoder import EncoderConfig
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.alignment import AlignmentConfig, alignment
from jmrec.models.readers.bert import BertConfig, bert
from jmrec.models.readers.critics import CriticConfig, critic
from jmrec.models.readers.decoder import DecoderConfig, decoder
from jmrec.models.readers.efficientnet import BlockConfig, EfficientNetConfig, efficientnet
from jmrec.models.readers.idefics3 import Idefics3Config, idefics3
from jmrec.models.readers.knowledge import KnowledgeConfig, knowledge_tower
from jmrec.models.readers.vision import VisionConfig
from jmrec.models.readers.vit import ViTConfig, vit
from jmrec.models.sessions.student import StudentConfig, student
from jmrec.models.sessions.transfer import ItemTokens, TransferConfig, transfer_tower
from jmrec.sharding import make_mesh, shardings
from jmrec.sharding.rules import RULES
from jmrec.types import Model

TINY = StackConfig(width=16, layers=2, heads=2, kv_heads=1, mlp=16)
VISION = VisionConfig(size=16, patch=4, merge=2, stack=TINY)
BLOCKS = EncoderConfig(width=8, layers=2, heads=2, mlp=12)
KNOWLEDGE = KnowledgeConfig(vocab=11, fields=(3, 4), vision=VISION, stack=TINY, contrast=8)


@pytest.fixture(scope="module")
def tower() -> tuple[Model, dict]:
    model = knowledge_tower(KNOWLEDGE)
    return model, model.init(jax.random.key(0))


@pytest.fixture(scope="module")
def items() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    text = rng.integers(1, 11, (3, 7)).astype(np.int32)
    return jnp.asarray(text), jnp.asarray(rng.integers(0, 256, (3, 16, 16, 3)), jnp.uint8)


def test_hidden_text_and_hidden_pictures_do_not_reach_e(tower, items) -> None:
    model, params = tower
    text, picture = items
    shown = jnp.array([[True] * 3 + [False] * 4] * 3)
    ok = jnp.array([True, False, True])

    @jax.jit
    def read(text: jax.Array, picture: jax.Array) -> jax.Array:
        seen, _ = model.fns["see"](params, picture)
        return model.fns["encode_item"](params, text, seen, shown, ok)[0]

    base = read(text, picture)
    np.testing.assert_array_equal(read(text.at[:, 3:].set(5), picture), base)
    moved = read(text, 255 - picture)
    np.testing.assert_array_equal(moved[1], base[1])
    assert not np.allclose(moved[0], base[0])
    assert not np.allclose(read(text.at[:, 0].set(5), picture)[0], base[0])


def test_reading_without_a_modality_equals_hiding_it(tower, items) -> None:
    model, params = tower
    text, picture = items
    nothing, everything = jnp.zeros((3, 7), bool), jnp.ones((3, 7), bool)
    yes, no = jnp.ones(3, bool), jnp.zeros(3, bool)
    seen, _ = jax.jit(model.fns["see"])(params, picture)
    encode = jax.jit(model.fns["encode_item"])
    a, _ = encode(params, text, seen, nothing, yes)
    b, _ = encode(params, None, seen, None, yes)
    np.testing.assert_allclose(a, b, atol=1e-5)
    a, _ = encode(params, text, seen, everything, no)
    b, _ = encode(params, text, None, everything, None)
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_every_field_is_written_from_e_and_its_own_tokens_before(tower, items) -> None:
    model, params = tower
    text, _ = items
    e = jax.random.normal(jax.random.key(2), (3, KNOWLEDGE.features))
    write = jax.jit(lambda e, text: model.fns["lm_logits"](params, e, text)[0])
    logits = write(e, text)
    assert logits.shape == (3, 7, 11)
    # Token 5 is predicted without itself, what follows, and the other field (tokens 0 to 2).
    other = write(e, text.at[:, 5:].set(1).at[:, :3].set(1))
    np.testing.assert_allclose(other[:, 4:6], logits[:, 4:6], atol=1e-5)
    assert not np.allclose(other[:, 6], logits[:, 6], atol=1e-4)
    assert not np.allclose(write(e + 1, text)[:, 4], logits[:, 4], atol=1e-4)


def test_contrast_gives_unit_vectors(tower) -> None:
    model, params = tower
    seen = jax.random.normal(jax.random.key(3), (4, 5, 16))
    e = jax.random.normal(jax.random.key(4), (4, KNOWLEDGE.features))
    (a, b), _ = jax.jit(model.fns["contrast"])(params, seen, e)
    np.testing.assert_allclose(jnp.linalg.norm(a, axis=-1), 1, atol=1e-3)
    assert a.shape == b.shape == (4, 8)


MODELS = {
    "knowledge": lambda: knowledge_tower(KNOWLEDGE),
    "transfer": lambda: transfer_tower(TransferConfig(features=6, stack=TINY, out=8)),
    "transfer of tokens": lambda: transfer_tower(
        TransferConfig(6, TINY, 8, ItemTokens(vocab=9, text=3, seen=2, width=16), True, 3)
    ),
    "alignment": lambda: alignment(AlignmentConfig(features=6, states=8, k=4, t=3)),
    "student": lambda: student(StudentConfig(features=6, ids=9, stack=TINY)),
    "efficientnet": lambda: efficientnet(EfficientNetConfig(8, (BlockConfig(8),), 8, 8, 3)),
    "decoder": lambda: decoder(
        DecoderConfig(9, replace(TINY, qkv_bias=True, mlp_bias=True, qk_norm=True), tied=False)
    ),
    "bert": lambda: bert(BertConfig(9, replace(BLOCKS, pre_norm=False))),
    "clip": lambda: vit(ViTConfig(BLOCKS, size=8, patch=4, projection=6)),
    "siglip": lambda: vit(ViTConfig(BLOCKS, size=8, patch=4, pool="attention")),
    "idefics3": lambda: idefics3(
        Idefics3Config(
            ViTConfig(BLOCKS, size=8, patch=4, pool="mean"), DecoderConfig(9, TINY, image_token=8)
        )
    ),
    "bilinear critic": lambda: critic(CriticConfig(x=3, y=2, kind="bilinear")),
    "separable critic": lambda: critic(CriticConfig(x=3, y=2, kind="separable")),
    "concatenated critic": lambda: critic(CriticConfig(x=3, y=2, kind="concatenated")),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_a_logical_name_for_every_axis(name: str) -> None:
    model = MODELS[name]()
    params = jax.eval_shape(model.init, jax.random.key(0))
    axes = model.logical_axes(params)
    is_axes = lambda node: isinstance(node, tuple)  # noqa: E731
    flat = jax.tree_util.tree_leaves_with_path(axes, is_leaf=is_axes)
    shapes = dict(jax.tree_util.tree_leaves_with_path(params))
    assert {path for path, _ in flat} == set(shapes)
    for path, names in flat:
        assert len(names) == len(shapes[path].shape), path
        assert len(set(names) - {None}) == len([n for n in names if n]), path
        assert shapes[path].dtype == jnp.float32
    for rules in RULES:  # no two axes of one array on one axis of the mesh
        shardings(axes, params, make_mesh(), rules)


def test_bfloat16_computes_near_float32_and_keeps_float32_parameters(items) -> None:
    text, picture = items
    half = replace(TINY, dtype="bfloat16")
    config = replace(KNOWLEDGE, stack=half, vision=replace(VISION, stack=half))
    full, narrow = knowledge_tower(KNOWLEDGE), knowledge_tower(config)
    params = narrow.init(jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    def read(wide: bool) -> jax.Array:
        model = full if wide else narrow
        seen, _ = model.fns["see"](params, picture)
        return model.fns["encode_item"](
            params, text, seen, jnp.ones((3, 7), bool), jnp.ones(3, bool)
        )[0]

    half_e, e = jax.jit(read, static_argnums=0)(False), jax.jit(read, static_argnums=0)(True)
    # 8 bits of mantissa, rounded at every step of four blocks.
    assert float(jnp.linalg.norm(half_e - e) / jnp.linalg.norm(e)) < 0.1


def test_students_share_the_unknown_row_and_drop_ids_in_training_only() -> None:
    model = student(StudentConfig(features=0, ids=5, stack=TINY))
    params = model.init(jax.random.key(0))
    ids = jnp.array([0, 1, 4, 4])
    item_table = jax.jit(model.fns["item_table"], static_argnames="train")
    table, _ = item_table(params, None, ids, id_dropout=1.0)
    np.testing.assert_array_equal(table[2], table[3])
    assert not np.allclose(table[0], table[2])
    key = jax.random.key(1)
    dropped, _ = item_table(params, None, ids, key=key, train=True, id_dropout=1.0)
    np.testing.assert_array_equal(dropped, jnp.broadcast_to(table[2], dropped.shape))


def test_taps_return_what_they_name_and_unknown_ones_fail() -> None:
    model = MODELS["transfer"]()
    params = model.init(jax.random.key(0))
    args = (params, jnp.ones((2, 3, 6)), jnp.ones((2, 3), bool))
    encode = jax.jit(model.fns["encode_session"], static_argnames="taps")
    _, tapped = encode(*args, taps=("layers",))
    assert tapped["layers"].shape == (2, 2, 3, 16)
    with pytest.raises(KeyError):
        encode(*args, taps=("nothing",))


def test_permuting_pictures_changes_e(tower, items) -> None:
    model, params = tower
    text, picture = items

    @jax.jit
    def read(picture: jax.Array) -> jax.Array:
        seen, _ = model.fns["see"](params, picture)
        return model.fns["encode_item"](
            params, text, seen, jnp.ones((3, 7), bool), jnp.ones(3, bool)
        )[0]

    assert not np.allclose(read(picture), read(picture[::-1]), atol=1e-3)


ITEMS = {
    "text": jnp.array([[[4, 5, 0], [6, 0, 0], [7, 8, 9]]]),
    "seen": jax.random.normal(jax.random.key(8), (1, 3, 2, 16)),
    "picture_ok": jnp.array([[True, False, True]]),
}


@pytest.fixture(scope="module")
def reads_tokens():
    tokens = ItemTokens(vocab=10, text=3, seen=2, width=16)
    model = transfer_tower(TransferConfig(features=6, stack=TINY, out=8, tokens=tokens))
    params = model.init(jax.random.key(0))
    encode, mask = jax.jit(model.fns["encode_session"]), jnp.ones((1, 3), bool)
    return params, lambda items, mask=mask: encode(params, items, mask)[0]


def test_a_session_of_tokens_is_read_from_the_past_only(reads_tokens) -> None:
    _, read = reads_tokens
    h = read(ITEMS)
    assert h.shape == (1, 3, 8)
    for name, value in (("text", 3), ("seen", 9.0)):
        later = read({**ITEMS, name: ITEMS[name].at[0, 2].set(value)})
        np.testing.assert_allclose(later[:, :2], h[:, :2], atol=1e-6)
        assert not np.allclose(later[:, 2], h[:, 2], atol=1e-3)
        first = read({**ITEMS, name: ITEMS[name].at[0, 0].set(value)})
        assert (np.abs(first - h).max(-1) > 1e-3).all()


def test_a_session_of_tokens_skips_what_is_missing(reads_tokens) -> None:
    _, read = reads_tokens
    h = read(ITEMS)
    # A picture that is not there, and an item that is padding, may hold anything.
    np.testing.assert_allclose(
        read({**ITEMS, "seen": ITEMS["seen"].at[0, 1].set(7.0)}), h, atol=1e-6
    )
    mask = jnp.array([[True, True, False]])
    padded = {**ITEMS, "text": ITEMS["text"].at[0, 2].set(1)}
    np.testing.assert_allclose(read(padded, mask)[:, :2], h[:, :2], atol=1e-6)
    # Padding inside an item moves nothing: the same words, further apart.
    apart = {**ITEMS, "text": ITEMS["text"].at[0, 0].set(jnp.array([4, 0, 5]))}
    np.testing.assert_allclose(read(apart), h, atol=1e-5)


@pytest.mark.parametrize("kind", ["student", "transfer"])
def test_time_and_event_types_are_read_once_their_tables_have_learned(kind: str) -> None:
    more = {"stack": TINY, "gaps": True, "events": 3}
    if kind == "student":
        model = student(StudentConfig(features=6, ids=0, **more))
        x = jax.random.normal(jax.random.key(2), (2, 4, 16))
    else:
        model = transfer_tower(TransferConfig(features=6, out=8, **more))
        x = jax.random.normal(jax.random.key(2), (2, 4, 6))
    params, mask = model.init(jax.random.key(0)), jnp.ones((2, 4), bool)
    gap, event = jnp.array([[0, 1.5, 15.2, 40.0]] * 2), jnp.array([[0, 1, 2, 7]] * 2)

    @jax.jit
    def read(params, gap=None, event=None):
        return model.fns["encode_session"](params, x, mask, gap, event)[0]

    plain = read(params)
    np.testing.assert_array_equal(read(params, gap, event), plain)
    tables = jax.tree.map(lambda t: jnp.arange(t.size).reshape(t.shape) * 0.1, params["context"])
    learned = {**params, "context": tables}
    base = read(learned, gap, event)
    # Gaps beyond the last bucket are one; an unknown type is none.
    same = read(learned, gap.at[:, 3].set(16.0), event.at[:, 3].set(0))
    np.testing.assert_array_equal(same, base)
    for other in (
        read(learned, gap.at[:, 2].set(1.0), event),
        read(learned, gap, event.at[:, 2].set(1)),
    ):
        np.testing.assert_allclose(other[:, :2], base[:, :2], atol=1e-6)
        assert not np.allclose(other[:, 2], base[:, 2], atol=1e-3)
