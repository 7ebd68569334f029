"""Hostile folders with reviews and labels: each is one sentence, or is read right and counted.

Every case is made from a good folder of 8 items and 120 rows with a review, stars and a verdict,
and goes through the command line with and without --strict, as in test_hostile.py.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.folder import read_folder
from jmrec.data.prepared import load_prepared, prepare
from jmrec.data.schema import Ratings
from jmrec.main import main

TOML = '[interactions]\nlabel = "verdict"\n'
HEADER = ["user_id", "item_id", "timestamp", "stars", "verdict", "review"]
STARS, VERDICT, REVIEW = 3, 4, 5
ROWS = 120
Rows = list[list[str]]


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
      name: For pytest.
      change: Called with the rows of the good folder (after the header); changes them.
      says: What a sentence must hold; "" where nothing is to be said.
      counts: Without --strict: what the warning must hold beside it; "" for an error all the same.
      label: Of dataset.toml.
      reads: Called with the ratings that are read all the same.
      write: Called with the folder and its rows.
    """

    name: str
    change: Callable[[Rows], None]
    says: str = ""
    counts: str = ""
    label: str = "verdict"
    reads: Callable[[Ratings], bool] = lambda ratings: len(ratings) == ROWS
    write: Callable[[Path, Rows], None] | None = None


def cell(row: int, column: int, value: str) -> Callable[[Rows], None]:
    """Set a cell; rows as a spreadsheet counts them, the header is 1."""

    def change(rows: Rows) -> None:
        rows[row - 2][column] = value

    return change


def every(column: int, value: Callable[[int], str]) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for i, row in enumerate(rows):
            row[column] = value(i)

    return change


def nothing(rows: Rows) -> None:
    """Leave the rows as they are."""


def raw_lines(
    change: Callable[[list[bytes]], object], encoding: str = "utf-8"
) -> Callable[..., None]:
    """Write the rows without quotes, and change the lines."""

    def write(folder: Path, rows: Rows) -> None:
        lines = [",".join(row).encode(encoding) for row in [HEADER, *rows]]
        change(lines)
        (folder / "interactions.csv").write_bytes(b"\n".join(lines) + b"\n")

    return write


def swallow(lines: list[bytes]) -> None:
    """Open a quote in row 5, which the review of row 6 closes."""
    head, review = lines[4].rsplit(b",", 1)
    lines[4] = head + b',"' + review
    head, review = lines[5].rsplit(b",", 1)
    lines[5] = head + b',"' + review + b'"'


def open_quote(lines: list[bytes]) -> None:
    head, review = lines[4].rsplit(b",", 1)
    lines[4] = head + b',"' + review


def two_encodings(lines: list[bytes]) -> None:
    lines[6] += " größer".encode()
    lines[7] += " größer".encode()
    lines[8] += " größer".encode("cp1252")


EMPTIED = "(cells taken as empty: {})"
KEPT, MENDED = "(cells kept as they are: {})", "(cells mended: {})"
HTML = '<script>alert("x")</script><b>good</b> &amp; cheap'

