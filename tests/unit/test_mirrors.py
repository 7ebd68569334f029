"""W&B, TensorBoard and the log file, read back from their files; and servers that are too slow."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from jmrec.errors import UserError
from jmrec.evaluation.results import RANKING, kinds_of
from jmrec.systems.outcome import outcome
from jmrec.tracking import Card, Outcome, Tracker, mirror
from tests.wandb_file import records

PAGE = "<!doctype html><title>report</title><p>all of it</p>"
CHILD = """
import io, json, sys, time
from pathlib import Path
from PIL import Image
from jmrec.tracking import Card, Outcome, Tracker, wandb

folder, mode, start, wandb.WANDB_BEGIN, wandb.WANDB_END = (
    Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
)
settings = {"mode": mode, "tags": ("wide", "first"), "project": "shop"}
begin = time.monotonic()
with Tracker(folder, wandb=settings, config={"seed": 1, "system": "tpad"}) as tracker:
    tower, student = tracker.stage("tower"), tracker.stage("students/s-0")
    for step in range(start, start + 3):
        tower.log(step, {"loss": step / 4})
        student.log(step, {"eval/score": step / 8})
    if mode == "offline":  # a run begun after it, as a process has that trains several
        while len(list(folder.glob("wandb/offline-run-*/*.wandb"))) < 1 + (start > 0):
            time.sleep(0.05)
        time.sleep(1.0)
        with Tracker(folder.with_name("beside"), wandb=settings) as beside:
            beside.log(start, {"other": 1.0})
    if start:
        out = io.BytesIO()
        Image.new("RGB", (9, 5), (255, 0, 0)).save(out, "PNG")
        card = Card("Seen: a. Came next: b.", out.getvalue())
        rows = [["s", 0.25], ["rule", None]]
        found = {"served/row": "s", "served/session MRR@20": 0.25}
        report = folder / "report.html"
        columns = ["row", "session MRR@20"]
        tracker.conclude(Outcome("test", found, columns, rows, report, [card]))
    steps = time.monotonic() - begin
