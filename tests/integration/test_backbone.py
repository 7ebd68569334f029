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
from jmrec.systems.readers.backbone import Backbone
from jmrec.systems.readers.blocks import Blocks
from jmrec.systems.readers.frozen import FrozenReader
from jmrec.systems.stages import walk
from jmrec.systems.system import Sizes
from jmrec.systems.tpad.system import Tpad
from jmrec.systems.work import Work
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
def system(tmp_path_factory: pytest.TempPathFactory) -> Tpad:
    """The run up to stage "read", whose tables everything else is made of."""
    folder = tmp_path_factory.mktemp("frozen")
    with Tracker(folder, quiet=True) as tracker:
        system = Tpad(Work(load_config(EXPERIMENT, SMALL), folder, tracker))
        walk(system.stages()[:4], folder, stale="stop", tracker=tracker)
    return system


@pytest.fixture
def reader(system: Tpad) -> FrozenReader:
    assert isinstance(system.reader, FrozenReader)
    return system.reader


def test_the_features_are_the_models_own(system: Tpad, reader: FrozenReader) -> None:
    """Whatever bucket and batch an item was read in: as if it had been read alone."""
    items = system.data.dataset.items
    read = reader.backbone.read(items)
    text, picture = reader.backbone.text, reader.backbone.picture
    tokenizer = reader.backbone._tokenizer
    pixels, ok = decode_pictures(items, 32)
    np.testing.assert_array_equal(read["picture_ok"], ok)
    for row in (0, 7, 59):
        said = ". ".join(column[row] for column in items.text.values() if column[row])
        ids = np.array([tokenizer.encode(said).ids])
        want, _ = text.model.fns["sentence"](text.params, ids, np.ones(ids.shape, bool))
        np.testing.assert_allclose(read["text"][row], want[0], atol=1e-5)
        want, _ = picture.model.fns["pooled"](picture.params, pixels[row : row + 1])
        np.testing.assert_allclose(read["picture"][row], want[0] * ok[row], atol=1e-4)


def test_other_pictures_and_other_texts_are_other_items(system: Tpad, reader: FrozenReader) -> None:
    e, ok = system.features.e, system.reader.arrays["picture_ok"]
    half = reader.config.width
    for part in ("pictures", "texts"):
        moved = np.abs(e["both"] - e[f"{part} permuted"])
        own, other = (slice(half, None), slice(half)) if part == "pictures" else (
            slice(half), slice(half, None))  # fmt: skip
        assert moved[:, own].max(axis=1)[ok].mean() > 0.1
        assert not moved[:, other].any()


def test_text_and_picture_find_each_other(system: Tpad, reader: FrozenReader) -> None:
    """The heads learn: of the training items a text is nearer to its picture than chance."""
    model, params = reader.model, system.work.params("knowledge", reader.model)
    shown = {name: jnp.asarray(array) for name, array in system.reader.arrays.items()}
    (a, b), _ = model.fns["halves"](params, **shown)
    rows = np.flatnonzero(system.data.train_items & system.reader.arrays["picture_ok"])
    a, b = (np.asarray(each)[rows] for each in (a, b))
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    scores = a @ b.T
    rank = (scores >= np.diag(scores)[:, None]).sum(1)
    assert rank.mean() < 0.3 * len(rows)


def test_a_new_item_is_read_as_the_catalogue_was(system: Tpad) -> None:
    rows = [3, 11]
    arrays = system.reader.read(take_items(system.data.dataset.items, rows))
    for name, array in arrays.items():
        np.testing.assert_allclose(array, system.reader.arrays[name][rows], atol=2e-3, err_msg=name)


def test_other_readers_do_not_read_new_items(system: Tpad, tmp_path: Path) -> None:
    changed = load_config(EXPERIMENT, [*SMALL, "--config.backbone.layers=1"])
    with Tracker(tmp_path, quiet=True) as tracker:
        other = Tpad(Work(changed, system.work.workdir, tracker))
        with pytest.raises(UserError, match="made by other readers"):
            other.reader.read(take_items(system.data.dataset.items, [0]))


def test_a_reading_that_was_killed_goes_on(system: Tpad, tmp_path: Path) -> None:
    """What is done is not read again; what other readers did is."""
    items = take_items(system.data.dataset.items, list(range(12)))
    blocks: list[int] = []

    class Counting(Backbone):
        def _block(self, items: Any) -> dict[str, np.ndarray]:
            blocks.append(len(items))
            return super()._block(items)

    def read(**changed: Any) -> dict[str, np.ndarray]:
        settings = system.work.config.backbone.copy_and_resolve_references()
        settings.update(changed)
        with Tracker(tmp_path, quiet=True) as tracker:
            backbone = Counting(settings, facts=False)
            kept = Blocks(tmp_path / "parts", items.ids, backbone.provenance)
            return backbone.read(items, tracker, kept)

    first, again = read(), read()
    assert blocks == [12]
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    read(lengths=(48,))
    assert blocks == [12, 12]


def test_what_frozen_readers_can_not_do_is_said(
    system: Tpad, reader: FrozenReader, tmp_path: Path
) -> None:
    with Tracker(tmp_path, quiet=True) as tracker:
        for words, said in (
            (["--config.transition.prompt=tokens"], "transition.prompt must be items"),
            (["--config.backbone.lengths=2"], "lengths must be 3 or more"),
            (["--config.backbone.mode=forzen"], "is not one of trained, frozen, lora"),
        ):
            with pytest.raises(UserError, match=said):
                Tpad(Work(load_config(EXPERIMENT, SMALL + words), tmp_path, tracker))
    long = replace(reader.backbone, settings=load_config(
        EXPERIMENT, [*SMALL, "--config.backbone.lengths=1000"]).backbone)  # fmt: skip
    with pytest.raises(UserError, match="longer than the 512 tokens"):
        long.read(take_items(system.data.dataset.items, [0]))
    with pytest.raises(UserError, match="no training of it to"):
        Tpad.plan_steps(load_config(EXPERIMENT, SMALL), Sizes(10, 300, (8,)))


def test_a_blind_tower_is_refused(system: Tpad) -> None:
    e = dict.fromkeys(("both", "pictures permuted", "texts permuted"), system.features.e["both"])
    with pytest.raises(UserError, match="does not see pictures"):
        system._refuse_blindness(e)
    e["pictures permuted"] = system.features.e["pictures permuted"]
    with pytest.raises(UserError, match="does not see texts"):
        system._refuse_blindness(e)


def test_the_text_reader_is_the_one_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-such-wheel is not installed"):
        load_pretrained("wheel:no-such-wheel", "bert")
