"""Tables of items cut over eight devices: what each holds, and the figures of one device."""

from typing import Any

import numpy as np
import pytest

LOSSES = ("full_softmax", "sampled_softmax")
RELATIVE = 1e-5
MOST = {"fsdp_tp": 1 / 8, "tp": 1 / 2, "ranker": 1 / 8}
"""Of each table at most so much lies on a device; "tp" cuts over two."""


@pytest.fixture(scope="module")
def found(on_eight: Any) -> dict[str, Any]:
    """What catalogue.py printed."""
    return on_eight("catalogue.py", *LOSSES)


@pytest.mark.parametrize("way", MOST)
def test_no_device_holds_more_than_its_share_of_a_table(found: dict[str, Any], way: str) -> None:
    shares = found["shares"][way]
    tables = {name.split("/")[-1] for name in shares}
    assert tables >= ({"vectors", "rows", "ids"} if way == "ranker" else {"features", "ids"})
    assert way == "ranker" or tables >= {"logits", "rows", "tail", "valid"}
    assert way == "ranker" or len([name for name in shares if name.endswith("ids")]) == 4
    assert max(shares.values()) <= 1.1 * MOST[way]


def test_no_array_of_a_step_is_a_whole_table(found: dict[str, Any]) -> None:
    assert found["whole"] == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_that_of_one_device(found: dict[str, Any], loss: str) -> None:
    one = found["losses"][f"{loss} one"]
    assert len(one) == 3
    for way in ("fsdp_tp", "tp") if loss == LOSSES[0] else ("fsdp_tp",):
        np.testing.assert_allclose(found["losses"][f"{loss} {way}"], one, rtol=RELATIVE)


def test_every_rank_and_top_list_is_that_of_one_device(found: dict[str, Any]) -> None:
    assert found["ranks"]["fsdp_tp"] == found["ranks"]["one"]
    assert found["top"]["fsdp_tp"] == found["top"]["one"]
    np.testing.assert_allclose(found["scores"]["fsdp_tp"], found["scores"]["one"], rtol=RELATIVE)
