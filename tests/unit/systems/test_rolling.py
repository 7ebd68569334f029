"""Rolling origins: which runs are made, and what is reported of them. The runs are stand-ins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.config import ConfigDict, load_config
from jmrec.data.prepared import prepare
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Ranked, ask
from jmrec.evaluation.results import make_cost, read_results, write_results
from jmrec.evaluation.summary import Row, summarise
from jmrec.evaluation.windows import units_of, write_units
from jmrec.systems import registry
from jmrec.systems.rolling import roll

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config() -> ConfigDict:
    return load_config(f"{ROOT}/experiments/tpad.py:data=folder,size=tiny")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, dict[str, Any]]]:
    """Stand-ins for runs: real data and a real table, whose ranks nobody computed."""
    write_toyshop(tmp_path / "shop", ToyShopConfig(items=60, sessions=300))
    made: list[tuple[int, str, dict[str, Any]]] = []

    def run(config: ConfigDict, workdir: Path, **how: Any) -> None:
        back = config.data.back
        made.append((back, workdir.name, how))
        data = prepare(tmp_path / "shop", None, workdir / "data" / "prepared", back=back)
        asked = ask(data, "test")
        rng = np.random.default_rng(back)
        rows = []
        for name, kind, seeds in (("distilled", "student", 3), ("blend", "blend", 1)):
            ranks = rng.integers(1, 25, (seeds, 1, len(asked)))
            rows.append(
                Row(name, kind, [Ranked(r, np.zeros((0, 0)), np.zeros((0, 0))) for r in ranks])
            )
        served = {"row": "distilled", "beside": ["blend"]}
        results = summarise(rows, asked, data, "test", served=served, test_reads=1 + back)
        write_results(workdir / "evaluate", results, make_cost())
        write_units(workdir / "evaluate" / "units.npz", units_of(rows, asked))

    monkeypatch.setattr(registry, "run", run)
    return made


def test_each_window_has_a_run_of_its_own_and_one_report_has_all(
    runs: list, config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    how = {"resume": "auto", "stale": "stop", "command": ["jmrec", "run", "--origins=3"]}
    how |= {"given": {"experiment": "tpad", "settings": {}}, "parallel": 2}
    roll(config, work, 3, **how)
    how["data"] = "compare"
    assert [(back, name) for back, name, _ in runs] == [(2, "back-2"), (1, "back-1"), (0, "back-0")]
    assert all(each == how for _, _, each in runs)
    assert config.data.back == 0
    found = read_results(work / "pooled" / "results.json")
    assert found["served"] == {"row": "distilled", "beside": ["blend"]}
    time = found["over_time"]
    assert [label[:5] for label in time["periods"]] == ["from "] * 3
    assert time["periods"] == sorted(time["periods"])
    assert found["test_reads"] == 3
    whole = np.average(time["rows"]["distilled"]["value"], weights=time["sessions"])
    row = next(row for row in found["rows"] if row["name"] == "distilled")
    assert row["figures"]["session"]["MRR@20"] == pytest.approx(whole)
    assert {(c["a"], c["b"]) for c in found["comparisons"]} == {("distilled", "blend")}
    page = (work / "pooled" / "report.html").read_text()
    assert "By test window" in page
    assert "--origins=3" in page
    assert "distilled" in capsys.readouterr().out


@pytest.mark.parametrize("origins", [0, 1, 9])
def test_windows_that_leave_no_training_are_refused_before_anything_runs(
    origins: int, runs: list, config: ConfigDict, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"--origins={origins} is not from 2 to 8"):
        roll(config, tmp_path / "work", origins, resume="auto", stale="stop", command=[])
    assert runs == []
    assert not (tmp_path / "work").exists()
