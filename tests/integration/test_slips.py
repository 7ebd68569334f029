"""Ten mistyped settings by the command; tests/integration/slips.py types as many as are asked."""

from pathlib import Path

import pytest

from tests.integration.slips import Slip, drawn, fault


@pytest.mark.parametrize("slip", drawn(10, seed=1), ids=lambda slip: f"{slip.spec}{slip.override}")
def test_a_slip_is_answered_before_anything_runs(slip: Slip, tmp_path: Path) -> None:
    assert fault(slip, tmp_path) is None
