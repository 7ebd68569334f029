"""Frozen readers of every family: a text and a picture are read as the model itself reads them."""

import io
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jmrec.config import ConfigDict, load_config
from jmrec.convert.families import Pretrained
from jmrec.data.pictures import decode_pictures
from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.systems.pretrained import find_pretrained
from jmrec.systems.readers.backbone import Backbone, check_backbone
from tests.unit.systems.weights import write_weights

ROOT = Path(__file__).resolve().parents[3]


def png(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, "PNG")
    return out.getvalue()


ITEMS = Items(
    ["a", "b", "c"], ["red mug", "round mug", ""], {"title": ["red mug", "round mug", ""]},
    [png((200, 0, 0)), b"", png((0, 90, 200))],
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for family in ("bert", "llama", "vit", "idefics3"):
        write_weights(folder, family)
    return folder


def settings(folder: Path, text: str, picture: str) -> ConfigDict:
    config = load_config(f"{ROOT}/experiments/tpad.py:size=tiny,backbone=hf:{folder / text}")
    given = {"picture": str(folder / picture), "lengths": (8, 16), "batch": 2}
    return ConfigDict({**config.backbone.to_dict(), **given})


@pytest.mark.parametrize(("text", "picture"), [("bert", "vit"), ("llama", "vit"),
                                               ("idefics3", "vit")])  # fmt: skip
def test_items_are_read_as_the_models_read_them(folder: Path, text: str, picture: str) -> None:
    backbone = Backbone(settings(folder, text, picture), facts=False)
    read = backbone.read(ITEMS)
    reader, eye = backbone.text, backbone.picture
    # A whole multimodal model sees with its own tower.
    assert eye.family == ("idefics3" if text == "idefics3" else "vit")
    tokenizer = backbone._tokenizer
    sentence, look = (
        jax.jit(each.model.fns[name])
        for each, name in ((reader, "sentence"), (eye, "encode_picture"))
    )
    for row in (0, 1):
        ids = np.array([tokenizer.encode(ITEMS.text["title"][row]).ids])
        want, _ = sentence(reader.params, ids, np.ones(ids.shape, bool))
        np.testing.assert_allclose(read["text"][row], want[0], atol=1e-5)
    assert not read["text"][2].any()
    pixels, ok = decode_pictures(ITEMS, 32)
    want, _ = look(eye.params, pixels[[0, 2]])
    np.testing.assert_allclose(read["picture"][[0, 2]], want, atol=1e-5)
    assert not read["picture"][1].any()
    assert read["picture_ok"].tolist() == ok.tolist() == [True, False, True]


def test_a_decoders_vector_is_the_mean_of_its_states(folder: Path) -> None:
    found = find_pretrained(folder / "llama", "reader", ("llama",))
    ids, mask = np.array([[7, 8, 9, 0]]), np.array([[True, True, True, False]])
    fns = {name: jax.jit(found.model.fns[name]) for name in ("sentence", "encode")}
    one, _ = fns["sentence"](found.params, ids, mask)
    states, _ = fns["encode"](found.params, ids, mask)
    np.testing.assert_allclose(one[0], np.asarray(states)[0, :3].mean(0), atol=1e-6)


def test_fewer_layers_are_the_first_ones(folder: Path) -> None:
    ids, mask = np.array([[7, 8, 9]]), np.ones((1, 3), bool)
    whole = find_pretrained(folder / "llama", "reader", ("llama",))

    def layers(of: Pretrained) -> list[jax.Array]:
        tapped = partial(of.model.fns["encode"], taps=("layers",))
        return jax.jit(tapped)(of.params, ids, mask)[1]["layers"]

    first = find_pretrained(folder / "llama", "reader", ("llama",), layers=1)
    shallow = layers(first)
    assert len(shallow) == 1
    np.testing.assert_allclose(shallow[0], layers(whole)[0], atol=1e-6)
    assert first.provenance["layers"] == 1


def test_what_does_not_fit_is_said(folder: Path) -> None:
    good = settings(folder, "llama", "vit").to_dict()
    for changed, said in (
        ({"layers": 3}, "this model has 2"),
        ({"lengths": (200,)}, "longer than the 128 tokens"),
        ({"picture_size": 64}, "sees 32 pixels a side and no other"),
        ({"text": str(folder / "vit")}, "no reader of texts; name one of bert, llama, idefics3"),
        ({"picture": str(folder / "bert")}, "no reader of pictures"),
        ({"text": str(folder / "none")}, "is not there"),
    ):
        with pytest.raises(UserError, match=said):
            Backbone(ConfigDict({**good, **changed})).read(ITEMS)
    for changed, said in (
        ({"layers": -1}, "give 0 for all"),
        ({"batch": 0}, "batch 1 or more"),
    ):
        with pytest.raises(UserError, match=said):
            check_backbone({**good, **changed})
