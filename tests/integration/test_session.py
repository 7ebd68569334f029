"""The system "session" from a folder of files to recommendations, tiny: no tower anywhere.

The runs share one shop and its prepared data; tables of features are compared with what this module
computes by hand.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data.prepared import load_prepared
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.features import read_features
from jmrec.lock import only_writer
from jmrec.main import main
from jmrec.systems.registry import open_run
from jmrec.systems.session.system import SessionSystem
from jmrec.tracking import Tracker
from tests.integration.planned import check_parameters
from tests.integration.session_runs import (
    ROOT,
    SESSION,
    SOURCE,
    TOWERS,
    VIEWS,
    check_live,
    features_of,
    made,
    own_parts,
    read,
    recommended,
    refusal,
    results,
    rows,
    stages_of,
    walk_to,
    words,
)

# ---- the runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session") / "shop"
    write_toyshop(folder, ToyShopConfig(seed=3, items=60, sessions=200))
    (folder / "truth.npz").unlink()
    return folder


@pytest.fixture(scope="module")
def by_ids(shop: Path) -> Path:
    folder = shop.parent / "ids"
    assert main(words(shop, folder, "ids")) == 0
    return folder


@pytest.fixture(scope="module")
def towers(shop: Path) -> Path:
    """A run of experiments/tpad.py on the same shop, up to its item features."""
    overrides = [*TOWERS, "--config.data.window=12", f"--config.data.dir={shop}"]
    spec = f"{ROOT / 'experiments/tpad.py'}:data=folder,size=tiny"
    system = made(spec, overrides, shop.parent / "towers")
    walk_to(system, "embed")
    return system.work.workdir


@pytest.fixture(scope="module")
def table(shop: Path, by_ids: Path) -> Path:
    """A folder of features: other order, one training item missing, one id unknown, a constant."""
    folder, rng = shop.parent / "table", np.random.default_rng(0)
    dataset = load_prepared(by_ids / "data" / "prepared")
    order = rng.permutation(len(dataset.items))
    missing = int(dataset.splits["train"].items[0])
    ids = ["who-is-this", *(dataset.items.ids[row] for row in order if row != missing)]
    array = rng.normal(3.0, 5.0, (len(ids), 7))
    array[:, 2] = 4.0
    folder.mkdir()
    np.save(folder / "features.npy", array)
    (folder / "ids.json").write_text(json.dumps(ids))
    return folder


@pytest.fixture(scope="module")
def by_both(shop: Path, by_ids: Path, table: Path) -> Path:
    """Ids and the folder's features; the source is the folder "moving"."""
    folder, source = shop.parent / "both", shop.parent / "moving"
    shutil.copytree(table, source)
    shutil.copytree(by_ids / "data", folder / "data")
    assert main(words(shop, folder, "both", f"{SOURCE}{source}")) == 0
    return folder


