"""Seeds of a real student at once, on one and on 8 devices, against each alone on one."""

from typing import Any

import numpy as np
import pytest

LABELS = ("one", "dp", "fsdp_tp", "fsdp_tp, one after another")
CLOSE = 1e-4
"""Parameters were seen 1.9e-6 apart at most, the sums over eight devices in another order."""


@pytest.fixture(scope="module")
def found(on_eight: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What populations.py printed."""
    return on_eight("populations.py", tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("label", LABELS)
def test_members_equal_their_solo_runs(found: dict[str, Any], label: str) -> None:
    alone = found["alone"]
    assert [len(each) for each in alone] == [20, 20]
    assert alone[0] != alone[1]
    np.testing.assert_allclose(found["losses"][label], alone, rtol=CLOSE)
    assert max(found["apart"][label]) < CLOSE
    alone_flops = found["flops"]["alone"]
    if label.startswith("fsdp_tp"):
        # A device's rows are one block, whose logits are kept where one device computes them again.
        assert found["flops"][label] == found["flops"]["fsdp_tp"]
        assert 0.7 * alone_flops < found["flops"][label] < alone_flops
    else:
        assert found["flops"][label] == alone_flops > 0
    assert found["compilations"][label] == 1


def test_their_state_is_cut_over_the_devices_as_one_alone_is(found: dict[str, Any]) -> None:
    assert found["share"]["one"] == found["share"]["dp"] == 1
    assert found["share"]["fsdp_tp"] == found["share"]["fsdp_tp, one after another"] < 0.3
