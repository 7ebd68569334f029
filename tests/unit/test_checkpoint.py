"""Checkpoints on disk: what is kept, what comes back, what is refused."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from jmrec.checkpoint import Checkpoints, check_metadata, load_params, save_params
from jmrec.errors import UserError
from jmrec.models.linen import check_fit
from jmrec.sharding import make_mesh, replicated

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())


def state(value: float) -> dict[str, Any]:
    params = {"w": jnp.full((2, 3), value), "half": jnp.full(2, value, jnp.bfloat16)}
    return {
        "step": jnp.int32(7),
        "params": params,
        "opt_state": TX.init(params),
        "task_state": {},
        "key": jax.random.key(11),
    }


def abstract() -> Any:
    whole = replicated(make_mesh(devices=jax.devices()[:1]))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
        jax.eval_shape(lambda: state(0.0)),
    )


def test_all_of_a_state_comes_back(tmp_path: Path) -> None:
    metadata = {"fingerprint": "a", "mesh": {"data": 1}, "x": [0.1, float("nan")], "none": None}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(7, state(0.3), metadata=metadata, metric=0.5)
        checkpoints.wait()
        found, kept = checkpoints.restore(abstract())
    assert jax.tree.structure(found) == jax.tree.structure(state(0.3))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(0.3))):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
    assert kept["x"][0] == 0.1
    assert np.isnan(kept["x"][1])
    assert {k: kept[k] for k in ("fingerprint", "mesh", "none")} == {
        k: metadata[k] for k in ("fingerprint", "mesh", "none")
    }


def test_the_last_and_the_best_are_kept_and_a_step_can_be_replaced(tmp_path: Path) -> None:
    tree, target = {"w": jnp.ones(2)}, {"w": abstract()["params"]["w"].update(shape=(2,))}
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
        with pytest.raises(UserError, match="no checkpoint; train first"):
            checkpoints.restore(target)
        for step, metric in ((2, 0.1), (4, 0.9), (6, None), (8, 0.3), (10, None), (12, None)):
            checkpoints.save(step, tree, metadata={}, metric=metric)
        checkpoints.wait()
        assert checkpoints.steps() == [4, 8, 10, 12]
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (12, 4)
        checkpoints.save(12, {"w": jnp.zeros(2)}, metadata={"again": True})
        found, metadata = checkpoints.restore(target)
        assert (found["w"].tolist(), metadata) == ([0.0, 0.0], {"again": True})
        assert checkpoints.restore(target, step=4)[0]["w"].tolist() == [1.0, 1.0]
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best_step() == 4


def test_a_half_written_one_is_ignored_and_a_damaged_one_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "c"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(float(step)), metadata={"at": step}, metric=float(step))
    (folder / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (folder / "3" / "_CHECKPOINT_METADATA").write_text("{")
    for path in (folder / "2").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:40])
    with Checkpoints(folder) as checkpoints:
        found, metadata = checkpoints.restore(abstract())
        assert float(found["params"]["w"][0, 0]) == metadata["at"] == 1
        assert checkpoints.best_step() == checkpoints.latest_step() == 1
        assert (folder / "3.damaged").is_dir()
        # Its step can be written again.
        checkpoints.save(3, state(3.0), metadata={})
        checkpoints.wait()
        assert checkpoints.latest_step() == 3
    assert "damaged" in caplog.text


def test_whole_checkpoints_stay_where_the_target_does_not_fit(tmp_path: Path) -> None:
    wrong = abstract()
    wrong["params"]["w"] = wrong["params"]["w"].update(shape=(5, 5))
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, state(1.0), metadata={})
        with pytest.raises(UserError, match="no checkpoint of step 1 can be read"):
            checkpoints.restore(wrong)
        assert checkpoints.restore(abstract())[0]["params"]["w"].shape == (2, 3)


def test_changed_metadata_are_named() -> None:
    stored = {"fingerprint": {"split": "a", "seed": 1}, "config": {"lr": [1, 2]}, "mesh": 8}
    check_metadata(stored, {"fingerprint": {"split": "a", "seed": 1}, "mesh": 1})
    check_metadata(stored, {"config": {"lr": (1, 2)}})
    with pytest.raises(UserError, match=r"fingerprint\.seed \(was 1, now 2\)"):
        check_metadata(stored, {"fingerprint": {"split": "a", "seed": 2}})
    with pytest.raises(UserError, match=r"config\.clip \(was absent, now 1\)"):
        check_metadata(stored, {"config": {"lr": [1, 2], "clip": 1}})
    with pytest.raises(UserError, match=r"config\.lr .*; config\.x|config\.lr"):
        check_metadata(stored, {"config": {"lr": [1, 3]}})
    with pytest.raises(UserError, match=r"config \(was None"):
        check_metadata({}, {"config": {"lr": 1}})


def test_expected_metadata_are_checked_before_the_state_is_read(tmp_path: Path) -> None:
    wrong = abstract()
    wrong["params"] = {"another": wrong["params"]["w"]}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, state(1.0), metadata={"config": {"width": 3}})
        with pytest.raises(UserError, match=r"config\.width \(was 3, now 4\)"):
            checkpoints.restore(wrong, expected={"config": {"width": 4}})


def test_parameters_of_a_finished_stage(tmp_path: Path) -> None:
    params = {"a": {"w": np.arange(6.0).reshape(2, 3)}, "h": jnp.ones(2, jnp.bfloat16)}
    path = tmp_path / "stage" / "params"
    save_params(path, {"old": np.ones(1)}, {"n": 0})
    save_params(path, params, {"n": 1})
    found, metadata = load_params(path)
    assert metadata == {"n": 1}
    assert isinstance(found["a"]["w"], np.ndarray)
    np.testing.assert_array_equal(found["a"]["w"], params["a"]["w"])
    assert found["h"].dtype == ml_dtypes.bfloat16
    placed, _ = load_params(
        path, {"a": {"w": abstract()["params"]["w"]}, "h": abstract()["params"]["half"]}
    )
    assert isinstance(placed["a"]["w"], jax.Array)
    assert placed["a"]["w"].dtype == np.float32
    with pytest.raises(UserError, match="no parameters here"):
        load_params(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        load_params(tmp_path / "empty")


def test_parameters_of_another_model_are_refused_by_name() -> None:
    wanted = {"tower": {"w": np.ones((2, 3)), "b": np.ones(3)}}
    check_fit(jax.tree.map(np.zeros_like, wanted), jax.eval_shape(lambda: wanted), "run/student")
    wrong = {
        "'tower/w' is missing": {"tower": {"b": np.ones(3)}},
        "'tower/c' is no part": {"tower": {**wanted["tower"], "c": np.ones(1)}},
        r"'tower/b' has shape \(4,\)": {"tower": {**wanted["tower"], "b": np.ones(4)}},
    }
    for message, params in wrong.items():
        with pytest.raises(UserError, match=rf"run/student: {message}.*another --workdir"):
            check_fit(params, wanted, "run/student")
