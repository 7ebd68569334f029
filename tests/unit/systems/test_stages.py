"""Stage identity: skipped, resumed, refused by name, redone with what follows."""

from dataclasses import replace
from pathlib import Path

import pytest

from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.systems.stages import (
    Stage,
    cost_by_stage,
    facts_by_stage,
    read_stage,
    seeded,
    walk,
)
from jmrec.tracking import Tracker


def make(log: list[str], width: int = 1, fail: bool = False) -> list[Stage]:
    def stage(name: str):
        def run(folder: Path) -> None:
            log.append(name)
            if fail and name == "b":
                raise KeyboardInterrupt
            (folder / "out").write_text(name)

        return run

    return [
        Stage("a", {"width": width}, (), stage("a")),
        Stage("b", {}, ("a",), stage("b")),
        Stage("c", {"other": 1}, (), stage("c")),
    ]


def test_a_stage_says_what_it_is_one_of_outside_its_hash(tmp_path: Path) -> None:
    seen: list[str] = []
    known = seeded("students.deep", 3)
    facts = {"group": known.group, "seed": known.seed, "path": known.path}
    plain = Stage(known.name, {"width": 1}, (), lambda folder: seen.append(folder.name))
    hashes = walk([plain], tmp_path, tracker=Tracker(tmp_path))
    assert facts_by_stage(tmp_path, [known.name, "none"]) == {
        "students/deep-3": {"group": "", "seed": None}
    }
    # A jmrec that wrote no such facts named the folder by them.
    path = tmp_path / known.name / "stage.json"
    old = {name: each for name, each in read_json(path).items() if name not in facts}
    write_json(path, old)
    found = read_stage(path.parent)
    assert found is not None
    assert {name: found[name] for name in facts} == facts
    assert walk([replace(plain, **facts)], tmp_path, tracker=Tracker(tmp_path)) == hashes
    assert seen == ["deep-3"]
    write_json(tmp_path / "read" / "stage.json", old)
    assert (read_stage(tmp_path / "read") or {})["group"] == ""


def test_done_stages_are_skipped_and_half_done_ones_resumed(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    with pytest.raises(KeyboardInterrupt):
        walk(make(log, fail=True), tmp_path, tracker=tracker)
    assert log == ["a", "b"]
    walk(make(log), tmp_path, tracker=tracker)
    assert log == ["a", "b", "b", "c"]
    walk(make(log), tmp_path, tracker=tracker)
    assert log == ["a", "b", "b", "c"]
    write_json(tmp_path / "b" / "metrics.json", {"step": 8, "flops": 1200})
    cost = cost_by_stage(tmp_path, ["a", "b", "nothing"])
    assert list(cost) == ["a", "b"]
    assert cost["a"]["seconds"] >= 0
    assert cost["a"]["peak_memory"] > 10_000_000  # no Python is smaller
    assert (cost["b"]["updates"], cost["b"]["flops"]) == (8, 1200)


def test_changed_settings_stop_and_name_the_field(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    walk(make(log), tmp_path, tracker=tracker)
    with pytest.raises(UserError, match=r"stage a .*width: 1 -> 2.*--stale=rerun"):
        walk(make(log, width=2), tmp_path, tracker=tracker)
    assert log == ["a", "b", "c"]
    assert (tmp_path / "b" / "out").is_file()


def test_a_stale_stage_is_refused_before_a_new_one_runs(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    walk(make(log), tmp_path, tracker=tracker)
    new = Stage("new", {}, (), lambda folder: log.append("new"))
    with pytest.raises(UserError, match="stage a "):
        walk([new, *make(log, width=2)], tmp_path, tracker=tracker)
    assert log == ["a", "b", "c"]


def test_rerun_redoes_the_stage_and_what_follows_only(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    walk(make(log), tmp_path, tracker=tracker)
    walk(make(log, width=2), tmp_path, stale="rerun", tracker=tracker)
    assert log == ["a", "b", "c", "a", "b"]


def test_a_changed_input_is_named(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    stages = make(log)
    walk(stages, tmp_path, tracker=tracker)
    facts = read_json(tmp_path / "b" / "stage.json")
    assert facts["inputs"].keys() == {"a"}
    other = [Stage("a", {"width": 1}, (), stages[0].run), Stage("b", {}, (), stages[1].run)]
    with pytest.raises(UserError, match=r"stage b .*input"):
        walk(other, tmp_path, tracker=tracker)


def test_damaged_json_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="missing"):
        read_json(tmp_path / "y.json")