CASES = [
    Case("good", nothing),
    Case("all-reviews-empty", every(REVIEW, lambda i: ""), reads=lambda r: not any(r.reviews)),
    Case("html", every(REVIEW, lambda i: HTML), reads=lambda r: set(r.reviews) == {HTML}),
    Case(
        "one-megabyte", cell(4, REVIEW, "good " * 200_000),
        "interactions.csv, row 4: review has more than 100,000 characters and is cut; check",
        MENDED.format(1), reads=lambda r: max(map(len, r.reviews)) <= 100_000,
    ),
    Case(
        "control-characters", cell(4, REVIEW, "a\x1b]0;title\x07b\x9bc"),
        "interactions.csv, row 4: review holds control characters, which are removed; mend",
        MENDED.format(1), reads=lambda r: "a]0;titlebc" in r.reviews,
    ),
    Case(
        "nul", cell(4, REVIEW, "go\x00od"), "row 4: review holds control characters, which are",
        MENDED.format(1), reads=lambda r: "good" in r.reviews,
    ),
    Case(
        "formula", cell(4, REVIEW, "=cmd|' /C calc'!A0"),
        "row 4: review is \"=cmd|' /C calc'!A0\", which a spreadsheet would run as a formula",
        KEPT.format(1),
    ),
    Case(
        "future", cell(4, 2, "6942672000"),
        "interactions.csv, row 4: timestamp is '6942672000', which is yet to come; mend the time",
        KEPT.format(1),
    ),
    Case(
        "label-word", cell(4, VERDICT, "maybe"),
        "interactions.csv, row 4: verdict is 'maybe', none of 1 and 0, true and false, yes and no",
        EMPTIED.format(1), reads=lambda r: (r.labels == -1).sum() == 1,
    ),
    Case(
        "label-seven", cell(4, VERDICT, "7"), "row 4: verdict is '7', none of 1 and 0",
        EMPTIED.format(1), reads=lambda r: (r.labels == -1).sum() == 1,
    ),
    Case(
        "label-half", cell(4, VERDICT, "0.5"), "row 4: verdict is '0.5', none of 1 and 0",
        EMPTIED.format(1), reads=lambda r: (r.labels == -1).sum() == 1,
    ),
    Case(
        "label-of-stars", nothing, "verdict is '5', none of 1 and 0",
        label="verdict", write=lambda f, rows: write(f, [[*r[:4], "5", r[5]] for r in rows]),
    ),
    Case("label-unknown", nothing, "label names the column 'verdicts', which", label="verdicts"),
    Case("label-rule", nothing, "label is 'stars <= few', neither a column", label="stars <= few"),
    Case("label-text", nothing, "row 2: review is 'word 0, fine', not a", label="review > 3"),
    Case(
        "rule-slip", cell(4, STARS, "four"), "row 4: stars is 'four', not a number; write",
        EMPTIED.format(1), "stars <= 2", lambda r: (r.labels == -1).sum() == 1,
    ),
    Case(
        "one-class", every(VERDICT, lambda i: "0"),
        "interactions.csv: the label 'verdict' is 0 in every row that has it, so no model can",
        "check its column", reads=lambda r: not r.labels.any(),
    ),
    Case(
        "no-label-at-all", every(VERDICT, lambda i: ""),
        "interactions.csv: the label 'verdict' is known of no row, so no model can learn it; check",
        "check its column", reads=lambda r: (r.labels == -1).all(),
    ),
    Case(
        "line-breaks", every(REVIEW, lambda i: f"line {i}\r\n\r\nuser_id,item_id\nmore, lines"),
        reads=lambda r: all("more, lines" in review for review in r.reviews),
    ),
    Case(
        "quote-swallows-a-row", every(REVIEW, lambda i: f"fine {i}"),
        "interactions.csv, row 5: a quote is opened and not closed in its cell",
        "(rows read like that: 2)", write=raw_lines(swallow),
        reads=lambda r: r.reviews[3:5] == ['"fine 3', "fine 4"] and len(r) == ROWS,
    ),
    Case(
        "quote-never-closed", every(REVIEW, lambda i: f"fine {i}"),
        "interactions.csv, row 5: a quote is opened and not closed in its cell",
        "(rows read like that: 118)", write=raw_lines(open_quote),
        reads=lambda r: r.reviews[3:5] == ['"fine 3', "fine 4"] and len(r) == ROWS,
    ),
    Case(
        "two-encodings", every(REVIEW, lambda i: f"fine {i}"),
        "interactions.csv, row 9: a cell is not UTF-8; name the file's encoding as encoding = ",
        "broken: 1)", write=raw_lines(two_encodings),
        reads=lambda r: sum("größer" in review for review in r.reviews) == 2,
    ),
    Case(
        "latin1", every(REVIEW, lambda i: f"größer {i}"), "so the file is read as cp1252",
        "under [dataset] in dataset.toml, else", write=raw_lines(len, "cp1252"),
        reads=lambda r: all("größer" in review for review in r.reviews),
    ),
    Case(
        "utf-16", every(REVIEW, lambda i: f"größer {i}"),
        write=lambda folder, rows: write(folder, rows, "utf-16"),
        reads=lambda r: all("größer" in review for review in r.reviews),
    ),
    Case("twice", lambda rows: rows.extend(rows[:5]), reads=lambda r: len(r) == ROWS + 5),
]  # fmt: skip


def write(folder: Path, rows: Sequence[Sequence[str]], encoding: str = "utf-8") -> None:
    with (folder / "interactions.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def make(folder: Path, case: Case) -> Path:
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"i{i},T{i}\n" for i in range(8)))
    (folder / "dataset.toml").write_text(TOML.replace("verdict", case.label))
    random = np.random.default_rng(0)
    # Five rows of a user within one pause, so that there are sessions as well.
    rows = [
        [f"u{i // 5 % 9}", f"i{random.integers(8)}", str(86_400 * (i // 5) + i % 5),
         str(random.integers(1, 6)), str(random.integers(2)), f"word {i}, fine"]
        for i in range(ROWS)
    ]  # fmt: skip
    case.change(rows)
    (case.write or write)(folder, rows)
    return folder


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was said on stderr, every line of it one sentence."""
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    for line in err.splitlines():
        assert line.startswith("jmrec: ")
        assert line.endswith((".", "?"))
        assert len(line) < 500
        assert line.isprintable()
    return err.splitlines()


def test_there_are_enough_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 20


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_strict(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "shop", case)
    code = main(["data", "check", str(folder), "--strict"])
    said = told(capsys)
    assert code == (2 if case.says else 0)
    assert len(said) == (code == 2)
    assert all(case.says in sentence for sentence in said)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_without_strict(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "shop", case)
    code = main(["data", "check", str(folder)])
    said = told(capsys)
    assert code == (2 if case.says and not case.counts else 0)
    assert len(said) == bool(case.says)
    assert all(case.says in sentence and case.counts in sentence for sentence in said)
    if code == 0:
        ratings = prepare(folder, None, tmp_path / "out").ratings
        again = load_prepared(tmp_path / "out").ratings
        assert ratings is not None
        assert again is not None
        assert case.reads(again)
        assert again.reviews == ratings.reviews
        np.testing.assert_array_equal(again.labels, ratings.labels)


def test_a_year_that_nobody_will_see_is_left_out(tmp_path: Path) -> None:
    folder = make(tmp_path / "shop", Case("", cell(4, 2, "9999-12-31")))
    raw = read_folder(folder)
    assert len(raw.item) == ROWS - 1
    assert "outside the years 1900 to 2200" in raw.warnings[0]
