"""What a leaderboard trains with which seeds, and what its differences and its page say."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from jmrec.config import ConfigDict, load_config
from jmrec.evaluation.results import ResultRow
from jmrec.evaluation.windows import Units
from jmrec.models.sessions.table import ENCODERS
from jmrec.systems.registry import check_settings, system_class
from jmrec.systems.stages import identity
from jmrec.systems.students import student_settings
from jmrec.systems.work import Work
from jmrec.tools.leaderboard.board import Board, differences
from jmrec.tools.leaderboard.page import page
from jmrec.tools.leaderboard.train import best_encoders, with_encoders, with_seeds
from jmrec.tracking import Tracker

SPEC = "session:size=tiny,items=ids+both,encoder=sasrec+narm+stamp"


def own_seeds(config: ConfigDict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.seeds) for name, each in config.students.items()}


def test_every_encoder_that_reads_ids_takes_part_unless_some_are_named() -> None:
    students = load_config(with_encoders("session:data=folder")).students
    assert {*students} == {
        name
        for name, each in ENCODERS.items()
        if any(field.name == "ids" for field in fields(each.config))
    }
    assert "transfer" not in students
    assert {"student", "sasrec", "gru4rec", "hstu"} < {*students}
    for spec in ("session:encoder=narm", "session:size=tiny,encoder=narm+core"):
        assert with_encoders(spec) == spec
    assert with_encoders("session").startswith("session:encoder=")


def test_encoders_that_follow_no_teacher_are_left_out_where_there_is_one() -> None:
    students = load_config(with_encoders("session:size=tiny,teacher=none")).students
    taught = load_config(with_encoders("session:size=tiny,teacher=rules"))
    assert {*students} - {*taught.students} == {"bert4rec"}
    check_settings(taught)


def test_the_best_encoders_by_their_best_row_get_every_seed(tmp_path: Path) -> None:
    config = load_config(SPEC, ["--config.seeds=(4,5,6)"])
    first = with_seeds(config, ())
    names = ("sasrec", "narm", "stamp", "sasrec-both", "narm-both", "stamp-both")
    assert own_seeds(first) == dict.fromkeys(names, (4,))
    best = {"sasrec": 0.1, "narm": 0.3, "stamp": 0.2, "sasrec-both": 0.4, "narm-both": 0.1,
            "stamp-both": 0.25}  # fmt: skip
    for name, value in best.items():
        folder = tmp_path / "students" / f"{name}-4"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"best": value}))
    for count, chosen in enumerate(([], ["sasrec"], ["sasrec", "narm"])):
        assert best_encoders(first, tmp_path, count) == chosen
    found = own_seeds(with_seeds(config, ["sasrec"]))
    assert found == {name: (4, 5, 6) if name.startswith("sasrec") else (4,) for name in names}
    assert "seeds" not in config.students.sasrec  # it is a copy that has them


def test_seeds_of_its_own_change_which_stages_a_student_has_and_no_stage() -> None:
    def stages(config: ConfigDict) -> dict[str, dict[str, Any]]:
        work = Work(config, Path("nowhere"), Tracker(Path("nowhere"), quiet=True, writes=False))
        own = system_class(config)(work).stages()
        return {each.name: identity(each.settings) for each in own if each.group}

    config = load_config("session:size=tiny,encoder=sasrec+stamp", ["--config.seeds=(0,1)"])
    every, some = stages(config), stages(with_seeds(config, ["stamp"]))
    assert {*every} - {*some} == {"students/sasrec-1"}
    assert {"students/sasrec-0", "students/stamp-0", "students/stamp-1"} == {*some}
    assert some == {name: every[name] for name in some}


def test_each_encoder_has_its_published_dropout_and_one_override_changes_one() -> None:
    for spec in ("session:data=folder", "session:data=folder,protocol=paper", "session:size=tiny"):
        spec = with_encoders(spec)
        known = {
            "gru4rec": 0.3,
            "narm": 0.5,
            "stamp": 0.0,
            "srgnn": 0.0,
            "core": 0.2,
            "sasrec": 0.5,
        }
        for override, found in (
            ((), known),
            (["--config.students.narm.hparams.dropout=0.1"], {**known, "narm": 0.1}),
        ):
            config = load_config(spec, override)
            every = {name: student_settings(config, name, "hparams") for name in config.students}
            assert {name: every[name].dropout for name in known} == found
            assert every["student"].dropout == config.student.hparams.dropout
            assert {each.id_dropout for each in every.values()} == {0.0}


def row(name: str, kind: str, seeds: int) -> ResultRow:
    return cast(ResultRow, {"name": name, "kind": kind, "seeds": seeds})


def test_a_verdict_needs_a_corrected_p_and_three_seeds() -> None:
    """Gains chosen so that p is about .001, .03 and .5: Holm makes of them .003, .06 and .5."""
    random, n = np.random.default_rng(1), 400
    noise = random.normal(0.0, 1.0, n)
    noise = (noise - noise.mean()) / noise.std() / np.sqrt(n)  # its mean has a deviation of 1 / n
    rule = np.zeros(n)
    values = [rule, *(noise * np.sqrt(n) / 20 + z * 0.05 / 20 for z in (4.0, -2.2, 0.6))]
    names = ["EASE", "a", "b", "c"]
    both = np.array([[each, each] for each in values])
    units = Units(names, ["rule", *["student"] * 3], np.array([1, 3, 3, 3]), np.arange(n), both)
    rows = [row("EASE", "rule", 1), *(row(name, "student", 3) for name in "abc")]
    found = differences([(each, rows[0]) for each in rows[1:]], units)
    p = {name: found[name]["MRR@20"]["p"] for name in found}
    assert p["a"] == pytest.approx(2 / 2001)
    assert 0.01 < p["b"] < 0.05 < p["c"]
    wanted = {"a": 3 * p["a"], "b": 2 * p["b"], "c": max(2 * p["b"], p["c"])}
    assert {n: found[n]["MRR@20"]["holm"] for n in found} == pytest.approx(wanted)
    assert wanted["b"] > 0.05
    verdicts = {name: found[name]["HR@20"]["verdict"] for name in found}
    assert verdicts == {"a": "above", "b": "not told apart", "c": "not told apart"}
    assert "correction" in found["b"]["HR@20"]["reason"]
    assert found["b"]["HR@20"]["interval"][1] < 0  # alone it would have been below
    assert "reason" not in found["c"]["HR@20"]
    few = differences([(row("a", "student", 1), rows[0])], units)["a"]["MRR@20"]
    assert few["verdict"] == "not told apart"
    assert few["reason"] == "fewer than 3 seeds: a"
    assert few["holm"] == few["p"]


def test_the_page_is_sorted_and_says_what_the_json_does() -> None:
    def entry(name: str, kind: str, mrr: float, reads: str = "", **more: Any) -> dict[str, Any]:
        figures = {"MRR@20": mrr, "HR@20": 2 * mrr}
        return {
            "name": name, "kind": kind, "encoder": name if reads else "", "reads": reads,
            "seeds": 3 if reads else 1, "validation": mrr, "figures": dict.fromkeys(
                ("session", "last"), figures),
            "interval": {"session": {each: [mrr - 0.01, mrr + 0.01] for each in figures}},
            "targets": {"warm": {"n": 9, **figures}, "cold": {"n": 0}}, "less": {}, **more,
        }  # fmt: skip

    less = {"difference": -0.0125, "interval": [-0.02, 0.001], "p": 0.04, "holm": 0.0816,
            "verdict": "not told apart", "reason": "why"}  # fmt: skip
    board: dict[str, Any] = {
        "format": 1, "caption": "How it was judged.", "best_rule": "EASE", "test_reads": 2,
        "dataset": {"name": "shop", "items": 1234, "sessions": {"train": 5000}}, "kinds": [],
        "content": [],
        "rows": [
            entry("narm", "student", 0.1111, "ids", less=dict.fromkeys(("MRR@20", "HR@20"), less)),
            entry("popularity", "rule", 0.05), entry("EASE", "rule", 0.2),
        ],
    }  # fmt: skip
    text = page(cast(Board, board), {})
    lines = text.splitlines()
    order = [
        line.split(" | ")[0][2:] for line in lines if line.startswith(("| narm", "| pop", "| EA"))
    ]
    assert order[:3] == ["EASE", "narm", "popularity"]
    assert (
        "| narm | ids | 3 | 11.11 (10.1–12.1) | 22.22 (10.1–12.1) | 11.11 | 22.22 | 11.11 |"
        in lines
    )
    assert any("−1.25 (−2.00 to +0.10) | 0.082 | not told apart (why)" in line for line in lines)
    assert "1,234 items; sessions: 5,000 train. The split was read 2 times." in text
    assert "How it was judged." in text
    assert "best rule here is **EASE**" in text
    assert not any(each in text for each in ("## Cost", "## Warm", "## What features add"))
