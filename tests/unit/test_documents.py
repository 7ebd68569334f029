"""README, CONTRIBUTING and CHANGELOG: what they name exists, and their examples work."""

import re
from pathlib import Path

import pytest

from jmrec.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
EXAMPLE = re.compile(r"^```python file=(\S+)", re.M)
"""A file that is not there: a page shows how it would be written."""
PATH = re.compile(r"(?<![\w/.-])((?:jmrec|tests|experiments|launch|notebooks)/[\w./-]*[\w/])")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for example in [
        *EXAMPLE.findall(text),
        "experiments/data/NAME.toml",
        "jmrec/systems/NAME/settings.py",
    ]:
        text = text.replace(example, "")
    named = {name.rstrip("/") for name in PATH.findall(text)}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_experiment_in_contributing_runs(tmp_path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"```python file=experiments/narrow.py\n(.*?)```", page, re.S)
    assert len(blocks) == 1
    file = tmp_path / "narrow.py"
    file.write_text(blocks[0])
    config = load_config(f"{file}:size=small")
    assert config.distill.k == 32
    assert config.distill.t == load_config("experiments/tpad.py:size=small").distill.t
