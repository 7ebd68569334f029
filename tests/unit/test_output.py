"""What is printed for machines and people: strict JSON, and names that a console can not write."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table

from jmrec.commands.options import output
from jmrec.main import main
from jmrec.terminal import console, say

NAMES = ["Кино и театр", "東京物語", "Zażółć gęślą", "\udcff.csv"]
"""Titles, and a file name in no encoding: each lacks in some code page."""


def refuse(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=refuse)


def write_shop(folder: Path, title: str, sessions: int = 12) -> Path:
    """Write a folder without times, whose share of ties is not a number."""
    folder.mkdir()
    items = "".join(f"i{row},{title} {row}\n" for row in range(6))
    (folder / "items.csv").write_text(f"item_id,title\n{items}", encoding="utf-8")
    clicks = "".join(
        f"s{row},i{(row + step) % 6}\n" for row in range(sessions) for step in range(3)
    )
    (folder / "interactions.csv").write_text(f"session_id,item_id\n{clicks}", encoding="utf-8")
    (folder / "dataset.toml").write_text(
        '[dataset]\nname = "shop"\n[items]\nid = "item_id"\ntitle = "title"\n[interactions]\n'
        'item = "item_id"\nsession = "session_id"\n'
    )
    return folder


@pytest.mark.parametrize("sessions", [12, 30, 61])
def test_data_check_prints_json_that_every_program_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sessions: int
) -> None:
    shop = write_shop(tmp_path / "shop", "Film", sessions)
    assert main(["data", "check", str(shop), "--json"]) == 0
    found = strict(capsys.readouterr().out)
    assert found["items"] == 6
    assert found["events"] == 3 * sessions
    assert found["time_ties"] is None  # there are no times


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ({"a": math.nan, "b": [math.inf, -math.inf, 1.5]}, {"a": None, "b": [None, None, 1.5]}),
        ({"a": np.float32(math.nan), "b": np.int64(7)}, {"a": None, "b": 7}),
        ([np.array([1.0, math.nan]), (True, None)], [[1.0, None], [True, None]]),
        ({7: {"x": np.bool_(True)}}, {"7": {"x": True}}),
    ],
)
def test_what_is_not_finite_is_null(
    capsys: pytest.CaptureFixture[str], value: Any, want: Any
) -> None:
    output(value, True, lambda _: None)
    assert strict(capsys.readouterr().out) == want


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii", "latin-1", "cp1251", "utf-8"])
def test_names_outside_the_code_page_are_printed_by_their_numbers(encoding: str) -> None:
    for name in NAMES:
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
        say(name, out)
        shown = console(file=out, width=200)
        table = Table("title")
        table.add_row(name)
        shown.print(table)
        out.flush()
        # What an escape means, read back by Python's own rule for it.
        lines = raw.getvalue().decode(encoding).splitlines()
        for line in (lines[0], next(each for each in lines[1:] if "title" not in each and
                                    not set(each) <= set("+-=|┏━┓┃┡╇┩└─┘│ "))):  # fmt: skip
            text = line.strip(" |│")
            back = "".join(
                chr(int(part[2:], 16)) if part.startswith("\\") else part
                for part in split_escapes(text)
            )
            assert back == name


def split_escapes(text: str) -> list[str]:
    """Return a text in pieces: escapes of six or four characters, and single characters."""
    found = []
    while text:
        size = {"\\u": 6, "\\x": 4}.get(text[:2], 1)
        found, text = [*found, text[:size]], text[size:]
    return found


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("name", NAMES[:3])
def test_no_command_ends_in_a_traceback_by_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, name: str
) -> None:
    shop = write_shop(tmp_path / name, name)
    clicks = shop / "interactions.csv"
    clicks.write_text(clicks.read_text() + f"s1,{name}\n", encoding="utf-8")  # an unknown item
    commands = [
        (["data", "check", str(shop)], 0),
        (["data", "check", str(shop), "--json"], 0),
        (["data", "init", str(shop)], 2),  # there is a dataset.toml
        (["data", "check", str(shop / "none")], 2),
    ]
    for words, want in commands:
        out, beside = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", beside)
        code = main(words)
        monkeypatch.undo()
        assert code == want


def test_whoever_reads_may_go_away() -> None:
    """As in ``jmrec config show session | head -1``: no word, and the code of a broken pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "jmrec", "config", "show", "session:size=tiny"]
    with os.fdopen(writer, "wb") as end:
        done = subprocess.run(words, stdout=end, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")
