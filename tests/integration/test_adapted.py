"""TPAD on a backbone under low-rank updates: tiny random weights, up to the tables of e."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jmrec.config import load_config
from jmrec.data.schema import take_items
from jmrec.errors import UserError
from jmrec.main import main
from jmrec.models.readers.assembled import assembled
from jmrec.models.readers.decoder import decoder
from jmrec.systems.pretrained import parameter_count, read_converted
from jmrec.systems.readers import trained
from jmrec.systems.readers.blocks import Blocks
from jmrec.systems.readers.lowrank import LowRankReader
from jmrec.systems.registry import CONFIG, open_run
from jmrec.systems.stages import walk
from jmrec.systems.tpad.system import Tpad
from jmrec.systems.work import Work
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
def system(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Tpad:
    """The run up to stage "read", whose tables everything else is made of."""
    folder = tmp_path_factory.mktemp("adapted")
    with Tracker(folder, quiet=True) as tracker:
        system = Tpad(Work(config(weights), folder, tracker))
        walk(system.stages()[:3], folder, stale="stop", tracker=tracker)
    return system


@pytest.fixture
def reader(system: Tpad) -> LowRankReader:
    assert isinstance(system.reader, LowRankReader)
    return system.reader


def test_what_it_keeps_is_small_and_the_backbone_is_its_source(
    system: Tpad, reader: LowRankReader
) -> None:
    kept = system.work.params("knowledge", reader.model)
    assert set(kept) == {"heads", "lora"}
    attention = kept["lora"]["decoder"]["stack"]["blocks"]["attention"]
    # One layer is read, and its updates have learned: they begin at zero.
    assert attention["query"]["b"].shape == (1, 2, 8)
    assert all(np.abs(attention[name]["b"]).max() > 0 for name in ("query", "value"))
    source = read_converted(system.work.config.backbone.text)
    np.testing.assert_array_equal(
        reader.params["backbone"]["decoder"]["embed"]["embedding"],
        source.params["embed"]["embedding"],
    )
    found = json.loads(reader.provenance["text"])
    assert found["source"] == "llama"
    assert found["layers"] == 1
    parts = (kept, reader.parts.text.params, reader.parts.picture.params)
    assert system.reader_parameters() == sum(map(parameter_count, parts))


def test_fields_are_named_in_words_of_the_backbones_tokenizer(
    system: Tpad, reader: LowRankReader
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(system.work.config.backbone.text) / "tokenizer.json"))
    text, items = reader.arrays["text"], system.data.dataset.items
    start = 0
    for name, length in reader.item_arrays.lengths.items():
        for row in (0, 17):
            said = items.text[name][row]
            ids = tokenizer.encode(f"{name}: {said}").ids if said else []
            want = np.zeros(length, int)
            want[: len(ids)] = ids[:length]
            np.testing.assert_array_equal(text[row, start : start + length], want)
        start += length


def test_other_pictures_and_other_texts_are_other_items(system: Tpad) -> None:
    e, ok = system.features.e, system.reader.arrays["picture_ok"]
    for part in ("pictures", "texts"):
        moved = np.abs(e["both"] - e[f"{part} permuted"]).max(axis=1)
        assert (moved[ok] > 0.01).mean() > 0.9


def test_a_new_item_is_read_as_the_catalogue_was(system: Tpad) -> None:
    rows = [3, 11]
    reader = system.reader
    arrays = reader.read(take_items(system.data.dataset.items, rows))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, reader.arrays[name][rows], err_msg=name)
    whole = reader.encode(reader.arrays, "whole")
    np.testing.assert_allclose(reader.encode(arrays, "two"), whole[rows], atol=1e-5)


def test_the_merged_backbone_is_written_and_reads_alike(
    system: Tpad,
    reader: LowRankReader,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``jmrec convert RUN``: a decoder of its own, that says what the tower's says."""
    # The run is made up to its Knowledge tower only, which is all that is converted.
    monkeypatch.setattr("jmrec.systems.registry.check_run", lambda *_: None)
    workdir = system.work.workdir
    (workdir / CONFIG).write_text(json.dumps(system.work.config.to_dict()))
    out = tmp_path / "tuned"
    assert main(["convert", str(workdir), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["lora_rank"] == 2
    found = read_converted(out)
    text = np.array([[9, 10, 11, 12]])
    mask = np.ones(text.shape, bool)
    want, _ = decoder(found.model.config).fns["encode"](found.params, text, mask)
    fields = np.zeros((1, sum(reader.item_arrays.lengths.values())), int)
    fields[:, :4] = text
    tower = assembled(reader.config)
    _, tapped = tower.fns["encode_item"](
        reader.params, fields, None, fields > 0, None, taps=("states",)
    )
    np.testing.assert_allclose(tapped["states"][:, :4], want, atol=1e-5)
    with Tracker(tmp_path, quiet=True) as tracker:
        opened = open_run(workdir, tracker)
    assert isinstance(opened, Tpad)
    assert isinstance(opened.reader, LowRankReader)


def test_a_reading_that_was_killed_goes_on(
    system: Tpad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that is done is not read again, and its file is gone once the stage is."""
    assert not (system.work.workdir / "read" / "parts").exists()
    reader, ids = system.reader, system.data.dataset.items.ids

    def kept(view: str, tower: str = "this") -> Blocks:
        return Blocks(tmp_path, ids, {"tower": tower}, f"{view} ")

    want = reader.encode(reader.arrays, "text", kept("text"))
    assert [path.name for path in tmp_path.iterdir()] == ["text 00000000-00000060.safetensors"]

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(trained, "read_batches", refuse)
    again = reader.encode(reader.arrays, "text", kept("text"))
    np.testing.assert_array_equal(again, want)
    for other in (kept("picture"), kept("text", tower="another")):
        with pytest.raises(AssertionError, match="read again"):
            reader.encode(reader.arrays, "view", other)


def test_other_weights_in_the_backbones_place_are_refused(
    system: Tpad, weights: Path, tmp_path: Path
) -> None:
    folder = write_weights(tmp_path, "llama", seed=1).parent
    write_weights(folder, "efficientnet")
    with Tracker(tmp_path, quiet=True) as tracker:
        other = Tpad(Work(config(folder), system.work.workdir, tracker))
        with pytest.raises(UserError, match="began on other weights"):
            other.reader.encode(system.reader.arrays, "all")
        with pytest.raises(UserError, match="began on other weights"):
            other.reader.stages()[-1].run(system.work.workdir / "knowledge")
        same = Tpad(Work(config(weights), system.work.workdir, tracker))
        assert isinstance(same.reader, LowRankReader)
        assert same.reader.params


def test_updates_of_what_is_not_written_are_not_lost(
    system: Tpad, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"heads": {}, "lora": {"decoder": {}, "vision": {}}}
    monkeypatch.setattr(Work, "params", lambda *_: kept)
    with pytest.raises(UserError, match="updates of decoder, vision, and what can be written"):
        system.merged()


@pytest.mark.parametrize("word", ["mode=trained", "name=tiny"])
def test_a_mode_is_no_override(weights: Path, tmp_path: Path, word: str) -> None:
    with (
        Tracker(tmp_path, quiet=True) as tracker,
        pytest.raises(UserError, match="do not go together; choose both by"),
    ):
        Tpad(Work(config(weights, (f"--config.backbone.{word}",)), tmp_path, tracker))


def test_what_can_not_be_is_said(system: Tpad, weights: Path, tmp_path: Path) -> None:
    with Tracker(tmp_path, quiet=True) as tracker:
        with pytest.raises(UserError, match="prompt must be items"):
            Tpad(Work(config(weights, ("--config.transition.prompt=tokens",)), tmp_path, tracker))
        for words, said in (
            (("--config.backbone.picture_size=512",), "more than"),
            (("--config.backbone.merge=9",), "nothing is seen"),
            (("--config.backbone.layers=7",), "this model has 2"),
            (("--config.knowledge.lora.targets=('nothing',)",), "names no matrix"),
        ):
            wrong = Tpad(Work(config(weights, words), system.work.workdir, tracker))
            assert isinstance(wrong.reader, LowRankReader)
            with pytest.raises(UserError, match=said):
                jax.eval_shape(wrong.reader.task().init, jax.random.key(0))
    spec = f"{ROOT}/experiments/tpad.py:size=tiny,mode=lora,backbone=minilm"
    with Tracker(tmp_path, quiet=True) as tracker:
        wordless = Tpad(Work(load_config(spec), tmp_path, tracker))
        assert isinstance(wordless.reader, LowRankReader)
        with pytest.raises(UserError, match="which is no decoder; name one of llama, idefics3"):
            _ = wordless.reader.parts
