"""Prepared data: read back exactly, written whole or not at all, no TensorFlow."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jmrec.data import flat, records
from jmrec.data.folder import read_folder
from jmrec.data.prepared import build, load_prepared, prepare
from jmrec.data.schema import Dataset
from jmrec.errors import UserError


def assert_equal(a: Any, b: Any, path: str = "") -> None:
    """Compare dataclasses of arrays: values, types, order of keys."""
    assert type(a) is type(b), path
    if hasattr(a, "__dataclass_fields__"):
        for f in fields(a):
            assert_equal(getattr(a, f.name), getattr(b, f.name), f"{path}.{f.name}")
    elif isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_equal(a[key], b[key], f"{path}[{key}]")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=path)
    else:
        assert a == b, path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, make_shop: Callable[..., Path]) -> Path:
    return make_shop(tmp_path_factory.mktemp("data") / "shop")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, shop: Path) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "deep/out"
    prepare(shop, None, path)
    return path


def test_round_trip(shop: Path, out: Path) -> None:
    assert_equal(load_prepared(out), build(read_folder(shop)))
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_times_keep_all_their_bits(shop: Path, tmp_path: Path) -> None:
    """Unix seconds with a fraction; 32 bits would merge two minutes into one."""
    dataset = build(read_folder(shop))
    train = dataset.splits["train"]
    times = 1.7e9 + np.random.default_rng(0).random(len(train.times)).cumsum()
    splits = dataset.splits | {"train": replace(train, times=times)}
    records.write_rest(replace(dataset, splits=splits), tmp_path)
    flat.write(replace(dataset, splits=splits), tmp_path)
    for reader in (records, flat):
        np.testing.assert_array_equal(reader.read_sessions(tmp_path, "train").times, times)


def test_metadata_and_files(out: Path) -> None:
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata["name"] == "shop"
    assert metadata["columns"]["category"] == {"brand": ["", "Acme", "Zet"]}
    assert metadata["counts"]["items"] == 8
    assert metadata["event_names"] == ["", "view"]
    # Anyone can open it with TFDS alone.
    builder = tfds.builder_from_directory(out / "jmrec_data/items/1.0.0")
    assert builder.info.splits["catalogue"].num_examples == 8
    assert builder.as_data_source("catalogue")[0]["id"] == b"i0"


def test_again_is_a_no_op(shop: Path, out: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert_equal(prepare(shop, None, out), load_prepared(out))
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_other_data_is_refused(shop: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds other data"):
        prepare(shop, None, out, fractions=(0.6, 0.2, 0.2))
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other data"):
        prepare(shop, None, tmp_path)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_fingerprint(tmp_path: Path, shop: Path, make_shop: Callable[..., Path]) -> None:
    def fingerprint(folder: Path, **settings: Any) -> str:
        return build(read_folder(folder), **settings).fingerprint

    copy = make_shop(tmp_path / "elsewhere")
    for file in copy.rglob("*"):
        os.utime(file, (1, 1))
    one = fingerprint(shop)
    assert fingerprint(copy) == one
    changed = {
        fingerprint(copy, fractions=(0.6, 0.2, 0.2)),
        fingerprint(copy, keep_single=True),
        fingerprint(copy, picture_size=64),
    }
    for name, old, new in [
        ("items.csv", "no. 3", "no. 3!"),
        ("items.csv", "Acme", "Acne"),
        ("interactions.csv", ",3.5", ",4.5"),
        ("dataset.toml", "true", "false"),
    ]:
        text = (copy / name).read_text(encoding="utf-8")
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
        changed.add(fingerprint(copy))
        (copy / name).write_text(text, encoding="utf-8")
    (copy / "images/1.png").write_bytes((copy / "images/2.png").read_bytes())
    changed.add(fingerprint(copy))
    assert len(changed - {one}) == 8


def test_a_broken_picture_writes_nothing(tmp_path: Path, make_shop: Callable[..., Path]) -> None:
    shop = make_shop(tmp_path / "shop")
    (shop / "images/4.png").write_bytes((shop / "images/4.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"items.csv, row 6: .* does not decode"):
        prepare(shop, None, tmp_path / "out", strict=True)
    assert [p.name for p in tmp_path.iterdir()] == ["shop"]


def test_interrupted_writing_leaves_nothing(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(dataset: Dataset, out: Path) -> None:
        (out / "half").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(records, "write_items", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(shop, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_large_pictures_are_stored_smaller(
    tmp_path: Path, make_shop: Callable[..., Path], png: Callable[..., bytes]
) -> None:
    shop = make_shop(tmp_path / "shop")
    (shop / "images/0.png").write_bytes(png((9, 9, 9), (700, 350)))
    pictures = prepare(shop, None, tmp_path / "out").items.pictures
    assert int.from_bytes(pictures[0][16:20], "big") == 512
    assert int.from_bytes(pictures[0][20:24], "big") == 256
    assert pictures[1] == (shop / "images/1.png").read_bytes()


def test_damage_is_told(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="holds no prepared data"):
        load_prepared(out)
    prepare(shop, None, out)
    file = next(out.rglob("*catalogue.array_record*"))
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"", bytes(len(whole))):
        file.write_bytes(data)
        with pytest.raises(UserError, match="is damaged; delete the folder and prepare again"):
            load_prepared(out)
    file.unlink()
    with pytest.raises(UserError, match="is damaged"):
        load_prepared(out)
    (out / "metadata.json").write_text('{"format": 0}')
    with pytest.raises(UserError, match="another version"):
        load_prepared(out)


def test_no_tensorflow(shop: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from jmrec.data.prepared import prepare\n"
        f"prepare({str(shop)!r}, None, {str(tmp_path / 'out')!r})\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'torch', 'jax')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
