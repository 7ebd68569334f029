"""Kinds of damage to what a run has on disk: said in a sentence, and nothing safe is lost."""

import contextlib
import ctypes
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.checkpoint import Checkpoints, load_params, save_params
from jmrec.data.text import load_tokenizer, save_tokenizer, train_tokenizer
from jmrec.errors import BAD_INPUT, UserError, refusal
from jmrec.features import read_features, write_features
from jmrec.files import (
    MANIFEST,
    read_json,
    remove_leftovers,
    replace_folder,
    write_json,
    write_manifest,
)
from jmrec.main import main
from jmrec.systems.sealed import FORMAT
from jmrec.systems.stages import Stage, walk
from jmrec.tracking import Tracker

METADATA = {"config": {"width": 3}, "fingerprint": {"split": "a"}}
SHAPE = (64, 16)


def state(step: int) -> dict[str, jax.Array]:
    return {"w": jax.random.normal(jax.random.key(step), SHAPE), "step": jnp.int32(step)}


def target() -> Any:
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state(0))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints 1, 2 and 3, and a folder of parameters, to be copied."""
    folder = tmp_path_factory.mktemp("written")
    with Checkpoints(folder / "checkpoints", keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), metadata=METADATA, metric=float(step))
    save_params(folder / "params", {"w": np.asarray(state(3)["w"])}, {"stage": "x"})
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def largest(folder: Path) -> Path:
    """Return the file with the arrays."""
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Let file permissions count for root too, in this thread and those that it starts."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, after = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    for each in (before, after):
        assert libc.capget(header, each) == 0
    after[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: effective
    assert libc.capset(header, after) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow past 2,000 bytes: the system refuses, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing be made or renamed in a folder."""
    folder.chmod(0o555)
    try:
        with unprivileged():
            yield
    finally:
        folder.chmod(0o755)