print(json.dumps([steps, time.monotonic() - begin]))
"""


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(out: Console) -> str:
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 5), (255, 0, 0)).save(out, "PNG")
    return out.getvalue()


def found(folder: Path) -> Outcome:
    report = folder / "report.html"
    report.write_text(PAGE)
    figures = {"served/row": "s", "served/session MRR@20": 0.25}
    rows = [["s", 0.25], ["a|b", None]]
    cards = [Card("Seen: a.", png()), Card("Seen: b.", b"")]
    return Outcome("test", figures, ["row", "session MRR@20"], rows, report, cards)


# --- any writer: no step waits ----------------------------------------------------------------


class Slow:
    """A writer that takes its time."""

    title = "Slow"

    def __init__(self, seconds: float = 0.0, patience: float = 5.0, fails: str = "") -> None:
        self.seconds, self.patience, self.fails = seconds, patience, fails
        self.lines: list[tuple[str, int, dict[str, Any]]] = []
        self.calls: list[str] = []
        self.go_on = threading.Event()

    def _do(self, what: str) -> None:
        self.calls.append(what)
        self.go_on.wait(self.seconds)
        if self.fails == what:
            raise RuntimeError("no room\nlong story")

    def begin(self) -> None:
        self._do("begin")

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        self._do("log")
        self.lines.append((stage, step, dict(values)))

    def conclude(self, outcome: Outcome) -> None:
        self._do("conclude")

    def end(self) -> None:
        self._do("end")


def test_a_slow_writer_stalls_no_step_and_is_left_behind(tmp_path: Path) -> None:
    slow, quick, out = Slow(seconds=60, patience=0.2), Slow(), console()
    begin = time.monotonic()
    with Tracker(tmp_path, writers=[slow, quick], console=out) as tracker:
        for step in range(300):
            tracker.stage("s").log(step, {"x": step})
        assert time.monotonic() - begin < 5  # a second a line would be 300
    assert time.monotonic() - begin < 10
    slow.go_on.set()
    assert said(out).count("Slow took more than 0.2 s to end") == 1
    assert [line[1] for line in quick.lines] == list(range(300))
    assert quick.calls[0] == "begin"
    assert quick.calls[-1] == "end"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 300


def test_what_waits_for_a_slow_writer_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "BACKLOG", 4)
    slow, out = Slow(seconds=60), console()
    tracker = Tracker(tmp_path, writers=[slow], console=out)
    for step in range(10):
        tracker.log(step, {"x": step})
    threading.Timer(0.05, slow.go_on.set).start()
    tracker.close()
    assert [line[1] for line in slow.lines] == [0, 1, 2, 3]
    assert "Slow was too slow for 6 lines" in said(out)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 10


@pytest.mark.parametrize("where", ["begin", "log", "conclude", "end"])
def test_a_writer_that_fails_is_one_warning(tmp_path: Path, where: str) -> None:
    broken, other, out = Slow(fails=where), Slow(), console()
    with Tracker(tmp_path, writers=[broken, other], console=out) as tracker:
        for step in range(3):
            tracker.log(step, {"x": step})
        tracker.conclude(found(tmp_path))
    (line,) = said(out).splitlines()
    assert line.startswith("warning: Slow failed (RuntimeError: no room); the run goes on")
    assert other.calls == ["begin", "log", "log", "log", "conclude", "end"]


# --- TensorBoard --------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path: Path) -> Iterator[Any]:
    """Yield the events of a file: records with their lengths and checksums, as TensorFlow has."""
    from tensorboardX.proto.event_pb2 import Event

    data, at = path.read_bytes(), 0
    while at < len(data):
        size, check = struct.unpack_from("<QI", data, at)
        assert check == masked(data[at : at + 8])
        body = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 12 + size) == (masked(body),)
        at += 16 + size
        event = Event()
        event.ParseFromString(body)
        yield event


def test_the_event_files_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    for start in (1, 3):
        with Tracker(tmp_path, mirrors={"tensorboard": True}) as tracker:
            for step in range(start, start + 2):
                tracker.stage("tower").log(step, {"loss": 1 / step, "ok": True, "why": "text"})
                tracker.stage("students/s-0").log(step, {"eval/score": step / 8, "no": None})
            if start == 3:
                tracker.conclude(found(tmp_path))
    files = sorted((tmp_path / "tensorboard").iterdir())
    assert len(files) == 2
    scalars: dict[str, list[tuple[int, float]]] = {}
    texts, images = {}, {}
    for event in (event for path in files for event in events(path)):
        for value in event.summary.value:
            if value.HasField("image"):
                images[value.tag] = value.image.encoded_image_string
            elif value.HasField("tensor"):
                texts[value.tag.removesuffix("/text_summary")] = value.tensor.string_val[0].decode()
            else:
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert scalars == {
        "tower/loss": [(n, pytest.approx(1 / n)) for n in (1, 2, 3, 4)],
        "tower/ok": [(n, 1.0) for n in (1, 2, 3, 4)],
        "students/s-0/eval/score": [(n, n / 8) for n in (1, 2, 3, 4)],
        "test/served/session_MRR_20": [(0, 0.25)],
    }
    assert texts["test/results"].splitlines()[2:] == ["| s | 0.25 |", "| a\\|b |  |"]
    assert texts["test/report"] == str(tmp_path / "report.html")
    (picture,) = images.values()
    assert Image.open(io.BytesIO(picture)).convert("RGB").getpixel((8, 4)) == (255, 0, 0)


def test_without_its_package_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jmrec\[tensorboard\]'"):
        Tracker(tmp_path, mirrors={"tensorboard": True})


# --- the log file -------------------------------------------------------------------------------


def test_the_log_file_has_a_line_each(tmp_path: Path) -> None:
    for step in (1, 2):
        with Tracker(tmp_path, mirrors={"log": True}) as tracker:
            tracker.stage("tower").log(step, {"loss": 1 / 3, "n": 7, "why": "a\nb\x1b[2J"})
            tracker.log(step, {"x": None})
    with Tracker(tmp_path, mirrors={"log": True}) as tracker:
        tracker.conclude(found(tmp_path))
    lines = (tmp_path / "run.log").read_text().splitlines()
    stamps, told = zip(*(line.split(" ", 1) for line in lines))
    assert all(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S") for stamp in stamps)
    assert list(told[:4]) == [
        "start", "tower step 1: loss=0.333333, n=7, why=a b\ufffd[2J", "run step 1:", "end",
    ]  # fmt: skip
    assert told.count("start") == told.count("end") == 3
    assert "test served/session MRR@20=0.25" in told
    assert "test results: row=s, session MRR@20=0.25" in told
    assert f"test report: {tmp_path / 'report.html'}" in told


# --- what an evaluation shows -----------------------------------------------------------------


def test_an_outcome_has_every_figure_and_a_card_a_session(tmp_path: Path) -> None:
    row = {"name": "s", "kind": "student", "seeds": 3}
    rule = {**row, "name": "Markov", "kind": "rule", "seeds": 1}
    figures = {"session": {"MRR@20": 0.25, "HR@20": 0.5}, "last": {"MRR@20": None}}
    sessions = [
        {
            "past": [f"i{n}" for n in range(8)],
            "next": {"item": "i9", "place": 2},
            "recommended": [
                {"item": each, "place": n, "score": 1.0, "own": {}, "past": [None] * 8}
                for n, each in enumerate(("i8", "i9"), 1)
            ],
        }
    ]
    results: Any = {
        **{"format": 2, "system": "tpad", "primary": RANKING, "served": {"row": "s"}},
        **{"dataset": {"name": "x", "split": "test"}, "kinds": kinds_of(["student", "rule"])},
        "rows": [
            {**row, "figures": figures, "interval": {"session": {"MRR@20": [0.2, 0.3]}}},
            {**rule, "figures": {"session": {"MRR@20": 0.125}}, "interval": {}},
        ],
        "examples": {
            "items": {f"i{n}": {"title": f"Toy {n}", "train count": 3} for n in range(10)},
            "sessions": sessions,
        },
    }
    out = io.BytesIO()
    Image.new("RGB", (300, 300), (0, 0, 255)).save(out, "JPEG")
    made = outcome(results, tmp_path / "report.html", {"i9": out.getvalue()})
    assert made.split == "test"
    assert made.summary == {
        **{"served/row": "s", "served/session MRR@20": 0.25, "served/session HR@20": 0.5},
        **{"s/session MRR@20": 0.25, "s/session MRR@20 low": 0.2, "s/session MRR@20 high": 0.3},
        "Markov/session MRR@20": 0.125,
    }
    table = [dict(zip(made.columns, line, strict=True)) for line in made.rows]
    assert table[0]["session HR@20"] == 0.5
    assert table[1]["session MRR@20 low"] is None
    assert [line["row"] for line in table] == ["s", "Markov"]
    (card,) = made.cards
    assert "Seen: Toy 0; Toy 1" in card.caption
    assert "2. Toy 9 (came next)" in card.caption
    picture = Image.open(io.BytesIO(card.picture))
    # Six clicks, a line, two recommended: the second has the one picture.
    assert picture.size == (8 * 104 + 24, 112)
    blue = picture.convert("RGB").getpixel((8 + 7 * 104 + 16 + 48, 56))
    assert isinstance(blue, tuple)
    assert blue[2] > 200
    assert blue[0] < 60
    assert picture.convert("RGB").getpixel((48, 56)) == (255, 255, 255)
    assert outcome({**results, "served": None, "examples": {}}, tmp_path / "r").cards == []


# --- W&B ------------------------------------------------------------------------------------------


def run_child(folder: Path, *words: object, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a tracker in a process of its own, with no key and no way to the network."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    clean |= {"HOME": str(folder), "HTTPS_PROXY": "http://127.0.0.1:9", **env}
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "report.html").write_text(PAGE)
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(folder / "run"), *map(str, words)],
        env=clean, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_an_offline_run_of_wandb_reads_back(tmp_path: Path) -> None:
    for start in (0, 3):
        done = run_child(tmp_path, "offline", start, 120, 120, WANDB_RUN_GROUP="my sweep")
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
    files = sorted((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    runs, summary, history, steps, axes = [], {}, [], [], {}
    artifacts: dict[str, list[str]] = {}
    for record in (record for path in files for record in records(path)):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            runs.append(record.run)
        elif kind == "summary":
            for item in record.summary.update:
                summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "history":
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json)
                   for item in record.history.item}  # fmt: skip
            history.append(row)
            steps.append(record.history.step.num)
        elif kind == "metric" and record.metric.glob_name:
            axes[record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            paths = [each.path for each in record.artifact.manifest.contents]
            artifacts.setdefault(record.artifact.type, []).extend(paths)
    beside = sorted((tmp_path / "beside").glob("wandb/offline-run-*/*.wandb"))
    other = [record for path in beside for record in records(path)]
    (named,) = {each.run.run_id for each in other if each.WhichOneof("record_type") == "run"}
    assert named == (tmp_path / "beside" / "wandb_id").read_text()
    assert any(each.WhichOneof("record_type") == "history" for each in other)
    # One run, whose rows are numbered on.
    (name,) = {run.run_id for run in runs}
    assert name == (tmp_path / "run" / "wandb_id").read_text()
    assert {(run.run_group, run.project, run.display_name) for run in runs} == {
        ("my sweep", "shop", "run")
    }
    assert {*runs[0].tags} == {"wide", "first", "tpad"}
    config = {each.key: each.value_json for each in runs[0].config.update}
    assert config["seed"] == "1"
    assert steps == list(range(13))
    # Curves by stage, each over its own step.
    assert axes == {"tower/*": "tower/step", "students/s-0/*": "students/s-0/step"}
    curve = [(row["tower/step"], row["tower/loss"]) for row in history if "tower/loss" in row]
    assert curve == [(step, step / 4) for step in range(6)]
    assert [row["students/s-0/eval/score"] for row in history if "students/s-0/step" in row] == [
        step / 8 for step in range(6)
    ]
    assert summary["test/served/session MRR@20"] == 0.25
    assert summary["test/served/row"] == "s"
    # The table, the report as media and as an artefact, the examples with their pictures.
    media = files[1].parent / "files"
    table = json.loads((media / history[-1]["test/results/path"]).read_text())
    assert table["columns"] == ["row", "session MRR@20"]
    assert table["data"] == [["s", 0.25], ["rule", None]]
    assert (media / history[-1]["test/report/path"]).read_text() == PAGE
    assert artifacts["report"] == ["report.html"]
    assert history[-1]["test/examples/captions"] == ["Seen: a. Came next: b."]
    (picture,) = history[-1]["test/examples/filenames"]
    assert Image.open(media / picture).convert("RGB").getpixel((3, 3)) == (255, 0, 0)


def test_a_server_that_never_answers_stalls_no_step(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:  # accepts and says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        key = {"WANDB_API_KEY": "local-" + "0" * 40, "NO_PROXY": "127.0.0.1"}
        done = run_child(tmp_path, "online", 0, 2, 120, WANDB_BASE_URL=address, **key)
    assert done.returncode == 0, done.stderr
    steps, whole = json.loads(done.stdout.splitlines()[-1])
    assert steps < 2  # six lines, while W&B waits for its server
    assert whole < 100  # it ends; the limits are those of a busy machine
    (warning,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert "cannot be reached (TimeoutError" in warning
    assert "offline" in warning
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    (path,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    rows = [each for each in records(path) if each.WhichOneof("record_type") == "history"]
    assert len(rows) == 6
