"""The comparison of results across the change of their schema: a made-up pair."""

import copy
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("same_results.py")
SAMPLE = Path(__file__).parents[1] / "unit" / "report" / "sample_results.py"


@pytest.fixture
def pair() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same results, as commit 4cbbd67 wrote them and as they are written today."""
    sample = runpy.run_path(str(SAMPLE))
    new = sample["make_results"]()
    old = copy.deepcopy(new)
    for name in ("format", "system", "primary", "kinds", "served", "stages"):
        del old[name]
    old["examples"]["student"] = old["examples"].pop("row")
    cost = sample["make_cost"]()
    old |= {"cost": cost["stages"], "commands": cost["commands"], "serving": {"bytes": 3}}
    return old, new


def compared(folder: Path, old: dict, new: dict, *words: str) -> tuple[int, list[str]]:
    for name, each in (("old", old), ("new", new)):
        path = folder / name / "evaluate" / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(each))
    command = [sys.executable, str(SCRIPT), str(folder / "old"), str(folder / "new"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_renamed_parts_are_the_same(pair: tuple[dict, dict], tmp_path: Path) -> None:
    assert compared(tmp_path, *pair) == (0, ["the same"])
    assert compared(tmp_path, pair[1], pair[1]) == (0, ["the same"])


def test_each_number_that_moved_is_named(pair: tuple[dict, dict], tmp_path: Path) -> None:
    old, new = pair
    new["rows"][1]["figures"]["session"]["MRR@20"] += 1e-7
    new["curves"]["knowledge"]["loss"][2] = None
    del new["rows"][2]["bias"]
    code, lines = compared(tmp_path, old, new)
    assert code == 1
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        "evaluate/results.json/rows/popularity/figures/session/MRR@20",
        "evaluate/results.json/rows/first-order Markov/bias",
        "evaluate/results.json/curves/knowledge/loss/2",
    ]
    assert lines[-1] == "3 differences"
    code, lines = compared(tmp_path, old, new, "--tolerance=1e-6")
    assert [code, len(lines)] == [1, 3]


def test_the_seeds_of_an_estimator_are_one_row_today(tmp_path: Path) -> None:
    moments = {"mean": 1.5, "error": 0.1, "highest": 1.75}
    each = {"nats": 2.0, "name": "nwj", "kind": "lower", "objective": "nwj", **moments}
    settings = {
        **{"dimensions": 4, "samples": 512, "batches": 8, "batch_size": 64, "seeds": [0, 1]},
        **{"critic": {"kind": "joint"}, "train": {"steps": 60}},
    }
    old = {
        "estimates": [{**each, "seed": seed, "true": moments} for seed in (0, 1)],
        **{"checks": [], "settings": settings, "closed_form": {"2": 3.5}, "curves": {}},
        **{"cost": {}, "commands": {}},
    }
    module = runpy.run_path(str(SCRIPT))
    new = module["translate"](old)
    assert [(row["name"], row["seeds"]) for row in new["rows"]] == [("nwj at 2 nats", 2)]
    assert new["rows"][0]["estimates"][1] == {"seed": 1, **moments, "true": moments}
    assert compared(tmp_path, old, {**new, "format": 2}) == (0, ["the same"])
    new["rows"][0]["estimates"][1]["mean"] = 1.25
    assert compared(tmp_path, old, {**new, "format": 2})[0] == 1
