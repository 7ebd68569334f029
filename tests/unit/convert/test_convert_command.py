"""``jmrec convert``: a whole checkpoint with its origin, or a sentence and nothing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jmrec.convert import efficientnet as table
from jmrec.convert import families
from jmrec.convert.table import Entry
from jmrec.errors import UserError
from jmrec.main import main
from jmrec.models.readers.efficientnet import BlockConfig, EfficientNetConfig, efficientnet
from jmrec.systems import pretrained
from jmrec.systems.pretrained import convert_to, read_converted
from jmrec.tools.inspect import inspect
from tests.unit.convert import torch_by_hand

TINY = EfficientNetConfig(8, (BlockConfig(8, expand=1),), stem=8, head=8, classes=3)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny network one of the published sizes."""
    monkeypatch.setitem(table.LITE, "tiny", TINY)


def weights() -> dict[str, np.ndarray]:
    """Return a state_dict of the tiny network, under the published names."""
    shapes = {
        "_conv_stem.weight": (8, 3, 3, 3),
        "_blocks.0._depthwise_conv.weight": (8, 1, 3, 3),
        "_blocks.0._project_conv.weight": (8, 8, 1, 1),
        "_conv_head.weight": (8, 8, 1, 1),
        "_fc.weight": (3, 8),
        "_fc.bias": (3,),
    }
    for norm in ("_bn0", "_bn1", "_blocks.0._bn1", "_blocks.0._bn2"):
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{norm}.{part}": (8,) for part in parts}
        shapes[f"{norm}.num_batches_tracked"] = ()
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return torch_by_hand.save(weights(), tmp_path / "tiny.pth")


@pytest.mark.usefixtures("tiny")
def test_the_command_writes_a_whole_model(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "weights"
    assert main(["convert", str(source), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    loaded = families.load_pretrained(source)
    assert said["family"] == "efficientnet"
    assert said["parameters"] == sum(x.size for x in jax.tree.leaves(loaded.params))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert said["provenance"]["sha256"] == {"tiny.pth": digest}
    assert str(tmp_path) not in json.dumps(said["provenance"])
    read = read_converted(out)
    assert read.model.config == TINY
    held = hashlib.sha256((out / "checksums.json").read_bytes()).hexdigest()
    assert said["provenance"] == loaded.provenance
    assert read.provenance == {**loaded.provenance, "held": held}
    jax.tree.map(np.testing.assert_array_equal, read.params, loaded.params)
    assert {path.name for path in out.parent.iterdir()} == {"weights"}
    settings = inspect(out)["settings"]
    assert settings["provenance.sha256.tiny.pth"] == digest
    # Again: the older one is replaced; in another type.
    assert main(["convert", str(source), "--out", str(out), "--dtype", "bfloat16"]) == 0
    assert "licence: not stated" in capsys.readouterr().out
    assert {str(x.dtype) for x in jax.tree.leaves(read_converted(out).params)} == {"bfloat16"}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("how", ["missing", "extra", "shape", "class", "cut"])
def test_what_does_not_fit_leaves_nothing_behind(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    broken, named = weights(), "_blocks.0._bn2.running_mean"
    more = {}
    if how == "missing":
        del broken[named]
    elif how == "extra":
        named = "_blocks.0._se_reduce.weight"
        broken[named] = np.ones(2)
    elif how == "shape":
        broken[named] = np.ones(9)
    elif how == "class":
        named = "torch.nn.modules.linear.Linear"
        more["x"] = b"ctorch.nn.modules.linear\nLinear\n"
    torch_by_hand.save(broken, source, **more)
    if how == "cut":
        named = str(source)
        source.write_bytes(source.read_bytes()[:-2000])
    out = tmp_path / "out"
    assert main(["convert", str(source), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert len(said.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.pth"}


@pytest.mark.usefixtures("tiny")
def test_a_kill_while_it_writes_keeps_the_older_model(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    convert_to(source, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "replace_folder", stop)
    with pytest.raises(KeyboardInterrupt):
        convert_to(source, out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.pth", "out"}


@pytest.mark.usefixtures("tiny")
def test_another_folder_is_never_replaced(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "params").mkdir(parents=True)
    (out / "stage.json").write_text("{}")
    with pytest.raises(UserError, match="is no converted model"):
        convert_to(source, out)
    with pytest.raises(UserError, match="is no converted model"):
        convert_to(source, source)
    assert (out / "stage.json").exists()


@pytest.mark.usefixtures("tiny")
def test_a_damaged_model_is_a_sentence(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="make one: jmrec convert"):
        read_converted(out)
    convert_to(source, out)
    for path in (out / "params").rglob("*"):
        if path.is_file() and path.stat().st_size:
            content = path.read_bytes()
            path.write_bytes(content[:-1])
            with pytest.raises(UserError, match="damaged"):
                read_converted(out)
            path.write_bytes(content)
    read_converted(out)


def test_a_folder_of_hugging_face_brings_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "hub"
    folder.mkdir()
    model = efficientnet(TINY)
    params = model.init(jax.random.key(0))
    flat = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
    save_file({n: np.asarray(x) for n, (_, x) in zip(names, flat)}, folder / "model.safetensors")
    for name in ("tokenizer.json", "config.json", "modeling_evil.py"):
        (folder / name).write_text("{}")
    family = families.Family(
        EfficientNetConfig,
        lambda source: "stem/kernel" in source.names(),
        lambda source: TINY,
        efficientnet,
        lambda config, source: [Entry(name, name) for name in names],
    )
    monkeypatch.setitem(families.FAMILIES, "own", family)
    found = convert_to(folder, tmp_path / "out")
    assert found["files"] == ["params", "tokenizer.json"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("params", "tokenizer.json", "checksums.json")
    }
    jax.tree.map(np.testing.assert_array_equal, read_converted(tmp_path / "out").params, params)


def test_what_is_no_known_model_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch_by_hand.save({"w": np.ones(2)}, tmp_path / "x.pth")
    words = ["convert", str(tmp_path / "x.pth"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "no model that jmrec knows" in capsys.readouterr().err
    assert main([*words, "--family", "nonsense"]) == 2
    assert "'nonsense' is not known; choose one of efficientnet" in capsys.readouterr().err
    assert main([*words, "--family", "efficientnet"]) == 2
    assert "none of EfficientNet-lite0" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    said = capsys.readouterr().out
    for word in ("wheel:NAME", "Nothing in a source is ever run", "jmrec convert wheel:"):
        assert word in said
