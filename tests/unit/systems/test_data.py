"""What stage "data" says of the data before anything is trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jmrec.config import load_config
from jmrec.systems.data import RunData
from jmrec.systems.work import Work


@pytest.mark.parametrize(("ease_items", "told"), [(20_000, 0), (50, 0), (10, 1)])
def test_the_bound_of_ease_is_told_when_the_catalogue_is_known(
    ease_items: int, told: int, tmp_path: Path
) -> None:
    sizes = ["--config.data.toyshop.n_items=50", "--config.data.toyshop.sessions=200"]
    bound = f"--config.evaluate.ease_items={ease_items}"
    config = load_config("session:size=tiny", [*sizes, bound])
    said = list[str]()
    tracker: Any = SimpleNamespace(warn=said.append)
    folder = tmp_path / "data"
    folder.mkdir()
    RunData(Work(config, tmp_path, tracker)).stage().run(folder)
    found = [each for each in said if each.startswith("EASE knows the 10 most frequent of ")]
    assert len(found) == told
    assert all("evaluate.ease_items=" in each for each in found)
