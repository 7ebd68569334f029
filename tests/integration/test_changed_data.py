"""The same command where the folder has changed: it stops and says so, or goes on as asked."""

import json
import shutil
from pathlib import Path

import pytest

from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.main import main

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--config.student.train.steps=4", "--config.student.train.eval_every=4"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    top = tmp_path_factory.mktemp("changed")
    write_toyshop(top / "shop", ToyShopConfig(items=60, sessions=300))
    assert run(top / "shop", top / "run") == 0
    return top / "shop", top / "run"


def run(shop: Path, workdir: Path, *more: str) -> int:
    config = f"{ROOT / 'experiments/session.py'}:data=folder,size=tiny,items=ids"
    return main(["run", "--config", config, f"--config.data.dir={shop}", *SIZES,
                 "--workdir", str(workdir), *more])  # fmt: skip


def test_changed_rows_stop_the_run_and_it_goes_on_as_it_is_asked(
    done: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = Path(shutil.copytree(done[1], tmp_path / "run"))
    results = (workdir / "evaluate/results.json").read_bytes()
    assert run(done[0], workdir) == 0
    assert "data: done before, skipped" in capsys.readouterr().err
    # As many rows again, then the same command.
    path = done[0] / "interactions.csv"
    kept = path.read_bytes()
    try:
        lines = kept.splitlines(keepends=True)
        path.write_bytes(kept + b"".join(lines[1:81]))
        assert run(done[0], workdir) == 2
        said = capsys.readouterr().err
        assert f"interactions.csv has {len(path.read_bytes()):,} bytes" in said
        assert "--data=as-prepared" in said
        assert run(done[0], workdir, "--data=as-prepared") == 0
        assert (workdir / "evaluate/results.json").read_bytes() == results
        assert run(done[0], workdir, "--stale=rerun") == 0
        assert (workdir / "evaluate/results.json").read_bytes() != results
        assert run(done[0], workdir) == 0
    finally:
        path.write_bytes(kept)


def test_a_finished_run_is_served_where_its_folder_has_changed_or_is_gone(
    done: tuple[Path, Path], tmp_path: Path
) -> None:
    workdir = Path(shutil.copytree(done[1], tmp_path / "run"))
    item = json.loads((workdir / "item_index.json").read_text())[0]
    ask = ["recommend", "--workdir", str(workdir), "--items", item]
    away = done[0].with_name("away")
    done[0].rename(away)
    try:
        assert main(ask) == 0
        assert run(done[0], workdir) == 0
    finally:
        away.rename(done[0])
