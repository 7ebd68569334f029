"""The files: what is written comes back, and what is damaged or something else is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.policy import Availability, Correction, make_policy
from jmrec.serving import Artefact, check_target, load, read, serve, write
from jmrec.serving.folder import flatten_params

FILES = ("serve.json", "student.safetensors", "items.safetensors", "items.json")


@pytest.fixture
def folder(artefact: Artefact, tmp_path: Path) -> Path:
    write(artefact, tmp_path / "serve")
    return tmp_path / "serve"


def test_what_is_written_comes_back(artefact: Artefact, tmp_path: Path) -> None:
    start = np.full(len(artefact.ids), -np.inf)
    start[3] = 1e9
    windows = Availability(start, np.full(len(start), np.inf))
    lists = Correction(allow=("i01", "i02", "i03"), block=("i02",), pin=("i03", "i01"))
    full = replace(artefact, policy=make_policy(artefact.ids, False, lists, windows))
    write(full, tmp_path / "serve")
    again = read(tmp_path / "serve")
    for name in ("student", "config", "ids", "titles", "provenance"):
        assert getattr(again, name) == getattr(full, name)
    np.testing.assert_array_equal(again.id_rows, full.id_rows)
    np.testing.assert_array_equal(again.features["features"], full.features["features"])
    one, other = flatten_params(full.params), flatten_params(again.params)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
        assert array.dtype == other[name].dtype
    assert again.policy.correction == lists
    assert again.policy.exclude_seen is False
    np.testing.assert_array_equal(again.policy.availability.start, start)
    assert again.policy.pinned.tolist() == [3, 1]


def test_everybody_may_read_it(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755


def test_it_answers_elsewhere_as_in_memory(
    artefact: Artefact, folder: Path, tmp_path: Path, sessions: list[list[str]]
) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    expected = serve(artefact, "memory").recommend_batch(sessions, top=40)
    assert load(tmp_path / "elsewhere").recommend_batch(sessions, top=40) == expected


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
@pytest.mark.parametrize("how", ["a byte", "cut", "gone", "a folder"])
def test_damage_is_one_sentence(folder: Path, name: str, how: str) -> None:
    path = folder / name
    data = path.read_bytes()
    if how == "a byte":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    if how == "a folder":
        path.mkdir()
    with pytest.raises(UserError, match="jmrec export") as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    if name != "serve.json":
        assert "damaged" in str(caught.value)


def test_other_folders_are_not_loaded(tmp_path: Path, folder: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"holds no serving artefact.*jmrec export"):
            load(place)
    facts = json.loads((folder / "serve.json").read_text())
    (folder / "serve.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(UserError, match="format 99 is of a newer jmrec"):
        load(folder)


def test_parameters_of_another_model_are_refused(artefact: Artefact, tmp_path: Path) -> None:
    write(replace(artefact, params={"head": artefact.params["head"]}), tmp_path / "serve")
    with pytest.raises(UserError, match="is missing; export again"):
        load(tmp_path / "serve")


def test_only_an_artefact_or_nothing_is_replaced(
    artefact: Artefact, folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    assert check_target(mine) == mine  # empty
    (mine / "serve.json").write_text('{"kind": "something else"}')
    (tmp_path / "file").write_text("x")
    for place in (mine, tmp_path / "file"):
        with pytest.raises(UserError, match=r"no serving artefact; name another folder"):
            write(artefact, place)
    assert (mine / "serve.json").read_text() == '{"kind": "something else"}'
    # What people keep beside it under names that look temporary is theirs.
    for name in ("serve.tmp", "serve.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    write(replace(artefact, student="newer"), folder)
    assert read(folder).student == "newer"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"serve", "mine", "file", "serve.tmp", "serve.old"}
    assert (tmp_path / "serve.old" / "mine").is_file()


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_what_is_stopped_leaves_the_older_one(
    artefact: Artefact,
    folder: Path,
    tmp_path: Path,
    moment: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace_path, calls = Path.replace, []

    def stopped(path: Path, target: Path) -> Path:
        if path.is_dir() or "items.safetensors" in path.name:
            calls.append(path)
            if len(calls) == moment:
                raise KeyboardInterrupt
        return replace_path(path, target)

    with monkeypatch.context() as patch:
        patch.setattr("jmrec.serving.folder.exchange", lambda *_: False)  # as on some disks
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            write(replace(artefact, student="newer"), folder)
    assert read(folder).student == "small"
    assert [path.name for path in tmp_path.iterdir()] == ["serve"]
