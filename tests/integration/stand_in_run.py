"""What the sweep's tests run in place of ``jmrec run``: it trains nothing, but it ends, resumes and
writes as a run does, and it stops at gates so that a test can kill it at a known moment.

Settings: rate (the score), fail (exit 3 with a last line), hang (never end unless terminated). A
trial that begins waits until two have begun; where two have ended, it stops half-way until the
file ``open`` lies beside the trials.
"""

import fcntl
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

STEPS = 6


def main() -> None:
    words = sys.argv[1:]
    folder = Path(words[words.index("--workdir") + 1])
    settings = dict(word.removeprefix("--config.").split("=", 1) for word in words if "=" in word)
    # Some code that a SIGTERM interrupts reports it as an error of its own.
    code = 2 if settings.get("decay") == "1.0" else 75
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    assert settings["evaluate.split"] == "validation"
    sweep = folder.parent
    with (folder / "starts.txt").open("a") as file:
        file.write(" ".join(words) + "\n")
    alone = (folder / "alone").open("a")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (folder / "clash").touch()  # two at once
    score = float(settings.get("rate", 0))
    if settings.get("fail", "False") == "True":
        sys.exit("a long story\nrate is broken; mend it.\n")
    gates = not (sweep / "no-gates").exists()

    at = folder / "step.txt"
    for step in range(int(at.read_text()) if at.exists() else 0, STEPS):
        if step == 1 and gates:
            wait_for(lambda: len(list(sweep.glob("trial-*/starts.txt"))) > 1)
        if step == STEPS // 2 and gates:
            wait_for(lambda: len(list(sweep.glob("trial-*/ends.txt"))) < 2 or is_open(sweep))
        with (folder / "metrics.jsonl").open("a") as file:
            line = {"stage": "students/s-0", "step": step, "eval/score": score * (step + 1) / STEPS}
            file.write(json.dumps(line) + "\n")
        at.write_text(str(step + 1))
    if settings.get("hang", "False") == "True":
        wait_for(lambda: False)
    results = folder / "evaluate" / "results.json"
    if not results.exists():
        results.parent.mkdir(exist_ok=True)
        row = {"name": "s", "kind": "student", "seeds": 1, "interval": {}}
        row["figures"] = {"session": {"MRR@20": score}}
        found = {
            **{"format": 2, "system": "tpad", "caption": "", "served": None, "best_rule": None},
            **{"primary": {"figure": "session", "metric": "MRR@20"}, "comparisons": []},
            **{"dataset": {"name": "x", "split": "validation"}, "rows": [row], "test_reads": 0},
            "kinds": [{"name": "student", "title": "Students", "role": "model"}],
            **{"stages": {}, "curves": {}},
        }
        results.write_text(json.dumps(found))
        with (folder / "ends.txt").open("a") as file:
            file.write("end\n")


def is_open(sweep: Path) -> bool:
    return (sweep / "open").exists()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 600
    while not condition():
        if time.monotonic() > until:
            sys.exit("nobody opened the gate")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