def not_jmrec_s(step: Path) -> None:
    path = step / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps({**json.loads(path.read_text()), "custom_metadata": {"step": 3}}))
    (step / MANIFEST).unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a truncated file": lambda step: truncate(largest(step)),
    "a flipped bit": lambda step: flip(largest(step)),
    "a missing file": lambda step: largest(step).unlink(),
    "a missing folder": lambda step: shutil.rmtree(step / "state"),
    "flipped metadata": lambda step: flip(step / "_CHECKPOINT_METADATA"),
    "an empty metric": lambda step: (step / "metrics" / "metrics").write_text(""),
    "a broken manifest": lambda step: truncate(step / MANIFEST),
    "another program's": not_jmrec_s,
    "a manifest that is gone": lambda step: (step / MANIFEST).unlink(),
    "a flipped bit, no manifest": lambda step: (flip(largest(step)), (step / MANIFEST).unlink()),
    "truncated, no manifest": lambda step: (truncate(largest(step)), (step / MANIFEST).unlink()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_used(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder / "checkpoints"
    DAMAGE[kind](root / "3")
    kept = sorted(p.relative_to(root / "3") for p in (root / "3").rglob("*"))
    with Checkpoints(root, keep=3) as checkpoints:
        found, metadata = checkpoints.restore(target(), expected=METADATA)
        assert int(found["step"]) == 2
        np.testing.assert_array_equal(found["w"], state(2)["w"])
        assert metadata == METADATA
        # The run goes on, and makes checkpoint 3 anew.
        checkpoints.save(3, state(3), metadata=METADATA, metric=3.0)
        checkpoints.wait()
        np.testing.assert_array_equal(checkpoints.restore(target())[0]["w"], state(3)["w"])
        assert checkpoints.steps() == [1, 2, 3]
    assert "checkpoint 3 is damaged" in caplog.text
    aside = root / "3.damaged"
    assert sorted(p.relative_to(aside) for p in aside.rglob("*")) == kept


def test_a_kill_between_the_last_byte_and_the_checksums_loses_nothing(folder: Path) -> None:
    """Then the file is there that says so, which a checkpoint with checksums has no more."""
    root = folder / "checkpoints"
    assert not list(root.glob("*.sealing"))
    (root / "3" / MANIFEST).unlink()
    for step in (3, 4):  # of 4 not even the folder was there
        (root / f"{step}.sealing").touch()
    with Checkpoints(root) as checkpoints:
        assert int(checkpoints.restore(target())[0]["step"]) == 3
    # What was read is whole now, and nothing tells of the kill.
    assert (root / "3" / MANIFEST).is_file()
    assert not list(root.glob("*.sealing"))


def test_where_all_are_damaged_nothing_is_touched(folder: Path) -> None:
    root = folder / "checkpoints"
    for step in (1, 2, 3):
        flip(largest(root / str(step)))
    with (
        Checkpoints(root) as checkpoints,
        pytest.raises(
            UserError, match=r"no checkpoint of step 3, 2, 1 can be read \(3: .*; 2: .*; 1: .*move"
        ),
    ):
        checkpoints.restore(target())
    assert sorted(p.name for p in root.iterdir()) == ["1", "2", "3"]


def newer_format(step: Path) -> None:
    path = step / "_CHECKPOINT_METADATA"
    known = json.loads(path.read_text())
    known["custom_metadata"]["format"] = 2
    path.write_text(json.dumps(known))
    write_manifest(step)


@pytest.mark.parametrize(
    ("damage", "expected", "says"),
    [
        (lambda step: None, {"config": {"width": 4}}, r"config\.width \(was 3, now 4\)"),
        (lambda step: None, {"config": {"height": 1}}, r"config\.height \(was absent, now 1\)"),
        (lambda step: None, {"fingerprint": {"split": "b"}}, r"fingerprint\.split \(was 'a'"),
        (newer_format, METADATA, r"3: format 2 is of a newer jmrec"),
        (lambda step: largest(step).chmod(0), METADATA, r"3 can not be read .*Permission denied"),
    ],
    ids=["other config", "older config", "other data", "future version", "wrong owner"],
)
def test_a_whole_checkpoint_that_does_not_belong_is_refused_and_stays(
    damage: Callable[[Path], None], expected: dict[str, Any], says: str, folder: Path
) -> None:
    root = folder / "checkpoints"
    damage(root / "3")
    before = sorted(p.relative_to(root) for p in root.rglob("*"))
    with unprivileged(), Checkpoints(root) as checkpoints, pytest.raises(UserError, match=says):
        checkpoints.restore(target(), expected=expected)
    assert sorted(p.relative_to(root) for p in root.rglob("*")) == before


@pytest.mark.parametrize("how", ["full disk", "read-only folder"])
def test_a_checkpoint_that_can_not_be_written_loses_none(how: str, folder: Path) -> None:
    root = folder / "checkpoints"
    trouble = small_files() if how == "full disk" else read_only(root)

    def save() -> None:
        with Checkpoints(root) as checkpoints, trouble:
            checkpoints.save(4, state(4), metadata=METADATA)
            checkpoints.wait()

    with pytest.raises((UserError, OSError)) as raised:
        save()
    assert refusal(raised.value) in ("File too large", f"{root}/4: Permission denied") or (
        isinstance(raised.value, UserError) and "those before it are whole" in str(raised.value)
    )
    with Checkpoints(root) as checkpoints:
        assert checkpoints.latest_step() == 3
        np.testing.assert_array_equal(checkpoints.restore(target())[0]["w"], state(3)["w"])
        checkpoints.save(4, state(4), metadata=METADATA)
        checkpoints.wait()
        assert int(checkpoints.restore(target())[0]["step"]) == 4


@pytest.mark.parametrize("new_is_whole", [False, True])
def test_a_kill_while_a_step_is_replaced_keeps_one_of_the_two(
    new_is_whole: bool, folder: Path
) -> None:
    root = folder / "checkpoints"
    (root / "3").rename(root / "3.replaced")
    if new_is_whole:
        shutil.copytree(root / "2", root / "3")
    else:
        (root / "3.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(root) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
        step = int(checkpoints.restore(target(), 3)[0]["step"])
        assert step == (2 if new_is_whole else 3)
    assert not list(root.glob("3.*"))


@pytest.mark.parametrize("kind", ["a truncated file", "a flipped bit", "a missing file"])
def test_damaged_parameters_are_said(kind: str, folder: Path) -> None:
    DAMAGE[kind](folder / "params")
    with pytest.raises(UserError, match=r"parameters cannot be read .*stage\.json and start"):
        load_params(folder / "params")


def test_parameters_that_can_not_be_written_leave_the_older_ones(folder: Path) -> None:
    path = folder / "params"
    with small_files(), pytest.raises(Exception, match="File too large") as raised:
        save_params(path, {"w": np.asarray(state(4)["w"])}, {})
    assert refusal(raised.value) == "File too large"
    np.testing.assert_array_equal(load_params(path)[0]["w"], state(3)["w"])
    remove_leftovers(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoints", "params"]
    newer_format(path)
    with pytest.raises(UserError, match="newer jmrec"):
        load_params(path)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.chmod(0)])
def test_damaged_feature_tables_are_said(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    array = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    write_features(path, {"k": array}, list("abcdefghi"), {"stage": "embed"})
    (tmp_path / "stage.json").touch()
    damage(path)
    says = r"is damaged .*stage\.json and start" if path.stat().st_mode & 0o400 else "Permission"
    with unprivileged(), pytest.raises(UserError, match=says):
        read_features(path, list("abcdefghi"))


def test_a_table_that_no_stage_made_is_not_for_jmrec_run_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "added" / "features.safetensors"
    write_features(path, {"k": np.ones((1, 2), np.float32)}, ["a"], {"stage": "added"})
    flip(path)
    with pytest.raises(UserError, match=r"is damaged .*added and make it again \(jmrec embed"):
        read_features(path, ["a"])


def test_every_flipped_bit_of_a_small_table_is_found_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    array = np.arange(3, dtype=np.float32)[:, None]
    write_features(path, {"k": array}, ["a", "b", "c"], {"stage": "embed"})
    whole = path.read_bytes()
    found = 0
    for bit in range(0, 8 * len(whole), 3):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(data))
        try:
            table = read_features(path, ["a", "b", "c"])
        except UserError:
            found += 1
            continue
        np.testing.assert_array_equal(table.arrays["k"], array)
        assert table.provenance["stage"] == "embed"
    assert found > len(whole)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_provenance.json"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_damaged_tokenizer_is_said(
    name: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    save_tokenizer(tmp_path, train_tokenizer(["red shoe", "red hat"] * 9, 300), {"items": 2})
    assert load_tokenizer(tmp_path)[1] == {"items": 2}
    if name == "tokenizer_provenance.json" and damage is flip:
        return  # it is for people; only its checksum is read
    damage(tmp_path / name)
    with pytest.raises(UserError, match="no whole tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda facts: {**facts, "format": FORMAT + 1}, "newer jmrec"),
        (lambda facts: {**facts, "hash": "0", "settings": {"width": 9}}, "width: 9 -> 1"),
        (lambda facts: {"done": True}, "lacks its fields"),
        (lambda facts: [], "lacks its fields"),
        (lambda facts: {**facts, "format": None}, "lacks its fields"),
        (lambda facts: {**facts, "files": ["x"]}, "lacks its fields"),
    ],
    ids=["future version", "other config", "foreign", "no object", "no version", "no checksums"],
)
def test_a_stage_that_does_not_belong_is_refused_before_anything_runs(
    change: Callable[[Any], Any], says: str, tmp_path: Path
) -> None:
    ran: list[str] = []
    stages = [
        Stage(name, {"width": 1}, (), lambda folder, name=name: ran.append(name))  # type: ignore[misc]
        for name in ("a", "b")
    ]
    tracker = Tracker(tmp_path)
    walk(stages, tmp_path, tracker=tracker)
    path = tmp_path / "b" / "stage.json"
    write_json(path, change(read_json(path)))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(UserError, match=says):
        walk(stages, tmp_path, tracker=tracker)
    assert ran == ["a", "b"]


def test_leftovers_of_a_kill_are_removed_when_a_stage_goes_on(tmp_path: Path) -> None:
    def run(folder: Path) -> None:
        assert [path.name for path in folder.iterdir()] == ["stage.json"]

    (tmp_path / "a" / ".prepared.ab12cd_9").mkdir(parents=True)
    (tmp_path / "a" / "params.tmp.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "a" / "metrics.json.tmp").write_text("{")
    (tmp_path / "a.stale" / "checkpoints").mkdir(parents=True)
    walk([Stage("a", {}, (), run)], tmp_path, tracker=Tracker(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("side", "target", "target.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    replace_folder(tmp_path / "side", tmp_path / "target")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == [
        "target", "target/side",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["full disk", "read-only folder", "a file in the way"])
def test_what_the_system_refuses_is_one_sentence(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import jmrec.systems.registry  # noqa: F401  its imports write files of their own

    experiment = Path(__file__).resolve().parents[1] / "integration" / "kill_experiment.py"
    words = ["run", "--config", str(experiment)]
    workdir = tmp_path / "run"
    if how == "a file in the way":
        workdir.write_text("")
    trouble = {
        "full disk": small_files, "read-only folder": lambda: read_only(tmp_path),
        "a file in the way": contextlib.nullcontext,
    }[how]  # fmt: skip
    with trouble():
        assert main([*words, "--workdir", str(workdir)]) == BAD_INPUT
    said = [line for line in capsys.readouterr().err.splitlines() if "started" not in line]
    assert len(said) == 1
    assert said[0].startswith("jmrec: ")
    assert "what was finished is kept" in said[0]
