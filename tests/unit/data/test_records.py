"""TFDS imports the classes that a data set's files name: jmrec's own names only."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jmrec.data.prepared import load_prepared, prepare
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError


def test_nothing_is_left_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    write_toyshop(tmp_path / "shop", ToyShopConfig(seed=1, items=60, sessions=80))
    prepare(tmp_path / "shop", None, tmp_path / "out", with_records=True)
    load_prepared(tmp_path / "out")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("config", ["items", "ratings"])
@pytest.mark.parametrize("change", ["class", "template"])
def test_a_class_or_a_path_of_a_stranger_is_refused_before_tfds_reads(
    change: str,
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_before: Callable[[Path], None],
) -> None:
    write_toyshop(tmp_path / "shop", ToyShopConfig(seed=1, items=60, sessions=80))
    with (tmp_path / "shop" / "dataset.toml").open("a") as toml:
        toml.write('\nlabel = "timestamp < 1720000000"\n')
    prepare(tmp_path / "shop", None, tmp_path / "out")
    if config == "ratings":
        as_before(tmp_path / "out")  # else nobody reads them
    (tmp_path / "stranger_of_jmrec.py").write_text("class Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "out" / "jmrec_data" / config / "1.0.0"
    path = folder / ("features.json" if change == "class" else "dataset_info.json")
    whole = json.loads(path.read_text())
    if change == "class":
        whole["pythonClassName"] = "stranger_of_jmrec.Evil"
    else:
        whole["splits"][0]["filepathTemplate"] = "../../{DATASET}"
    path.write_text(json.dumps(whole))
    with pytest.raises(UserError, match="is damaged"):
        load_prepared(tmp_path / "out")
    assert "stranger_of_jmrec" not in sys.modules
