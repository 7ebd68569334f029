"""What the towers read: words apart from markers and facts, and catalogues without pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from jmrec.config import load_config
from jmrec.data.item_arrays import ItemArrays, with_facts
from jmrec.data.schema import Items
from jmrec.data.text import FIELD
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.systems import registry, runs
from jmrec.systems.registry import CONFIG, open_run
from jmrec.systems.stages import walk
from jmrec.systems.tpad.system import Tpad
from jmrec.systems.work import Work
from jmrec.tracking import Tracker

ROOT = Path(__file__).resolve().parents[3]


def test_words_are_neither_markers_nor_declared_facts() -> None:
    reader = ItemArrays(Path(), {"title": 3, "facts": 2, "details": 2}, 32, 500)
    text = np.array([[FIELD, 300, 2, FIELD + 1, 301, FIELD + 2, 302], [FIELD, 300, 0, 0, 0, 0, 0]])
    expected = [[0, 300, 0, 0, 0, 0, 302], [0, 300, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(reader.words(text), expected)


def test_a_text_column_called_facts_is_refused() -> None:
    items = Items(["a"], ["Mug"], {"title": ["Mug"], "facts": ["blue"]}, [b""])
    with pytest.raises(UserError, match="'facts' has a name"):
        with_facts(items)


def test_a_runs_folder_is_kept_so_that_it_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path)
    config = load_config("experiments/tpad.py:data=folder,size=tiny", ["--config.data.dir=shop"])
    kept = registry.stored(config)
    assert kept["data"]["dir"] == str(tmp_path / "shop")
    assert config.data.dir == "shop"  # the identity of the stage "data" stays
    assert {**kept, "data": None} == {**config.to_dict(), "data": None}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG).write_text(json.dumps(kept))
    (tmp_path / "shop").rmdir()
    monkeypatch.setattr("jmrec.systems.registry.check_run", lambda *_: None)  # nothing was run
    with pytest.raises(UserError, match=r"the run's folder .*shop is not here; name it with --dir"):
        runs.embed(tmp_path / "run", None)


def test_a_run_of_an_older_jmrec_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"system": "tpad"}))
    with pytest.raises(UserError, match="older jmrec"):
        open_run(tmp_path, Tracker(tmp_path))


def test_a_catalogue_without_pictures_has_nothing_to_look_at(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    write_toyshop(shop, ToyShopConfig(seed=1, items=60, sessions=80))
    (shop / "truth.npz").unlink()
    with (shop / "items.csv").open(newline="", encoding="utf-8") as file:
        rows = [{**row, "image": ""} for row in csv.DictReader(file)]
    with (shop / "items.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    config = load_config(f"{ROOT / 'experiments/tpad.py'}:data=folder,size=tiny")
    config.data.dir, config.data.vocab = str(shop), 400
    config.data.picture_size = 32
    config.knowledge.train.steps, config.knowledge.train.batch_size = 2, 8
    for stack in (config.knowledge.stack, config.knowledge.vision.stack):
        stack.layers = 1
    with Tracker(tmp_path / "run") as tracker:
        system = Tpad(Work(config, tmp_path / "run", tracker))
        walk(system.stages()[:3], system.work.workdir, tracker=tracker)
    assert not (system.work.workdir / "vision" / "params").exists()
    assert (system.work.workdir / "knowledge" / "params").is_dir()
