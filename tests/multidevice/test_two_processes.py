"""Two processes on one machine: the same curve, whichever of them is killed in between."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RELATIVE = 1e-5
WITHIN = 60
"""Seconds in which a process ends after another was killed."""


@dataclass
class Ended:
    """How a process ended: its exit code, what it said, and how long after the first."""

    code: int
    said: list[str]
    after: float


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(*words: object, processes: int = 1) -> list[Ended]:
    """Run member_of_two.py alone, or in so many kept processes, and wait for all of them."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JMREC_")}
    env |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env |= {"JMREC_SILENCE": "10"}
    port = free_port()
    script = str(Path(__file__).with_name(f"{'keeper' if processes > 1 else 'member'}_of_two.py"))
    started = []
    for process in range(processes):
        own = dict(env)
        if processes > 1:
            own |= {"JMREC_COORDINATOR": f"127.0.0.1:{port}", "JMREC_PROCESS": str(process)}
            own |= {"JMREC_PROCESSES": str(processes)}
        command = [sys.executable, script, *map(str, words)]
        started.append(subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True))
    ended: dict[int, float] = {}
    until = time.monotonic() + 300
    try:
        while len(ended) < processes:
            assert time.monotonic() < until, f"only {sorted(ended)} ended"
            for number, each in enumerate(started):
                if number not in ended and each.poll() is not None:
                    ended[number] = time.monotonic()
            time.sleep(0.1)
    finally:
        for each in started:
            each.kill()
    said = [each.communicate(timeout=60)[1].splitlines() for each in started]
    begin = min(ended.values())
    return [Ended(each.returncode, said[n], ended[n] - begin) for n, each in enumerate(started)]


def plain(lines: list[str]) -> list[str]:
    """What was said besides the progress."""
    return [line for line in lines if line.startswith("jmrec:") or "Error" in line or "F1" in line]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process to the end; and 2, killed, 2, killed, 1, stopped, 2 processes to the end."""
    folder = tmp_path_factory.mktemp("two")
    one, two = folder / "one", folder / "two"
    (alone,) = launch(one)
    assert alone.code == 0, alone.said
    out: dict[str, Any] = {
        "kill 1": launch(two, "kill-keeper", 5, 1, processes=2),
        "kill 0": launch(two, "kill-member", 7, 0, processes=2),
        "stop": launch(two, "stop", 9, 0),
        "last": launch(two, processes=2),
    }
    for name, place in (("one", one), ("two", two)):
        lines = (place / "metrics.jsonl").read_text().splitlines()
        out[f"losses {name}"] = [x["loss"] for x in map(json.loads, lines) if "loss" in x]
        out[f"result {name}"] = json.loads((place / "result.json").read_text())
    return out


@pytest.mark.parametrize("gone", [0, 1])
def test_the_other_ends_with_one_sentence_that_names_the_one_that_is_gone(
    found: dict[str, Any], gone: int
) -> None:
    ended = found[f"kill {gone}"]
    assert ended[gone].code in (-9, 137)
    other = ended[1 - gone]
    assert other.code == 75, other.said
    assert plain(other.said) == [
        f"jmrec: process {gone} of 2 is gone; start the same command again, in all processes, "
        "to go on."
    ]
    assert "Traceback" not in "".join(other.said)
    assert "check failure" not in "".join(other.said).lower()
    assert other.after < WITHIN


def test_two_processes_one_and_two_again_give_the_curve_of_one(found: dict[str, Any]) -> None:
    assert [each.code for each in found["stop"]] == [75]
    assert [each.code for each in found["last"]] == [0, 0], found["last"]
    assert found["result one"]["devices"] == 1
    assert found["result two"]["devices"] == 2
    assert len(found["losses one"]) == 12
    np.testing.assert_allclose(found["losses two"], found["losses one"], rtol=RELATIVE)
    for name, whole in found["result one"]["params"].items():
        again = found["result two"]["params"][name]
        np.testing.assert_allclose(again, whole, rtol=1e-4, atol=1e-6, err_msg=name)
    scores = [
        [row["score"] for row in found[f"result {name}"]["history"]] for name in ("one", "two")
    ]
    assert len(scores[0]) == 3
    np.testing.assert_allclose(scores[1], scores[0], rtol=RELATIVE)


def test_only_the_first_speaks(found: dict[str, Any]) -> None:
    assert found["last"][1].said == []
    assert any("12/12" in line for line in found["last"][0].said)


@pytest.mark.parametrize(
    ("end", "code", "says"),
    [
        ("mistake", 2, "jmrec: process 1: the batch is bad; bring a better one."),
        ("bug", 1, "jmrec: process 1 failed (KeyError); its traceback says where."),
    ],
)
def test_what_goes_wrong_in_one_ends_both_alike(
    tmp_path: Path, end: str, code: int, says: str
) -> None:
    ended = launch(tmp_path, end, 1, 1, processes=2)
    assert [each.code for each in ended] == [code, code], ended
    assert [line for line in ended[0].said if line.startswith("jmrec:")] == [says]
    assert not [line for line in ended[1].said if line.startswith("jmrec:")]
    assert ("KeyError" in "".join(ended[1].said)) == (end == "bug")


def test_a_sigterm_to_one_saves_and_stops_both(tmp_path: Path) -> None:
    ended = launch(tmp_path, "sigterm", 5, 1, processes=2)
    assert [each.code for each in ended] == [75, 75], ended
    (sentence,) = plain(ended[0].said)
    assert plain(ended[1].said) == []
    found = re.fullmatch(
        r"jmrec: SIGTERM after (\d+) updates; the state is saved\. Start the same command again to "
        r"go on\.", sentence,
    )  # fmt: skip
    assert found is not None, sentence
    assert 4 <= int(found[1]) <= 6
    # The first process was not cut off before it had written all.
    assert (tmp_path / "checkpoints" / found[1] / "checksums.json").is_file()
