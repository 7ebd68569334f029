"""The same text from 1 and from 8 devices, by rule sets that cut batches and matrices."""

from typing import Any

import pytest


@pytest.fixture(scope="module")
def found(on_eight: Any) -> dict[str, Any]:
    """What writers.py printed."""
    return on_eight("writers.py")


@pytest.mark.parametrize("kind", ["texts", "sampled"])
def test_every_rule_set_writes_the_text_of_a_single_device(
    found: dict[str, Any], kind: str
) -> None:
    one = found[kind]["one"]
    assert len({tuple(text) for text in one}) == 5
    for rules in ("dp", "fsdp_tp"):
        assert found[kind][rules] == one, rules


def test_the_parameters_were_cut(found: dict[str, Any]) -> None:
    assert found["query"] == {"dp": [1, 16, 16], "fsdp_tp": [1, 4, 8]}
