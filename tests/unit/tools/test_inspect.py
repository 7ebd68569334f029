"""Inspection against checkpoints that the test itself saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.checkpoint import Checkpoints, save_params
from jmrec.errors import UserError
from jmrec.features import write_features
from jmrec.files import write_json
from jmrec.main import main
from jmrec.sharding import make_mesh, put_tree, shardings
from jmrec.tools import inspect
from jmrec.types import TrainState

METADATA = {
    "fingerprint": "f",
    "config": {"width": 4},
    "train": {"seed": 0, "hparams": {"learning_rate": 0.1}},
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
    "versions": {"jax": "9.9"},
    "loop": {"history": [{"step": 4, "score": 0.25, "HR@20": 0.5}], "window": {}},
}


def state(step: int, shift: float = 0.0, best: float = 0.25) -> TrainState:
    table = np.arange(8, dtype=np.float32).reshape(2, 4)
    params = {"table": table + shift, "half": jnp.ones(3, jnp.bfloat16)}
    axes = {"table": ("item", None), "half": (None,)}
    mesh = make_mesh("fsdp", jax.devices()[:1])
    params = put_tree(params, shardings(axes, params, mesh, "fsdp"))
    counters = {"best": jnp.float32(best), "best_step": jnp.int32(4), "stale": jnp.int32(0)}
    moments = {"mu": {"table": jnp.zeros((2, 4))}}
    key = jax.random.key(1)
    return TrainState(jnp.int32(step), params, {}, moments, {}, key, **counters)


def save(directory: Path, *states: TrainState, metadata: dict[str, Any] | None = None) -> Path:
    with Checkpoints(directory, keep=3) as checkpoints:
        for each in states:
            step = int(each.step)
            checkpoints.save(step, each, metadata=metadata or METADATA, metric=float(each.best))
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with a stage of two checkpoints and parameters, and one without arrays."""
    workdir = tmp_path_factory.mktemp("run")
    stage = workdir / "knowledge"
    save(stage / "checkpoints", state(4), state(8, shift=0.5))
    save_params(stage / "params", {"table": np.ones((2, 4), np.float32)}, {"stage": "knowledge"})
    facts = {"hash": "h", "settings": {"seed": 3}, "inputs": {}, "done": True, "seconds": 2.0}
    write_json(stage / "stage.json", facts)
    write_json(stage / "metrics.json", {"best": 0.25, "best_step": 4, "history": []})
    write_json(workdir / "data" / "stage.json", {**facts, "settings": {}})
    write_json(workdir / "config.json", {"system": "tpad", "seed": 3})
    return workdir


