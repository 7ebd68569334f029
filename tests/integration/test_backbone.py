"""TPAD on frozen pretrained readers, up to the features that the students read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.config import load_config
from jmrec.convert.families import load_pretrained
from jmrec.data.pictures import decode_pictures
from jmrec.data.schema import take_items
from jmrec.errors import UserError
from jmrec.systems.backbone import Backbone
from jmrec.systems.frozen import FrozenTpad
from jmrec.systems.stages import walk
from jmrec.tools.plan.shapes import ShapeSystem, Sizes
from jmrec.tracking import Tracker

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = f"{ROOT}/experiments/tpad.py:size=tiny,backbone=minilm"
SMALL = [
    "--config.backbone.picture_size=32",
    "--config.backbone.lengths=16,48",
    "--config.backbone.batch=8",
    "--config.data.toyshop.n_items=60",
    "--config.data.toyshop.sessions=150",
    "--config.data.vocab=300",
    "--config.data.facts=false",
    "--config.knowledge.train.steps=30",
    "--config.knowledge.train.batch_size=16",
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> FrozenTpad:
    """The run up to stage "read", whose tables everything else is made of."""
    folder = tmp_path_factory.mktemp("frozen")
    with Tracker(folder, quiet=True) as tracker:
        system = FrozenTpad(load_config(EXPERIMENT, SMALL), folder, tracker)
        walk(system.stages()[:4], folder, stale="stop", tracker=tracker)
    return system


def test_the_features_are_the_models_own(system: FrozenTpad) -> None:
    """Whatever bucket and batch an item was read in: as if it had been read alone."""
    items = system.dataset.items
    read = system.backbone.read(items)
    text, picture = system.backbone.text, system.backbone.picture
    tokenizer = system.backbone._tokenizer
    pixels, ok = decode_pictures(items, 32)
    np.testing.assert_array_equal(read["picture_ok"], ok)
    for row in (0, 7, 59):
        said = ". ".join(column[row] for column in items.text.values() if column[row])
        ids = np.array([tokenizer.encode(said).ids])
        want, _ = text.model.fns["sentence"](text.params, ids, np.ones(ids.shape, bool))
        np.testing.assert_allclose(read["text"][row], want[0], atol=1e-5)
        want, _ = picture.model.fns["pooled"](picture.params, pixels[row : row + 1])
        np.testing.assert_allclose(read["picture"][row], want[0] * ok[row], atol=1e-4)


def test_other_pictures_and_other_texts_are_other_items(system: FrozenTpad) -> None:
    e, ok = system.e, system.arrays["picture_ok"]
    half = system.frozen_config.width
    for part in ("pictures", "texts"):
        moved = np.abs(e["both"] - e[f"{part} permuted"])
        own, other = (slice(half, None), slice(half)) if part == "pictures" else (
            slice(half), slice(half, None))  # fmt: skip
        assert moved[:, own].max(axis=1)[ok].mean() > 0.1
        assert not moved[:, other].any()


def test_text_and_picture_find_each_other(system: FrozenTpad) -> None:
    """The heads learn: of the training items a text is nearer to its picture than chance."""
    model, params = system.reader_tower, system.params("knowledge", system.reader_tower)
    shown = {name: jnp.asarray(array) for name, array in system.arrays.items()}
    (a, b), _ = model.fns["halves"](params, **shown)
    rows = np.flatnonzero(system.train_items & system.arrays["picture_ok"])
    a, b = (np.asarray(each)[rows] for each in (a, b))
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    scores = a @ b.T
    rank = (scores >= np.diag(scores)[:, None]).sum(1)
    assert rank.mean() < 0.3 * len(rows)


def test_a_new_item_is_read_as_the_catalogue_was(system: FrozenTpad) -> None:
    rows = [3, 11]
    arrays = system.reader.read(take_items(system.dataset.items, rows))
    for name, array in arrays.items():
        np.testing.assert_allclose(array, system.arrays[name][rows], atol=2e-3, err_msg=name)


def test_other_readers_do_not_read_new_items(system: FrozenTpad, tmp_path: Path) -> None:
    changed = load_config(EXPERIMENT, [*SMALL, "--config.backbone.layers=1"])
    with Tracker(tmp_path, quiet=True) as tracker:
        other = FrozenTpad(changed, system.workdir, tracker)
        with pytest.raises(UserError, match="made by other readers"):
            _ = other.reader


def test_a_reading_that_was_killed_goes_on(system: FrozenTpad, tmp_path: Path) -> None:
    """What is done is not read again; what other readers did is."""
    items = take_items(system.dataset.items, list(range(12)))
    blocks: list[int] = []

    class Counting(Backbone):
        def _block(self, items: Any) -> dict[str, np.ndarray]:
            blocks.append(len(items))
            return super()._block(items)

    def read(**changed: Any) -> dict[str, np.ndarray]:
        settings = system.config.backbone.copy_and_resolve_references()
        settings.update(changed)
        with Tracker(tmp_path, quiet=True) as tracker:
            return Counting(settings, facts=False).read(items, tracker, tmp_path / "parts")

    first, again = read(), read()
    assert blocks == [12]
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    read(lengths=(48,))
    assert blocks == [12, 12]


def test_what_frozen_readers_can_not_do_is_said(system: FrozenTpad, tmp_path: Path) -> None:
    with Tracker(tmp_path, quiet=True) as tracker:
        for words, said in (
            (["--config.transition.prompt=tokens"], "transition.prompt must be items"),
            (["--config.backbone.lengths=2"], "lengths must be 3 or more"),
            (["--config.backbone.mode=forzen"], "is not one of frozen, lora"),
        ):
            with pytest.raises(UserError, match=said):
                FrozenTpad(load_config(EXPERIMENT, SMALL + words), tmp_path, tracker)
    long = replace(system.backbone, settings=load_config(
        EXPERIMENT, [*SMALL, "--config.backbone.lengths=1000"]).backbone)  # fmt: skip
    with pytest.raises(UserError, match="longer than the 512 tokens"):
        long.read(take_items(system.dataset.items, [0]))
    with pytest.raises(UserError, match="no training of it to plan"):
        ShapeSystem(load_config(EXPERIMENT, SMALL), Sizes(10, 300, (8,)), None)


def test_a_blind_tower_is_refused(system: FrozenTpad) -> None:
    e = dict.fromkeys(("both", "pictures permuted", "texts permuted"), system.e["both"])
    with pytest.raises(UserError, match="does not see pictures"):
        system._refuse_blindness(e)
    e["pictures permuted"] = system.e["pictures permuted"]
    with pytest.raises(UserError, match="does not see texts"):
        system._refuse_blindness(e)


def test_the_text_reader_is_the_one_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-such-wheel is not installed"):
        load_pretrained("wheel:no-such-wheel", "bert")
