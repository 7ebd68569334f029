"""The experiments that come with jmrec: one shape for all arguments, neighbours imported."""

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from jmrec.api.start import start
from jmrec.config import config_hash, flatten, load_config, load_hyper
from jmrec.config.load import experiments
from jmrec.errors import UserError
from jmrec.systems import registry
from jmrec.systems.evaluate import _without_teacher

ARGUMENTS = {
    "tpad": {
        "data": ("toyshop", "folder"),
        "size": ("tiny", "small", "base"),
        "backbone": ("tiny", "minilm", "assembled", "hf:some/folder"),
    },
    "session": {
        "data": ("toyshop", "folder"),
        "size": ("tiny", "small", "base"),
        "items": ("ids", "both"),
        "teacher": ("none", "rules", "both"),
    },
    "mmrec": {
        "data": ("toyshop", "folder"),
        "size": ("tiny", "small", "base"),
        "arm": ("all", "text"),
        "strategy": ("none", "all"),
        "writer": ("mean", "all"),
        "split": ("time", "unseen_items"),
        "backbone": ("tiny", "minilm"),
    },
}


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_the_shape_of_a_config_does_not_depend_on_its_argument(name: str) -> None:
    """Values do; and so does which students there are, each with settings of its own."""
    named = [[f"{key}={value}" for value in values] for key, values in ARGUMENTS[name].items()]
    shapes = set()
    for words in itertools.product(*named):
        config = flatten(load_config(f"{name}:{','.join(words)}"))
        shapes.add(
            frozenset(key for key in config if not key.startswith(("students.", "rankers.")))
        )
    assert len(shapes) == 1


@pytest.mark.parametrize(
    "spec",
    ["session:size=tiny", "session:data=folder,encoder=sasrec+core", "session:items=ids+both",
     "tpad:size=tiny", "mmrec:size=tiny"],
)  # fmt: skip
def test_a_shipped_sweep_changes_what_every_student_reads(spec: str) -> None:
    """Of one that every student has of its own, two trials would be the same run."""
    trials = load_hyper(spec)
    config = load_config(spec)
    rows = config["rankers" if "rankers" in config else "students"]
    group = "rankers" if "rankers" in config else "students"
    one = "rank" if "rankers" in config else "student"
    read = set()
    for trial in trials:
        flat = flatten(load_config(spec, [f"--config.{k}={v}" for k, v in trial.items()]))
        read.add(tuple(
            flat.get(f"{group}.{row}.train.{name}", flat[f"{one}.train.{name}"])
            for row in rows for name in ("learning_rate", "weight_decay")
        ))  # fmt: skip
    assert len(read) == len(trials) == 6


def test_what_experiments_share_is_no_experiment() -> None:
    assert {"tpad", "session", "mmrec", "losses_on_gaussians"} <= set(experiments())
    assert "common" not in experiments()
    with pytest.raises(UserError, match="has no function get_config"):
        load_config("experiments/common.py")


def test_a_neighbour_is_imported_anew_each_time_and_stays_nowhere(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        "from jmrec.config import ConfigDict\n"
        "from .shared import VALUE\n"
        "def get_config():\n    return ConfigDict({'value': VALUE})\n"
    )
    before = set(sys.modules)
    for value in (1, 2, 3):  # within one second, with the same number of bytes
        (tmp_path / "shared.py").write_text(f"VALUE = {value}\n")
        assert load_config(str(tmp_path / "x.py")).value == value
    assert {name for name in set(sys.modules) - before if "shared" in name} == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shared.py", "x.py"]
    (tmp_path / "shared.py").unlink()
    with pytest.raises(UserError, match="line 2: the experiment file fails with ModuleNotFound"):
        load_config(str(tmp_path / "x.py"))


def test_an_error_in_a_neighbour_names_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("from .shared import VALUE\n")
    (tmp_path / "shared.py").write_text("VALUE = 1 / 0\n")
    with pytest.raises(UserError, match=r"x\.py, line 1: .* ZeroDivisionError"):
        load_config(str(tmp_path / "x.py"))


def test_an_experiment_may_load_another_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.py").write_text(
        "from jmrec.config import ConfigDict\nfrom .shared import VALUE\n"
        "def get_config():\n    return ConfigDict({'value': VALUE})\n"
    )
    (tmp_path / "a/shared.py").write_text("VALUE = 1\n")
    (tmp_path / "shared.py").write_text("VALUE = 2\n")
    (tmp_path / "y.py").write_text(
        "from jmrec.config import ConfigDict, load_config\n"
        f"INNER = load_config({str(tmp_path / 'a/x.py')!r})\n"
        "from .shared import VALUE\n"
        "def get_config():\n    return ConfigDict({'inner': INNER.value, 'own': VALUE})\n"
    )
    assert load_config(str(tmp_path / "y.py")).to_dict() == {"inner": 1, "own": 2}


def test_some_rows_alone_are_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[Any] = []
    monkeypatch.setattr(registry, "run", lambda config, workdir, **how: found.append((config, how)))
    words = ["--config.students.distilled.logit=0.5"]
    start("tpad:size=tiny", tmp_path, words)
    start("tpad:size=tiny", tmp_path, words, only=["text-only", "distilled"])
    (every, _), (some, how) = found
    assert how["command"][-1] == "--only=text-only,distilled"
    assert {*every.students} - {*some.students} == {"id-only", "picture-only", "undistilled"}
    assert some.students.distilled.logit == 0.5
    with every.unlocked():  # nothing else differs
        every.students = some.students
    assert config_hash(every) == config_hash(some)
    with pytest.raises(UserError, match="no row 'picture' is trained here; there are distilled, "):
        start("tpad:size=tiny", tmp_path, words, only=["distilled", "picture"])
    with pytest.raises(UserError, match="there are both, ids, picture, text"):
        start("mmrec:size=tiny", tmp_path, [], only=["distilled"])


def test_a_taught_student_is_held_against_the_same_encoder_without_lessons() -> None:
    students = load_config("session:data=folder,encoder=sasrec+core,teacher=both").students
    for name in ("sasrec", "core"):
        assert _without_teacher(students, f"{name}-taught") == [name]