def test_the_newest_checkpoint_is_described_whichever_folder_is_named(run: Path) -> None:
    found = inspect.inspect(run / "knowledge")
    for path in (run / "knowledge" / "checkpoints", run / "knowledge" / "checkpoints" / "8"):
        other = inspect.inspect(path)
        assert {**other, "steps": 0} == {**found, "steps": 0}
    assert (found["kind"], found["step"], found["steps"]) == ("checkpoint", 8, [4, 8])
    assert found["best"] == {"score": 0.25, "step": 4}
    assert found["metrics"]["HR@20"] == 0.5
    assert found["versions"] == {"jax": "9.9"}
    assert found["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1}
    assert found["settings"]["config.width"] == 4
    assert found["settings"]["stage.settings.seed"] == 3
    arrays = {each.pop("path"): each for each in found["arrays"]}
    table = {"shape": [2, 4], "dtype": "float32", "bytes": 32, "spec": ["fsdp", None]}
    assert arrays["params/table"] == table
    assert arrays["params/half"] == {**table, "shape": [3], "dtype": "bfloat16", "bytes": 6,
                                     "spec": [None]}  # fmt: skip
    assert found["parameters"] == 11
    assert found["bytes"] == sum(each["bytes"] for each in arrays.values())
    json.dumps(found)


def test_an_older_step_and_parameters(run: Path) -> None:
    assert inspect.inspect(run / "knowledge", step=4)["step"] == 4
    found = inspect.inspect(run / "knowledge" / "params")
    assert (found["kind"], found["step"], found["parameters"]) == ("params", None, 8)
    assert found["best"] == {"score": 0.25, "step": 4}
    with pytest.raises(UserError, match=r"no step 5; there are 4, 8"):
        inspect.inspect(run / "knowledge", step=5)


def test_a_run_is_a_row_a_stage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect.inspect(run)
    assert [row["stage"] for row in found["stages"]] == ["data", "knowledge"]
    assert found["stages"][1]["steps"] == [4, 8]
    assert found["settings"] == {"system": "tpad", "seed": 3}
    assert main(["inspect", str(run)]) == 0
    assert main(["inspect", str(run / "knowledge")]) == 0
    printed = capsys.readouterr().out
    for text in ("4, 8", "0.25 at 4", "params/table", "2x4", "fsdp, -", "8 updates done",
                 "opt_state: 1 arrays", "learning_rate: 0.1"):  # fmt: skip
        assert text in printed
    assert main(["inspect", str(run / "knowledge"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 8


def test_stages_follow_what_they_read_and_runs_of_a_folder_are_none_of_it(tmp_path: Path) -> None:
    facts = {"hash": "h", "settings": {}, "done": True, "seconds": 1.0}
    reads = {
        "alpha": {"zeta": ""}, "zeta": {}, "critics/b-1": {}, "evaluate": {"alpha": "", "zeta": ""},
        "heads/deep-0": {"alpha": ""}, "trial-0000/data": {},
    }  # fmt: skip
    for name, inputs in reads.items():
        own = {"group": "heads/deep", "seed": 0} if name.startswith("heads") else {}
        write_json(tmp_path / name / "stage.json", {**facts, **own, "inputs": inputs})
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "stage.json").write_text("{")
    assert inspect.stage_names(tmp_path) == [
        "critics/b-1", "torn", "zeta", "alpha", "evaluate", "heads/deep-0",
    ]  # fmt: skip


def test_what_differs_is_found(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {**METADATA, "config": {"width": 5}, "versions": {"jax": "9.8"}}
    other = state(8, shift=0.75)
    other.params["half"] = jnp.ones(4, jnp.bfloat16)
    other.params["more"] = jnp.ones(2)
    save(tmp_path / "checkpoints", other, metadata=changed)
    found = inspect.compare(run / "knowledge", tmp_path)
    (pair,) = found["pairs"]
    assert "config.width: 4 -> 5" in pair["settings"]
    assert 'versions.jax: "9.9" -> "9.8"' in pair["settings"]
    assert pair["only_b"] == ["params/more"]
    assert pair["only_a"] == []
    assert pair["shapes"] == {"params/half": ["bfloat16[3]", "bfloat16[4]"]}
    assert pair["values"] == {"params/table": 0.25}
    assert not found["bit_equal"]
    assert main(["inspect", str(run / "knowledge"), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "params/table: max |difference| 0.25" in printed
    assert printed.endswith("not bit-equal\n")


def test_the_same_bits_are_told_from_the_same_numbers(run: Path, tmp_path: Path) -> None:
    zero = {"w": np.array([0.0, np.nan, np.inf], np.float32)}
    save_params(tmp_path / "a", zero, {})
    save_params(tmp_path / "b", zero, {})
    assert inspect.compare(tmp_path / "a", tmp_path / "b")["bit_equal"]
    save_params(tmp_path / "b", {"w": -zero["w"]}, {})
    (pair,) = inspect.compare(tmp_path / "a", tmp_path / "b")["pairs"]
    assert pair["values"] == {"params/w": None}  # inf and -inf
    save_params(tmp_path / "b", {"w": np.array([-0.0, np.nan, np.inf], np.float32)}, {})
    (pair,) = inspect.compare(tmp_path / "a", tmp_path / "b")["pairs"]
    assert pair["values"] == {"params/w": 0.0}
    assert not pair["bit_equal"]
    assert inspect.compare(run, run)["bit_equal"]
    with pytest.raises(UserError, match="is a whole run"):
        inspect.compare(run, tmp_path / "a")


def test_runs_differ_in_tables_settings_and_missing_arrays(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / name for name in ("a", "b")]
    for number, each in enumerate(runs):
        shutil.copytree(run, each)
        facts = json.loads((each / "data" / "stage.json").read_text())
        write_json(each / "data" / "stage.json", {**facts, "settings": {"vocab": number}})
        write_json(each / "config.json", {"system": "tpad", "warm_loss": number})
        write_json(each / "read" / "stage.json", facts)
        table = np.array([[number, 4.0]], np.float32)
        write_features(each / "read" / "features.safetensors", {"e": table}, ["i"], {})
    found = inspect.compare(*runs)
    assert found["settings"] == ["warm_loss: 0 -> 1"]
    data, knowledge, read = found["pairs"]
    assert data["settings"] == ["stage.settings.vocab: 0 -> 1"]
    assert knowledge["bit_equal"]
    assert read["values"] == {"features.safetensors/e": 1.0}
    assert not found["bit_equal"]
    assert read["relative"] == {"features.safetensors/e": 0.25}
    assert main(["inspect", *map(str, runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "setting warm_loss: 0 -> 1",
        "data: no arrays to compare",
        f"knowledge: all {knowledge['equal']} arrays are equal, bit by bit",
        "read: 1 of 1 arrays differ, by 1 at most (features.safetensors/e), relative to the "
        "array's largest entry by 0.25 (features.safetensors/e)",
        "not bit-equal",
    ]
    assert main(["inspect", *map(str, runs), "--all"]) == 0
    printed = capsys.readouterr().out
    assert "features.safetensors/e: max |difference| 1, 0.25 relative" in printed
    assert "setting stage.settings.vocab: 0 -> 1" in printed
    shutil.copy(runs[0] / "read" / "features.safetensors", runs[1] / "read")
    assert inspect.compare(*runs)["bit_equal"]
    shutil.rmtree(runs[1] / "knowledge" / "checkpoints")
    shutil.rmtree(runs[1] / "knowledge" / "params")
    found = inspect.compare(*runs)
    assert found["pairs"][1]["only_a"] == ["params"]
    assert not found["bit_equal"]


def test_a_stage_that_has_only_begun_is_not_damaged(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "distill" / "checkpoints").mkdir(parents=True)
    facts = {"hash": "h", "settings": {}, "inputs": {"knowledge": "h"}, "done": False}
    write_json(tmp_path / "run" / "distill" / "stage.json", facts)
    begun = inspect.inspect(tmp_path / "run")["stages"][-1]
    assert begun == {"stage": "distill", "done": False, "seconds": 0.0}


def test_large_checkpoints_are_compared_in_parts(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "AT_ONCE", 40)
    parts: list[list[str]] = []
    read = inspect.read_arrays

    def note(path: Path, names: list[str]) -> Any:
        parts.append(list(names))
        return read(path, names)

    monkeypatch.setattr(inspect, "read_arrays", note)
    (pair,) = inspect.compare(
        run / "knowledge" / "checkpoints" / "4", run / "knowledge" / "checkpoints" / "8"
    )["pairs"]
    assert pair["values"] == {"params/table": 0.5, "step": 4.0}
    assert len(parts) > 2


@pytest.mark.parametrize(
    ("name", "said"),
    [("_CHECKPOINT_METADATA", "cannot be read"), ("_METADATA", "cannot be read"),
     ("d", "cannot be read"), ("metrics", "cannot be read")],
)  # fmt: skip
def test_damage_is_answered_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    step = save(tmp_path / "checkpoints", state(4)) / "4"
    for path in step.rglob("*"):
        if path.is_file() and (path.name == name or path.parent.name == name):
            path.write_bytes(path.read_bytes()[: 0 if name == "metrics" else 20])
    assert main(["inspect", str(tmp_path)]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert "Traceback" not in complaint


def test_what_is_no_checkpoint_is_answered_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        inspect.inspect(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no checkpoint"):
        inspect.inspect(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        inspect.inspect(tmp_path)


def test_a_damaged_stage_hides_no_other(run: Path, tmp_path: Path) -> None:
    facts = json.loads((run / "knowledge" / "stage.json").read_text())
    for name in ("knowledge", "transition"):
        save_params(tmp_path / name / "params", {"w": np.ones(2)}, {})
        write_json(tmp_path / name / "stage.json", facts)
    (tmp_path / "knowledge" / "params" / "_CHECKPOINT_METADATA").write_text("{")
    write_json(tmp_path / "distill" / "stage.json", facts)
    (tmp_path / "distill" / "stage.json").write_text("{")
    unreadable, broken, whole = inspect.inspect(tmp_path)["stages"]
    assert "cannot be read" in broken["damaged"]
    assert whole["parameters"] == 2
    assert "stage.json is damaged" in unreadable["damaged"]
    inspect.show(inspect.inspect(tmp_path))


def test_a_flipped_bit_is_damage(tmp_path: Path) -> None:
    save_params(tmp_path / "params", {"w": np.arange(999.0)}, {})
    files = [path for path in (tmp_path / "params").rglob("*") if path.is_file()]
    path = max(files, key=lambda each: each.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="is not what was written"):
        inspect.inspect(tmp_path)
