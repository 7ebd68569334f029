"""``jmrec plan`` for 8 devices against what 8 fake devices hold, and against what cannot fit."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jmrec.config import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "experiments/tpad.py:size=tiny"
STAGES = ("transition", "distill")
WIDTH = (2 * 3 + 1) * 64
"""Numbers of e: mean and maximum of the picture and of two fields, and the end, 64 wide."""
SIZES = {"items": 1500, "vocab": 500, "fields": [5, 7]}
ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def plan(*words: str) -> dict[str, Any]:
    """Run the command in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "jmrec", "plan", "--json", *words],
        env=ENV, cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    report: dict[str, Any] = json.loads(run.stdout)
    return report


@pytest.fixture(scope="module")
def held(on_eight: Any) -> dict[str, Any]:
    """What plan_eight_devices.py printed."""
    config = load_config(CONFIG, ["--config.rules=fsdp_tp"]).to_dict()
    asked = {"config": config, "stages": STAGES, **SIZES}
    return on_eight("plan_eight_devices.py", said=json.dumps(asked))


@pytest.fixture(scope="module")
def planned() -> dict[str, Any]:
    """The same stages, planned."""
    words = [word for stage in STAGES for word in ("--stage", stage)]
    return plan(
        "--config", CONFIG, "--topology", "cpu:8", "--rules", "fsdp_tp", *words,
        "--items", "1500", "--vocab", "500", "--fields", "5,7",
    )  # fmt: skip


def test_the_plan_is_what_eight_devices_hold(held: dict[str, Any], planned: dict[str, Any]) -> None:
    assert held["devices"] == planned["devices"] == 8
    assert [stage["stage"] for stage in planned["stages"]] == list(STAGES)
    for stage in planned["stages"]:
        real = held[stage["stage"]]
        assert stage["held"] == real["held"]
        assert stage["held"]["parameters"] == real["on paper"]
        assert stage["whole"]["parameters"] == real["whole"]
        assert stage["parameters"] == real["numbers"]
        # The compiler's own sum: it is not given what the step does not read (gaps and event types,
        # 8 of a position's 21 bytes; the Transfer tower's item matrix where it only encodes), and
        # gets the traced numbers: the task's, and decay, clip, warm-up and the end of the schedule.
        item_matrix = WIDTH * 64 * 4 // 4  # cut over four devices
        own, unread = {"transition": (3, 0), "distill": (5, item_matrix)}[stage["stage"]]
        unread += stage["held"]["batch"] * 8 // 21
        assert stage["compiled"]["arguments"] == (
            sum(stage["held"].values()) - unread + 4 * (own + 4)
        )
        assert stage["compiled"]["activations"] > 0
        assert stage["verdict"]["fits"] is True


def test_the_plan_says_what_it_costs_and_what_is_whole(planned: dict[str, Any]) -> None:
    transition = planned["stages"][0]
    assert transition["flops"] > 1e7
    assert transition["collectives"]["all-reduce"]["bytes"] > 0
    whole = transition["replicated"]["parameters"]
    assert 0 < whole["share"] < 1
    assert whole["largest"][0] == "head/bias"  # no axis of it has a rule
    # Tables with an item axis are padded to a multiple of 1,024 and cut over all eight devices.
    assert transition["replicated"]["frozen"]["share"] == 0.0
    assert transition["held"]["frozen"] == 2048 // 8 * (WIDTH * 4 + 1)
    assert planned["peak_memory"] < 4 * 2**30


def test_what_cannot_fit_is_recognised_and_a_tpu_needs_no_libtpu() -> None:
    report = plan(
        "--config", CONFIG, "--topology", "v5e:2x4", "--stage", "transition", "--without-libtpu",
        "--config.transition.stack.width=16384", "--config.transition.stack.layers=48",
    )  # fmt: skip
    assert (report["compiler"], report["devices"], report["fits"]) == ("cpu", 8, False)
    (stage,) = report["stages"]
    assert stage["parameters"] > 3e10
    assert stage["held"]["parameters"] == stage["whole"]["parameters"] == 4 * stage["parameters"]
    assert "does not fit" in stage["verdict"]["words"]
    assert stage["verdict"]["knobs"][0].startswith("--rules fsdp")
    assert report["peak_memory"] < 4 * 2**30


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the optional extra tpu-plan"
)
def test_a_tpus_own_compiler() -> None:
    words = ("--config", CONFIG, "--topology", "v5e:2x4", "--stage", "transition")
    report = plan(*words)
    assert (report["compiler"], report["fits"]) == ("tpu", True)
    small = report["stages"][0]["compiled"]
    assert 0 < small["activations"] < 2**30
    large = plan(
        *words, "--config.transition.stack.width=4096", "--config.transition.stack.layers=24"
    )
    assert large["fits"] is False
    assert "exceeds available HBM" in large["stages"][0]["out_of_memory"]
