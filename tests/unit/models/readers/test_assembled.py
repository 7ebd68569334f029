"""The assembled tower: its parts are the pretrained models themselves, and only the rest learns."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.models.parts.encoder import EncoderConfig
from jmrec.models.parts.lora import LoraConfig, merged
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.assembled import AssembledConfig, assembled, backbone_axes, fresh_backbone
from jmrec.models.readers.decoder import DecoderConfig, decoder
from jmrec.models.readers.efficientnet import BlockConfig, EfficientNetConfig, efficientnet
from jmrec.models.readers.idefics3 import Idefics3Config, idefics3
from jmrec.models.readers.vit import ViTConfig
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.training import TrainConfig, Trainer

STACK = StackConfig(width=8, layers=2, heads=2, kv_heads=1, mlp=12)
DECODER = DecoderConfig(vocab=11, stack=STACK)
NET = EfficientNetConfig(
    8, (BlockConfig(8, expand=2), BlockConfig(8, stride=2)), stem=8, head=16, classes=3
)
VIT = ViTConfig(EncoderConfig(width=6, layers=1, heads=2, mlp=8), size=8, patch=2, pool="mean")
FIELDS = (3, 2)
TOWER = AssembledConfig(FIELDS, NET, DECODER, size=8, lora=LoraConfig(rank=2))
RNG = np.random.default_rng(0)
TEXT = RNG.integers(1, 11, (3, 5)).astype(np.int32)
PICTURE = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)


def noisy(tree: dict) -> dict:
    """Return parameters of which none is zero: fresh updates change nothing."""
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda p: np.asarray(p + 0.1 * rng.normal(size=p.shape), np.float32), jax.device_get(tree)
    )


@pytest.fixture(scope="module")
def parts() -> tuple[dict, dict]:
    return assembled(TOWER).init(jax.random.key(0)), fresh_backbone(TOWER, jax.random.key(1))


@pytest.mark.parametrize(
    ("vision", "size", "merge"),
    [(NET, 8, 1), (NET, 20, 1), (NET, 20, 2), (VIT, 8, 1), (VIT, 8, 2),
     (replace(VIT, pool="class"), 8, 2)],
)  # fmt: skip
def test_it_knows_how_many_tokens_a_picture_has(vision, size: int, merge: int) -> None:
    config = replace(TOWER, vision=vision, size=size, merge=merge, lora=None)
    model = assembled(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    shapes["backbone"] = jax.eval_shape(lambda k: fresh_backbone(config, k), jax.random.key(0))
    picture = jax.ShapeDtypeStruct((2, size, size, 3), np.uint8)
    seen, _ = jax.eval_shape(model.fns["see"], shapes, picture)
    assert seen.shape == (2, config.seen, 8)


def test_its_decoder_is_the_decoder_with_the_updates_merged(parts) -> None:
    """A text alone is read as the decoder itself reads it, once the updates are in its matrices."""
    trained, backbone = parts
    trained = {**trained, "lora": noisy(trained["lora"])}
    tower, plain = assembled(TOWER), decoder(DECODER)
    mask = np.ones(TEXT.shape, bool)
    full = {**trained, "backbone": backbone}
    encode_item = jax.jit(partial(tower.fns["encode_item"], taps=("states",)))
    _, tapped = encode_item(full, TEXT, None, mask, None)
    own = merged(TOWER.lora, trained["lora"], backbone)["decoder"]
    encode = jax.jit(plain.fns["encode"])
    want, _ = encode(own, TEXT, mask)
    np.testing.assert_allclose(tapped["states"][:, :5], want, atol=1e-5)
    unlike, _ = encode(backbone["decoder"], TEXT, mask)
    assert np.abs(want - unlike).max() > 0.01


def test_its_eyes_are_the_vision_encoder_and_one_matrix(parts) -> None:
    trained, backbone = parts
    seen, _ = jax.jit(assembled(TOWER).fns["see"])({**trained, "backbone": backbone}, PICTURE)
    cells, _ = jax.jit(efficientnet(NET).fns["features"])(backbone["vision"], PICTURE)
    want = np.asarray(cells).reshape(3, 4, 16) @ np.asarray(trained["heads"]["connector"]["kernel"])
    np.testing.assert_allclose(seen, want, atol=1e-5)


def test_a_whole_model_sees_as_it_does_itself() -> None:
    """Idefics3's own tower, pixel shuffle and matrix are the backbone's."""
    whole = Idefics3Config(VIT, replace(DECODER, image_token=10), merge=2)
    config = AssembledConfig(FIELDS, VIT, whole.decoder, size=8, merge=2, whole=True)
    model, source = assembled(config), idefics3(whole)
    backbone = source.init(jax.random.key(3))
    trained = model.init(jax.random.key(0))
    assert "connector" not in trained["heads"]
    assert not trained["lora"]
    seen, _ = jax.jit(model.fns["see"])({**trained, "backbone": backbone}, PICTURE)
    want, _ = jax.jit(source.fns["see"])(backbone, PICTURE)
    np.testing.assert_allclose(seen, want, atol=1e-6)


def test_only_heads_and_updates_learn_and_are_saved(parts, tmp_path) -> None:
    """The backbone lies in no optimiser and no checkpoint, and comes out of a fit as it went in."""
    _, backbone = parts
    before = jax.tree.map(np.array, backbone)
    task = KnowledgeTask(TOWER, {"learning_rate": 0.05}, backbone=backbone)
    batch = {
        "row": np.arange(8, dtype=np.int32),
        "text": np.resize(TEXT, (8, 5)),
        "picture": np.resize(PICTURE, (8, 8, 8, 3)),
        "picture_ok": np.ones(8, bool),
    }

    class Same:
        def __getitem__(self, n: int) -> dict:
            return batch

    trainer = Trainer(task, TrainConfig(steps=12, eval_every=12, save_every=12, log_every=1),
                      frozen=task.frozen(tmp_path))  # fmt: skip
    assert set(trainer.abstract.params) == {"heads", "lora"}
    first = task.init(jax.random.key(0))[0]
    result = trainer.fit(tmp_path, Same(), seed=0)
    assert trainer.compilations == 1
    for name, leaf in jax.tree_util.tree_leaves_with_path(result.params):
        old = first
        for key in name:
            old = old[key.key]
        assert np.abs(np.asarray(leaf) - np.asarray(old)).max() > 0, name
    jax.tree.map(np.testing.assert_array_equal, backbone, before)

    frozen, _ = task.frozen(tmp_path)

    @jax.jit
    def loss(params: dict) -> jax.Array:
        total, count, _, _ = task.loss(
            params, {}, frozen, batch, jax.random.key(9), jnp.int32(0), task.hparams
        )
        return total / count

    assert loss(result.params) < loss(first)


def test_a_pretrained_decoder_begins_as_it_was(parts) -> None:
    """What e adds to the words is small at first, however large e is: its language is not broken.

    Without its soft tokens, the tower then writes what the decoder writes.
    """
    trained, backbone = parts
    heads = trained["heads"]
    e = 1e3 * RNG.normal(size=(3, TOWER.features)).astype(np.float32)
    told = e / np.sqrt(np.square(e).mean(-1, keepdims=True))
    shift = told @ np.asarray(heads["condition"]["kernel"])
    assert np.square(shift).mean() < 1e-3
    # One field of one word: the soft tokens, then the word, in the decoder's own stack.
    config = replace(TOWER, fields=(1,), lora=None)
    heads = {
        **heads,
        "condition": {"kernel": np.zeros((config.features, 8), np.float32)},
        "soft": {"kernel": np.asarray(heads["soft"]["kernel"])[: config.features]},
    }
    e = e[:, : config.features]
    full = {"heads": heads, "lora": {}, "backbone": backbone}
    logits, _ = jax.jit(assembled(config).fns["lm_logits"])(full, e, TEXT[:, :1])
    told = e / np.sqrt(np.square(e).mean(-1, keepdims=True))
    soft = (told @ heads["soft"]["kernel"]).reshape(3, 4, 8)
    image = replace(DECODER, image_token=10)
    text = np.concatenate([np.full((3, 4), 10), TEXT[:, :1]], 1).astype(np.int32)
    want, _ = jax.jit(decoder(image).fns["lm_logits"])(
        backbone["decoder"], text, np.ones((3, 5), bool), soft
    )
    np.testing.assert_allclose(logits[:, 0], want[:, 3], atol=1e-4)


def test_axes_fit_the_parameters(parts) -> None:
    trained, backbone = parts
    for tree, axes in ((trained, assembled(TOWER).logical_axes(None)),
                       (backbone, backbone_axes(TOWER))):  # fmt: skip
        ranks = jax.tree.map(len, axes, is_leaf=lambda node: isinstance(node, tuple))
        assert ranks == jax.tree.map(jnp.ndim, tree)
