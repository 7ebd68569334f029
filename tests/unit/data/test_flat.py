"""Sessions and ratings as flat arrays: every bit comes back, damage is told by the file's name."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from safetensors.numpy import load_file, save_file

from jmrec.data import flat
from jmrec.data.folder import read_folder
from jmrec.data.prepared import build, load_prepared, prepare
from jmrec.data.schema import Dataset, Ratings, Sessions
from jmrec.errors import BAD_INPUT, UserError
from jmrec.main import main

LABEL = '[interactions]\nlabel = "timestamp < 20000"\n'
FILES = ("train", "validation", "test", "ratings")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, make_shop: Callable[..., Path]) -> Path:
    path = make_shop(tmp_path_factory.mktemp("data") / "shop")
    with (path / "dataset.toml").open("a") as toml:
        toml.write(LABEL)
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, shop: Path) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "out"
    prepare(shop, None, path)
    return path


@pytest.fixture
def out(tmp_path: Path, prepared: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "out"))


def assert_same(found: Sessions | Ratings, truth: Sessions | Ratings) -> None:
    for each in fields(truth):
        a, b = getattr(found, each.name), getattr(truth, each.name)
        if isinstance(b, np.ndarray):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), each.name
        else:
            assert a == b, each.name


def assert_equal(found: Dataset, truth: Dataset) -> None:
    for split in truth.splits:
        assert_same(found.splits[split], truth.splits[split])
    assert found.ratings is not None
    assert truth.ratings is not None
    assert_same(found.ratings, truth.ratings)
    assert found.fingerprint == truth.fingerprint
    assert found.items.ids == truth.items.ids


def drawn(seed: int, count: int) -> Sessions:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 5, count)
    n = int(lengths.sum())
    return Sessions(
        ids=[["", "é", "名前", "a\nb", "\0", "😀 x"][i % 6] + str(i) for i in range(count)],
        users=random.integers(-1, 9, count).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=random.integers(0, 2**31 - 1, n).astype(np.int32),
        times=1.7e9 + random.random(n),
        events=random.integers(0, 4, n).astype(np.int32),
        ratings=np.where(random.random(n) < 0.5, np.nan, 3.5).astype(np.float32),
        targets=random.random(n) < 0.5,
    )


@pytest.mark.parametrize(("seed", "count"), [(0, 0), (1, 1), (2, 7), (3, 200)])
def test_every_bit_of_sessions_comes_back(seed: int, count: int, tmp_path: Path) -> None:
    (tmp_path / flat.FOLDER).mkdir()
    truth = drawn(seed, count)
    flat.write_sessions(truth, tmp_path / flat.FOLDER / "train.safetensors")
    assert_same(flat.read_sessions(tmp_path, "train"), truth)


def test_prepared_data_comes_back_as_it_was_made(shop: Path, prepared: Path) -> None:
    found = load_prepared(prepared)
    assert_equal(found, build(read_folder(shop)))
    found.splits["train"].items[0] = 1  # as arrays made in memory can be written to
    assert not (prepared / "jmrec_data" / "sessions").exists()


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "one bit": flip,
    "more": lambda data: data + b"x",
}


@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_by_the_name_of_the_file(name: str, out: Path) -> None:
    path = out / "flat" / f"{name}.safetensors"
    whole, said = path.read_bytes(), rf"out is damaged \(flat/{name}.safetensors is not what"
    for damage in DAMAGE.values():
        path.write_bytes(damage(whole))
        with pytest.raises(UserError, match=said):
            load_prepared(out)
    other = "validation" if name != "validation" else "test"
    path.write_bytes((out / "flat" / f"{other}.safetensors").read_bytes())
    with pytest.raises(UserError, match=said):
        load_prepared(out)
    path.unlink()
    with pytest.raises(UserError, match=rf"\(flat/{name}.safetensors is missing\); delete"):
        load_prepared(out)
    path.symlink_to(out / "metadata.json")
    with pytest.raises(UserError, match=rf"'flat/{name}.safetensors' names no plain file inside"):
        load_prepared(out)


def test_a_damaged_folder_ends_in_one_sentence_and_code_2(
    shop: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = out / "flat" / "test.safetensors"
    path.write_bytes(flip(path.read_bytes()))
    assert main(["data", "prepare", str(shop), "--out", str(out)]) == BAD_INPUT
    said = capsys.readouterr().err.replace("\n", " ")
    assert "flat/test.safetensors is not what was written" in said
    assert "Traceback" not in said


def change_ends(columns: dict[str, Any]) -> None:
    columns["ids.ends"] = columns["ids.ends"][::-1].copy()


def swap_two_offsets(columns: dict[str, Any]) -> None:
    columns["offsets"][[1, 2]] = columns["offsets"][[2, 1]]


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a column is gone": lambda c: c.pop("items"),
    "one more column": lambda c: c.update(more=c["items"]),
    "another type": lambda c: c.update(times=c["times"].astype(np.float32)),
    "another shape": lambda c: c.update(items=c["items"][None]),
    "too short": lambda c: c.update(events=c["events"][1:]),
    "offsets fall": lambda c: c.update(offsets=c["offsets"][::-1].copy()),
    "two offsets are swapped": swap_two_offsets,
    "offsets too far": lambda c: c.update(offsets=c["offsets"] + 1),
    "ends fall": change_ends,
    "a session too many": lambda c: c.update(users=np.append(c["users"], c["users"][:1])),
    "no such item": lambda c: c.update(items=np.where(c["items"] > 0, c["items"], 8)),
    "an item below 0": lambda c: c.update(items=np.where(c["items"] > 0, c["items"], -1)),
    "no text": lambda c: c.update(ids=np.full_like(c["ids"], 255)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_with_a_right_checksum_is_still_checked_for_sense(kind: str, out: Path) -> None:
    path = out / "flat" / "train.safetensors"
    columns = load_file(path)
    HOSTILE[kind](columns)
    save_file(columns, path)
    metadata = json.loads((out / "metadata.json").read_text())
    metadata["checksums"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (out / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="is damaged"):
        load_prepared(out)


@pytest.mark.parametrize("change", ["one gone", "one more", "none", "no table"])
def test_checksums_that_are_not_those_of_the_files(change: str, out: Path) -> None:
    metadata = json.loads((out / "metadata.json").read_text())
    sums = metadata["checksums"]
    if change == "one gone":
        del sums["test.safetensors"]
    metadata["checksums"] = {
        "one gone": sums, "one more": sums | {"../metadata.json": "0"}, "none": {}, "no table": 7,
    }[change]  # fmt: skip
    (out / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="is damaged"):
        load_prepared(out)


def test_data_that_an_older_version_prepared_opens(
    shop: Path, out: Path, as_before: Callable[[Path], None]
) -> None:
    truth = load_prepared(out)
    as_before(out)
    assert not (out / "flat").exists()
    assert_equal(load_prepared(out), truth)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert_equal(prepare(shop, None, out), truth)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    file = next(out.rglob("*train.array_record*"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="is damaged; delete the folder and prepare again"):
        load_prepared(out)


def test_records_are_written_for_other_programs(shop: Path, out: Path, tmp_path: Path) -> None:
    """At once, or into a folder that has none yet."""
    fresh = tmp_path / "fresh"
    for folder in (fresh, out):
        assert main(["data", "prepare", str(shop), "--out", str(folder), "--records"]) == 0
        dataset = load_prepared(folder)
        home = folder / "jmrec_data"
        for split, part in dataset.splits.items():
            source = tfds.builder_from_directory(home / "sessions/1.0.0").as_data_source(split)
            found = sorted(source, key=lambda each: each["row"])
            assert [each["id"].decode() for each in found] == part.ids
            for each, items in zip(found, part):
                np.testing.assert_array_equal(each["items"], items)
        builder = tfds.builder_from_directory(home / "ratings/1.0.0")
        assert dataset.ratings is not None
        rows = builder.as_data_source("rows")[0]
        np.testing.assert_array_equal(rows["items"], dataset.ratings.items)
    again = main(["data", "prepare", str(shop), "--out", str(out), "--records"])
    assert again == 0  # nothing is left to do
