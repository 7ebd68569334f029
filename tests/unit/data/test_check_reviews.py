"""The figures of `jmrec data check` about reviews and labels, counted by hand or by brute force."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jmrec.data.check import check, print_check
from jmrec.data.check_reviews import DAY, ReviewReport, check_reviews, print_reviews, review_hints
from jmrec.data.folder import Raw
from jmrec.data.prepared import build
from jmrec.data.ratings import make_ratings
from jmrec.main import main

REVIEWS = [
    "This is the best film that I have seen",  # 9 words, 7 of them common: this is the that have...
    "",
    "Ein sehr schöner Film, wirklich sehr gut gemacht",
    "Очень хороший фильм",
    "<b>Good</b>",
    "",
    "This is the best film that I have seen",
    "ok",
    "&amp; more",
    "",
]


@pytest.fixture
def raw(make_raw: Callable[..., Raw]) -> Raw:
    n = len(REVIEWS)
    raw = make_raw(
        [0, 1, 0, 1, 0, 2, 0, 1, 2, 0],
        user=[0, 1, 1, 0, 2, 2, 0, 3, 3, 1],
        time=[DAY * (i // 2) for i in range(n)],
    )
    columns = replace(raw.description.interactions, label="bad")
    return replace(
        raw, description=replace(raw.description, interactions=columns), review=REVIEWS,
        label=np.array([1, 0, -1, 0, 0, 0, 1, 0, -1, 1], np.int8),
    )  # fmt: skip


@pytest.fixture
def report(raw: Raw) -> ReviewReport:
    found = check_reviews(raw)
    assert found is not None
    return found


def test_labels(report: ReviewReport) -> None:
    assert (report.rows, report.labelled, report.positive) == (10, 8, 3)
    assert report.positive_by_part == {
        "first 80%": (7, 2), "next 10%": (0, 0), "last 10%": (1, 1),
    }  # fmt: skip
    assert report.again == 2  # user 0, item 0 and user 1, item 0


def test_reviews(report: ReviewReport) -> None:
    assert (report.reviews, report.duplicates, report.markup) == (7, 1, 2)
    assert (report.other_script, report.not_english) == (1, 1)
    assert (report.lengths[0], report.lengths[50], report.lengths[100]) == (2, 19, 48)
    # this is the that have, twice, and "more"; of 9 + 8 + 3 + 3 + 9 + 1 + 2 words.
    assert report.english_words == pytest.approx(11 / 35)
    assert (report.reviewed_items, report.reviewed_users) == (3, 4)


@pytest.mark.parametrize("with_reviews", [True, False])
def test_earlier_days_by_brute_force(make_raw: Callable[..., Raw], with_reviews: bool) -> None:
    random = np.random.default_rng(0)
    n = 200
    raw = make_raw(
        random.integers(30, size=n).tolist(), user=random.integers(40, size=n).tolist(),
        time=(random.integers(40, size=n) * DAY / 3).tolist(),
    )  # fmt: skip
    review = ["", "x"]
    raw = replace(
        raw, label=np.zeros(n, np.int8),
        review=[review[i] for i in random.integers(2, size=n)] if with_reviews else None,
    )  # fmt: skip
    rows, found = make_ratings(raw), check_reviews(raw)
    assert found is not None
    for codes, counts in [(rows.items, found.item_earlier), (rows.users, found.user_earlier)]:
        truth = [
            any(
                codes[j] == codes[i]
                and rows.times[j] // DAY < rows.times[i] // DAY
                and (rows.reviews[j] or not with_reviews)
                for j in range(n)
            )
            for i in range(n)
        ]
        assert counts == {
            "first 80%": sum(truth[:160]), "next 10%": sum(truth[160:180]),
            "last 10%": sum(truth[180:]),
        }  # fmt: skip


def test_data_without_either_has_no_report(make_raw: Callable[..., Raw]) -> None:
    assert check_reviews(make_raw([0, 1], user=[0, 0])) is None


def test_a_folder_without_users_or_reviews(make_raw: Callable[..., Raw]) -> None:
    raw = replace(make_raw([0, 1, 0], session=[0, 0, 0]), label=np.array([1, 0, -1], np.int8))
    found = check_reviews(raw)
    assert found is not None
    assert sum(found.user_earlier.values()) == 0
    assert sum(found.item_earlier.values()) == 1
    assert math.isnan(found.english_words)
    print_reviews(found, Console(file=io.StringIO()))


def test_print_without_sessions(raw: Raw) -> None:
    out = io.StringIO()
    print_check(check(build(raw, sessions=False), raw), Console(file=out, width=100))
    text = out.getvalue()
    assert "Split: train" not in text
    assert "bad (to avoid)" in text
    assert "3 of 8 (37.5%)" in text
    assert "nan" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_hints_name_what_is_alarming(report: ReviewReport) -> None:
    calm = replace(
        report, rows=10_000, labelled=10_000, positive=1000, again=0, reviews=10_000, duplicates=0,
        markup=0, other_script=0, not_english=0, lengths={50: 100.0},
        positive_by_part={"a": (8000, 1000), "b": (1000, 120), "c": (1000, 130)},
    )  # fmt: skip
    assert review_hints(calm) == []
    late = {"a": (8000, 1000), "b": (1000, 120), "c": (1000, 90)}
    moved = {"a": (8000, 1000), "b": (1000, 120), "c": (1000, 300)}
    for change, word in [
        ({"labelled": 9000}, "1,000 of 10,000 (10.0%) rows have no label"),
        ({"positive_by_part": late}, "Only 90 of the last 10%"),
        ({"positive_by_part": moved}, "from 12.5% of the first 80% to 30.0%"),
        ({"again": 200}, "a user and an item"),
        ({"reviews": 5000}, "have no review"),
        ({"duplicates": 300}, "word for word"),
        ({"markup": 300}, "HTML"),
        ({"other_script": 600, "not_english": 600}, "do not look English"),
        ({"lengths": {50: 9.0}}, "at most 9 characters"),
    ]:
        (hint,) = review_hints(replace(calm, **change))
        assert word in hint


def test_check_of_a_folder_says_it(
    make_shop: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop")
    toml = shop / "dataset.toml"
    toml.write_text(toml.read_text() + '[interactions]\nlabel = "timestamp < 20000"\n')
    assert main(["data", "check", str(shop), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["reviews"]
    assert found["label"] == "timestamp < 20000"
    assert found["labelled"] == found["rows"]
    assert found["reviews"] == 0
