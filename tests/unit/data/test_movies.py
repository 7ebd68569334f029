"""The real data of ../shared/data/movies against the numbers published for it (papers.md)."""

from pathlib import Path

import numpy as np
import pytest

from jmrec.data.check import CheckReport, check
from jmrec.data.folder import Raw, read_folder
from jmrec.data.prepared import build
from jmrec.data.schema import Dataset

TOML = Path(__file__).resolve().parents[3] / "experiments/data/movies.toml"


@pytest.fixture(scope="module")
def raw(shared_data: Path) -> Raw:
    return read_folder(shared_data / "movies", TOML, check_pictures=False)


@pytest.fixture(scope="module")
def dataset(raw: Raw) -> Dataset:
    return build(raw)


@pytest.fixture(scope="module")
def report(raw: Raw, dataset: Dataset) -> CheckReport:
    return check(dataset, raw)


def test_the_catalogue(raw: Raw) -> None:
    items = raw.items
    assert len(items) == 3322
    assert items.titles[:2] == ["Toy Story", "Jumanji"]
    fields = ["title", "description", "genres", "directors", "actors", "keywords"]
    assert list(items.text) == fields
    assert items.text["genres"][0] == "Adventure, Animation, Children, Comedy, Fantasy"
    assert items.number["year"][0] == 1995
    assert all(items.pictures)
    assert raw.description.exclude_seen


def test_sessions_and_splits(report: CheckReport) -> None:
    assert report.events == 87_182
    assert report.users == 610
    assert report.sessions == 5827
    assert report.sessions_two == 3191
    assert report.lengths[50] == 6
    assert report.lengths[100] == 753
    assert report.split_sessions == {"train": 2552, "validation": 319, "test": 320}
    assert report.cut_events == 0


def test_predictions_and_cold_targets(dataset: Dataset, report: CheckReport) -> None:
    test = dataset.splits["test"]
    cold = dataset.train_count == 0
    assert cold.sum() == report.cold_items == 127
    predictions, cold_targets = [], []
    for positions in (None, 50, 20):
        targets = [session[1:][:positions] for session in test]
        predictions.append(sum(map(len, targets)))
        cold_targets.append(int(cold[np.concatenate(targets)].sum()))
    assert predictions == [10_156, 5119, 3154]
    assert cold_targets == [795, 448, 337]
    assert report.split_predictions["test"] == 10_156
    assert report.cold_targets["test"] == 795


def test_what_the_cautions_say(report: CheckReport) -> None:
    assert report.longest_ten == pytest.approx(0.35, abs=0.005)
    assert report.repeated_items == 0
    assert 0.15 < report.time_ties < 0.25


def test_single_events_would_hide_cold_items(raw: Raw) -> None:
    """Why they are left out: 20 items occur in nothing else and so are learned by nobody."""
    kept = build(raw, keep_single=True)
    assert len(kept.splits["train"]) == 2552 + 2080
    assert (kept.train_count == 0).sum() == 107