@pytest.fixture(scope="module")
def by_towers(shop: Path, towers: Path, by_ids: Path) -> Path:
    """Two encoders on a run's features alone, which follow the rules."""
    folder = shop.parent / "features"
    shutil.copytree(by_ids / "data", folder / "data")
    items = "features,teacher=rules,encoder=student+transfer"
    assert main(words(shop, folder, items, f"{SOURCE}{towers}")) == 0
    return folder


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export without the new processes that time its start."""
    monkeypatch.setattr("jmrec.systems.serve.cold_start", lambda out: {"load": 0.0})


@pytest.fixture
def fresh(tmp_path: Path, by_ids: Path) -> Path:
    """A workdir whose data are prepared."""
    shutil.copytree(by_ids / "data", tmp_path / "run" / "data")
    return tmp_path / "run"


@pytest.mark.parametrize("run", ["by_ids", "by_both", "by_towers"])
def test_the_plan_counts_what_the_run_keeps(run: str, request: pytest.FixtureRequest) -> None:
    check_parameters(request.getfixturevalue(run), "session")


# ---- ids alone -----------------------------------------------------------------------------------


def test_a_run_on_ids_has_data_students_and_evaluate_alone(by_ids: Path) -> None:
    assert stages_of(by_ids) == {"data", "students/student-0", "evaluate"}
    assert rows(by_ids) == {"student": "student", "student, order shuffled": "control"}
    found = results(by_ids)
    kinds = {row["kind"] for row in found["rows"]}
    assert kinds == {"rule", "content", "blend", "student", "control"}
    assert (found["system"], found["served"]["row"]) == ("session", "student")
    assert "item features" not in {row["name"] for row in found["rows"]}
    for row in found["rows"]:
        figures = row["figures"]["session"]
        assert 0 <= figures["MRR@20"] <= figures["HR@20"] <= 1
    assert own_parts(by_ids) == {"id"}
    page = (by_ids / "evaluate" / "report.html").read_text()
    assert "its id" in page
    assert "its features" not in page


def test_a_second_run_skips_everything(by_ids: Path, shop: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in by_ids.rglob("stage.json")}
    assert main(words(shop, by_ids, "ids")) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert results(by_ids)["test_reads"] == 1
    assert len((by_ids / "test_reads.jsonl").read_text().splitlines()) == 1


def test_the_verbs_work_on_a_run_without_towers(
    by_ids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--workdir", str(by_ids)]
    answer = recommended(capsys, *run)
    assert len(answer) == 20
    assert not {"t0001", "t0002"} & {each["item_id"] for each in answer}
    assert main(["export", *run, "--out", str(tmp_path / "serve"), "--json"]) == 0
    section = json.loads(capsys.readouterr().out)
    assert main(["export", *run, "--out", str(tmp_path / "again")]) == 0
    served = [sorted((tmp_path / name).iterdir()) for name in ("serve", "again")]
    assert [p.read_bytes() for p in served[0]] == [p.read_bytes() for p in served[1]]
    assert section["same top 20"]["same"] == section["same top 20"]["sessions"] > 100
    assert not {"teacher", "knowledge_parameters"} & section.keys()
    assert recommended(capsys, "--serve", str(tmp_path / "serve")) == answer
    assert "Serving" in (by_ids / "evaluate" / "report.html").read_text()

    assert main(["evaluate", *run, "--split=validation"]) == 0
    assert results(by_ids, "evaluate-validation")["dataset"]["split"] == "validation"
    assert len((by_ids / "test_reads.jsonl").read_text().splitlines()) == 1
    plain = results(by_ids, "evaluate-validation")
    assert main(["evaluate", *run, "--split=validation", "--counts=live", "--by=week"]) == 0
    check_live(by_ids / "evaluate-validation", plain, capsys.readouterr().out)
    assert main(["inspect", str(by_ids)]) == 0
    assert "students/student-0" in capsys.readouterr().out


def test_one_command_writes_others_read_and_no_setting_is_changed_behind_a_run(
    by_ids: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(by_ids, tmp_path / "run"))
    reads, out = ["--workdir", str(run)], str(tmp_path / "out")
    before = recommended(capsys, *reads)
    with only_writer(run, print):
        for command in (["evaluate", *reads], ["export", *reads, "--out", out]):
            assert "is in use: " in refusal(capsys, command)
        assert "is in use: " in refusal(capsys, words(shop, run, "ids"))
        assert recommended(capsys, *reads) == before
    assert not (tmp_path / "out").exists()
    config = json.loads((run / "config.json").read_text())
    config["data"]["dir"] = str(tmp_path)  # it may be typed, and lie, elsewhere
    (run / "config.json").write_text(json.dumps(config))
    assert recommended(capsys, *reads) == before
    config["student"]["stack"]["heads"] *= 2
    (run / "config.json").write_text(json.dumps(config))
    assert "student.stack.heads" in refusal(capsys, ["recommend", *reads, *SESSION])


def test_what_it_does_not_have_is_refused_by_its_name(
    by_ids: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, ["embed", "--workdir", str(by_ids)])
    assert "of the system 'session', which reads no items after training" in said
    said = refusal(capsys, ["convert", str(by_ids), "--out", str(tmp_path / "out")])
    assert "of the system 'session', which trains no low-rank updates" in said
    assert not (tmp_path / "out").exists()


def test_its_step_is_planned_from_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", "--topology", "cpu:1", "--json", "--config"]
    assert main([*plan, "session:size=tiny"]) == 0
    assert [each["stage"] for each in json.loads(capsys.readouterr().out)["stages"]] == ["student"]
    wide = [*plan, "session:size=tiny,items=both"]
    assert "--config.features.width" in refusal(capsys, wide)
    assert main([*wide, "--config.features.width=32"]) == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--config.evaluate.serve=studnet", 'did you mean "student"'),
        ("--config.seeds=(0, 0)", "seeds"),
        ("--config.students.student.encoder=gru5", "student.encoder"),
        ("--config.student.loss=none_such", "student.loss"),
        ("--config.students.student.view=smell", "students.student.view"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(
    more: str,
    says: str,
    shop: Path,
    tmp_path: Path,
    table: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = words(shop, tmp_path / "run", "both", f"{SOURCE}{table}", more)
    assert says in refusal(capsys, command)
    assert not (tmp_path / "run" / "data").exists()


# ---- features of a folder ------------------------------------------------------------------------


def test_the_student_reads_the_folder_s_rows_standardised(by_both: Path, table: Path) -> None:
    system = open_run(by_both, Tracker(by_both, quiet=True))
    assert isinstance(system, SessionSystem)
    dataset = load_prepared(by_both / "data" / "prepared")
    ids = json.loads((table / "ids.json").read_text())
    array = np.load(table / "features.npy")
    train = {dataset.items.ids[row] for row in dataset.splits["train"].items}
    fitted = np.array([array[ids.index(item)] for item in sorted(train & {*ids})])
    mean, spread = fitted.mean(0), fitted.std(0)
    spread[2] = np.inf  # a constant tells nothing
    want = [
        (array[ids.index(item)] - mean) / spread if item in ids else np.zeros(7)
        for item in dataset.items.ids
    ]
    found = read(system)
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert found.dtype == np.float32
    assert sum(not row.any() for row in found) == 1


def test_the_report_shows_what_the_features_did(by_both: Path) -> None:
    assert stages_of(by_both) == {"data", "features", "students/student-0", "evaluate"}
    assert rows(by_both) == {"student": "student", "student, order shuffled": "control"}
    assert own_parts(by_both) == {"features", "id"}
    page = (by_both / "evaluate" / "report.html").read_text()
    assert page.count("its features") >= page.count("its id") > 0
    content = {row["name"] for row in results(by_both)["rows"] if row["kind"] == "content"}
    assert any("item features" in name for name in content)


def test_a_source_may_change_or_go_after_the_run(
    by_both: Path,
    shop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    unmeasured: None,
) -> None:
    run, source = ["--workdir", str(by_both)], shop.parent / "moving"
    again = words(shop, by_both, "both", f"{SOURCE}{source}")
    answer = recommended(capsys, *run)
    kept = (source / "features.npy").read_bytes()
    np.save(source / "features.npy", 2 * np.load(source / "features.npy") ** 2)
    assert "stage features was made with other settings" in refusal(capsys, again)
    (source / "features.npy").write_bytes(kept)
    assert main(again) == 0

    away = source.rename(shop.parent / "moved")
    try:
        assert recommended(capsys, *run) == answer
        assert main(["export", *run, "--out", str(tmp_path / "serve")]) == 0
        assert recommended(capsys, "--serve", str(tmp_path / "serve")) == answer
        said = refusal(capsys, again)
        assert "stage features" in said
        assert "it is not there" in said
        moved = words(shop, by_both, "both", f"{SOURCE}{away}")
        assert main(moved) == 0  # where it lies is no part of what it is
    finally:
        away.rename(source)
    # A damaged source is no hindrance either.
    damaged = shutil.copytree(by_both, tmp_path / "run")
    config = json.loads((damaged / "config.json").read_text())
    config["features"]["from"] = str(tmp_path / "bad")
    (damaged / "config.json").write_text(json.dumps(config))
    for stage in ("read", "embed"):
        (tmp_path / "bad" / stage).mkdir(parents=True)
        (tmp_path / "bad" / stage / "stage.json").write_text("{")
    (tmp_path / "bad" / "embed" / "features.safetensors").write_bytes(b"")
    assert recommended(capsys, "--workdir", str(damaged)) == answer


def test_redone_features_are_what_the_student_reads(
    shop: Path, fresh: Path, table: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(table, tmp_path / "source")
    before = read(features_of(shop, fresh, f"{SOURCE}{source}"))
    np.save(source / "features.npy", np.load(source / "features.npy") ** 3)
    with pytest.raises(UserError, match="stage features"):
        features_of(shop, fresh, f"{SOURCE}{source}")
    after = read(features_of(shop, fresh, f"{SOURCE}{source}", stale="rerun"))
    again = read(features_of(shop, fresh, f"{SOURCE}{source}"))
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, again)


# ---- features of a run ---------------------------------------------------------------------------


def test_a_run_s_features_are_read_as_its_own_students_would(
    by_towers: Path, towers: Path, shop: Path, fresh: Path
) -> None:
    system = open_run(by_towers, Tracker(by_towers, quiet=True))
    assert isinstance(system, SessionSystem)
    heads = read_features(towers / "embed" / "features.safetensors").arrays
    e = read_features(towers / "read" / "features.safetensors").arrays
    want = np.concatenate([heads["both/k"], heads["both/t"]], 1)
    np.testing.assert_array_equal(read(system), want)
    assert set(system.features.views("given")) == VIEWS

    named = ["--config.features.name=e", "--config.students.student.view=text"]
    other = features_of(shop, fresh, f"{SOURCE}{towers}", *named, items="both")
    np.testing.assert_array_equal(read(other), e["text"])


def test_its_controls_show_other_views_and_the_rules_teach(by_towers: Path) -> None:
    students = {"students/student-0", "students/transfer-0"}
    assert stages_of(by_towers) == {"data", "features", "teach", *students, "evaluate"}
    assert rows(by_towers) == {
        "student": "student",
        "transfer": "student",
        "student, order shuffled": "control",
        "student, pictures permuted": "control",
        "student, texts permuted": "control",
    }
    every = {row["name"]: row["figures"]["session"] for row in results(by_towers)["rows"]}
    assert every["student"] != every["student, texts permuted"]
    teach = json.loads((by_towers / "teach" / "stage.json").read_text())
    assert set(teach["inputs"]) == {"features"}
    assert own_parts(by_towers) == {"features"}
    given = json.loads((by_towers / "students" / "student-0" / "stage.json").read_text())
    assert set(given["inputs"]) == {"data", "features", "teach"}


def test_any_of_its_encoders_is_served(
    by_towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], unmeasured: None
) -> None:
    run = ["--workdir", str(by_towers), "--row", "transfer"]
    answer = recommended(capsys, *run)
    assert answer != recommended(capsys, *run[:2])
    assert main(["export", *run, "--out", str(tmp_path / "serve"), "--json"]) == 0
    section = json.loads(capsys.readouterr().out)
    assert section["same top 20"]["same"] == section["same top 20"]["sessions"]
    assert recommended(capsys, "--serve", str(tmp_path / "serve")) == answer


# ---- sources that are none -----------------------------------------------------------------------


def change(folder: Path, name: str) -> None:
    """Spoil a folder of features in one way."""
    array, ids = folder / "features.npy", folder / "ids.json"
    good, known = np.load(array), json.loads(ids.read_text())
    if name == "no folder":
        shutil.rmtree(folder)
    elif name == "no ids":
        ids.unlink()
    elif name == "no features":
        array.unlink()
    elif name == "ids no list":
        ids.write_text('{"a": 1}')
    elif name == "ids no text":
        ids.write_text(json.dumps([*known[1:], 7]))
    elif name == "ids damaged":
        ids.write_bytes(b"\xff[")
    elif name == "ids twice":
        ids.write_text(json.dumps([*known[1:], known[1]]))
    elif name == "too few ids":
        ids.write_text(json.dumps(known[1:]))
    elif name == "other ids":
        ids.write_text(json.dumps([f"other {each}" for each in known]))
    elif name == "nothing":
        np.save(array, good[:0])
        ids.write_text("[]")
    elif name == "archive":
        with array.open("wb") as file:
            np.savez(file, good)
    elif name == "damaged":
        array.write_bytes(array.read_bytes()[:100])
    elif name == "no array":
        array.write_bytes(b"PK\x03\x04")
    else:
        spoilt: dict[str, Any] = {
            "pickled": good.astype(object),
            "one axis": good[:, 0],
            "no columns": good[:, :0],
            "complex": good.astype(complex),
            "truths": good > 0,
            "texts": good.astype(str),
            "not finite": np.where(np.arange(7) == 3, np.nan, good),
            "too large": np.where(np.arange(7) == 3, 1e300, good),
        }
        np.save(array, spoilt[name])


HOSTILE = {
    "no folder": "name one of those",
    "no ids": "name one of those",
    "no features": "name one of those",
    "ids no list": "must be a list",
    "ids no text": "must be a list",
    "ids damaged": "ids.json is damaged",
    "ids twice": "twice",
    "too few ids": "one row of numbers for each",
    "other ids": "features of no training item",
    "nothing": "features of no training item",
    "archive": "archive of arrays",
    "damaged": "can not be read",
    "no array": "can not be read",
    "pickled": "can not be read",
    "one axis": "one row of numbers for each",
    "no columns": "one row of numbers for each",
    "complex": "one row of numbers for each",
    "truths": "one row of numbers for each",
    "texts": "one row of numbers for each",
    "not finite": "row 0 is not finite",
    "too large": "row 0 is not finite",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_one_sentence_and_can_be_mended(
    name: str,
    shop: Path,
    fresh: Path,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = shutil.copytree(table, tmp_path / "source")
    change(source, name)
    said = refusal(capsys, words(shop, fresh, "features", f"{SOURCE}{source}"))
    assert HOSTILE[name] in said
    assert str(source) in said
    assert "students" not in stages_of(fresh)
    # Mended as the sentence says, it is read: nothing stands against it.
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(table, source)
    assert read(features_of(shop, fresh, f"{SOURCE}{source}")).any()


def test_no_source_and_a_file_are_refused(
    shop: Path, fresh: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--config.features.from=RUN" in refusal(capsys, words(shop, fresh, "both"))
    file = table / "ids.json"
    assert "name one of those" in refusal(capsys, words(shop, fresh, "both", f"{SOURCE}{file}"))


def test_another_name_or_data_or_split_is_refused(
    shop: Path, fresh: Path, towers: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(shop, fresh, "features", f"{SOURCE}{towers}")
    assert "features.name=x" in refusal(capsys, [*command, "--config.features.name=x"])
    assert "features.name=k++t" in refusal(capsys, [*command, "--config.features.name=k++t"])
    said = refusal(capsys, words(shop, fresh, "features,encoder=gru5", f"{SOURCE}{towers}"))
    assert 'encoder="gru5" is not one of' in said
    # Another split: its towers may have seen what is asked here.
    split = [*command[:-1], str(fresh.parent / "split"), "--config.data.fractions=(0.6, 0.2, 0.2)"]
    said = refusal(capsys, split)
    assert str(towers) in said
    assert "other data or another split" in said
    # A folder has one view.
    view = words(shop, fresh, "both", f"{SOURCE}{table}", "--config.students.student.view=text")
    assert "is not one of both" in refusal(capsys, view)
