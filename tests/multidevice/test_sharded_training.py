"""The same curve on 1 and on 8 devices, by every rule set, and across a resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RELATIVE = 1e-5
"""Summation order differs between topologies; nobody relaxes this."""


@pytest.fixture(scope="module")
def found(on_eight: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What eight_devices.py printed."""
    return on_eight("eight_devices.py", tmp_path_factory.mktemp("runs"), flags="")


def test_every_rule_set_gives_the_single_device_losses(found: dict[str, Any]) -> None:
    assert found["devices"] == 8
    one = found["losses"]["one"]
    assert len(one) == 10
    assert one[-1] < 0.9 * one[0]
    for name in ("dp", "fsdp", "fsdp_tp", "accumulated"):
        np.testing.assert_allclose(found["losses"][name], one, rtol=RELATIVE, err_msg=name)
        if name != "accumulated":  # its bank decays once a microbatch
            np.testing.assert_allclose(found["bank"][name], found["bank"]["one"], rtol=RELATIVE)


def test_muon_gives_the_single_device_losses(found: dict[str, Any]) -> None:
    one = found["muon"]["dp 1"]
    assert one[-1] < 0.9 * one[0]
    assert one != found["losses"]["one"]
    for name in ("dp 8", "fsdp_tp 8"):
        np.testing.assert_allclose(found["muon"][name], one, rtol=RELATIVE, err_msg=name)
    np.testing.assert_allclose(found["muon 8 to 1"]["losses"], one[5:], rtol=RELATIVE)


def test_the_average_is_that_of_a_single_device(found: dict[str, Any]) -> None:
    one, last = found["average"]["1"], found["8 to 1"]["table"]
    assert found["average spec"] == found["specs"]["fsdp_tp"]["table"]
    for other in (found["average"]["8"], found["average 8 to 1"]):
        np.testing.assert_allclose(other, one, rtol=RELATIVE, atol=1e-6)
    assert np.abs(np.subtract(one, last)).max() > 1e-3


def test_parameters_and_moments_are_born_where_the_rules_say(found: dict[str, Any]) -> None:
    assert set(found["specs"]["dp"].values()) == {"(None, None)"}
    assert found["specs"]["fsdp"] == {
        "table": "('fsdp', None)",
        "up": "('fsdp', None)",
        "down": "(None, 'fsdp')",
        "odd": "(None, None)",
    }
    assert found["specs"]["fsdp_tp"] == {
        "table": "(('fsdp', 'tensor'), None)",
        "up": "('fsdp', 'tensor')",
        "down": "('tensor', 'fsdp')",
        "odd": "('tensor', None)",
    }
    assert found["moments"] == found["specs"]
    assert len(set(found["born"].values())) == 1
    odd = 24 * 5 / (32 * 16 + 2 * 16 * 24 + 24 * 5)
    assert found["share"]["dp"] == 1
    assert found["share"]["fsdp"] == pytest.approx((1 - odd) / 8 + odd)
    assert found["share"]["fsdp_tp"] == pytest.approx((1 - odd) / 8 + odd / 2)


def test_an_axis_that_does_not_divide_is_replicated_and_logged(found: dict[str, Any]) -> None:
    assert found["odd"] == "(None, None)"
    assert "axis 'embed' of size 6 does not divide by 8; replicated" in found["stderr"]


def test_one_compilation_each(found: dict[str, Any]) -> None:
    assert set(found["compilations"].values()) == {1}


def test_to_save_what_eight_devices_hold_alike_compiles_nothing(found: dict[str, Any]) -> None:
    assert found["programs of a save"] == []


@pytest.mark.parametrize(("way", "devices"), [("8 to 1", 1), ("1 to 8", 8)])
def test_a_checkpoint_opens_on_another_topology(
    found: dict[str, Any], way: str, devices: int
) -> None:
    assert found[way]["devices"] == devices
    saved = {"8 to 1": "8 devices, now 1", "1 to 8": "1 device, now 8"}[way]
    assert found[way]["said"] == [f"stage: resumed at 5 (saved on {saved})"]
    losses = found[way]["losses"]
    np.testing.assert_allclose(losses, found["losses"]["one"][5:], rtol=RELATIVE)


def test_batches_lie_over_all_devices_or_are_refused(found: dict[str, Any]) -> None:
    assert "a batch of 12 does not divide over 8 devices" in found["does not divide"]
    assert found["stacked"] == [2, 2, 3]
