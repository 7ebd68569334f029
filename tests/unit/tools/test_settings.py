"""`jmrec config show`, and overrides from a file, against the experiments and by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from jmrec.commands import VERBS, load, parser
from jmrec.config import flatten, load_config, read_overrides
from jmrec.errors import UserError
from jmrec.main import main
from jmrec.systems.stages import identity, stage_hash
from jmrec.tools.settings import EXPERIMENT, describe, open_config

TINY = ["tpad:size=tiny", "session:size=tiny", "mmrec:size=tiny", "losses_on_gaussians:size=tiny"]


@pytest.fixture(scope="module")
def tpad() -> dict[str, Any]:
    return {each["name"]: each for each in describe(open_config("tpad:size=tiny"), {})}


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "more.yaml"
    path.write_text("seed: 3\nseeds: [1, 2]\nstudent:\n  train: {steps: 50}\n  stack.heads: 4\n")
    return path


def said(text: str, folder: Path) -> str:
    path = folder / "wrong.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        read_overrides(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# ---- config show ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", TINY[1:])
def test_every_setting_is_shown_with_its_value_and_meaning(spec: str) -> None:
    flat = {name: value for name, value in flatten(load_config(spec)).items() if value != {}}
    shown = {each["name"]: each for each in describe(open_config(spec), {})}
    assert {n: each["value"] for n, each in shown.items() if not n.endswith(".*")} == flat
    assert all(each["means"] and each["may"] for each in shown.values())
    assert {each["source"] for each in shown.values()} == {EXPERIMENT}


def test_who_reads_a_setting_is_whose_result_it_is_part_of(tpad: dict[str, Any]) -> None:
    students = ["distilled", "id-only", "picture-only", "text-only", "undistilled"]
    for name, want in {
        "data.window": ["data"],
        "vision.hparams.flip": ["vision"],
        "knowledge.stack.width": ["vision", "knowledge"],  # what the eyes give it
        "knowledge.soft": ["knowledge"],
        "transition.train.steps": ["transition"],
        "distill.k": ["distill"],
        "student.stack.heads": [f"students/{each}" for each in students],
        "students.distilled.logit": ["students/distilled"],
        "evaluate.split": ["evaluate"],
        "evaluate.serve": ["evaluate"],
        "rules": [],
        "wandb.mode": [],
        "student.train.updates_per_call": [],
        "knowledge.lora.rank": [],  # the towers of size=tiny have no backbone
        "system": None,
    }.items():
        assert tpad[name]["read_by"] == want, name
    assert len([name for name, each in tpad.items() if each["read_by"] is None]) < 8


@pytest.mark.parametrize(
    ("change", "stages"), [("data.facts=false", {"data"}), ("seeds=(7,)", {"students", "evaluate"})]
)
def test_a_change_makes_the_stages_others_that_read_it(
    tpad: dict[str, Any], change: str, stages: set[str]
) -> None:
    """As a workdir would see it, from the experiment and an override."""
    from jmrec.systems.registry import NOWHERE, system_class
    from jmrec.systems.work import Work
    from jmrec.tracking import Tracker

    def hashes(*words: str) -> dict[str, str]:
        config = load_config("tpad:size=tiny", words)
        work = Work(config, NOWHERE, Tracker(NOWHERE, quiet=True, writes=False))
        made = system_class(config)(work).stages()
        return {each.name: stage_hash(identity(each.settings), {}) for each in made}

    before, after = hashes(), hashes(f"--config.{change}")
    differs = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    read_by = tpad[change.partition("=")[0]]["read_by"]
    assert differs
    assert {each.split("/")[0] for each in read_by} == {each.split("/")[0] for each in differs}
    assert {each.split("/")[0] for each in read_by} <= stages


def test_a_difference_has_both_values_and_nothing_that_is_equal() -> None:
    a, b = load_config("session:size=small"), load_config("session:size=tiny")
    found = describe(a, {}, b)
    left, right = flatten(a), flatten(b)
    assert {each["name"]: (each["value"], each["other"]) for each in found} == {
        name: (left[name], right[name]) for name in left if left[name] != right[name]
    }
    one = describe(load_config("session:size=tiny,encoder=sasrec+gru4rec"), {}, b)
    only = {each["name"]: ("value" in each, "other" in each) for each in one}
    assert only["students.gru4rec.ids"] == (True, False)
    assert only["students.student.ids"] == (False, True)


def test_it_is_printed_for_machines_and_people(
    yaml_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["config", "show", "session:size=tiny", "--overrides", str(yaml_file)]
    words += ["--config.seed=4", "--noconfig.context.event"]
    assert main([*words, "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["seeds"]["value"] == [1, 2]
    assert found["student.train.steps"]["value"] == 50
    assert found["student.stack.heads"]["value"] == 4
    assert found["seed"]["value"] == 4  # what was typed counts more
    sources = {name: each["source"] for name, each in found.items()}
    assert {name: source for name, source in sources.items() if source != EXPERIMENT} == {
        "seed": "override", "context.event": "override",
        **dict.fromkeys(("seeds", "student.train.steps", "student.stack.heads"), str(yaml_file)),
    }  # fmt: skip
    assert main([*words, "--find", "updates in ALL"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("student.train.steps = 50 Updates in all. A whole number from 1 to")
    assert printed.endswith(f"Read by students/student. From {yaml_file}.")
    assert main(["config", "show", "session:size=tiny", "--diff", "session:size=tiny"]) == 0
    assert capsys.readouterr().out == "nothing differs\n"


# ---- overrides from a file -----------------------------------------------------------------------


def test_a_file_is_the_same_as_its_words(yaml_file: Path) -> None:
    values = read_overrides(yaml_file)
    assert values == {
        "seed": 3, "seeds": [1, 2], "student.stack.heads": 4, "student.train.steps": 50
    }  # fmt: skip


def test_every_verb_that_takes_overrides_takes_a_file() -> None:
    takes = [verb for verb in VERBS if load(verb).takes_overrides]
    assert len(takes) >= 5
    top = parser(VERBS)
    more = {"config": ["show", "x"], "plan": ["--topology", "cpu:1"], "leaderboard": []}
    for verb in takes:
        words = more.get(verb, ["--workdir", "w"])
        words += [] if verb == "config" else ["--config", "x"]
        assert str(top.parse_args([verb, *words, "--overrides", "f"]).overrides) == "f"


@pytest.mark.parametrize("verb", ["run", "sweep", "config"])
def test_a_wrong_name_in_a_file_gets_the_sentence_of_a_word(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "more.yaml"
    file.write_text("student: {train: {stepss: 3}}")
    words = {
        "config": ["config", "show", "tpad:size=tiny"],
        "run": ["run", "--config", "tpad:size=tiny", "--workdir", str(tmp_path / "run")],
        "sweep": ["sweep", "--config", "tpad:size=tiny", "--workdir", str(tmp_path / "run")],
    }[verb]
    assert main([*words, "--overrides", str(file)]) == 2
    from_file = capsys.readouterr().err
    assert main([*words, "--config.student.train.stepss=3"]) == 2
    assert capsys.readouterr().err == from_file
    assert 'no field "student.train.stepss", did you mean "student.train.steps"?' in from_file
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1", "is no list of settings"),
        ("a: 1\na: 2", "a stands there twice"),
        ("a: {b: 1}\na.b: 2", "a.b stands there twice"),
        ("a: &x [1, 2]\nb: *x", "line 2: an alias"),
        ("a: &x {b: *x}", "an alias"),
        ("a: [", "line 1: this is no YAML"),
        ("a: 2020-01-01", "a holds a date"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("a: !!timestamp x", "is no YAML"),
        ("a: .nan", "use a finite number"),
        ("a: {1: 2}", "'a.1' is no name of a setting"),
        ("[a]: 1", "no name of a setting"),
        ("<<: {a: 1}", "no name of a setting"),
        ("\xff", "no text in UTF-8"),
        ("a: !!python/object:os.system {}", "is no YAML"),
        ("\x00a", "is no YAML"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "nested too deeply"),
        ("a: " + "x" * 2**20, "larger than"),
    ],
)
def test_a_file_that_is_none_is_said(text: str, says: str, tmp_path: Path) -> None:
    assert says in said(text, tmp_path)


def test_no_file_is_said_and_an_empty_one_sets_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file of overrides"):
        read_overrides(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_overrides(tmp_path / "empty.yaml") == {}
