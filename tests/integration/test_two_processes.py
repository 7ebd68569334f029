"""The whole of TPAD in two processes, each killed once: what one process gives.

Started by launch/local_multiprocess.sh, as a user would. The fits themselves are compared closely
in tests/multidevice/test_two_processes.py; here are the stages, the files and the report around it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 60
SMALL = [
    "--config",
    f"{ROOT / 'experiments/tpad.py'}:data=folder,size=tiny,ablate=id_only",
    *tiny.SHAPES,
    *tiny.updates(4, "vision", "knowledge", "transition"),
    *tiny.updates(2, "distill"),
    *tiny.updates(8, "student"),
    "--config.transition.train.eval_every=2",
    "--config.transition.train.save_every=2",
    "--config.student.train.eval_every=2",
    "--config.student.train.save_every=2",
    "--config.on_device=always",
]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JMREC_")}
    kept |= {"JMREC_SILENCE": "10"}  # nobody works while it is waited for
    return {**kept, "JMREC_PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}


def launch(words: list[str], kill: str = "", once: Path | None = None) -> tuple[int, str, float]:
    """Run two processes; kill one of them once a file is there.

    Returns:
      The launcher's exit code, what was said, the seconds from the kill to the end.
    """
    command = ["bash", str(ROOT / "launch/local_multiprocess.sh"), "2", *words]
    log = Path(words[-1]).with_suffix(".log")
    with log.open("w") as file:
        script = subprocess.Popen(
            command, env=environment(), stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    begin = time.monotonic()
    try:
        if once is not None:
            while not once.exists():
                assert script.poll() is None, log.read_text()
                assert time.monotonic() - begin < 900, log.read_text()
                time.sleep(0.1)
            number = re.search(rf"^process {kill} is (\d+)$", log.read_text(), re.MULTILINE)
            assert number is not None, log.read_text()
            os.kill(int(number[1]), signal.SIGKILL)
            begin = time.monotonic()
        script.wait(timeout=900)
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)
    return script.returncode, log.read_text(), time.monotonic() - begin


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("two")
    # So many that an item of nearly another's score, which is in one list and not in the other,
    # moves no figure by 0.02.
    write_toyshop(folder / "shop", ToyShopConfig(seed=3, items=60, sessions=800))
    (folder / "shop" / "truth.npz").unlink()
    one, two = folder / "one", folder / "two"
    words = [*SMALL, f"--config.data.dir={folder / 'shop'}", "--workdir"]
    subprocess.run(
        [sys.executable, "-m", "jmrec", "run", *words, str(one)],
        env={**environment(), "PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
    )  # fmt: skip
    last = two / "students" / "id-only-0" / "stage.json"
    return {
        "1": launch([*words, str(two)], "1", two / "transition" / "stage.json"),
        "0": launch([*words, str(two)], "0", last),
        # Killed while both rank, each its part.
        "ranks": launch([*words, str(two)], "1", two / "evaluate" / "stage.json"),
        "last": launch([*words, str(two)]),
        "one": one,
        "two": two,
    }


@pytest.mark.parametrize("kill", ["1", "0", "ranks"])
def test_the_other_names_who_is_gone_and_the_launcher_says_75(
    found: dict[str, Any], kill: str
) -> None:
    gone = "1" if kill == "ranks" else kill
    code, said, seconds = found[kill]
    assert code == 75, said
    sentences = [line for line in said.splitlines() if line.startswith("jmrec:")]
    assert sentences == [
        f"jmrec: process {gone} of 2 is gone; start the same command again, in all processes, "
        "to go on."
    ]
    assert "Traceback" not in said
    assert seconds < WITHIN


def curves(workdir: Path) -> dict[tuple[str, int, str], float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {
        (row["stage"], row["step"], name): value
        for row in rows
        for name, value in row.items()
        if name not in ("stage", "step")
    }


def test_the_run_ends_as_one_process_does(found: dict[str, Any]) -> None:
    code, said, _ = found["last"]
    assert code == 0, said
    one, two = curves(found["one"]), curves(found["two"])
    assert set(one) == set(two)
    assert len(one) > 20
    for key, value in one.items():
        # The part of an estimate of some 10 nats that lies above 0: what it was cut from counts.
        atol = 1e-3 if key[2].startswith("disentangle") else 1e-5
        # These count ranks, where two items of nearly one score may change places.
        atol = 0.02 if key[2].startswith("eval/") else atol
        np.testing.assert_allclose(two[key], value, rtol=1e-3, atol=atol, err_msg=str(key))
    results = [
        json.loads((found[name] / "evaluate" / "results.json").read_text())
        for name in ("one", "two")
    ]
    rows = [{row["name"]: row["figures"] for row in each["rows"]} for each in results]
    assert set(rows[0]) == set(rows[1])
    for name, figures in rows[0].items():
        for figure, values in figures.items():
            for metric, value in values.items():
                again = rows[1][name][figure][metric]
                assert again == pytest.approx(value, abs=0.02), (name, figure, metric)


def test_both_rank_each_its_part(found: dict[str, Any]) -> None:
    cost = json.loads((found["two"] / "evaluate" / "cost.json").read_text())
    first, second = cost["evaluation"]["ranked"]
    # All rows and settings together: the first has a part of each, the second too.
    assert min(first, second) > 0.4 * max(first, second) > 1000
    assert (
        "ranked"
        not in json.loads((found["one"] / "evaluate" / "cost.json").read_text())["evaluation"]
    )
    report = (found["two"] / "evaluate" / "report.html").read_text()
    assert f"process 0 {first:,}, process 1 {second:,}" in report


def test_only_the_first_writes_and_speaks(found: dict[str, Any]) -> None:
    two = found["two"]
    assert sorted(path.name for path in two.iterdir()) == sorted(
        path.name for path in found["one"].iterdir()
    )
    assert len((two / "test_reads.jsonl").read_text().splitlines()) == 1
    said = found["1"][1].splitlines()
    for line in ("data: started", "transition: started"):
        assert sum(each.startswith(line) for each in said) == 1
