"""Reading in blocks against plain numpy, what a kill leaves, and the names of item readers."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jmrec.config import ConfigDict, load_config
from jmrec.errors import UserError
from jmrec.systems.readers.blocks import (
    BLOCK,
    Blocks,
    block_size,
    padded_batches,
    read_batches,
    read_in_blocks,
    spread_size,
)
from jmrec.systems.readers.table import READERS, reader_name

SIZE = 8
COUNTS = (1, 2, 7, SIZE - 1, SIZE, SIZE + 1, 31)


@pytest.mark.parametrize("count", COUNTS)
def test_blocks_give_what_one_reading_gives(count: int, tmp_path: Path) -> None:
    x = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    asked: list[int] = []

    def read(rows: slice) -> dict[str, np.ndarray]:
        asked.append(rows.stop - rows.start)
        return {"x": x[rows], "sign": x[rows, 0] > 0}

    kept = Blocks(tmp_path / "parts", [f"i{n}" for n in range(count)], {"tower": "a"}, "both ")
    for _ in range(2):
        found = read_in_blocks(count, SIZE, read, kept=kept)
        np.testing.assert_array_equal(found["x"], x)
        np.testing.assert_array_equal(found["sign"], x[:, 0] > 0)
    assert sum(asked) == count  # the second time all lies on disk
    assert max(asked) <= SIZE
    kept.clear()
    assert not kept.folder.exists()


def test_a_killed_reading_goes_on_and_another_reader_begins_anew(tmp_path: Path) -> None:
    ids, done = [f"i{n}" for n in range(20)], list[int]()

    def reading(tower: str, name: str = "", stop: int = 99) -> dict[str, np.ndarray]:
        def read(rows: slice) -> dict[str, np.ndarray]:
            if rows.start >= stop:
                raise KeyboardInterrupt
            done.append(rows.start)
            return {"x": np.arange(20)[rows] + ord(tower)}

        return read_in_blocks(20, SIZE, read, kept=Blocks(tmp_path, ids, {"tower": tower}, name))

    with pytest.raises(KeyboardInterrupt):
        reading("a", stop=16)
    assert reading("a")["x"].tolist() == [ord("a") + n for n in range(20)]
    assert done == [0, 8, 16]
    assert reading("b")["x"].tolist() == [ord("b") + n for n in range(20)]
    assert done == [0, 8, 16] * 2
    # Another reading in the same folder has its own blocks.
    assert reading("c", "text ")["x"][0] == ord("c")
    assert reading("b", stop=0)["x"][0] == ord("b")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("batch", [1, 3, SIZE])
def test_batches_are_whole_and_lose_no_row(count: int, batch: int) -> None:
    rows = np.arange(100, 100 + count)
    cuts = padded_batches(rows, batch)
    np.testing.assert_array_equal(np.concatenate([own for own, _ in cuts]), rows)
    assert {len(padded) for _, padded in cuts} == {spread_size(batch)}
    for own, padded in cuts:
        assert padded[: len(own)].tolist() == own.tolist()
        assert set(padded[len(own) :].tolist()) <= {own[-1]}

    rng = np.random.default_rng(count)
    arrays = {
        "text": rng.integers(0, 9, (count, 4)).astype(np.int32),
        "picture": rng.normal(size=(count, 2)).astype(np.float32),
        "picture_ok": rng.random(count) > 0.5,
    }
    read = jax.jit(lambda text, picture, ok: text.sum(1) + picture.sum(1) * ok)
    want = arrays["text"].sum(1) + arrays["picture"].sum(1) * arrays["picture_ok"]
    np.testing.assert_allclose(read_batches(read, arrays, batch), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 32, BLOCK - 1, BLOCK, BLOCK + 1])
def test_a_block_is_whole_batches(batch: int) -> None:
    size = block_size(batch)
    assert size % spread_size(batch) == 0
    assert BLOCK <= size < BLOCK + spread_size(batch)


def config(name: str, mode: str, lora: bool) -> ConfigDict:
    knowledge = {"lora": {"rank": 4}} if lora else {}
    return ConfigDict({"backbone": {"name": name, "mode": mode}, "knowledge": knowledge})


def test_readers_are_named_by_new_configs_and_old_ones() -> None:
    assert reader_name(load_config("tpad:size=tiny")) == "trained"
    assert reader_name(config("tiny", "frozen", lora=False)) == "trained"  # before format 2
    assert reader_name(config("minilm", "frozen", lora=False)) == "frozen"
    for mode in set(READERS) - {"trained"}:
        assert reader_name(config("smollm2", mode, lora=True)) == mode


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("tiny", "frozen", "do not go together"),
        ("tiny", "lora", "do not go together"),
        ("minilm", "trained", "do not go together"),
        ("minilm", "frozne", 'did you mean "frozen"'),
    ],
)
def test_contradictions_are_refused(name: str, mode: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        reader_name(config(name, mode, lora=True))
