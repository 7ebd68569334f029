"""Feature tables: what is read is what was written, for the items it was written for."""

from pathlib import Path

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.features import Standardiser, pad_rows, read_features, write_features


def test_round_trip_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    array = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    write_features(path, {"k": array.T.copy().T}, ["a", "b", "c"], {"stage": "embed"})
    table = read_features(path, ["a", "b", "c"])
    np.testing.assert_array_equal(table.arrays["k"], array)
    assert table.provenance["stage"] == "embed"
    assert table.provenance["rows"] == "3"


def test_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    arrays = {name: np.full((2, 3), ord(name), np.float32) for name in "kte"}
    facts = {f"fact {each}": str(each) for each in range(9)}
    found = set()
    for order in (1, -1) * 5:
        path = tmp_path / "t.safetensors"
        named = dict(list(arrays.items())[::order])
        write_features(path, named, ["a", "b"], dict(list(facts.items())[::order]))
        found.add(path.read_bytes())
    assert len(found) == 1


def test_tables_of_other_items_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_features(path, {"k": np.zeros((2, 1), np.float32)}, ["a", "b"], {})
    with pytest.raises(UserError, match="other items"):
        read_features(path, ["b", "a"])
    with pytest.raises(UserError, match="missing"):
        read_features(tmp_path / "none.safetensors", ["a"])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="damaged"):
        read_features(path)


def test_wrong_rows_and_nan_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with pytest.raises(ValueError, match="rows"):
        write_features(path, {"k": np.zeros((3, 1))}, ["a"], {})
    with pytest.raises(ValueError, match="NaN"):
        write_features(path, {"k": np.full((1, 1), np.nan)}, ["a"], {})
    assert not path.exists()


def test_standardiser_uses_the_given_rows_only() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (50, 4)).astype(np.float32)
    x[40:] = 1e6
    out = Standardiser.fit(x, np.arange(40))(x)
    np.testing.assert_allclose(out[:40].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out[:40].std(0), 1, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025])
def test_padding_to_the_block(rows: int) -> None:
    padded = pad_rows(np.ones((rows, 2)))
    assert len(padded) % 1024 == 0
    assert padded.sum() == 2 * rows
