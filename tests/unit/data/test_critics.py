"""The real data of ../shared/data/critics and tweetings against what their SOURCE.md counts."""

from pathlib import Path

import numpy as np
import pytest

from jmrec.data.check_reviews import check_reviews
from jmrec.data.folder import read_folder
from jmrec.data.ratings import make_ratings
from jmrec.data.schema import Ratings

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments/data"
DAY = 86_400


def ratings(folder: Path, toml: Path) -> Ratings:
    raw = read_folder(folder, toml, check_pictures=False, strict=True)
    return make_ratings(raw)


def test_critics(shared_data: Path) -> None:
    raw = read_folder(
        shared_data / "critics", EXPERIMENTS / "critics.toml", check_pictures=False, strict=True
    )
    r = make_ratings(raw)
    assert (len(r), len(r.user_ids), len(raw.items)) == (25_352, 2_646, 430)
    assert (r.labels == 1).mean() == pytest.approx(0.3772, abs=5e-5)
    assert np.isfinite(r.ratings).sum() == 18_634
    assert (np.diff(r.times) >= 0).all()
    assert (r.times % DAY == 0).all()
    report = check_reviews(raw)
    assert report is not None
    assert [report.lengths[q] for q in (0, 25, 50, 75, 100)] == [5, 80, 120, 161, 256]
    assert (report.again, report.reviews, report.reviewed_users) == (0, 25_352, 2_646)
    assert report.english_words > 0.3
    assert report.not_english + report.other_script < 200


def test_the_rarer_class_of_critics(shared_data: Path, tmp_path: Path) -> None:
    """As the comment in the description says it."""
    text = (EXPERIMENTS / "critics.toml").read_text(encoding="utf-8")
    toml = tmp_path / "low.toml"
    toml.write_text(text.replace('label = "rotten"', 'label = "score <= 0.25"'), encoding="utf-8")
    r = ratings(shared_data / "critics", toml)
    assert (r.label, int((r.labels == 1).sum())) == ("score <= 0.25", 1_091)
    assert int((r.labels >= 0).sum()) == 18_634


def test_tweetings(shared_data: Path) -> None:
    r = ratings(shared_data / "tweetings", EXPERIMENTS / "tweetings_ratings.toml")
    assert (len(r), len(r.user_ids)) == (60_992, 4_105)
    assert (r.labels == 1).mean() == pytest.approx(0.0604, abs=5e-5)
    assert not any(r.reviews)
    # SOURCE.md: the shares of the three parts by time.
    parts = np.split(r.labels == 1, [48_793, 54_892])
    assert [round(float(part.mean()), 3) for part in parts] == [0.061, 0.060, 0.059]
