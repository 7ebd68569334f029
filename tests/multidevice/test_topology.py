"""The real tasks on 8 devices by every rule set, and how the towers of size=base lie on them.

The golden files in tests/multidevice/golden are written anew, to be looked at and committed, by

    JMREC_REGENERATE=1 bash launch/test.sh tests/multidevice/test_topology.py
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.models.sessions.table import ENCODERS
from jmrec.xla import FLAG

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
RELATIVE = 1e-5
RULES = ("dp", "fsdp", "tp", "fsdp_tp")


@pytest.fixture(scope="module")
def found(on_eight: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What topologies.py printed.

    Without the flag of `jmrec.xla`: with it XLA adds in an order of its own for each shape of a
    shard, and one of 20 losses of one pair (knowledge, fsdp_tp) was 1.2e-5 apart.
    """
    flags = " ".join(each for each in os.environ["XLA_FLAGS"].split() if FLAG not in each)
    return on_eight("topologies.py", tmp_path_factory.mktemp("runs"), flags=flags)


@pytest.mark.parametrize(
    ("task", "rules"),
    [*((task, rules) for rules in RULES
       for task in ("knowledge", "transition", "student", "ranker")),
     ("assembled", "fsdp_tp"), ("resident", "fsdp_tp")],
)  # fmt: skip
def test_every_rule_set_gives_the_single_device_losses(
    found: dict[str, Any], task: str, rules: str
) -> None:
    losses = found["losses"][task]
    assert len(losses["one"]) == 20
    assert len(set(losses["one"])) == 20
    np.testing.assert_allclose(losses[rules], losses["one"], rtol=RELATIVE)


def test_one_compilation_each(found: dict[str, Any]) -> None:
    assert set(found["compilations"].values()) == {1}


def test_from_8_devices_to_4_to_1_and_back_the_curve_goes_on(found: dict[str, Any]) -> None:
    parts = found["8 4 1 8"]
    assert [len(part) >= 4 for part in parts] == [True] * 4
    # A part may log its last update before it ends or leave that to nobody; the last is whole.
    assert len(parts[-1]) == 5
    one = found["losses"]["transition"]["one"]
    for start, part in zip((0, 5, 10, 15), parts):
        np.testing.assert_allclose(part, one[start : start + len(part)], rtol=RELATIVE)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name not in ("student", "transfer")])
def test_every_encoder_begins_on_8_devices_and_goes_on_on_one(
    found: dict[str, Any], name: str
) -> None:
    one, (first, then) = found[f"{name} one"], found[f"{name} eight, one"]
    # A part may log its last update before it ends or leave that to nobody.
    assert [len(each) >= least for each, least in ((one, 5), (first, 2), (then, 2))] == [True] * 3
    np.testing.assert_allclose(first, one[: len(first)], rtol=RELATIVE)
    both = min(len(one) - 3, len(then))
    np.testing.assert_allclose(then[:both], one[3 : 3 + both], rtol=RELATIVE)


@pytest.mark.parametrize("items", [1, 7])
def test_a_catalogue_that_no_mesh_divides(found: dict[str, Any], items: int) -> None:
    one, eight = found[f"{items} items"]
    assert len(one) == 20
    np.testing.assert_allclose(eight, one, rtol=RELATIVE, atol=1e-6)


@pytest.mark.parametrize("tower", ["vision", "knowledge", "transition", "distill", "student"])
def test_under_fsdp_at_most_2_percent_of_a_tower_of_size_base_is_replicated(
    found: dict[str, Any], tower: str
) -> None:
    assert found["replicated"]["dp"][tower] == 1.0
    assert 0 <= found["replicated"]["fsdp"][tower] <= 0.02
    assert 0 <= found["replicated"]["fsdp_tp"][tower] <= 0.02


@pytest.mark.parametrize("rules", RULES)
def test_the_towers_of_size_base_lie_as_the_golden_file_says(
    found: dict[str, Any], rules: str
) -> None:
    path = GOLDEN / f"base-{rules}.txt"
    if os.environ.get("JMREC_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found["dumps"][rules])
    assert found["dumps"][rules].splitlines() == path.read_text().splitlines()
