"""TPAD on a backbone under low-rank updates: tiny random weights, up to the tables of e."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jmrec.systems.adapted import AdaptedTpad

from jmrec.config import load_config
from jmrec.data.schema import take_items
from jmrec.errors import UserError
from jmrec.main import main
from jmrec.models.assembled import assembled
from jmrec.models.decoder import decoder
from jmrec.systems import registry
from jmrec.systems.pretrained import read_converted
from jmrec.systems.registry import CONFIG, open_run
from jmrec.systems.stages import walk
from jmrec.tracking import Tracker
from tests.unit.systems.weights import write_weights

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--config.backbone.batch=32",
    "--config.backbone.layers=1",
    "--config.data.toyshop.n_items=60",
    "--config.data.toyshop.sessions=150",
    "--config.data.max_tokens=12",
    "--config.data.facts=false",
    "--config.knowledge.train.steps=20",
    "--config.knowledge.lora.rank=2",
    "--config.knowledge.train.learning_rate=0.01",
]


def config(weights: Path, words: tuple[str, ...] = ()):
    spec = f"{ROOT}/experiments/tpad.py:size=tiny,mode=lora,backbone=hf:{weights / 'llama'}"
    picture = f"--config.backbone.picture={weights / 'efficientnet'}"
    return load_config(spec, [*SMALL, picture, *words])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for family in ("llama", "efficientnet"):
        write_weights(folder, family)
    return folder


@pytest.fixture(scope="module")
def system(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> AdaptedTpad:
    """The run up to stage "read", whose tables everything else is made of."""
    folder = tmp_path_factory.mktemp("adapted")
    with Tracker(folder, quiet=True) as tracker:
        system = AdaptedTpad(config(weights), folder, tracker)
        walk(system.stages()[:3], folder, stale="stop", tracker=tracker)
    return system


def test_what_it_keeps_is_small_and_the_backbone_is_its_source(system: AdaptedTpad) -> None:
    trained = system.params("knowledge", system.reader_tower)
    assert set(trained) == {"heads", "lora"}
    attention = trained["lora"]["decoder"]["stack"]["blocks"]["attention"]
    # One layer is read, and its updates have learned: they begin at zero.
    assert attention["query"]["b"].shape == (1, 2, 8)
    assert all(np.abs(attention[name]["b"]).max() > 0 for name in ("query", "value"))
    source = read_converted(system.config.backbone.text)
    np.testing.assert_array_equal(
        system.reader_params["backbone"]["decoder"]["embed"]["embedding"],
        source.params["embed"]["embedding"],
    )
    found = json.loads(system.provenance["text"])
    assert found["source"] == "llama"
    assert found["layers"] == 1
    own = sum(leaf.size for leaf in jax.tree.leaves(trained))
    parts = (system.parts.text.params, system.parts.picture.params)
    count = own + sum(leaf.size for leaf in jax.tree.leaves(parts))
    assert system.reader_parameters == count


def test_fields_are_named_in_words_of_the_backbones_tokenizer(system: AdaptedTpad) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(system.config.backbone.text) / "tokenizer.json"))
    text, items = system.arrays["text"], system.dataset.items
    start = 0
    for name, length in system.reader.lengths.items():
        for row in (0, 17):
            said = items.text[name][row]
            ids = tokenizer.encode(f"{name}: {said}").ids if said else []
            want = np.zeros(length, int)
            want[: len(ids)] = ids[:length]
            np.testing.assert_array_equal(text[row, start : start + length], want)
        start += length


def test_other_pictures_and_other_texts_are_other_items(system: AdaptedTpad) -> None:
    e, ok = system.e, system.arrays["picture_ok"]
    for part in ("pictures", "texts"):
        moved = np.abs(e["both"] - e[f"{part} permuted"]).max(axis=1)
        assert (moved[ok] > 0.01).mean() > 0.9


def test_a_new_item_is_read_as_the_catalogue_was(system: AdaptedTpad) -> None:
    rows = [3, 11]
    arrays = system.reader.read(take_items(system.dataset.items, rows))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, system.arrays[name][rows], err_msg=name)
    whole = system.encode(system.arrays)
    np.testing.assert_allclose(system.encode(arrays), whole[rows], atol=1e-5)


def test_the_merged_backbone_is_written_and_reads_alike(
    system: AdaptedTpad, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``jmrec convert RUN``: a decoder of its own, that says what the tower's says."""
    (system.workdir / CONFIG).write_text(json.dumps(system.config.to_dict()))
    out = tmp_path / "tuned"
    assert main(["convert", str(system.workdir), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["lora_rank"] == 2
    found = read_converted(out)
    text = np.array([[9, 10, 11, 12]])
    mask = np.ones(text.shape, bool)
    want, _ = decoder(found.model.config).fns["encode"](found.params, text, mask)
    fields = np.zeros((1, sum(system.reader.lengths.values())), int)
    fields[:, :4] = text
    tower = assembled(system.knowledge_config)
    _, tapped = tower.fns["encode_item"](
        system.reader_params, fields, None, fields > 0, None, taps=("states",)
    )
    np.testing.assert_allclose(tapped["states"][:, :4], want, atol=1e-5)
    with Tracker(tmp_path, quiet=True) as tracker:
        assert isinstance(open_run(system.workdir, tracker), AdaptedTpad)


def test_a_reading_that_was_killed_goes_on(
    system: AdaptedTpad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that is done is not read again, and its file is gone once the stage is."""
    folder = system.workdir / "read" / "parts"
    assert not folder.exists()
    want = system.encode(system.arrays, "text")
    assert [path.name for path in folder.iterdir()] == ["text 00000000.safetensors"]

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(system, "_read_block", refuse)
    np.testing.assert_array_equal(system.encode(system.arrays, "text"), want)
    with pytest.raises(AssertionError, match="read again"):
        system.encode(system.arrays, "picture")


def test_other_weights_in_the_backbones_place_are_refused(
    system: AdaptedTpad, weights: Path, tmp_path: Path
) -> None:
    folder = write_weights(tmp_path, "llama", seed=1).parent
    write_weights(folder, "efficientnet")
    with Tracker(tmp_path, quiet=True) as tracker:
        other = AdaptedTpad(config(folder), system.workdir, tracker)
        with pytest.raises(UserError, match="began on other weights"):
            other.encode(system.arrays)
        with pytest.raises(UserError, match="began on other weights"):
            other.knowledge(system.workdir / "knowledge")
        same = AdaptedTpad(config(weights), system.workdir, tracker)
        assert same.reader_params


def test_updates_of_what_is_not_written_are_not_lost(
    system: AdaptedTpad, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = {"heads": {}, "lora": {"decoder": {}, "vision": {}}}
    monkeypatch.setattr(system, "params", lambda *_: trained)
    with pytest.raises(UserError, match="updates of decoder, vision, and what can be written"):
        system.merged()


@pytest.mark.parametrize("word", ["mode=frozen", "name=tiny"])
def test_a_mode_is_no_override(weights: Path, tmp_path: Path, word: str) -> None:
    with (
        Tracker(tmp_path, quiet=True) as tracker,
        pytest.raises(UserError, match="choose them by experiments"),
    ):
        registry._tpad(config(weights, (f"--config.backbone.{word}",)), tmp_path, tracker)


def test_what_can_not_be_is_said(system: AdaptedTpad, weights: Path, tmp_path: Path) -> None:
    with Tracker(tmp_path, quiet=True) as tracker:
        with pytest.raises(UserError, match="prompt must be items"):
            AdaptedTpad(config(weights, ("--config.transition.prompt=tokens",)), tmp_path, tracker)
        for words, said in (
            (("--config.backbone.picture_size=512",), "more than"),
            (("--config.backbone.merge=9",), "nothing is seen"),
            (("--config.backbone.layers=7",), "this model has 2"),
            (("--config.knowledge.lora.targets=('nothing',)",), "names no matrix"),
        ):
            wrong = AdaptedTpad(config(weights, words), system.workdir, tracker)
            with pytest.raises(UserError, match=said):
                jax.eval_shape(wrong.knowledge_task(None).init, jax.random.key(0))
    spec = f"{ROOT}/experiments/tpad.py:size=tiny,mode=lora,backbone=minilm"
    with Tracker(tmp_path, quiet=True) as tracker:
        wordless = AdaptedTpad(load_config(spec), tmp_path, tracker)
        with pytest.raises(UserError, match="which is no decoder; name one of llama, idefics3"):
            _ = wordless.parts
